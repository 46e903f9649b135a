//! How a server may ask the client to prove its identity: libpq's `require_auth`, and what no server may ask for on a
//! connection that others can read.
//!
//! pgstow's own login checks each of the server's [`Questions`] before it answers. The libpq of older PostgreSQL
//! programs answers every question. So a [`Gate`] reads the server's messages before libpq does until the login is
//! done, and closes the connection at a question that is not allowed.

use std::fmt;
use std::io;
use std::net::IpAddr;

/// libpq's names, in the order of their bits.
const NAMES: [&str; 7] = ["none", "password", "md5", "gss", "sspi", "scram-sha-256", "oauth"];
const NONE: usize = 0;
const PASSWORD: usize = 1;
const MD5: usize = 2;
const GSS: usize = 3;
const SSPI: usize = 4;
const SCRAM: usize = 5;

/// The default where no one else can read the connection: all methods.
const ANY: u8 = (1 << NAMES.len()) - 1;
/// The default on an open connection. The first method gives the password away. The second gives a digest from which
/// the password can be guessed, and which the server accepts like the password.
pub(super) const ON_AN_OPEN_LINE: &str = "!password,!md5";

/// The methods that a server may use.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Methods(u8);

impl Methods {
    pub fn any() -> Self {
        Self(ANY)
    }

    /// Reads `require_auth`: a list of allowed methods, or of forbidden ones (`!md5,!password`).
    pub fn parse(list: &str) -> Result<Self, String> {
        let mut named = 0;
        let mut negated = None;
        for word in list.split(',').map(str::trim) {
            let (name, not) = match word.strip_prefix('!') {
                Some(name) => (name, true),
                None => (word, false),
            };
            if *negated.get_or_insert(not) != not {
                return Err("mixes allowed methods with forbidden ones (!)".into());
            }
            let Some(bit) = NAMES.iter().position(|known| *known == name) else {
                return Err(format!("accepts only the methods {}", NAMES.join(", ")));
            };
            if named & (1 << bit) != 0 {
                return Err(format!("names {name} twice"));
            }
            named |= 1 << bit;
        }
        Ok(Self(if negated == Some(true) { ANY & !named } else { named }))
    }

    fn allow(self, method: usize) -> bool {
        self.0 & (1 << method) != 0
    }
}

/// Whether traffic to this address stays on this machine.
pub(super) fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The server asked for a proof that it may not ask for, or sent an invalid question. It got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Method {
        method: usize,
        /// The connection is not encrypted, and leaves this machine.
        open: bool,
    },
    /// Before the login, the server announced a message of this many bytes.
    TooLong(usize),
}

impl Refused {
    /// Whether the other end is not a PostgreSQL server, rather than one with a forbidden question.
    pub fn is_of_a_stranger(self) -> bool {
        matches!(self, Refused::TooLong(_))
    }

    pub fn hint(self) -> String {
        let (method, open) = match self {
            Refused::Method { method, open } => (method, open),
            Refused::TooLong(_) => return "check host and port: another program listens there".to_owned(),
        };
        let name = NAMES[method];
        if open && (method == PASSWORD || method == MD5) {
            format!(
                "set sslmode=require, or better verify-full, for a server that has TLS; let the server use \
                 scram-sha-256; or allow it with require_auth={name}"
            )
        } else {
            format!("change require_auth to allow {name}, if the server may use it")
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, open) = match self {
            Refused::Method { method, open } => (*method, *open),
            Refused::TooLong(bytes) => {
                return write!(
                    f,
                    "the other end is no PostgreSQL server: it announces a message of {bytes} bytes before the login"
                );
            }
        };
        let asked = match method {
            NONE => "lets the client in without any proof".to_owned(),
            PASSWORD => "asks for the password in clear text".to_owned(),
            MD5 => "asks for the password as an MD5 digest".to_owned(),
            other => format!("asks for a login by {}", NAMES[other]),
        };
        write!(f, "authentication failed: the server {asked}")?;
        if open {
            f.write_str(", and the connection is not encrypted")?;
        }
        f.write_str("; no answer was given")
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        io::Error::new(io::ErrorKind::PermissionDenied, refused)
    }
}

/// Type, length, and the number that says which question it is.
const QUESTION: usize = 9;
const HEADER: usize = 5;
/// No message is this long before the login is done. libpq reads a message completely before it checks it.
pub(super) const LONGEST: usize = 64 << 10;

/// The questions of a server in one login.
#[derive(Debug)]
pub(super) struct Questions {
    allowed: Methods,
    open: bool,
    asked: bool,
}

impl Questions {
    /// On a connection that is `open`: not encrypted, and leaving this machine.
    pub fn new(allowed: Methods, open: bool) -> Self {
        Self {
            allowed,
            open,
            asked: false,
        }
    }

    /// Documentation: "Message Formats", the messages of type `R`.
    pub fn hear(&mut self, code: u32) -> Result<(), Refused> {
        let method = match code {
            0 if self.asked => None,
            0 => Some(NONE),
            3 => Some(PASSWORD),
            5 => Some(MD5),
            7 => Some(GSS),
            9 => Some(SSPI),
            10 => Some(SCRAM),
            // A further step of one of these methods, or a method that the login does not know either.
            _ => None,
        };
        self.asked = true;
        match method {
            Some(method) if !self.allowed.allow(method) => Err(Refused::Method {
                method,
                open: self.open,
            }),
            _ => Ok(()),
        }
    }
}

/// Reads the server's messages until the login is done.
#[derive(Debug)]
pub(super) struct Gate {
    questions: Questions,
    message: [u8; QUESTION],
    read: usize,
    /// The remaining bytes of a message that needs no check.
    skip: usize,
    done: bool,
}

impl Gate {
    pub fn new(allowed: Methods, open: bool) -> Self {
        Self {
            questions: Questions::new(allowed, open),
            message: [0; QUESTION],
            read: 0,
            skip: 0,
            done: false,
        }
    }

    /// The server's next bytes.
    pub fn hear(&mut self, mut bytes: &[u8]) -> Result<(), Refused> {
        while let (false, [first, rest @ ..]) = (self.done, bytes) {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
            } else {
                self.message[self.read] = *first;
                self.read += 1;
                bytes = rest;
                self.judge()?;
            }
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), Refused> {
        let [kind, a, b, c, d, code @ ..] = self.message;
        // libpq reports an invalid length.
        let length = u32::from_be_bytes([a, b, c, d]).saturating_sub(4) as usize;
        match (self.read, kind) {
            (HEADER, _) if length > LONGEST => return Err(Refused::TooLong(length)),
            (HEADER, b'R') if length >= QUESTION - HEADER => {}
            (HEADER, _) => {
                self.read = 0;
                self.skip = length;
            }
            (QUESTION, _) => {
                self.read = 0;
                self.skip = length - (QUESTION - HEADER);
                let code = u32::from_be_bytes(code);
                self.done = code == 0;
                self.questions.hear(code)?;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(code: u32, more: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + more.len()).unwrap().to_be_bytes();
        [b"R", &length[..], &code.to_be_bytes(), more].concat()
    }

    fn heard(allowed: &str, said: &[u8], cut: usize) -> Result<bool, usize> {
        let mut gate = Gate::new(Methods::parse(allowed).unwrap(), true);
        for piece in said.chunks(cut) {
            gate.hear(piece).map_err(method)?;
        }
        Ok(gate.done)
    }

    fn method(refused: Refused) -> usize {
        match refused {
            Refused::Method { method, .. } => method,
            Refused::TooLong(_) => usize::MAX,
        }
    }

    #[test]
    fn before_the_login_nothing_long_is_taken_in() {
        let garbage = b"HTTP/1.1 400 Bad Request\r\n";
        let giant = [&b"E"[..], &0x7fff_fff0_u32.to_be_bytes(), b"SFATAL"].concat();
        for said in [&garbage[..], &giant] {
            for cut in 1..20 {
                assert_eq!(heard(ON_AN_OPEN_LINE, said, cut), Err(usize::MAX));
            }
        }
        let longest = [
            &b"N"[..],
            &(4 + 64 * 1024_u32).to_be_bytes(),
            &vec![b'x'; 64 << 10],
            &question(0, b""),
        ]
        .concat();
        assert_eq!(heard("none", &longest, 1000), Ok(true));
    }

    #[test]
    fn lists_are_read_as_libpq_reads_them() {
        let allowed = |list: &str| {
            let methods = Methods::parse(list).unwrap();
            let each = NAMES.iter().enumerate();
            each.filter(|(bit, _)| methods.allow(*bit))
                .map(|(_, name)| *name)
                .collect::<Vec<_>>()
        };
        assert_eq!(allowed("scram-sha-256"), ["scram-sha-256"]);
        assert_eq!(allowed("password, md5"), ["password", "md5"]);
        assert_eq!(
            allowed(ON_AN_OPEN_LINE),
            ["none", "gss", "sspi", "scram-sha-256", "oauth"]
        );
        for odd in ["", "password,!md5", "!none,md5", "scram", "md5,md5", "!", "PASSWORD"] {
            assert!(Methods::parse(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn a_question_that_is_not_allowed_is_seen_however_it_is_cut() {
        let notice = b"N\0\0\0\x09SLOW\0";
        for cut in 1..40 {
            for (code, method) in [(3, PASSWORD), (5, MD5)] {
                let said = [&notice[..], &question(code, b"salt"), &question(0, b"")].concat();
                assert_eq!(heard(ON_AN_OPEN_LINE, &said, cut), Err(method));
                assert_eq!(heard("password,md5", &said, cut), Ok(true));
            }
            // Even after an allowed login, a question for the password in clear text is still refused.
            let said = [question(10, b"SCRAM-SHA-256\0\0"), question(3, b"")].concat();
            assert_eq!(heard(ON_AN_OPEN_LINE, &said, cut), Err(PASSWORD));
            let said = [
                question(10, b"SCRAM-SHA-256\0\0"),
                question(11, b"r=x"),
                question(12, b"v=x"),
                question(0, b""),
            ];
            assert_eq!(heard("scram-sha-256", &said.concat(), cut), Ok(true));
            assert_eq!(heard("scram-sha-256", &question(0, b""), cut), Err(NONE));
            assert_eq!(heard("none", &question(0, b""), cut), Ok(true));
        }
    }

    #[test]
    fn what_does_not_leave_the_machine_is_local() {
        for (address, local) in [
            ("127.0.0.1", true),
            ("127.8.9.10", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.7", false),
            ("192.0.2.2", false),
            ("169.254.1.1", false),
            ("::ffff:10.0.0.7", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_local(address.parse().unwrap()), local, "{address}");
        }
    }
}
