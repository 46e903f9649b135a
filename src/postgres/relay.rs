//! A relay to the server for programs whose libpq answers every question of a server (before 16): a socket in a
//! private folder. Behind it a [`Gate`] checks each of the server's questions before libpq gets it.
//!
//! pgstow's own session has logged in over an unencrypted connection without giving the password away. An attacker on
//! the network could wait for the next login, pg_dump's, and ask it for the password in clear text.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::authentication::{Gate, Methods, Refused};
use super::startup::keep_alive;

const BUFFER: usize = 256 << 10;

/// Dropping it refuses new clients; connected clients stay connected.
#[derive(Debug)]
pub(super) struct Relay {
    folder: PathBuf,
    listening: JoinHandle<()>,
}

impl Relay {
    /// Listens in this folder, which only this user can enter, with the socket name that libpq looks for.
    pub fn open(folder: &Path, server: SocketAddr, allowed: Methods) -> std::io::Result<Relay> {
        let listener = UnixListener::bind(folder.join(format!(".s.PGSQL.{}", server.port())))?;
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    // It ends when either side ends it; each side reports its own error.
                    let _ = pass(client, server, allowed).await;
                });
            }
        });
        Ok(Relay {
            folder: folder.to_owned(),
            listening,
        })
    }

    /// The value of libpq's `host`.
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

/// In the form of the server's own errors.
fn complaint(refused: Refused) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C28000\0M{refused}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX);
    [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()
}
