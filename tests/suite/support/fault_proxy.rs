//! An HTTP proxy in front of an S3 server that does, on request, what networks and stores do
//! when they fail. It is scripted per operation and call number:
//!
//! ```ignore
//! let proxy = FaultProxy::start("127.0.0.1:8333").await;
//! proxy.fault(On::op(Op::UploadPart).calls(2..=2), Fault::Reset { after: 100_000 });
//! // … let the code under test talk to `proxy.url()` …
//! assert_eq!(proxy.count(Op::UploadPart), 4);
//! ```
//!
//! The `Host` header passes unchanged, so signatures made for the proxy's address stay valid.
//! Requests that no rule names are forwarded as they are, one upstream connection each. Every answer
//! closes its connection, unless the proxy is told to keep them.

#![allow(dead_code)] // each test binary uses a part of it

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status and S3's kind of body; the store never sees the request.
    Reject(u16),
    /// Takes this many bytes of the body, then resets the connection; the store sees nothing.
    Reset { after: usize },
    /// Forwards, waits for the answer, and closes the connection without passing it on.
    LoseAnswer,
    /// Forwards, and then says nothing until the client goes away.
    HoldAnswer,
    /// Forwards, and then answers with this status, as if the store had failed after its work.
    /// With 200 the error is in the body, as S3 does it when a completion takes long.
    Lie(u16),
    /// Holds the whole request for this long before it forwards it.
    Delay(Duration),
    /// Flips one bit of the request's body.
    CorruptBody,
    /// Replaces the SHA-256 checksum in the answer by another.
    WrongChecksum,
    /// Takes the SHA-256 checksum out of the answer.
    NoChecksum,
    /// Takes the body at this rate only.
    Slow { bytes_per_second: usize },
    /// Flips one bit in the middle of the answer's body.
    CorruptAnswer,
    /// Passes on this many bytes of the answer's body, then closes the connection.
    CutAnswer { after: usize },
    /// Answers with this status and body; the store never sees the request.
    Answer(u16, &'static str),
    /// Takes what stands from each of these marks to the one beside it out of the body, marks included; the
    /// mark alone where that is empty.
    Strip(&'static [(&'static str, &'static str)]),
    /// Answers as it was answered while the proxy remembered lists; otherwise forwards.
    Stale,
    /// Takes the objects whose keys end so out of the lists, as a list does that lags.
    Unlisted(&'static str),
}

/// S3's operations, told apart by method and query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    PutObject,
    GetObject,
    HeadObject,
    CreateUpload,
    UploadPart,
    CompleteUpload,
    AbortUpload,
    ListParts,
    ListUploads,
    Tagging,
    /// Listings, bucket operations and whatever else there is.
    Other,
}

impl Op {
    pub fn of(method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        let object = path.trim_matches('/').contains('/');
        match method {
            _ if has("tagging") => Self::Tagging,
            "POST" if has("uploads") => Self::CreateUpload,
            "POST" if has("uploadId") => Self::CompleteUpload,
            "PUT" if has("partNumber") => Self::UploadPart,
            "DELETE" if has("uploadId") => Self::AbortUpload,
            "GET" if has("uploadId") => Self::ListParts,
            "GET" if has("uploads") => Self::ListUploads,
            "PUT" if object => Self::PutObject,
            "GET" if object => Self::GetObject,
            "HEAD" if object => Self::HeadObject,
            _ => Self::Other,
        }
    }
}

/// Which requests a fault hits.
#[derive(Debug, Clone)]
pub struct On {
    op: Option<Op>,
    target: Option<String>,
    bucket: Option<String>,
    header: Option<String>,
    method: Option<String>,
    calls: RangeInclusive<usize>,
    until: Option<Instant>,
}

impl On {
    pub fn any() -> Self {
        Self {
            op: None,
            target: None,
            bucket: None,
            header: None,
            method: None,
            calls: 1..=usize::MAX,
            until: None,
        }
    }

    pub fn op(op: Op) -> Self {
        Self {
            op: Some(op),
            ..Self::any()
        }
    }

    /// Only requests whose path and query contain this.
    pub fn target(mut self, part: &str) -> Self {
        self.target = Some(part.to_owned());
        self
    }

    /// Only requests whose path starts with this, such as `/bucket/`.
    pub fn bucket(mut self, start: &str) -> Self {
        self.bucket = Some(start.to_owned());
        self
    }

    /// Only requests that bear this header.
    pub fn header(mut self, name: &str) -> Self {
        self.header = Some(name.to_owned());
        self
    }

    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only these of the matching requests, counted from 1.
    pub fn calls(mut self, calls: RangeInclusive<usize>) -> Self {
        self.calls = calls;
        self
    }

    /// Only until this much time has passed.
    pub fn during(mut self, time: Duration) -> Self {
        self.until = Some(Instant::now() + time);
        self
    }
}

/// One request as the proxy saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub op: Op,
    pub method: String,
    pub target: String,
    pub fault: Option<Fault>,
}

struct Rule {
    on: On,
    fault: Fault,
    matched: usize,
}

#[derive(Default)]
struct Script {
    rules: Vec<Rule>,
    seen: Vec<Seen>,
    answered: u64,
    connections: usize,
    /// Refusals, and answers that pass whole, leave the connection open.
    keeps: bool,
    remembers: bool,
    /// The first answer to each list while it remembered.
    lists: HashMap<String, Vec<u8>>,
}

pub struct FaultProxy {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    /// `upstream` is `host:port`, with or without `http://` before it.
    pub async fn start(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = Arc::clone(&script);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.lock().expect("no panic").connections += 1;
                // A broken connection is what this proxy is for: nothing to report.
                tokio::spawn(serve(client, upstream.clone(), Arc::clone(&shared)));
            }
        });
        Self {
            address,
            script,
            accepting,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a fault. The first rule that matches a request and whose calls include it decides.
    pub fn fault(&self, on: On, fault: Fault) {
        let rule = Rule { on, fault, matched: 0 };
        self.script.lock().expect("no panic").rules.push(rule);
    }

    /// From now on everything is forwarded.
    pub fn heal(&self) {
        self.script.lock().expect("no panic").rules.clear();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.script.lock().expect("no panic").seen.clone()
    }

    /// Bytes of all answers' bodies that were passed on whole.
    pub fn answered(&self) -> u64 {
        self.script.lock().expect("no panic").answered
    }

    /// From now on connections are kept open, as a store keeps them.
    pub fn keep_connections(&self) {
        self.script.lock().expect("no panic").keeps = true;
    }

    /// Keeps the first answers to lists, for [`Fault::Stale`], or no more of them.
    pub fn remember_lists(&self, remembers: bool) {
        self.script.lock().expect("no panic").remembers = remembers;
    }

    /// How many were opened to it.
    pub fn connections(&self) -> usize {
        self.script.lock().expect("no panic").connections
    }

    pub fn count(&self, op: Op) -> usize {
        self.seen().iter().filter(|seen| seen.op == op).count()
    }

    /// How many requests a fault has hit.
    pub fn faults(&self) -> usize {
        self.seen().iter().filter(|seen| seen.fault.is_some()).count()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Script {
    fn decide(&mut self, method: &str, target: &str, head: &Head) -> Option<Fault> {
        let op = Op::of(method, target);
        let mut fault = None;
        for rule in &mut self.rules {
            let on = &rule.on;
            let matches = on.op.is_none_or(|wanted| wanted == op)
                && on.target.as_ref().is_none_or(|part| target.contains(part))
                && on.bucket.as_ref().is_none_or(|start| target.starts_with(start))
                && on.header.as_ref().is_none_or(|name| head.get(name).is_some())
                && on.method.as_ref().is_none_or(|wanted| wanted == method)
                && on.until.is_none_or(|until| Instant::now() < until);
            if matches {
                rule.matched += 1;
                if fault.is_none() && on.calls.contains(&rule.matched) {
                    fault = Some(rule.fault.clone());
                }
            }
        }
        self.seen.push(Seen {
            op,
            method: method.to_owned(),
            target: target.to_owned(),
            fault: fault.clone(),
        });
        fault
    }
}

/// A message's first line and headers, up to the empty line.
struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The head, and what was read beyond it. `None` at the end of the stream.
    async fn read(stream: &mut TcpStream) -> std::io::Result<Option<(Self, Vec<u8>)>> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
        };
        let rest = bytes.split_off(end + 4);
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Ok(Some((Self { first, headers }, rest)))
    }

    fn get(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_str())
    }

    fn remove(&mut self, name: &str) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

async fn serve(mut client: TcpStream, upstream: String, script: Arc<Mutex<Script>>) -> std::io::Result<()> {
    loop {
        serve_one(&mut client, &upstream, &script).await?;
        if !script.lock().expect("no panic").keeps {
            return client.shutdown().await;
        }
    }
}

/// An error ends the connection.
async fn serve_one(client: &mut TcpStream, upstream: &str, script: &Arc<Mutex<Script>>) -> std::io::Result<()> {
    let over = || std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
    let keeps = script.lock().expect("no panic").keeps;
    let Some((mut head, mut body)) = Head::read(client).await? else {
        return Err(over());
    };
    let mut words = head.first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let fault = script.lock().expect("no panic").decide(&method, &target, &head);
    let length: usize = head
        .get("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if head.get("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        head.remove("expect");
    }

    let take = match fault {
        Some(Fault::Reset { after }) => after.min(length),
        _ => length,
    };
    body.reserve(take.saturating_sub(body.len()));
    while body.len() < take {
        let before = body.len();
        if client.read_buf(&mut body).await? == 0 {
            return Err(over());
        }
        if let Some(Fault::Slow { bytes_per_second }) = fault {
            let seconds = (body.len() - before) as f64 / bytes_per_second as f64;
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
    }

    match fault {
        Some(Fault::Reset { .. }) => {
            client.set_zero_linger()?;
            return Err(over());
        }
        Some(Fault::Reject(status)) => return reject(client, &method, status, keeps).await,
        Some(Fault::Answer(status, body)) => return answer(client, &method, status, body, keeps).await,
        Some(Fault::CorruptBody) if !body.is_empty() => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        Some(Fault::Strip(marks)) => {
            let mut text = String::from_utf8_lossy(&body).into_owned();
            for (from, to) in marks {
                while let Some(start) = text.find(from) {
                    let after = start + from.len();
                    let end = text[after..].find(to).map_or(after, |at| after + at + to.len());
                    text.replace_range(start..end, "");
                }
            }
            body = text.into_bytes();
            head.remove("content-length");
            head.headers.push(("Content-Length".to_owned(), body.len().to_string()));
        }
        _ => {}
    }

    if fault == Some(Fault::Stale) {
        let old = script.lock().expect("no panic").lists.get(&target).cloned();
        if let Some(old) = old {
            client.write_all(&old).await?;
            client.shutdown().await?;
            return Err(over());
        }
    }
    if let Some(Fault::Delay(time)) = fault {
        tokio::time::sleep(time).await;
    }

    let mut server = TcpStream::connect(upstream).await?;
    head.remove("connection");
    head.headers.push(("Connection".to_owned(), "close".to_owned()));
    server.write_all(&head.bytes()).await?;
    server.write_all(&body).await?;
    drop(body);
    let Some((mut answer, rest)) = Head::read(&mut server).await? else {
        return Err(over());
    };
    if keeps {
        answer.remove("connection");
    }
    match fault {
        Some(Fault::LoseAnswer) => {
            tokio::io::copy(&mut server, &mut tokio::io::sink()).await?;
            client.set_zero_linger()?;
            return Err(over());
        }
        Some(Fault::HoldAnswer) => {
            tokio::io::copy(&mut server, &mut tokio::io::sink()).await?;
            tokio::io::copy(client, &mut tokio::io::sink()).await?;
            return Err(over());
        }
        Some(Fault::Lie(status)) => {
            tokio::io::copy(&mut server, &mut tokio::io::sink()).await?;
            return reject(client, &method, status, keeps).await;
        }
        Some(Fault::WrongChecksum) => {
            answer.remove("x-amz-checksum-sha256");
            let wrong = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned();
            answer.headers.push(("x-amz-checksum-sha256".to_owned(), wrong));
        }
        Some(Fault::NoChecksum) => answer.remove("x-amz-checksum-sha256"),
        _ => {}
    }
    if let Some(Fault::Unlisted(ending)) = fault {
        let mut body = rest;
        server.read_to_end(&mut body).await?;
        if answer.get("transfer-encoding").is_some() {
            answer.remove("transfer-encoding");
            body = unchunked(&body);
        }
        let mut text = String::from_utf8_lossy(&body).into_owned();
        while let Some(end) = text.find(&format!("{ending}</Key>")) {
            let start = text[..end].rfind("<Contents>").expect("an object of the list");
            let after = end + text[end..].find("</Contents>").expect("its end") + "</Contents>".len();
            text.replace_range(start..after, "");
        }
        answer.remove("content-length");
        answer
            .headers
            .push(("Content-Length".to_owned(), text.len().to_string()));
        client.write_all(&[answer.bytes(), text.into_bytes()].concat()).await?;
        client.shutdown().await?;
        return Err(over());
    }
    client.write_all(&answer.bytes()).await?;
    if let Some(Fault::CutAnswer { after }) = fault {
        client.write_all(&rest[..rest.len().min(after)]).await?;
        let left = after.saturating_sub(rest.len()) as u64;
        tokio::io::copy(&mut (&mut server).take(left), client).await?;
        client.shutdown().await?;
        return Err(over());
    }
    if fault == Some(Fault::CorruptAnswer) {
        let mut body = rest;
        server.read_to_end(&mut body).await?;
        let middle = body.len() / 2;
        if let Some(byte) = body.get_mut(middle) {
            *byte ^= 1;
        }
        client.write_all(&body).await?;
        client.shutdown().await?;
        return Err(over());
    }
    let is_list = method == "GET" && target.contains("list-type=2");
    if is_list && script.lock().expect("no panic").remembers {
        let mut body = rest;
        server.read_to_end(&mut body).await?;
        client.write_all(&body).await?;
        answer.remove("connection");
        answer.headers.push(("Connection".to_owned(), "close".to_owned()));
        let whole = [answer.bytes(), body].concat();
        script.lock().expect("no panic").lists.entry(target).or_insert(whole);
        return Ok(());
    }
    client.write_all(&rest).await?;
    let copied = tokio::io::copy(&mut server, client).await?;
    script.lock().expect("no panic").answered += rest.len() as u64 + copied;
    Ok(())
}

/// The content of a body that came in chunks.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let length = String::from_utf8_lossy(&body[..end]).into_owned();
        let length = usize::from_str_radix(length.split(';').next().unwrap_or_default().trim(), 16);
        let length = length.expect("a chunk's length");
        if length == 0 {
            break;
        }
        content.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[end + 2 + length + 2..];
    }
    content
}

async fn reject(client: &mut TcpStream, method: &str, status: u16, keeps: bool) -> std::io::Result<()> {
    let (code, reason) = match status {
        200 => ("InternalError", "OK"),
        400 => ("BadDigest", "Bad Request"),
        403 => ("AccessDenied", "Forbidden"),
        409 => ("ConditionalRequestConflict", "Conflict"),
        412 => ("PreconditionFailed", "Precondition Failed"),
        501 => ("NotImplemented", "Not Implemented"),
        429 => ("TooManyRequests", "Too Many Requests"),
        503 => ("SlowDown", "Slow Down"),
        _ => ("InternalError", "Internal Server Error"),
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>scripted fault</Message></Error>"
    );
    say(client, method, (status, reason), &body, keeps).await
}

async fn answer(client: &mut TcpStream, method: &str, status: u16, body: &str, keeps: bool) -> std::io::Result<()> {
    let reason = if status < 300 { "OK" } else { "Refused" };
    say(client, method, (status, reason), body, keeps).await
}

async fn say(
    client: &mut TcpStream,
    method: &str,
    (status, reason): (u16, &str),
    body: &str,
    keeps: bool,
) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
        body.len(),
        if keeps { "keep-alive" } else { "close" }
    );
    client.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        client.write_all(body.as_bytes()).await?;
    }
    Ok(())
}
