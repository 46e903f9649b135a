//! Checks of the server, and of what this role may read in it.

use super::{Check, Checkup, increments};
use crate::format::Format;
use crate::postgres::Omission;
use crate::postgres::{FOREIGN_TABLE, Session, Unreadable, UnreadableKind};
use crate::units::{count, human_bytes};

/// The oldest supported major. PostgreSQL's own project supports only newer ones.
const OLDEST_MAJOR: u32 = 12;
/// Clocks that differ by more than this make leases fail and mislead people who read times.
pub(super) const SKEW_SECONDS: f64 = 30.0;
/// The size of the log kept by an idle slot from which `doctor` warns.
const MUCH_LOG: u64 = 1 << 30;

/// Returns the size of the tables.
pub(super) async fn check(session: &Session, checkup: &Checkup<'_>, checks: &mut Vec<Check>) -> Option<u64> {
    checks.push(server(session));
    checks.push(replication(session).await);
    checks.push(clock(session, checkup).await);
    let privileges = privileges(session).await;
    let left_out = left_out(session, checkup.settings.format, &privileges.objects).await;
    checks.extend([privileges, left_out]);
    checks.extend(increments::check(session, checkup).await);
    let bytes = match session.size().await {
        Ok(size) => {
            let whole = size.database.map_or(String::new(), |bytes| {
                format!(" of the database's {} on disk", human_bytes(bytes))
            });
            checks.push(Check::ok(
                "size",
                format!("the tables take {}{whole}", human_bytes(size.tables)),
            ));
            Some(size.tables)
        }
        Err(error) => {
            checks.push(Check::lacking("size", &error));
            None
        }
    };
    // Last, since it opens a transaction.
    let snapshot = match session.export_snapshot().await {
        Ok(_) => session.another_can_be_opened().await,
        Err(error) => Err(error),
    };
    checks.push(match snapshot {
        Ok(()) => Check::ok(
            "snapshot",
            "one can be exported, and a second session can be opened: no pooler is between pgstow and the server",
        ),
        Err(error) => Check::failed("snapshot", &error),
    });
    bytes
}

fn server(session: &Session) -> Check {
    const NAME: &str = "server";
    let server = session.server();
    let detail = format!(
        "PostgreSQL {}, database {} in {}",
        server.version, server.database, server.encoding
    );
    if server.major < OLDEST_MAJOR {
        let detail = format!("{detail}: {OLDEST_MAJOR} is the oldest that is supported");
        return Check::failed(
            NAME,
            &crate::error::Error::new(crate::error::Code::Version, detail).hint("upgrade it"),
        );
    }
    if server.in_recovery {
        return Check::warning(
            NAME,
            format!("{detail}, a standby: changes that it must replay can cancel a long dump"),
            "set hot_standby_feedback = on, or raise max_standby_streaming_delay, or back up the primary",
        );
    }
    Check::ok(NAME, format!("{detail}, a primary"))
}

async fn replication(session: &Session) -> Check {
    const NAME: &str = "wal";
    let replication = match session.replication().await {
        Ok(replication) => replication,
        Err(error) => return Check::lacking(NAME, &error),
    };
    let detail = format!(
        "wal_level {}, archive_mode {}, {} of {} in use, {}",
        replication.wal_level,
        replication.archive_mode,
        replication.slots,
        count(replication.most_slots, "slot"),
        count(replication.standbys, "standby server")
    );
    match replication.idle_slots.first() {
        Some((slot, bytes)) if *bytes > MUCH_LOG => Check::warning(
            NAME,
            format!(
                "{detail}; slot {slot} keeps {} of log, and no client reads it",
                human_bytes(*bytes)
            ),
            "restart the client of the slot, or drop the slot: SELECT pg_catalog.pg_drop_replication_slot('…')",
        ),
        _ => Check::ok(NAME, detail),
    }
}

async fn clock(session: &Session, checkup: &Checkup<'_>) -> Check {
    let before = (checkup.clock)();
    match session.clock().await {
        Ok(theirs) => {
            let after = (checkup.clock)();
            let seconds = |at: jiff::Timestamp| at.as_millisecond() as f64 / 1000.0;
            // pgstow's time for this answer lies between the two.
            let ours = theirs.clamp(seconds(before), seconds(after));
            skew("clock", "the server's clock", theirs - ours)
        }
        Err(error) => Check::lacking("clock", &error),
    }
}

/// `ahead`: how far the other clock is ahead of this machine's, in seconds.
pub(super) fn skew(name: &'static str, whose: &str, ahead: f64) -> Check {
    if ahead.abs() <= SKEW_SECONDS {
        return Check::ok(name, format!("{whose} agrees with ours"));
    }
    let way = if ahead > 0.0 { "ahead of" } else { "behind" };
    Check::warning(
        name,
        format!("{whose} is {:.0} s {way} ours", ahead.abs()),
        "set the clocks by NTP: ids, ages and leases depend on them",
    )
}

async fn privileges(session: &Session) -> Check {
    const NAME: &str = "privileges";
    let unreadable = match session.unreadable_tables().await {
        Ok(unreadable) => unreadable,
        Err(error) => return Check::failed(NAME, &error),
    };
    let filtered = match session.rls_tables().await {
        Ok(filtered) => filtered,
        Err(error) => return Check::failed(NAME, &error),
    };
    match session.check_privileges().await {
        Ok(()) => {
            let detail = format!(
                "{} may read every table, sequence and large object",
                session.server().user
            );
            match session.perhaps_needed_functions().await {
                Ok(closed) if closed.is_empty() => Check::ok(NAME, detail),
                Ok(closed) => Check::warning(
                    NAME,
                    format!(
                        "{detail}, but it may not call {} of PostgreSQL's own that a backup of other objects may need",
                        count(closed.len(), "function")
                    ),
                    "GRANT EXECUTE ON FUNCTION … TO the role, for each listed function, or try a backup",
                )
                .naming(closed.iter().map(|name| format!("function {name}")).collect()),
                Err(error) => Check::lacking(NAME, &error),
            }
        }
        Err(error) => {
            let hidden = filtered.into_iter().map(|name| format!("row-level security of {name}"));
            let names = unreadable.iter().map(called).chain(hidden).collect();
            Check::failed(NAME, &error).naming(names)
        }
    }
}

/// Objects that pg_dump leaves out, mostly without a message, except those already in `told`.
async fn left_out(session: &Session, format: Format, told: &[String]) -> Check {
    const NAME: &str = "left_out";
    let (mut found, of_roles) = match (session.left_out(format).await, session.left_out_of_roles().await) {
        (Ok(found), Ok(of_roles)) => (found, of_roles),
        (Err(error), _) | (_, Err(error)) => return Check::lacking(NAME, &error),
    };
    found.extend(of_roles);
    let all = found.len();
    let name = |one: &Omission| format!("{} {}", one.kind.replace('_', " "), one.name);
    found.retain(|one| !told.contains(&name(one)));
    if found.is_empty() && all > 0 {
        return Check::ok(NAME, "only objects that the role may not read, listed under privileges");
    }
    let objects: Vec<String> = found.iter().map(|one| format!("{}: {}", name(one), one.why)).collect();
    if found.iter().all(|one| one.kind == FOREIGN_TABLE) {
        let detail = match found.len() {
            0 => "nothing of the database would be left out".to_owned(),
            1 => "only the rows of 1 foreign table, which are on another server".to_owned(),
            many => format!("only the rows of {many} foreign tables, which are on other servers"),
        };
        return Check::ok(NAME, detail).naming(objects);
    }
    Check::warning(
        NAME,
        "a backup will lack the objects listed here",
        "back up the primary as a superuser, which sees everything, or save by other means the objects that you need",
    )
    .naming(objects)
}

fn called(unreadable: &Unreadable) -> String {
    let kind = match unreadable.kind {
        UnreadableKind::Table => "table",
        UnreadableKind::Sequence => "sequence",
        UnreadableKind::LargeObject => "large object",
    };
    format!("{kind} {}", unreadable.name)
}

#[cfg(test)]
mod tests {
    use super::super::CheckState;
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_in_its_direction() {
        assert_eq!(skew("clock", "it", -29.0).state, CheckState::Ok);
        assert!(skew("clock", "it", 90.0).detail.contains("90 s ahead of ours"));
        assert!(skew("clock", "it", -90.0).detail.contains("90 s behind ours"));
    }
}
