//! PostgreSQL as RDS offers it: only by TLS, and only to who shows a token of IAM's for this place. The token is
//! held against AWS's description of SigV4; then the line leads to a real server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread;

use jiff::Timestamp;
use jiff::civil::DateTime;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::hmac;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tls_front::{accept, acceptor, listen};

const TLS: u32 = 80_877_103;
const CANCEL: u32 = 80_877_102;
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub struct Keys {
    pub id: &'static str,
    pub secret: &'static str,
    pub session: Option<&'static str>,
}

pub struct IamFront {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    server: SocketAddr,
    port: u16,
    region: &'static str,
    keys: Keys,
    /// Older tokens have expired.
    not_before: AtomicI64,
    accepted: AtomicUsize,
}

impl IamFront {
    /// Before a server that trusts whom this lets through.
    pub fn start(server: SocketAddr, region: &'static str, keys: Keys) -> Self {
        let (port, listener) = listen();
        let state = Arc::new(State {
            server,
            port,
            region,
            keys,
            not_before: AtomicI64::new(0),
            accepted: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&state);
        accept(listener, move |client| {
            let state = Arc::clone(&serving);
            async move { serve(client, &state).await }
        });
        Self { port, state }
    }

    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// As if fifteen minutes had passed: tokens count that are made a second from now, or later.
    pub fn expire_tokens(&self) {
        let next = Timestamp::now().as_second() + 1;
        self.state.not_before.store(next, Ordering::SeqCst);
        while Timestamp::now().as_second() < next {
            thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

async fn serve(mut client: TcpStream, state: &State) -> std::io::Result<()> {
    let mut first = [0; 8];
    client.read_exact(&mut first).await?;
    let code = u32::from_be_bytes([first[4], first[5], first[6], first[7]]);
    if code == CANCEL {
        let mut server = TcpStream::connect(state.server).await?;
        server.write_all(&first).await?;
        return tokio::io::copy(&mut client, &mut server).await.map(drop);
    }
    if code != TLS {
        return client.write_all(&refusal("no pg_hba.conf entry, no encryption")).await;
    }
    client.write_all(b"S").await?;
    let mut client = acceptor().accept(client).await?;
    let length = client.read_u32().await?;
    let mut startup = length.to_be_bytes().to_vec();
    startup.resize(length as usize, 0);
    client.read_exact(&mut startup[4..]).await?;
    if u32::from_be_bytes([startup[4], startup[5], startup[6], startup[7]]) == CANCEL {
        return TcpStream::connect(state.server).await?.write_all(&startup).await;
    }
    client.write_all(b"R\0\0\0\x08\0\0\0\x03").await?;
    let (_, length) = (client.read_u8().await?, client.read_u32().await?);
    let mut password = vec![0; length as usize - 4];
    client.read_exact(&mut password).await?;
    let token = String::from_utf8_lossy(&password[..password.len() - 1]).into_owned();
    let parts: Vec<&[u8]> = startup[8..].split(|byte| *byte == 0).collect();
    let user = parts
        .chunks(2)
        .find(|pair| pair[0] == b"user")
        .map(|pair| String::from_utf8_lossy(pair[1]));
    if let Err(why) = verify(&token, &user.unwrap_or_default(), state) {
        // More than RDS says: it shows in what the run tells.
        let told = format!("PAM authentication failed: {why}");
        return client.write_all(&refusal(&told)).await;
    }
    state.accepted.fetch_add(1, Ordering::SeqCst);
    let mut server = TcpStream::connect(state.server).await?;
    server.write_all(&startup).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

fn refusal(why: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C28000\0M{why}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap();
    [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()
}

fn verify(token: &str, user: &str, state: &State) -> Result<(), String> {
    let (place, query) = token.split_once("/?").ok_or("it is no request without a scheme")?;
    let wanted = format!("localhost:{}", state.port);
    if place != wanted {
        return Err(format!("it is for {place}"));
    }
    let mut fields: BTreeMap<String, String> = query
        .split('&')
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
            (decoded(name), decoded(value))
        })
        .collect();
    let signature = fields.remove("X-Amz-Signature").ok_or("no signature")?;
    let date = fields.get("X-Amz-Date").cloned().unwrap_or_default();
    let made: DateTime = date
        .trim_end_matches('Z')
        .parse()
        .map_err(|error| format!("{date}: {error}"))?;
    let made = made
        .to_zoned_datetime(jiff::tz::TimeZone::UTC)
        .unwrap()
        .timestamp()
        .as_second();
    let now = Timestamp::now().as_second();
    let scope = format!(
        "{}/{}/rds-db/aws4_request",
        date.get(..8).unwrap_or_default(),
        state.region
    );
    let expected = [
        ("Action", "connect".to_owned()),
        ("DBUser", user.to_owned()),
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
        ("X-Amz-Credential", format!("{}/{scope}", state.keys.id)),
        ("X-Amz-Date", date.clone()),
        ("X-Amz-Expires", "900".to_owned()),
        ("X-Amz-SignedHeaders", "host".to_owned()),
    ];
    let session = state
        .keys
        .session
        .map(|token| ("X-Amz-Security-Token", token.to_owned()));
    let expected = expected
        .into_iter()
        .chain(session)
        .map(|(name, value)| (name.to_owned(), value));
    let expected: BTreeMap<String, String> = expected.collect();
    if fields != expected {
        return Err("its fields are not those of this role, region and key".to_owned());
    }
    if made > now + 5 || now > made + 900 || made < state.not_before.load(Ordering::SeqCst) {
        return Err(format!("it is of {date}"));
    }
    let escaped = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
    let query: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
        .collect();
    let nothing = hex::encode(Sha256::digest(b""));
    let request = format!("GET\n/\n{}\nhost:{wanted}\n\nhost\n{nothing}", query.join("&"));
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        hex::encode(Sha256::digest(request))
    );
    let mut key = format!("AWS4{}", state.keys.secret).into_bytes();
    for step in scope.split('/').chain([text.as_str()]) {
        let signing = hmac::Key::new(hmac::HMAC_SHA256, &key);
        key = hmac::sign(&signing, step.as_bytes()).as_ref().to_vec();
    }
    match hex::encode(key) == signature {
        true => Ok(()),
        false => Err("its signature is another's".to_owned()),
    }
}
