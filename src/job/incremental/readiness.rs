//! Whether increments can be made: facts of the server → problems, each with what mends it. A pure function, and the
//! trial of what only a trial shows.

use crate::error::{Code, Error, Result};
use crate::postgres::{Decoding, IdleTimeout, OLDEST_STREAMED, Session, StreamSource};
use crate::units::human_span;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    pub what: String,
    pub hint: String,
}

/// What a problem does to `incremental start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// It is refused, with this code.
    Refuses(Code),
    /// It is refused unless the user accepts a slot without limit.
    Unbounded,
    /// It is only reported.
    Warns,
}

impl Problem {
    fn refusing(code: Code, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind: ProblemKind::Refuses(code),
            what: what.into(),
            hint: hint.into(),
        }
    }
}

/// `has_slot`: the slot exists already, so none has to be free.
pub fn problems_of(session: &Session, found: &Decoding, has_slot: bool) -> Vec<Problem> {
    let server = session.server();
    let mut problems = Vec::new();
    if server.major < OLDEST_STREAMED {
        let what = format!(
            "the server is PostgreSQL {}; increments need {OLDEST_STREAMED} or newer",
            server.version
        );
        problems.push(Problem::refusing(
            Code::Version,
            what,
            "upgrade the server, or make full backups only",
        ));
    }
    if server.in_recovery {
        problems.push(Problem::refusing(
            Code::Config,
            "the server is a standby, which can have neither publications nor a slot for increments",
            "connect to the primary (target_session_attrs=read-write finds it among several hosts)",
        ));
    }
    problems.extend(of_settings(found, has_slot));
    let naming = |hint: &str| session.info().naming_the_role(hint);
    if !found.may_replicate {
        problems.push(Problem::refusing(
            Code::Permission,
            format!(
                "the role {} may not read the server's log: it lacks REPLICATION",
                server.user
            ),
            naming(found.service.mend_privilege()),
        ));
    }
    problems
}

fn of_settings(found: &Decoding, has_slot: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let by = found.service.ways_to_set();
    if found.wal_level != "logical" {
        problems.push(Problem::refusing(
            Code::Config,
            format!("the server's wal_level is {}; increments need logical", found.wal_level),
            found.service.mend_wal_level(),
        ));
    }
    if !has_slot && found.slots >= found.most_slots {
        problems.push(Problem::refusing(
            Code::Slot,
            format!("all {} replication slots of the server are in use", found.most_slots),
            format!("raise max_replication_slots with {by} and restart, or drop slots that no program needs"),
        ));
    }
    if found.senders >= found.most_senders {
        problems.push(Problem::refusing(
            Code::Config,
            format!("all {} senders of the server's log are in use", found.most_senders),
            format!("raise max_wal_senders with {by}, and restart the server"),
        ));
    }
    if found.most_kept_bytes.is_none() {
        problems.push(Problem {
            kind: ProblemKind::Unbounded,
            what:
                "max_slot_wal_keep_size is -1: if no run reads the slot for long, the server keeps its log until the \
                   disk is full, and then stops"
                    .into(),
            hint: format!(
                "set max_slot_wal_keep_size with {by} to the space that the log may take (such as 20GB), or give \
                 --accept-unbounded-wal"
            ),
        });
    }
    if let IdleTimeout::After(timeout) = found.idle_timeout {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        problems.push(Problem {
            kind: ProblemKind::Warns,
            what: format!(
                "idle_replication_slot_timeout is {}: the server gives the slot up if no run reads it for so long, and the \
                 next run must then make a full backup",
                human_span(seconds)
            ),
            hint: "set it to at least three times the interval of the increments, or to 0".into(),
        });
    }
    problems
}

/// Opens what reads the log: a pooler, or a rule of pg_hba.conf, shows only then.
pub async fn try_replication(session: &Session) -> Result<StreamSource> {
    let mut replication = session.open_replication().await.map_err(|error| {
        let hint = "increments read the server's log over a session of their own: connect to the server itself, not to \
                    a pooler or proxy; pg_hba.conf must let the role log in to this database";
        match error.code() {
            Code::ConnErr => error.hint(hint),
            _ => error,
        }
    })?;
    let source = replication.identify().await;
    replication.close().await;
    source
}

/// The first problem that refuses a start, with the others attached.
pub(super) fn refusal(problems: &[Problem], accept_unbounded_wal: bool) -> Option<Error> {
    let errors = problems.iter().filter_map(|problem| {
        let code = match problem.kind {
            ProblemKind::Refuses(code) => code,
            ProblemKind::Unbounded if !accept_unbounded_wal => Code::Config,
            ProblemKind::Unbounded | ProblemKind::Warns => return None,
        };
        Some(Error::new(code, problem.what.clone()).hint(problem.hint.clone()))
    });
    Error::first_of(errors)
}

/// What is to be told although a start is not refused.
pub(super) fn warnings(problems: &[Problem]) -> Vec<String> {
    let told = problems
        .iter()
        .filter(|problem| !matches!(problem.kind, ProblemKind::Refuses(_)));
    told.map(|problem| format!("{}; {}", problem.what, problem.hint))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::postgres::Service;

    fn good() -> Decoding {
        Decoding {
            service: Service::Plain,
            wal_level: "logical".into(),
            slots: 1,
            most_slots: 2,
            senders: 0,
            most_senders: 1,
            most_kept_bytes: Some(1 << 30),
            idle_timeout: IdleTimeout::Never,
            may_replicate: true,
            may_create: true,
        }
    }

    #[test]
    fn each_setting_that_is_in_the_way_is_named_with_its_mend() {
        assert_eq!(of_settings(&good(), false), []);
        let full = Decoding { slots: 2, ..good() };
        assert_eq!(of_settings(&full, false).len(), 1);
        assert_eq!(of_settings(&full, true), []);
        let rds = Decoding {
            service: Service::Rds,
            wal_level: "replica".into(),
            ..good()
        };
        assert!(of_settings(&rds, false)[0].hint.contains("rds.logical_replication"));
        let unbounded = of_settings(
            &Decoding {
                most_kept_bytes: None,
                idle_timeout: IdleTimeout::After(Duration::from_secs(3600)),
                ..good()
            },
            false,
        );
        assert!(
            refusal(&unbounded, false)
                .unwrap()
                .hint_text()
                .contains("--accept-unbounded-wal")
        );
        assert!(refusal(&unbounded, true).is_none());
        assert_eq!(warnings(&unbounded).len(), 2);
    }
}
