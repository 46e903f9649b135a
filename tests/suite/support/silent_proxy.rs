//! A line to a PostgreSQL server that goes silent: from a certain statement on, no byte comes back, and neither side closes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

pub struct SilentProxy {
    port: u16,
    silent: Arc<AtomicBool>,
}

/// What goes silent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    Connection,
    Server,
}

impl SilentProxy {
    /// Before the server at this address. A connection on which these bytes are sent hears nothing any more.
    pub fn start(server: (String, u16), words: &'static [u8]) -> Self {
        Self::of(server, words, Silence::Connection)
    }

    pub fn of((host, port): (String, u16), words: &'static [u8], silence: Silence) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let silent = Arc::new(AtomicBool::new(false));
        let ever = Arc::clone(&silent);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((host.as_str(), port)) else {
                    continue;
                };
                pass(client, server, words, &ever, silence);
            }
        });
        Self { port: own, silent }
    }

    /// The same URL, with this proxy's address, and without encryption: what is said must be heard.
    pub fn before(&self, url: &str) -> String {
        let (login, place) = url.rsplit_once('@').unwrap();
        let (_, database) = place.split_once('/').unwrap();
        format!("{login}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Whether any connection has gone silent.
    pub fn was_silent(&self) -> bool {
        self.silent.load(Ordering::SeqCst)
    }
}

/// Both directions, each in a thread that ends with its connection.
fn pass(client: TcpStream, server: TcpStream, words: &'static [u8], ever: &Arc<AtomicBool>, silence: Silence) {
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (mut from_server, mut to_client) = (server, client);
    let silent = match silence {
        Silence::Connection => Arc::new(AtomicBool::new(false)),
        Silence::Server => Arc::clone(ever),
    };
    let (here, ever) = (Arc::clone(&silent), Arc::clone(ever));
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_client.read(&mut buffer) {
            if buffer[..count].windows(words.len()).any(|window| window == words) {
                here.store(true, Ordering::SeqCst);
                ever.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        drop(to_server.shutdown(Shutdown::Both));
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_server.read(&mut buffer) {
            if !silent.load(Ordering::SeqCst) && to_client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // A line that has died tells neither end.
        if !silent.load(Ordering::SeqCst) {
            drop(to_client.shutdown(Shutdown::Both));
        }
    });
}
