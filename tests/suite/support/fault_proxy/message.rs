//! The messages of HTTP that the proxy reads, and those that it writes itself.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A message's first line and headers, up to the empty line.
pub struct Head {
    pub first: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The head, and what was read beyond it. `None` at the end of the stream.
    pub async fn read(stream: &mut TcpStream) -> std::io::Result<Option<(Self, Vec<u8>)>> {
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

    pub fn get(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_str())
    }

    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// The content of a body that came in chunks.
pub fn unchunked(mut body: &[u8]) -> Vec<u8> {
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

pub async fn reject(client: &mut TcpStream, method: &str, status: u16, keeps: bool) -> std::io::Result<()> {
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

pub async fn answer(client: &mut TcpStream, method: &str, status: u16, body: &str, keeps: bool) -> std::io::Result<()> {
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
