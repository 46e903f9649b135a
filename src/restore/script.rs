//! A plain dump: one script for psql, in one transaction.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::ready::Target;
use crate::command::RestoreRequest;
use crate::error::{Code, Error, Result};
use crate::manifest::{Algorithm, Manifest, role};
use crate::postgres::{ConnectionInfo, Passfile, Psql, Script};
use crate::progress::Observer;
use crate::settings;
use crate::stop::Stop;
use crate::store::Store;
use crate::store::reading::{BlockingReading, Reading, our_error};
use crate::stored_archive::file_of;

const PIECE: usize = 1 << 20;
/// The transaction is ours, not psql's: that one would be committed at whatever end its input has,
/// and when we are killed, that end may reach psql before the kernel's signal does.
const BEGIN: &[u8] = b"BEGIN;\n";
const COMMIT: &[u8] = b"\nCOMMIT;\n";
/// Our frames hold 2 MiB; see [`crate::archive::Unpack`].
const ZSTD_WINDOW_LOG: u32 = 24;

pub(crate) struct Place<'a> {
    pub psql: &'a Psql,
    pub info: &'a ConnectionInfo,
    pub passfile: Option<&'a Passfile>,
    pub settings: &'a settings::Postgres,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

/// A script can do one thing: fill an empty database.
pub(super) async fn psql(target: &Target, request: &RestoreRequest, settings: &settings::Postgres) -> Result<Psql> {
    let refused = |option: &str| {
        Error::config(format!(
            "{option}: this backup is a plain SQL script, which knows all or nothing"
        ))
        .hint("restore all of it into a new database with --create, or make backups with --format custom")
    };
    for (asked, option) in [
        (!request.tables.is_empty(), "--table"),
        (request.clean && !request.create, "--clean"),
        (request.no_owner, "--no-owner"),
        (request.no_privileges, "--no-privileges"),
        (request.no_tablespaces, "--no-tablespaces"),
    ] {
        if asked {
            return Err(refused(option));
        }
    }
    Psql::find(target.session.server().major, settings).await
}

/// Runs the script in one transaction. Its last piece and the commit are handed over when the whole
/// file has been found to be what the manifest says.
pub(crate) async fn run(place: &Place<'_>, store: &Arc<dyn Store>, manifest: &Manifest) -> Result<()> {
    let file = file_of(manifest, role::SQL)?.clone();
    let key = manifest.id.key(&file.name);
    let algorithm = manifest.compression.algorithm;
    let mut script = Script::start(place.psql, place.info, place.passfile, place.settings, false)?;
    let Some(stdin) = script.take_stdin() else {
        return Err(Error::internal("psql's input was taken twice"));
    };
    place.observer.estimate(file.bytes);
    let reading = Reading::start(Arc::clone(store), key.clone(), 0..file.bytes).into_blocking();
    let observer = Arc::clone(place.observer);
    let feeding = tokio::task::spawn_blocking(move || {
        let digested = Digested {
            inner: reading,
            sha256: Sha256::new(),
            observer,
        };
        feed(digested, algorithm, &file.sha256, &key, stdin)
    });
    let work = async {
        let (stdin, fed) = feeding
            .await
            .map_err(|error| Error::internal("the thread that feeds psql died").source(error))?;
        match fed {
            Ok(()) => {
                drop(stdin);
                script.wait().await
            }
            Err(Some(error)) => {
                script.stop().await;
                drop(stdin);
                Err(error)
            }
            Err(None) => match script.wait().await {
                Err(told) => Err(told),
                Ok(()) => Err(Error::new(
                    Code::RestoreErr,
                    "psql ended before it had read all of its input",
                )),
            },
        }
    };
    let result = tokio::select! {
        biased;
        reason = place.stop.requested() => Err(reason.into()),
        result = work => result,
    };
    let Err(error) = result else { return Ok(()) };
    script.stop().await;
    match script.wait().await {
        // The signal came when it had just committed.
        Ok(()) if place.stop.reason().is_some() => Ok(()),
        _ => Err(error),
    }
}

/// Gives the pipe back open. An error of `None` is psql's own end.
fn feed(
    mut stored: Digested,
    algorithm: Algorithm,
    sha256: &str,
    key: &str,
    mut stdin: File,
) -> (File, std::result::Result<(), Option<Error>>) {
    let differs = |what: String| Error::new(Code::Integrity, format!("{key} {what}"));
    let fed = (|| -> std::result::Result<(), Option<Error>> {
        let telling = |error: io::Error| match error.kind() {
            io::ErrorKind::BrokenPipe => None,
            _ => Some(Error::new(Code::RestoreErr, "feeding psql failed").source(error)),
        };
        stdin.write_all(BEGIN).map_err(telling)?;
        let held = match algorithm {
            Algorithm::None => pass(&mut stored, &mut stdin),
            Algorithm::Gzip => pass(&mut MultiGzDecoder::new(&mut stored), &mut stdin),
            Algorithm::Zstd => {
                let decoder = zstd::stream::read::Decoder::new(&mut stored);
                let decoder = decoder.and_then(|mut decoder| decoder.window_log_max(ZSTD_WINDOW_LOG).map(|()| decoder));
                match decoder {
                    Ok(mut decoder) => pass(&mut decoder, &mut stdin),
                    Err(error) => Err(Passing::Reading(error)),
                }
            }
        };
        let held = held.map_err(|failed| match failed {
            Passing::Writing(error) => telling(error),
            Passing::Reading(error) => Some(match our_error(error) {
                Ok(ours) => ours,
                Err(error) => differs(format!("does not decompress: {error}")),
            }),
        })?;
        let found = hex::encode(stored.sha256.finalize());
        if found != sha256 {
            return Err(Some(differs(format!(
                "has the SHA-256 {found}, the manifest says {sha256}"
            ))));
        }
        stdin.write_all(&[&held, COMMIT].concat()).map_err(telling)
    })();
    (stdin, fed)
}

enum Passing {
    Reading(io::Error),
    Writing(io::Error),
}

/// Passes everything on but the last piece, which it gives back.
fn pass(from: &mut impl Read, to: &mut impl Write) -> std::result::Result<Vec<u8>, Passing> {
    let mut held = Vec::new();
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        Read::by_ref(from)
            .take(PIECE as u64)
            .read_to_end(&mut piece)
            .map_err(Passing::Reading)?;
        if piece.is_empty() {
            return Ok(held);
        }
        to.write_all(&held).map_err(Passing::Writing)?;
        held = piece;
    }
}

struct Digested {
    inner: BlockingReading,
    sha256: Sha256,
    observer: Arc<dyn Observer>,
}

impl Read for Digested {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.sha256.update(&buffer[..count]);
        self.observer.bytes_read(count as u64);
        Ok(count)
    }
}
