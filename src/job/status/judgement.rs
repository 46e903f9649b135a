//! The problems that need a person: plain sentences, each with what to do.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::databases::{DatabaseStatus, sum_up};
use super::stores::{Drift, SeenStore};
use super::{Inquiry, seconds};
use crate::repository::backup_id::{BackupId, is_ahead, lease_key_of};
use crate::repository::catalog::Overview;
use crate::repository::lease::LeaseState;
use crate::repository::retention::{PENDING_DAYS, Retention, days_kept};
use crate::repository::signature::SignatureState;
use crate::repository::verification::{Verdict, VerificationOutcome, VerificationStatus};
use crate::units::{count, human_bytes, human_span, some_of};

/// The most sentences of one sort about one store: a thousand broken manifests have one cause.
const EACH: usize = 10;
/// The most databases in a sentence.
const NAMED: usize = 5;
/// The longest lease that a setting allows.
const LONGEST_LEASE: SignedDuration = SignedDuration::from_hours(7 * 24);

pub(super) fn problems(inquiry: &Inquiry<'_>, stores: &[SeenStore], databases: &[DatabaseStatus]) -> Vec<String> {
    let mut problems = Vec::new();
    for store in stores {
        if let Some(error) = &store.status.error {
            let (url, error, hint) = (&store.status.url, &error.message, &error.hint);
            problems.push(match error.contains(url.as_str()) {
                true => format!("{error}: {hint}"),
                false => format!("the store {url} cannot be used: {error}: {hint}"),
            });
        }
    }
    let reachable: Vec<&SeenStore> = stores.iter().filter(|store| store.status.reachable).collect();
    emptied(&reachable, &mut problems);
    if let Some(first) = reachable.first() {
        of_databases(inquiry, first, databases, &mut problems);
    }
    for copy in reachable.iter().skip(1) {
        of_copy(copy, databases, inquiry.now, &mut problems);
    }
    for store in reachable {
        of_backups(store, &inquiry.settings.retention, inquiry.now, &mut problems);
        of_signatures(store, &mut problems);
        of_store(store, databases, inquiry.now, &mut problems);
    }
    problems
}

/// A store without backups of a database, although manifests in other stores say that it has some.
fn emptied(stores: &[&SeenStore], problems: &mut Vec<String>) {
    for store in stores {
        let url = &store.status.url;
        let held = stores
            .iter()
            .flat_map(|other| &other.backups)
            .filter(|one| one.figures().is_some_and(|figures| figures.stores.contains(url)))
            .map(|one| one.id().database());
        let held: BTreeSet<&str> = held.collect();
        for database in held {
            if !store.backups.iter().any(|one| one.id().database() == database) {
                problems.push(format!(
                    "{url} has no backup of database {database:?}, but the manifests in another store say that it had \
                     some: {} make no backup there before you know",
                    match is_folder(store) {
                        true => "is its disk mounted?",
                        false => "is it still the same bucket?",
                    }
                ));
            }
        }
    }
}

fn is_folder(store: &SeenStore) -> bool {
    !store.has_lifecycle && store.status.url.starts_with('/')
}

fn of_databases(inquiry: &Inquiry<'_>, store: &SeenStore, databases: &[DatabaseStatus], problems: &mut Vec<String>) {
    let url = &store.status.url;
    let where_else = match is_folder(store) {
        true => "check whether its disk is mounted",
        false => "correct --store, including its prefix",
    };
    let expected = inquiry.database.as_ref().or(inquiry.source.as_ref());
    match expected {
        Some(name) if !databases.iter().any(|one| one.database == *name) => {
            let there = databases.iter().map(|one| one.database.as_str());
            let there: Vec<&str> = there.chain(store.others.iter().map(String::as_str)).collect();
            problems.push(match there.as_slice() {
                [] => format!(
                    "no backup yet of database {name:?} in {url}: if there should be some, {where_else}; otherwise make \
                     one with `pgstow backup`"
                ),
                there => format!(
                    "no backup yet of database {name:?} in {url}, which has backups of {}: if there should be some, check \
                     the name of the database there; otherwise make one with `pgstow backup`",
                    some_of(there, NAMED)
                ),
            });
        }
        None if databases.is_empty() => {
            problems.push(format!(
                "no backup yet in {url}: if there should be some, {where_else}; otherwise make one with `pgstow backup`"
            ));
        }
        _ => {}
    }
    let limit = seconds(inquiry.settings.max_age);
    for database in databases {
        problems.extend(of_last_good(database, url, limit));
        of_increments(inquiry, database, problems);
    }
}

/// Whether the last good backup is not older than `limit` seconds.
fn of_last_good(database: &DatabaseStatus, url: &str, limit: i64) -> Option<String> {
    let name = &database.database;
    match &database.last_good {
        None if database.archived > 0 => Some(format!(
            "database {name:?} has {} in {url}, but no good one that can be read at once ({} in an archive class, which \
             does not mean that they are bad): make one with `pgstow backup`",
            count(database.backups, "backup"),
            database.archived
        )),
        None => Some(format!(
            "database {name:?} has {} in {url}, but {} good: make one with `pgstow backup` at once",
            count(database.backups, "backup"),
            if database.backups == 1 {
                "it is not"
            } else {
                "none of them is"
            }
        )),
        Some(last) if last.age_seconds > limit => Some(format!(
            "the last good backup of database {name:?}, {}, is {} old, more than {}: find out why none was made since, \
             and run `pgstow backup`",
            last.id,
            human_span(last.age_seconds),
            human_span(limit)
        )),
        Some(_) => None,
    }
}

/// Whether the moments of the span can be restored, up to a short while ago.
fn of_increments(inquiry: &Inquiry<'_>, database: &DatabaseStatus, problems: &mut Vec<String>) {
    let Some(increments) = &database.increments else { return };
    let name = &database.database;
    let limit = seconds(inquiry.settings.incremental_max_age);
    if increments.rpo_seconds > limit {
        problems.push(format!(
            "the increments of database {name:?} end {} ago, more than {}: later changes are in no backup, and the \
             server keeps its log for them; find out why none was made since {}, and run `pgstow backup --kind \
             incremental`; if no more are wanted, run `pgstow incremental stop`",
            human_span(increments.rpo_seconds),
            human_span(limit),
            increments.newest
        ));
    }
    if increments.window.is_none() {
        let why = increments
            .no_base
            .as_ref()
            .map_or(String::new(), |why| format!(" ({why})"));
        problems.push(format!(
            "no moment of the newest increments of database {name:?} can be restored, because no full backup can be \
             their base{why}: make one with `pgstow backup`"
        ));
    }
    let since = inquiry.settings.retention.begins(inquiry.now);
    let gaps = increments.gaps.iter().filter(|gap| gap.since >= since).rev();
    let gaps = gaps.map(|gap| {
        format!(
            "no moment can be restored between the increments {} and {} of database {name:?}: {}: find out what \
             happened; moments before and after can be restored as far as the window goes",
            gap.after, gap.before, gap.why
        )
    });
    few(gaps.collect(), "the store", problems);
}

/// A copy should hold the last good backup of the reference store.
fn of_copy(copy: &SeenStore, databases: &[DatabaseStatus], now: Timestamp, problems: &mut Vec<String>) {
    let here = sum_up(&copy.backups, now);
    for database in databases {
        let Some(last) = &database.last_good else { continue };
        let there = here.iter().find(|one| one.database == database.database);
        let newest = there.and_then(|one| one.last_good.as_ref());
        let has = match newest {
            Some(newest) if newest.id >= last.id => continue,
            Some(newest) => format!("its newest good one is {}", newest.id),
            None => "it has no good one".to_owned(),
        };
        problems.push(format!(
            "the copy {} lacks {}, {has}: see the warnings of the last backup",
            copy.status.url, last.id
        ));
    }
}

fn of_backups(store: &SeenStore, retention: &Retention, now: Timestamp, problems: &mut Vec<String>) {
    of_files(store, retention, now, problems);
    of_proofs(store, problems);
    of_chains(store, retention, now, problems);
    of_times(store, now, problems);
}

/// Backups that lack a file, or have one that cannot be read.
fn of_files(store: &SeenStore, retention: &Retention, now: Timestamp, problems: &mut Vec<String>) {
    let url = &store.status.url;
    let archived = |id: &BackupId| store.backups.iter().any(|one| one.id() == id && one.is_archived());
    let broken = store.status.broken.iter().map(|one| match archived(&one.id) {
        // The problem's own text says how to fetch it back.
        true => format!("{} in {url}: {}", one.id, one.problem),
        false => format!(
            "{} in {url}: {}: check the file; if the backup is useless, remove its folder",
            one.id, one.problem
        ),
    });
    few(broken.collect(), url, problems);
    // A bucket expires objects one by one, so an expired backup may have lost some files already.
    let expiring = |one: &Overview| {
        let days = one
            .figures()
            .map_or(u32::MAX, |figures| days_kept(retention, figures.tier));
        now.duration_since(one.id().timestamp()) > SignedDuration::from_hours(24 * i64::from(days))
    };
    let incomplete = store
        .backups
        .iter()
        .filter(|one| !one.lacks.is_empty() && !expiring(one));
    let incomplete = incomplete.map(|one| {
        format!(
            "{} in {url} lacks {}: it cannot be restored whole; find out who removed that, and do not rely on it",
            one.id(),
            one.lacks.join(", ")
        )
    });
    few(incomplete.collect(), url, problems);
}

/// Backups whose bytes or rows were found wrong, or that cannot be compared with their digest.
fn of_proofs(store: &SeenStore, problems: &mut Vec<String>) {
    let url = &store.status.url;
    let damaged = store.backups.iter().filter(|one| one.verdict() == Verdict::Damaged);
    let damaged = damaged.map(|one| {
        format!(
            "{} in {url} was found damaged: see its verification.json, do not rely on it, and make another",
            one.id()
        )
    });
    few(damaged.collect(), url, problems);
    let unsealed = store.backups.iter().filter_map(|one| {
        Some(format!(
            "{} in {url}: {}: find out who removed the file, and restore from it only with --expect-manifest",
            one.id(),
            one.unsealed.as_ref()?
        ))
    });
    few(unsealed.collect(), url, problems);
    let of_source = store.backups.iter().filter(|one| {
        let drill = one.verification.as_ref().and_then(|found| found.drill.as_ref());
        drill.is_some_and(VerificationOutcome::blames_the_source)
    });
    let of_source = of_source.map(|one| {
        format!(
            "the drill of {} in {url} found rows that the source itself should not hold: see its verification.json, \
             correct them in the source, and make another",
            one.id()
        )
    });
    few(of_source.collect(), url, problems);
}

/// Full backups to which the increments before them do not lead.
fn of_chains(store: &SeenStore, retention: &Retention, now: Timestamp, problems: &mut Vec<String>) {
    let url = &store.status.url;
    let begins = retention.begins(now);
    let unproved = store.backups.iter().filter(|one| {
        let chain = one.verification.as_ref().and_then(|found| found.chain.as_ref());
        let has_failed = chain.is_some_and(|chain| chain.status == VerificationStatus::Failed);
        has_failed && one.id().timestamp() >= begins
    });
    let unproved = unproved.map(|one| {
        format!(
            "the increments before {} in {url} do not lead to it: see its verification.json, restore no moment between it and \
             the full backup before it, and make another full backup",
            one.id()
        )
    });
    few(unproved.collect(), url, problems);
}

/// Backups and results with dates that cannot be right.
fn of_times(store: &SeenStore, now: Timestamp, problems: &mut Vec<String>) {
    let url = &store.status.url;
    let ahead = store.backups.iter().filter(|one| one.is_ahead(now));
    let ahead = ahead.map(|one| {
        format!(
            "{} in {url} is dated in the future, so it does not count: check the clocks, here and where backups are \
             made; if none of your runs made it, it is forged",
            one.id()
        )
    });
    few(ahead.collect(), url, problems);
    let odd = store.backups.iter().filter_map(|one| {
        let what = one.oddities().filter(|_| !one.is_ahead(now))?;
        let counts = if one.contradicts_itself() {
            "so it does not count"
        } else {
            "and its age is counted from then"
        };
        Some(format!(
            "{} in {url} {what}, {counts}: check the clock where backups are made, and make another",
            one.id()
        ))
    });
    few(odd.collect(), url, problems);
    let foretold = store.backups.iter().filter(|one| {
        let outcomes = one.verification.iter().flat_map(|found| [&found.verify, &found.drill]);
        outcomes.flatten().any(|outcome| is_ahead(outcome.at, now))
    });
    let foretold = foretold.map(|one| {
        format!(
            "the verification.json of {} in {url} has a date in the future, so it does not count: verify it again",
            one.id()
        )
    });
    few(foretold.collect(), url, problems);
}

/// Problems of signatures, if they are required. An unsigned backup from before the first signed one is not suspicious,
/// and is not listed; it still does not count as good.
fn of_signatures(store: &SeenStore, problems: &mut Vec<String>) {
    let url = &store.status.url;
    let forged = store.backups.iter().filter_map(|one| {
        Some(format!(
            "{} in {url}: {}: another person may have written to the store; find out who, and do not use this backup",
            one.id(),
            one.forgery()?
        ))
    });
    few(forged.collect(), url, problems);
    let first_signed = store.backups.iter().rev().find(|one| {
        let signature = one.signature.as_ref();
        signature.is_some_and(SignatureState::is_signed)
    });
    let since = |one: &&Overview| first_signed.is_some_and(|first| one.id().timestamp() > first.id().timestamp());
    let unsigned = store.backups.iter().filter(since);
    let unsigned = unsigned.filter(|one| one.signature == Some(SignatureState::Unsigned));
    let unsigned = unsigned.map(|one| {
        format!(
            "{} in {url} is not signed, but backups before it are: check whether its run had BACKUP_SIGN_KEY; if it \
             had, another person has written to the store",
            one.id()
        )
    });
    few(unsigned.collect(), url, problems);
    let doubtful = store.backups.iter().filter_map(|one| {
        Some(format!(
            "{} in {url}: {}: verify the backup again, with BACKUP_SIGN_KEY set",
            one.id(),
            one.doubtful.as_ref()?
        ))
    });
    few(doubtful.collect(), url, problems);
}

fn of_store(store: &SeenStore, databases: &[DatabaseStatus], now: Timestamp, problems: &mut Vec<String>) {
    let status = &store.status;
    let url = &status.url;
    // The next backup is about as large as the last one.
    let needed = databases
        .iter()
        .filter_map(|one| one.last_good.as_ref())
        .map(|last| last.bytes);
    if let (Some(disk), Some(needed)) = (status.disk, needed.max())
        && disk.free < needed
    {
        problems.push(format!(
            "the disk of {url} has {} free, but the last backup took {}: free some space, or keep fewer backups and \
             run `pgstow prune`",
            human_bytes(disk.free),
            human_bytes(needed)
        ));
    }
    if let Some(finding) = &store.expiry {
        let remedy = finding.remedy(|command| format!("run `{command}`"));
        problems.push(match &status.lifecycle {
            Some(Drift::Drifted { missing, different }) => format!(
                "the lifecycle rules of {url} are not those of the retention ({}): {}: {remedy}",
                [said("missing", missing), said("different", different)]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join("; "),
                finding.told
            ),
            _ => format!("in {url}, {}: {remedy}", finding.told),
        });
    }
    of_leases(store, now, problems);
    // In a bucket they have the tag `pending`, and its rules expire them.
    if !store.has_lifecycle {
        of_left_overs(store, now, problems);
    }
}

fn of_leases(store: &SeenStore, now: Timestamp, problems: &mut Vec<String>) {
    let status = &store.status;
    let url = &status.url;
    for error in &store.not_leases {
        problems.push(format!(
            "{error}: no backup can be made until then: {}",
            error.hint_text()
        ));
    }
    for lease in &status.leases {
        if let LeaseState::Held(hold) = &lease.seen
            && hold.until.duration_since(now) > LONGEST_LEASE
        {
            problems.push(format!(
                "the lease of database {:?} in {url} lasts until {:.0}, so a clock was wrong when it was written: remove \
                 {} when no backup is running",
                lease.database,
                hold.until,
                lease_key_of(&lease.database, lease.kind)
            ));
        }
    }
}

fn of_left_overs(store: &SeenStore, now: Timestamp, problems: &mut Vec<String>) {
    let status = &store.status;
    let url = &status.url;
    let old = status.left_overs.iter().filter(|one| {
        let at_work = status
            .leases
            .iter()
            .filter(|lease| lease.database == one.id.database() && lease.kind == one.id.kind())
            .any(|lease| matches!(lease.seen, LeaseState::Held(_)));
        let age = now.duration_since(one.id.timestamp());
        !at_work && age > SignedDuration::from_hours(24 * i64::from(PENDING_DAYS))
    });
    let old = old.map(|one| {
        format!(
            "{} in {url} has no manifest: it is a left-over of a killed run ({}); run `pgstow prune`",
            one.id,
            human_bytes(one.bytes)
        )
    });
    few(old.collect(), url, problems);
}

fn said(what: &str, ids: &[String]) -> Option<String> {
    (!ids.is_empty()).then(|| format!("{what}: {}", ids.join(", ")))
}

fn few(mut sentences: Vec<String>, url: &str, problems: &mut Vec<String>) {
    let more = sentences.len().saturating_sub(EACH);
    sentences.truncate(EACH);
    problems.append(&mut sentences);
    if more > 0 {
        problems.push(format!(
            "{more} more like the last one in {url}: `pgstow status --json` lists them all"
        ));
    }
}
