//! One HTTP request to a server on this machine. HTTP/1.0, so that the answer ends where the
//! connection does.

use std::io::{Read, Write};
use std::net::TcpStream;

pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// `endpoint` is `http://host:port`.
pub fn post(endpoint: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let address = endpoint.strip_prefix("http://").unwrap().trim_end_matches('/');
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    let mut request = format!(
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("not an answer: {answer}"));
    let line = head.lines().next().unwrap_or(head);
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
    Answer {
        status,
        body: body.to_owned(),
    }
}
