//! A way to the server for programs whose libpq answers whatever it is asked (before 16): a socket in
//! a folder of ours, and behind it the server, of which a [`Gate`] hears every question first.
//!
//! Our own session has logged in on the same open line without giving the password away. Somebody on
//! the network could wait for the next login, pg_dump's, and ask that for the password in clear text.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::authentication::{Gate, Methods, Refused};
use super::startup::keep_alive;

const BUFFER: usize = 256 << 10;

/// Lets nobody in any more when it is dropped; who is in, stays.
#[derive(Debug)]
pub(super) struct Relay {
    folder: PathBuf,
    listening: JoinHandle<()>,
}

impl Relay {
    /// Listens in this folder, which only we can enter, by the name that libpq looks for.
    pub fn open(folder: &Path, server: SocketAddr, allowed: Methods) -> std::io::Result<Relay> {
        let listener = UnixListener::bind(folder.join(format!(".s.PGSQL.{}", server.port())))?;
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    // It ends as one of the two ends it: each of them says so to its own side.
                    let _ = pass(client, server, allowed).await;
                });
            }
        });
        Ok(Relay {
            folder: folder.to_owned(),
            listening,
        })
    }

    /// The host for libpq.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn pass(client: UnixStream, server: SocketAddr, allowed: Methods) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    keep_alive(&server)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let back = async {
        let mut gate = Gate::new(allowed, true);
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = from_server.read(&mut buffer).await?;
            if count == 0 {
                return to_client.shutdown().await;
            }
            if let Err(refused) = gate.hear(&buffer[..count]) {
                to_client.write_all(&complaint(refused)).await?;
                return Err(refused.into());
            }
            to_client.write_all(&buffer[..count]).await?;
        }
    };
    tokio::try_join!(there, back).map(|_| ())
}

/// As the server itself would say it.
fn complaint(refused: Refused) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C28000\0M{refused}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX);
    [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()
}
