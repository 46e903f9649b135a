//! A client that listens to the events.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::Serving;

pub struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    /// With the lines of its head that say who it is.
    pub fn of(serving: &Serving, head: &str) -> Self {
        let address = serving.endpoint.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!("GET /api/v1/events HTTP/1.1\r\nHost: {address}\r\n{head}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next().unwrap().unwrap();
        assert!(status.contains(" 200 "), "{status}");
        while !lines.next().unwrap().unwrap().is_empty() {}
        Self(lines)
    }
}

impl Iterator for Events {
    type Item = (String, Value);

    /// The next event's name and document, until the stream ends.
    fn next(&mut self) -> Option<(String, Value)> {
        let mut name = String::new();
        while let Some(Ok(line)) = self.0.next() {
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.to_owned();
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(data).unwrap()));
            }
        }
        None
    }
}
