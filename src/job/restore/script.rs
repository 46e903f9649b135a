//! Restores a plain dump: one script for psql, checked before it runs, in one transaction.

mod checked;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::asked::of_definitions;
use super::ready::Target;
use crate::error::{Code, Error, Result};
use crate::format::script::Edit;
use crate::job::restore::RestoreRequest;
use crate::postgres::{self, ConnectionInfo, Passfile, Psql, Script, ScriptInput, TransactionEnd};
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::run::threads::apart;
use crate::settings;
use checked::Stored;
pub(crate) use checked::{Checked, check};

pub(crate) struct ScriptTarget<'a> {
    pub psql: &'a Psql,
    pub info: &'a ConnectionInfo,
    pub passfile: Option<&'a Passfile>,
    pub settings: &'a settings::Postgres,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

/// A script that did not run to its end, and the state of its transaction as the server reports it.
pub(crate) struct FailedScript {
    pub error: Error,
    pub end: TransactionEnd,
}

/// A script can only fill an empty database: other options are refused.
pub(super) async fn psql(target: &Target, request: &RestoreRequest, settings: &settings::Postgres) -> Result<Psql> {
    let refused = |option: &str| {
        Error::config(format!(
            "{option}: this backup is a plain SQL script, which can only be restored as a whole"
        ))
        .hint("restore all of it into a new database with --create, or make backups with --format custom")
    };
    let others = [
        (!request.tables.is_empty(), "--table"),
        (request.clean && !request.create, "--clean"),
        (!request.exclude.is_empty(), "--exclude"),
    ];
    for (asked, option) in others.into_iter().chain(of_definitions(request)) {
        if asked {
            return Err(refused(option));
        }
    }
    Psql::find(target.session.server().major, settings).await
}

/// Runs the script in one transaction. The object is read a second time. No byte that differs from the checked bytes
/// reaches psql, and the commit is sent only after all of it has matched.
pub(crate) async fn run(place: &ScriptTarget<'_>, checked: &Arc<Checked>) -> std::result::Result<(), FailedScript> {
    let transaction = Arc::new(AtomicI64::new(0));
    let Err(error) = feed_psql(place, checked, &transaction).await else {
        return Ok(());
    };
    let end = match transaction.load(Ordering::Relaxed) {
        0 => TransactionEnd::RolledBack,
        number => postgres::transaction_end(place.info, place.settings, number).await,
    };
    // A signal arrived just after the commit: psql's normal end proves that it was committed.
    match error {
        Ending::JustCommitted if end == TransactionEnd::Committed => Ok(()),
        Ending::JustCommitted => Err(FailedScript {
            error: Error::new(Code::RestoreErr, "psql ended without a commit"),
            end,
        }),
        Ending::Failed(error) => Err(FailedScript { error, end }),
    }
}

enum Ending {
    Failed(Error),
    JustCommitted,
}

async fn feed_psql(
    place: &ScriptTarget<'_>,
    checked: &Arc<Checked>,
    transaction: &Arc<AtomicI64>,
) -> std::result::Result<(), Ending> {
    let started = Script::start(place.psql, place.info, place.passfile, place.settings).await;
    let mut script = started.map_err(Ending::Failed)?;
    let Some(input) = script.take_input() else {
        return Err(Ending::Failed(Error::internal("psql's input was taken twice")));
    };
    let (stored, _reader) = checked.read(place.observer);
    let (passing, number) = (Arc::clone(checked), Arc::clone(transaction));
    let feeding = apart("feed", move || feed(&passing, stored, input, &number));
    let work = async {
        let fed = feeding.await?;
        match fed {
            Ok(()) => script.wait().await,
            Err(Unfed {
                why: Feeding::Error(error),
                input,
            }) => {
                script.stop().await;
                // The commit is sent only now.
                drop(input);
                Err(error)
            }
            Err(Unfed {
                why: Feeding::PsqlIsGone,
                ..
            }) => match script.wait().await {
                Err(told) => Err(told),
                Ok(()) => Err(Error::new(
                    Code::RestoreErr,
                    "psql ended before it had done all of its input",
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
        Ok(()) if place.stop.reason().is_some() => Err(Ending::JustCommitted),
        _ => Err(Ending::Failed(error)),
    }
}

enum Feeding {
    Error(Error),
    /// psql has ended, and its own error says why.
    PsqlIsGone,
}

/// If feeding failed, the pipe is returned still open: closing it would look to psql like the script's end.
struct Unfed {
    why: Feeding,
    input: Option<Box<ScriptInput>>,
}

impl From<Error> for Feeding {
    fn from(error: Error) -> Self {
        Feeding::Error(error)
    }
}

impl From<io::Error> for Feeding {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Feeding::PsqlIsGone,
            _ => Feeding::Error(Error::new(Code::RestoreErr, "feeding psql failed").source(error)),
        }
    }
}

fn feed(
    checked: &Checked,
    mut stored: Stored,
    mut input: ScriptInput,
    transaction: &AtomicI64,
) -> std::result::Result<(), Unfed> {
    let passed = (|| -> std::result::Result<i64, Feeding> {
        let number = input.begin()?;
        transaction.store(number, Ordering::Relaxed);
        let (mut offset, mut edits) = (0, &checked.edits[..]);
        checked.each(&mut stored, |mut piece| -> std::result::Result<(), Feeding> {
            write_edited(&mut piece, offset, &mut edits, &mut input, ScriptInput::insert)?;
            offset += piece.len() as u64;
            Ok(())
        })?;
        Ok(number)
    })();
    match passed {
        Ok(number) => input.commit(number).map_err(|error| Unfed {
            why: error.into(),
            input: None,
        }),
        Err(why) => Err(Unfed {
            why,
            input: Some(Box::new(input)),
        }),
    }
}

/// Writes a piece that begins at `offset` of the script, with the edits that fall into it.
fn write_edited<W: Write>(
    piece: &mut [u8],
    offset: u64,
    edits: &mut &[Edit],
    to: &mut W,
    insert: impl Fn(&mut W, &str) -> io::Result<()>,
) -> io::Result<()> {
    let end = offset + piece.len() as u64;
    // No piece is longer than a `usize`.
    let within = |place: u64| usize::try_from(place.clamp(offset, end) - offset).unwrap_or(usize::MAX);
    let mut written = 0;
    while let Some((edit, rest)) = edits.split_first().filter(|(edit, _)| edit.place() < end) {
        match edit {
            Edit::Blank(range) => {
                let bytes = piece[within(range.start)..within(range.end)].iter_mut();
                bytes.filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
                if range.end > end {
                    break;
                }
            }
            Edit::Insert(at, sql) => {
                let at = within(*at);
                to.write_all(&piece[written..at])?;
                insert(to, sql)?;
                written = at;
            }
        }
        *edits = rest;
    }
    to.write_all(&piece[written..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_done_wherever_the_pieces_are_cut() {
        let script = b"one\ntwo three\nfour";
        let edits = [
            Edit::Blank(1..5),
            Edit::Insert(8, "SET x;"),
            Edit::Insert(8, "SET y;"),
            Edit::Blank(14..18),
        ];
        for size in 1..=script.len() {
            let (mut left, mut out) = (&edits[..], Vec::new());
            for (number, piece) in script.chunks(size).enumerate() {
                let offset = (number * size) as u64;
                let insert = |out: &mut Vec<u8>, sql: &str| out.write_all(sql.as_bytes());
                write_edited(&mut piece.to_vec(), offset, &mut left, &mut out, insert).unwrap();
            }
            assert_eq!(
                String::from_utf8(out).unwrap(),
                "o  \n wo SET x;SET y;three\n    ",
                "{size}"
            );
            assert!(left.is_empty());
        }
    }
}
