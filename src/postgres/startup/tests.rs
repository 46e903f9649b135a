//! Logins with servers that send scripted messages.

mod of_tls;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::login::Login;
use super::*;
use crate::postgres::stream::MESSAGE_LIMIT;

const PASSWORD: &str = "hunter2";
const READY: &[u8] = b"Z\0\0\0\x05I";
const SERVER_SCRAM: &[u8] = b"SCRAM-SHA-256\0\0";
const SERVER_BOTH: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind], &length[..], body].concat()
}

fn question(code: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), rest].concat())
}

fn done() -> Vec<u8> {
    question(0, b"")
}

fn info(parameters: &str) -> ConnectionInfo {
    let base = format!("host=db user=ada password={PASSWORD} dbname=shop {parameters}");
    ConnectionInfo::parse_url(&base).unwrap()
}

/// The message that begins a session.
async fn startup_of(client: &mut DuplexStream) -> Vec<u8> {
    let length = client.read_u32().await.unwrap() as usize;
    let mut body = vec![0; length - 4];
    client.read_exact(&mut body).await.unwrap();
    body
}

/// A client's answer: its type is `p`. `None` if the client hangs up.
async fn answer_of(client: &mut DuplexStream) -> Option<Vec<u8>> {
    assert_eq!(client.read_u8().await.ok()?, b'p');
    let length = client.read_u32().await.unwrap() as usize;
    let mut body = vec![0; length - 4];
    client.read_exact(&mut body).await.unwrap();
    Some(body)
}

/// Everything that a client sends until it hangs up or waits for the server.
async fn said_by(mut client: DuplexStream) -> Vec<u8> {
    let mut said = Vec::new();
    let reading = client.read_to_end(&mut said);
    drop(tokio::time::timeout(Duration::from_millis(200), reading).await);
    said
}

/// One login on a connection of this kind.
struct Try<'a> {
    info: &'a ConnectionInfo,
    purpose: Purpose,
    open: bool,
    binding: Option<Vec<u8>>,
}

impl<'a> Try<'a> {
    fn new(info: &'a ConnectionInfo) -> Self {
        Self {
            info,
            purpose: Purpose::Statements,
            open: false,
            binding: None,
        }
    }

    async fn log_in(self, line: DuplexStream) -> Result<(Greeting, Stream)> {
        let redactor = Redactor::new(self.info);
        let login = Login {
            info: self.info,
            redactor: &redactor,
            purpose: self.purpose,
            binding: self.binding,
            questions: Questions::new(allowed(self.info, self.open), self.open),
        };
        let mut stream = Stream::new(Box::new(line), ROOM);
        let greeting = login.log_in(&mut stream).await?;
        Ok((greeting, stream))
    }

    /// With a server that sends all this at once, whatever the client sends. Also returns what the client sent after
    /// its start-up message.
    async fn against(self, said: &[u8]) -> (Result<(Greeting, Stream)>, Vec<u8>) {
        let (ours, mut theirs) = tokio::io::duplex(4 << 20);
        theirs.write_all(said).await.unwrap();
        let outcome = self.log_in(ours).await;
        startup_of(&mut theirs).await;
        (outcome, said_by(theirs).await)
    }
}

fn refused(outcome: Result<(Greeting, Stream)>) -> Error {
    let Err(error) = outcome else {
        panic!("the login was accepted")
    };
    let text = format!("{error} {error:?} {}", error.hint_text());
    assert!(!text.contains(PASSWORD), "{text}");
    error
}

#[tokio::test]
async fn the_server_is_told_what_the_session_is_for() {
    let plain = info("");
    let odd = info("application_name=nightly options='-c geqo=off'");
    let cases = [
        (&plain, Purpose::Statements, "application_name\0pgstow\0\0"),
        (
            &odd,
            Purpose::Statements,
            "options\0-c geqo=off\0application_name\0nightly\0\0",
        ),
        (
            &plain,
            Purpose::Replication,
            "application_name\0pgstow\0replication\0database\0\0",
        ),
    ];
    for (info, purpose, rest) in cases {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        theirs.write_all(&[done(), READY.to_vec()].concat()).await.unwrap();
        let login = Try {
            purpose,
            ..Try::new(info)
        };
        login.log_in(ours).await.unwrap();
        let told = startup_of(&mut theirs).await;
        let expected = format!("client_encoding\0UTF8\0user\0ada\0database\0shop\0{rest}");
        assert_eq!(told, [&[0, 3, 0, 0], expected.as_bytes()].concat());
    }
}

#[tokio::test]
async fn the_greeting_is_kept_and_so_is_every_byte_behind_it() {
    let late = b"N\0\0\0\x0aSWARNI";
    let said = [
        &message(b'N', b"SNOTICE\0\0")[..],
        &done(),
        &message(b'S', b"server_version\x0018.6\0"),
        &message(b'S', b"empty\0\0"),
        &message(b'K', &[0, 0, 1, 2, 9, 8, 7, 6]),
        READY,
        late,
    ]
    .concat();
    let info = info("");
    let (outcome, told) = Try::new(&info).against(&said).await;
    let (greeting, stream) = outcome.unwrap();
    assert_eq!(greeting.parameters["server_version"], "18.6");
    assert_eq!(greeting.parameters["empty"], "");
    let key = greeting.key.unwrap();
    assert_eq!((key.process, key.secret), (258, [9, 8, 7, 6]));
    assert!(!format!("{greeting:?}").contains('9'));
    assert_eq!(stream.buffered(), late);
    assert!(told.is_empty());
}

#[tokio::test]
async fn a_password_is_given_where_it_may_be_and_nothing_else_is() {
    let after = [done(), READY.to_vec()].concat();
    let clear = [question(3, b""), after.clone()].concat();
    let digest = [question(5, &[0x2a, 0x3d, 0x8f, 0xe0]), after].concat();
    let given = message(b'p', b"hunter2\0");
    for (said, parameters, open, expected) in [
        (&clear, "", false, Some(&given[..])),
        (&clear, "require_auth=password", true, Some(&given[..])),
        (&clear, "", true, None),
        (&clear, "require_auth=md5,scram-sha-256", false, None),
        (&clear, "channel_binding=require", false, None),
        (&digest, "", true, None),
        (&digest, "require_auth=!md5", false, None),
        (&digest, "channel_binding=require", false, None),
    ] {
        let info = info(parameters);
        let login = Try {
            open,
            ..Try::new(&info)
        };
        let (outcome, told) = login.against(said).await;
        match expected {
            Some(expected) => {
                outcome.unwrap();
                assert_eq!(told, expected, "{parameters}");
            }
            None => {
                assert_eq!(refused(outcome).code(), Code::Auth, "{parameters} {open}");
                assert!(told.is_empty(), "{parameters} {open}: {told:?}");
            }
        }
    }
    let info = info("");
    let (outcome, told) = Try::new(&info).against(&digest).await;
    outcome.unwrap();
    let hashed = postgres_protocol::authentication::md5_hash(b"ada", PASSWORD.as_bytes(), [0x2a, 0x3d, 0x8f, 0xe0]);
    assert_eq!(told, message(b'p', format!("{hashed}\0").as_bytes()));
    // Without a password.
    let mut without = info.clone();
    without.password = None;
    for said in [&clear, &digest, &question(10, SERVER_SCRAM)] {
        let (outcome, told) = Try::new(&without).against(said).await;
        let error = refused(outcome);
        assert_eq!(error.code(), Code::Auth);
        assert!(error.message().contains("none is given"), "{error}");
        assert!(told.is_empty());
    }
}

/// The server's side of SCRAM-SHA-256 (RFC 5802, section 3).
struct Scram {
    /// The password that the server proves to know.
    knows: &'static str,
    iterations: u32,
    offered: &'static [u8],
}

impl Scram {
    const HONEST: Self = Self {
        knows: PASSWORD,
        iterations: 4096,
        offered: SERVER_SCRAM,
    };

    /// Plays it, up to its own proof. Returns the client's mechanism, and what binds its login to the connection.
    async fn play(&self, client: &mut DuplexStream) -> Option<(String, Vec<u8>)> {
        startup_of(client).await;
        client.write_all(&question(10, self.offered)).await.unwrap();
        let first = answer_of(client).await?;
        let end = first.iter().position(|byte| *byte == 0).unwrap();
        let mechanism = String::from_utf8(first[..end].to_vec()).unwrap();
        let first = String::from_utf8(first[end + 5..].to_vec()).unwrap();
        let (flag, bare) = first.split_once(",,").unwrap();
        let nonce = bare.split_once(",r=").unwrap().1;
        let (salt, iterations) = (b"salt of the server", self.iterations);
        let challenge = format!("r={nonce}more,s={},i={iterations}", STANDARD.encode(salt));
        client.write_all(&question(11, challenge.as_bytes())).await.unwrap();
        let last = String::from_utf8(answer_of(client).await?).unwrap();
        let (unproved, _) = last.rsplit_once(",p=").unwrap();
        let mut salted = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations.try_into().unwrap(),
            salt,
            self.knows.as_bytes(),
            &mut salted,
        );
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let all = format!("{bare},{challenge},{unproved}");
        if self.knows == PASSWORD {
            let key = sign(&salted, b"Client Key");
            let stored = digest::digest(&digest::SHA256, key.as_ref());
            let signature = sign(stored.as_ref(), all.as_bytes());
            let proof: Vec<u8> = key
                .as_ref()
                .iter()
                .zip(signature.as_ref())
                .map(|(a, b)| a ^ b)
                .collect();
            assert_eq!(last.rsplit_once(",p=").unwrap().1, STANDARD.encode(proof));
        }
        let proof = sign(sign(&salted, b"Server Key").as_ref(), all.as_bytes());
        let proof = format!("v={}", STANDARD.encode(proof));
        client.write_all(&question(12, proof.as_bytes())).await.unwrap();
        let bound = unproved
            .strip_prefix("c=")
            .and_then(|rest| rest.split(',').next())
            .unwrap();
        let bound = STANDARD.decode(bound).unwrap();
        assert!(bound.starts_with(format!("{flag},,").as_bytes()));
        Some((mechanism, bound))
    }
}

#[tokio::test]
async fn scram_proves_both_sides_and_binds_the_login_to_an_encrypted_line() {
    let binding = Some(b"the certificate's digest".to_vec());
    let bound = [&b"p=tls-server-end-point,,"[..], b"the certificate's digest"].concat();
    let (plain, plus) = ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS");
    let require = "channel_binding=require";
    let disable = "channel_binding=disable";
    let cases = [
        ("", None, SERVER_SCRAM, plain, &b"n,,"[..]),
        ("", None, SERVER_BOTH, plain, &b"n,,"[..]),
        ("", binding.clone(), SERVER_BOTH, plus, &bound[..]),
        (require, binding.clone(), SERVER_BOTH, plus, &bound[..]),
        (disable, binding.clone(), SERVER_BOTH, plain, &b"n,,"[..]),
        // A server that did offer it refuses this, because its offer was removed on the way.
        ("", binding, SERVER_SCRAM, plain, &b"y,,"[..]),
    ];
    for (parameters, binding, offered, mechanism, bound) in cases {
        let info = info(parameters);
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let server = tokio::spawn(async move {
            let scram = Scram {
                offered,
                ..Scram::HONEST
            };
            let played = scram.play(&mut theirs).await;
            theirs.write_all(&[done(), READY.to_vec()].concat()).await.unwrap();
            played
        });
        let login = Try {
            open: binding.is_none(),
            binding,
            ..Try::new(&info)
        };
        login.log_in(ours).await.unwrap();
        assert_eq!(
            server.await.unwrap(),
            Some((mechanism.to_owned(), bound.to_vec())),
            "{parameters}"
        );
    }
}

#[tokio::test]
async fn a_server_that_does_not_know_the_password_is_refused() {
    let info = info("");
    let (ours, mut theirs) = tokio::io::duplex(1 << 10);
    tokio::spawn(async move {
        let scram = Scram {
            knows: "a guess",
            ..Scram::HONEST
        };
        scram.play(&mut theirs).await;
        drop(theirs.write_all(&[done(), READY.to_vec()].concat()).await);
        std::future::pending::<()>().await;
    });
    let error = refused(Try::new(&info).log_in(ours).await);
    assert_eq!(error.code(), Code::Auth, "{error}");
    // A server that leaves out its proof at any point, or asks for another in the middle, is refused too.
    for said in [
        done(),
        question(3, b""),
        question(12, b"v=x"),
        question(11, b"r=x,s=eA==,i=1"),
    ] {
        let said = [question(10, SERVER_SCRAM), said, done(), READY.to_vec()].concat();
        refused(Try::new(&info).against(&said).await.0);
    }
    let (ours, mut theirs) = tokio::io::duplex(1 << 10);
    tokio::spawn(async move {
        let scram = Scram {
            iterations: 2_000_000,
            ..Scram::HONEST
        };
        scram.play(&mut theirs).await;
    });
    let error = refused(Try::new(&info).log_in(ours).await);
    assert_eq!(error.code(), Code::Auth, "{error}");
}

#[tokio::test]
async fn a_login_that_must_be_bound_to_the_line_is_no_other() {
    let info = info("channel_binding=require");
    for (said, binding) in [
        (done(), Some(vec![1])),
        (question(10, SERVER_SCRAM), Some(vec![1])),
        (question(10, SERVER_BOTH), None),
        (question(10, b"SCRAM-SHA-512\0\0"), Some(vec![1])),
        (question(10, b""), None),
    ] {
        let login = Try {
            binding,
            ..Try::new(&info)
        };
        let (outcome, told) = login.against(&[said, done(), READY.to_vec()].concat()).await;
        assert_eq!(refused(outcome).code(), Code::Auth);
        assert!(told.is_empty());
    }
}

#[tokio::test]
async fn nonsense_ends_the_login() {
    let flood = message(b'S', &[&b"name\0"[..], &vec![b'x'; 60_000], b"\0"].concat());
    let cases: Vec<Vec<u8>> = vec![
        b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
        message(b'R', b"\0\0"),
        message(b'R', b""),
        question(5, b"salt of many letters"),
        question(2, b""),
        question(7, b""),
        question(1234, b""),
        message(b'D', b"\0\0"),
        vec![b'R', 0, 0, 0, 3],
        [&b"E"[..], &0x7fff_fff0_u32.to_be_bytes(), b"SFATAL"].concat(),
        message(b'N', &vec![b'x'; 70_000]),
        [question(3, b""), question(3, b"")].concat(),
        [done(), message(b'S', b"no end")].concat(),
        [done(), message(b'S', b"one\0two\0three\0")].concat(),
        [done(), message(b'S', b"one\0")].concat(),
        [done(), message(b'K', b"\0\0\0\x01")].concat(),
        [done(), message(b'K', &[0; 20])].concat(),
        [done(), message(b'Z', b"")].concat(),
        [done(), message(b'D', b"\0\0")].concat(),
        [done(), message(b'N', &vec![b'x'; MESSAGE_LIMIT + 1])].concat(),
        [done(), flood.repeat(20)].concat(),
    ];
    let info = info("");
    for said in cases {
        let (ours, mut theirs) = tokio::io::duplex(4 << 20);
        theirs.write_all(&said).await.unwrap();
        let login = Try::new(&info).log_in(ours);
        let outcome = tokio::time::timeout(Duration::from_secs(5), login).await;
        let error = refused(outcome.expect("it does not wait for more"));
        let start = String::from_utf8_lossy(&said[..said.len().min(30)]).into_owned();
        assert!(matches!(error.code(), Code::ConnErr | Code::Auth), "{start:?}: {error}");
    }
    // A server that hangs up at any moment is refused too.
    let said = [question(3, b""), done(), message(b'S', b"a\0b\0"), READY.to_vec()].concat();
    for end in 0..said.len() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        theirs.write_all(&said[..end]).await.unwrap();
        theirs.shutdown().await.unwrap();
        let error = refused(Try::new(&info).log_in(ours).await);
        assert_eq!(error.code(), Code::ConnErr, "{end}: {error}");
    }
}

#[tokio::test]
async fn a_refusal_means_what_it_means_later_on() {
    let info = info("");
    for (state, text, code) in [
        ("28P01", "password hunter2 is wrong", Code::Auth),
        ("3D000", "no such database", Code::ConnErr),
        ("42501", "permission denied for database", Code::Permission),
        ("53300", "too many connections", Code::ConnErr),
    ] {
        let said = message(b'E', format!("SFATAL\0C{state}\0M{text}\0\0").as_bytes());
        for before in [Vec::new(), done()] {
            let (outcome, _) = Try::new(&info).against(&[before, said.clone()].concat()).await;
            let error = refused(outcome);
            assert_eq!(error.code(), code, "{error}");
            assert!(error.message().contains("the server says"), "{error}");
        }
    }
}
