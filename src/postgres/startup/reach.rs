//! The sockets: a server's addresses, tried one after the other, or its socket file.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpStream, UnixStream};

use crate::error::{Code, Error, Result};
use crate::postgres::ConnectionInfo;

/// An idle session must live as long as the dump, through firewalls that drop quiet connections after a few minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A host that exists refuses the connection; a firewall does not answer.
const SILENCE: &str = "packets seem to be dropped on the way: a function or task must be in subnets that reach the \
                       database (its VPC), in a security group that the database's lets in on its port";

/// The result, if it comes in time; otherwise `CONN_ERR`.
pub(in crate::postgres) async fn within<F: Future>(limit: Duration, work: F) -> Result<F::Output> {
    tokio::time::timeout(limit, work).await.map_err(|_| {
        let text = format!("no answer within {} s", limit.as_secs());
        Error::new(Code::ConnErr, text)
    })
}

/// A connection to the first address that accepts one.
pub(super) async fn tcp(info: &ConnectionInfo, limit: Duration) -> Result<(TcpStream, SocketAddr)> {
    let mut last = None;
    for address in resolve(info, limit).await? {
        match within(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                keep_alive(&stream).map_err(|error| unreachable(&error))?;
                return Ok((stream, address));
            }
            Ok(Err(error)) => last = Some(unreachable(&error)),
            Err(silent) => last = Some(silent.hint(SILENCE)),
        }
    }
    Err(last.unwrap_or_else(|| Error::new(Code::ConnErr, "the host name has no address")))
}

/// A connection to a socket file, and the process that listens on it.
pub(super) async fn unix(info: &ConnectionInfo, limit: Duration) -> Result<(UnixStream, Option<i32>)> {
    let host = info.host.as_deref().unwrap_or_default();
    let path = Path::new(host).join(format!(".s.PGSQL.{}", info.port.unwrap_or_default()));
    let stream = within(limit, UnixStream::connect(&path))
        .await?
        .map_err(|error| unreachable(&error))?;
    let listener = sockopt::socket_peercred(&stream).ok();
    let listener = listener.map(|listener| listener.pid.as_raw_nonzero().get());
    Ok((stream, listener))
}

async fn resolve(info: &ConnectionInfo, limit: Duration) -> Result<Vec<SocketAddr>> {
    let host = info.host.as_deref().unwrap_or_default();
    let port = info.port.unwrap_or_default();
    if let Some(address) = info.params.get("hostaddr").and_then(|text| text.parse::<IpAddr>().ok()) {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    match within(limit, tokio::net::lookup_host((host, port))).await? {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) if host.contains([':', ' ']) => Err(Error::new(Code::ConnErr, "the host name cannot be resolved")
            .source(error)
            .hint(
                "set the host to a name or address alone, without spaces, and the port in DB_PORT, PGPORT or \
                 BACKUP_TARGET_PORT",
            )),
        Err(error) => Err(Error::new(Code::ConnErr, "the host name cannot be resolved")
            .source(error)
            .hint("check the host's spelling, and that this machine may ask the name server that knows it")),
    }
}

fn unreachable(error: &std::io::Error) -> Error {
    Error::new(Code::ConnErr, error.to_string())
}

pub(in crate::postgres) fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE / 4)?;
    Ok(())
}
