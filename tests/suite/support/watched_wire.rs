//! A line to a PostgreSQL server on which every step of the protocol is seen: a test can let the world end there.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// A step, just before the other side hears of it, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Statement(String),
    /// The server begins to stream.
    Streaming,
    /// The server sends the change of a row.
    Change,
    /// The client says up to where everything is stored.
    Confirming(u64),
    /// The server has heard it.
    Confirmed(u64),
    /// The client ends the stream.
    Ending,
    /// The server has heard it.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Passes,
    /// Both ends see that the line is dead.
    Cut,
}

type Watcher = Arc<dyn Fn(&Step) -> Line + Send + Sync>;

pub struct WatchedWire {
    port: u16,
}

impl WatchedWire {
    /// Before the server at this port. The watcher is asked in the thread that passes the bytes on.
    pub fn start(server: u16, watcher: impl Fn(&Step) -> Line + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let watcher: Watcher = Arc::new(watcher);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                pass(&client, &server, &watcher);
            }
        });
        Self { port }
    }

    /// The same URL, with this line's address, and without encryption: what is said must be heard.
    pub fn before(&self, url: &str) -> String {
        let (login, place) = url.rsplit_once('@').unwrap();
        let (_, database) = place.split_once('/').unwrap();
        format!("{login}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }
}

fn pass(client: &TcpStream, server: &TcpStream, watcher: &Watcher) {
    let ends = || (client.try_clone().unwrap(), server.try_clone().unwrap());
    let ((asking, asked), (hearing, telling), watched) = (ends(), ends(), Arc::clone(watcher));
    thread::spawn(move || {
        let _ = ask(&asking, &asked, &watched);
        hang_up(&asking, &asked);
    });
    let watched = Arc::clone(watcher);
    thread::spawn(move || {
        let _ = tell(&telling, &hearing, &watched);
        hang_up(&telling, &hearing);
    });
}

fn hang_up(one: &TcpStream, other: &TcpStream) {
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

/// What the client sends. Its first message has no type.
fn ask(mut client: &TcpStream, mut server: &TcpStream, watcher: &Watcher) -> std::io::Result<()> {
    let mut first = [0; 4];
    client.read_exact(&mut first)?;
    let mut rest = vec![0; u32::from_be_bytes(first) as usize - 4];
    client.read_exact(&mut rest)?;
    server.write_all(&[&first[..], &rest].concat())?;
    loop {
        let (kind, body) = message(&mut client)?;
        let (before, after) = asked(kind, &body);
        let is_cut = |step: Option<Step>| step.is_some_and(|step| watcher(&step) == Line::Cut);
        if is_cut(before) {
            return Ok(());
        }
        write(&mut server, kind, &body)?;
        if is_cut(after) {
            return Ok(());
        }
    }
}

fn asked(kind: u8, body: &[u8]) -> (Option<Step>, Option<Step>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap()).into_owned();
    match (kind, body.first()) {
        (b'Q', _) => (Some(Step::Statement(text(body))), None),
        (b'P', _) => {
            let name = body.iter().position(|byte| *byte == 0).unwrap();
            (Some(Step::Statement(text(&body[name + 1..]))), None)
        }
        (b'd', Some(b'r')) => {
            let flushed = u64::from_be_bytes(body[9..17].try_into().unwrap());
            (Some(Step::Confirming(flushed)), Some(Step::Confirmed(flushed)))
        }
        (b'c', _) => (Some(Step::Ending), Some(Step::Ended)),
        _ => (None, None),
    }
}

/// What the server sends.
fn tell(mut server: &TcpStream, mut client: &TcpStream, watcher: &Watcher) -> std::io::Result<()> {
    loop {
        let (kind, body) = message(&mut server)?;
        let step = match (kind, body.first(), body.get(25)) {
            (b'W', _, _) => Some(Step::Streaming),
            (b'd', Some(b'w'), Some(b'I' | b'U' | b'D')) => Some(Step::Change),
            _ => None,
        };
        if step.is_some_and(|step| watcher(&step) == Line::Cut) {
            return Ok(());
        }
        write(&mut client, kind, &body)?;
    }
}

fn message(from: &mut &TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head[1..].try_into().unwrap());
    let mut body = vec![0; length as usize - 4];
    from.read_exact(&mut body)?;
    Ok((head[0], body))
}

fn write(to: &mut &TcpStream, kind: u8, body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(body.len() + 4).unwrap();
    to.write_all(&[&[kind], &length.to_be_bytes()[..], body].concat())
}
