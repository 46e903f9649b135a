//! The connection to the database, step by step, so that the first step that fails is the one to correct.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::{Check, Checkup, database, programs};
use crate::error::{Code, Error, Result};
use crate::outside::secrets::Credentials;
use crate::postgres::{ConnectionInfo, Session, TlsVerification};
use crate::run::private_folder::{PrivateFolder, answering};
use crate::settings::CredentialSource;

/// Checks that are possible only after the login.
const AFTER_LOGIN: [&str; 7] = [
    "tls",
    "server",
    "privileges",
    "snapshot",
    "clock",
    "pg_dump",
    "pg_restore",
];

pub(super) struct FoundSource {
    pub checks: Vec<Check>,
    /// The size of the tables.
    pub bytes: Option<u64>,
}

pub(super) async fn check(checkup: &Checkup<'_>) -> FoundSource {
    let mut checks = vec![temporary_folder(checkup).await];
    let mut bytes = None;
    match way(checkup, &mut checks).await {
        Some(session) => {
            bytes = database::check(&session, checkup, &mut checks).await;
            let size = session.size().await.ok();
            let whole = size.map(|size| size.database.unwrap_or(size.tables));
            let source = programs::DatabaseFacts {
                major: session.server().major,
                bytes: whole,
                locale: session.locale_info().await,
            };
            checks.extend(programs::check(&source, checkup.settings).await);
            session.close().await;
        }
        None => {
            let skipped = AFTER_LOGIN
                .iter()
                .map(|name| Check::skipped(name, "there is no connection"));
            checks.extend(skipped);
        }
    }
    FoundSource { checks, bytes }
}

async fn temporary_folder(checkup: &Checkup<'_>) -> Check {
    const NAME: &str = "temp";
    let temp = &checkup.settings.postgres.temp;
    match answering(temp, PrivateFolder::create).await {
        Ok(_) => Check::ok(NAME, format!("{} takes a private folder", temp.display())),
        Err(error) => Check::failed(NAME, &error),
    }
}

/// A session, or the checks that say why there is none.
async fn way(checkup: &Checkup<'_>, checks: &mut Vec<Check>) -> Option<Session> {
    let Some(credentials) = checkup.credentials else {
        let error = Error::config("no database is set: DATABASE_URL, DB_HOST and the like, or BACKUP_SECRET_ID");
        checks.push(Check::failed(
            "source",
            &error.hint("give --database-url postgresql://user@host/database, or --secret-id"),
        ));
        return None;
    };
    let info = match secret(checkup, credentials, checks).await {
        Ok(info) => info,
        Err(error) => {
            checks.push(Check::failed("secret", &error));
            return None;
        }
    };
    let limit = checkup.settings.postgres.connect_timeout;
    if !network(&info, limit, checks).await {
        return None;
    }
    let begun = Instant::now();
    match credentials.connect(&checkup.settings.postgres).await {
        Ok((_, session)) => {
            let (target, millis) = (session.info().target(), begun.elapsed().as_millis());
            checks.push(Check::ok("login", format!("{target}, in {millis} ms")));
            checks.push(tls(&session).await);
            Some(session)
        }
        Err(error) => {
            checks.push(Check::failed("login", &error));
            None
        }
    }
}

async fn secret(checkup: &Checkup<'_>, credentials: &Credentials, checks: &mut Vec<Check>) -> Result<ConnectionInfo> {
    let info = credentials.current().await?.settled()?;
    checks.push(match checkup.settings.source() {
        CredentialSource::Secret { id, .. } => Check::ok("secret", format!("`{id}` is read: {}", info.target())),
        _ => Check::skipped("secret", "the connection is given by settings"),
    });
    Ok(info)
}

/// Whether to try a login.
async fn network(info: &ConnectionInfo, limit: Duration, checks: &mut Vec<Check>) -> bool {
    if info.is_socket() {
        checks.push(Check::skipped("dns", "the host is a socket's folder"));
        checks.push(Check::skipped("tcp", "the host is a socket's folder"));
        return true;
    }
    let host = info.host.clone().unwrap_or_default();
    let port = info.port.unwrap_or_default();
    // If the settings also give an address, it is used instead of the name.
    let name = info.params.get("hostaddr").unwrap_or(&host).clone();
    let is_address = name.parse::<IpAddr>().is_ok();
    let found = tokio::time::timeout(limit, tokio::net::lookup_host((name.as_str(), port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            let error = Error::new(Code::ConnErr, format!("{name} cannot be resolved")).source(error);
            checks.push(Check::failed(
                "dns",
                &error.hint(
                    "check the spelling of the host, and that this machine can reach the name server that knows it",
                ),
            ));
            return false;
        }
        Err(_) => {
            let text = format!("{name}: the name server did not answer within {} s", limit.as_secs());
            checks.push(Check::failed("dns", &Error::new(Code::ConnErr, text)));
            return false;
        }
    };
    let list: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    checks.push(if is_address {
        Check::skipped("dns", "the host is an address")
    } else {
        Check::ok("dns", format!("{name} is {}", list.join(", ")))
    });
    let tcp = tcp(&addresses, limit).await;
    let reached = tcp.is_ok();
    checks.push(match tcp {
        Ok(detail) => Check::ok("tcp", detail),
        Err(error) => Check::failed("tcp", &error),
    });
    reached
}

async fn tcp(addresses: &[SocketAddr], limit: Duration) -> Result<String> {
    let mut refused = Vec::new();
    for address in addresses {
        let begun = Instant::now();
        let why = match tokio::time::timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(format!("{address} answers in {} ms", begun.elapsed().as_millis())),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", limit.as_secs()),
        };
        refused.push(format!("{address}: {why}"));
    }
    Err(Error::new(Code::ConnErr, refused.join("; ")))
}

async fn tls(session: &Session) -> Check {
    const NAME: &str = "tls";
    const VERIFY: &str = "set sslmode=verify-full and sslrootcert to the server's CA file (or `system`)";
    let local = session.info().is_socket() || {
        let address = session.info().params.get("hostaddr").and_then(|text| text.parse().ok());
        address.is_some_and(|address: IpAddr| address.is_loopback())
    };
    let encryption = match session.encryption().await {
        Ok(encryption) => encryption,
        Err(error) => return Check::lacking(NAME, &error),
    };
    let Some(line) = encryption else {
        let detail = "the connection is not encrypted";
        return if local {
            Check::ok(NAME, format!("{detail}, but it does not leave this machine"))
        } else {
            Check::warning(
                NAME,
                format!("{detail}: all rows cross the network in clear text"),
                VERIFY,
            )
        };
    };
    let detail = match &line.cipher {
        Some(cipher) => format!("{} with {cipher}", line.protocol),
        None => format!("{} to a pooler or proxy before the server", line.protocol),
    };
    match line.verified {
        TlsVerification::ChainAndName => Check::ok(NAME, format!("{detail}, certificate and name verified")),
        TlsVerification::Chain => Check::ok(NAME, format!("{detail}, certificate verified")),
        TlsVerification::Nothing if local => Check::ok(NAME, format!("{detail}, certificate not verified")),
        TlsVerification::Nothing => Check::warning(
            NAME,
            format!("{detail}, but the certificate was not verified: another server could answer"),
            VERIFY,
        ),
    }
}
