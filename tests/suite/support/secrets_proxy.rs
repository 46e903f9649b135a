//! Secrets Manager with something that happens between two readings of a secret.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::http::post;
use super::services::aws_endpoint;

/// Passes requests on to moto, and counts the readings.
pub struct SecretsProxy {
    pub endpoint: String,
    readings: Arc<AtomicUsize>,
}

impl SecretsProxy {
    /// `meanwhile` is told the number of each reading, after moto has answered it and before the
    /// reader gets the answer: what it changes is seen by the next reading only.
    pub fn start(meanwhile: impl Fn(usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let readings = Arc::new(AtomicUsize::new(0));
        let (counter, meanwhile) = (readings.clone(), Arc::new(meanwhile));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (counter, meanwhile) = (counter.clone(), meanwhile.clone());
                thread::spawn(move || pass_on(stream.unwrap(), &counter, &*meanwhile));
            }
        });
        Self { endpoint, readings }
    }

    pub fn readings(&self) -> usize {
        self.readings.load(Ordering::SeqCst)
    }
}

/// One request; the connection is closed after it.
fn pass_on(stream: TcpStream, readings: &AtomicUsize, meanwhile: &dyn Fn(usize)) {
    let mut reader = BufReader::new(stream);
    let (mut headers, mut line) = (Vec::new(), String::new());
    let (mut length, mut is_reading) = (0, false);
    // The first line is the method and the path, which are always the same.
    reader.read_line(&mut line).unwrap();
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap() == 0 {
            return; // opened in vain
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" | "content-type" => headers.push((name.to_owned(), value.to_owned())),
            "x-amz-target" => {
                is_reading = value.ends_with(".GetSecretValue");
                headers.push((name.to_owned(), value.to_owned()));
            }
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let answer = post(&aws_endpoint(), "/", &headers, std::str::from_utf8(&body).unwrap());
    if is_reading {
        meanwhile(readings.fetch_add(1, Ordering::SeqCst) + 1);
    }
    let head = format!(
        "HTTP/1.1 {} -\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.body.len()
    );
    let mut stream = reader.into_inner();
    // The function may have been killed.
    let _ = stream.write_all((head + &answer.body).as_bytes());
}
