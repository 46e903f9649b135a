//! A store, tried with a probe: one small object, written, read back, and removed where that is
//! ours to do. In a bucket it bears the tag `pending`, and expires where it cannot be deleted.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::database::skew;
use super::{Check, State};
use crate::error::{Code, Error, Result};
use crate::repository::catalog::expiry;
use crate::repository::retention::{PENDING, TIER_TAG};
use crate::run::clock::Clock;
use crate::settings::{Checksums, Settings};
use crate::store::{
    Condition, Deleted, Expected, Lifecycle, ObjectInfo, Put, Store, Stored, TagKeeping, lacks_conditions,
};
use crate::units::human_bytes;

const PROBE: &str = ".pgstow-doctor";

pub(super) async fn check(
    store: &dyn Store,
    is_copy: bool,
    settings: &Settings,
    tables: Option<u64>,
    clock: Clock,
) -> Vec<Check> {
    let mut checks = Vec::new();
    match store.reach().await {
        Ok(()) => {
            let is_new = is_yet_to_be_made(store).await;
            checks.push(if is_new {
                Check::warning(
                    "reach",
                    "the folder does not exist yet",
                    "the first backup makes it: correct --store where another one is meant",
                )
            } else {
                Check::ok("reach", "it is there, and lets us in")
            });
            probe(store, is_copy, settings, clock, &mut checks).await;
            if is_new && let Err(error) = store.unmake().await {
                checks.push(Check::failed("remove", &error));
            }
            checks.extend(space(store, tables).await);
        }
        Err(error) => {
            checks.push(Check::failed("reach", &error));
            let rest = ["write", "read"].map(|name| Check::skipped(name, "it cannot be reached"));
            checks.extend(rest);
        }
    }
    match store.lifecycle() {
        Some(lifecycle) if checks[0].state == State::Ok => checks.push(rules(store, lifecycle, settings).await),
        Some(_) => checks.push(Check::skipped("lifecycle", "it cannot be reached")),
        None => checks.push(Check::skipped(
            "lifecycle",
            "a folder has none: run `pgstow prune` after the backups",
        )),
    }
    checks.into_iter().map(|check| check.of(store.url())).collect()
}

/// The probe makes it, and must not leave it: a name that was mistyped would pass for a store from then on.
async fn is_yet_to_be_made(store: &dyn Store) -> bool {
    // What has a lifecycle is no folder.
    let is_folder = store.lifecycle().is_none();
    is_folder && store.is_there().await.is_err_and(|error| error.code() == Code::Enoent)
}

async fn probe(store: &dyn Store, is_copy: bool, settings: &Settings, clock: Clock, checks: &mut Vec<Check>) {
    let begun = clock();
    let body = Bytes::from(format!(
        "a probe of pgstow doctor, {begun}, process {}\n",
        std::process::id()
    ));
    let written = match write(store, &body).await {
        Err(error) if is_copy && lacks_conditions(&error) => store
            .put(PROBE, body.clone(), &info(), Condition::Always)
            .await
            .map(|_| Check::ok("write", "written; it knows no conditions, which a copy does without")),
        written => written,
    };
    match written {
        Ok(check) => checks.push(check),
        Err(error) => {
            checks.push(Check::failed("write", &error));
            checks.push(Check::skipped("read", "nothing could be written"));
            return;
        }
    }
    checks.push(
        read(store, &body)
            .await
            .unwrap_or_else(|error| Check::failed("read", &error)),
    );
    checks.push(clocks(store, clock).await);
    if let Some(lifecycle) = store.lifecycle() {
        let stored = upload(store, &body).await;
        checks.push(checksums(stored, settings));
        checks.push(
            tags(lifecycle, store.url())
                .await
                .unwrap_or_else(|error| Check::failed("tags", &error)),
        );
        checks.push(delete(lifecycle).await);
    } else {
        checks.push(
            remove(store)
                .await
                .unwrap_or_else(|error| Check::failed("remove", &error)),
        );
    }
}

fn info() -> ObjectInfo {
    ObjectInfo {
        content_type: "text/plain",
        tags: vec![(TIER_TAG.to_owned(), PENDING.to_owned())],
        replace: true,
        ..ObjectInfo::default()
    }
}

/// By a condition, as leases are written: a store that overlooks them would let two runs
/// interleave.
async fn write(store: &dyn Store, body: &Bytes) -> Result<Check> {
    const NAME: &str = "write";
    let condition = match store.get(PROBE).await? {
        Some(older) => Condition::Unchanged(older.version),
        None => Condition::Absent,
    };
    if store.put(PROBE, body.clone(), &info(), condition).await? == Put::Refused {
        return Ok(Check::warning(
            NAME,
            "another doctor is at work in this store",
            "run it again when the other has ended",
        ));
    }
    let other = Bytes::from_static(b"a probe that must not be written\n");
    match store.put(PROBE, other, &info(), Condition::Absent).await? {
        Put::Refused => Ok(Check::ok(NAME, "written, and conditions are held to")),
        Put::Done(_) => Err(Error::new(
            Code::Store,
            format!("{} overwrites an object although the request forbids it", store.url()),
        )
        .hint("leases need conditional writes (If-None-Match): use a store or a version of it that knows them")),
    }
}

async fn read(store: &dyn Store, body: &Bytes) -> Result<Check> {
    let whole = store.get(PROBE).await?.map(|object| object.body);
    let part = store.get_range(PROBE, 2, 5).await?;
    if whole.as_ref() == Some(body) && part == Some(body.slice(2..7)) {
        return Ok(Check::ok("read", "read back the same, whole and in part"));
    }
    Err(Error::new(
        Code::Store,
        format!("{} gives back other bytes than were written", store.url()),
    ))
}

async fn upload(store: &dyn Store, body: &Bytes) -> Result<Stored> {
    let mut upload = store.upload(PROBE, &info()).await?;
    let written = match upload.write(body.clone()).await {
        Ok(()) => upload.settle().await,
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        return Err(match upload.abort().await {
            Ok(()) => error,
            Err(second) => error.also(second),
        });
    }
    let expected = Expected {
        bytes: body.len() as u64,
        sha256: Sha256::digest(body).into(),
    };
    upload.complete(&expected).await
}

fn checksums(stored: Result<Stored>, settings: &Settings) -> Check {
    const NAME: &str = "checksums";
    match stored {
        Err(error) => Check::failed(NAME, &error),
        Ok(Stored {
            checksum: Some(checksum),
            ..
        }) => Check::ok(
            NAME,
            format!("it reports its own {}, and that is ours", checksum.algorithm),
        ),
        Ok(_) if settings.s3.checksums == Checksums::WhenRequired => Check::warning(
            NAME,
            "they are not asked for (BACKUP_S3_CHECKSUMS=when_required)",
            "leave the setting out if the store knows checksums: then it proves what it holds",
        ),
        Ok(_) => Check::warning(NAME, "it reports none", "use a store that reports SHA-256 checksums"),
    }
}

async fn tags(lifecycle: &dyn Lifecycle, url: &str) -> Result<Check> {
    const NAME: &str = "tags";
    const REMEDY: &str = "`pgstow prune --allow-delete` applies the retention, with a key that may delete";
    if lifecycle.keeping() == TagKeeping::Off {
        return Ok(Check::skipped(NAME, "the settings use none (BACKUP_S3_TAGGING=off)"));
    }
    lifecycle.set_tags(PROBE, &info().tags).await?;
    if let Some(warning) = lifecycle.keeping().warning(url) {
        return Ok(Check::warning(NAME, warning, REMEDY));
    }
    if lifecycle.tags(PROBE).await? == Some(info().tags) {
        return Ok(Check::ok("tags", "set and read back"));
    }
    Err(Error::new(Code::Store, "tags that were set are not there")
        .hint("expiry goes by tags: use a store that keeps them"))
}

/// The backup's own key need not, and should not, be able to.
async fn delete(lifecycle: &dyn Lifecycle) -> Check {
    const NAME: &str = "delete";
    match lifecycle.try_delete(PROBE).await {
        Ok(Deleted::Refused) if lifecycle.keeping().is_lost() => Check::ok(
            NAME,
            "refused: who steals this key cannot remove backups; prune with another, since nothing expires here",
        ),
        Ok(Deleted::Gone | Deleted::Hidden) if lifecycle.keeping().is_lost() => Check::warning(
            NAME,
            "allowed: who steals this key can remove every backup",
            "give s3:DeleteObject to a key of its own, with which `pgstow prune --allow-delete` runs",
        ),
        Ok(Deleted::Refused) => Check::ok(
            NAME,
            "refused, as it should be: who steals this key cannot remove backups; the probe expires by its tag",
        ),
        Ok(Deleted::Gone | Deleted::Hidden) => Check::warning(
            NAME,
            "allowed: who steals this key can remove every backup",
            "take s3:DeleteObject from this role; pgstow does not need it",
        ),
        Err(error) => Check::lacking(NAME, &error),
    }
}

async fn remove(store: &dyn Store) -> Result<Check> {
    store.discard(PROBE).await?;
    if store.get(PROBE).await?.is_some() {
        return Err(Error::new(
            Code::Store,
            format!("{PROBE} is still there after its removal"),
        ));
    }
    Ok(Check::ok("remove", "the probe is gone again"))
}

/// The store dates what it stores.
async fn clocks(store: &dyn Store, clock: Clock) -> Check {
    const NAME: &str = "clock";
    let listed = match store.list(PROBE).await {
        Ok(listed) => listed,
        Err(error) => return Check::failed(NAME, &error),
    };
    let Some(entry) = listed.iter().find(|entry| entry.key == PROBE) else {
        let error = Error::new(Code::Store, format!("{} does not list what was written", store.url()));
        return Check::failed(NAME, &error);
    };
    match entry.modified {
        Some(modified) => skew(NAME, "its clock", (modified.as_second() - clock().as_second()) as f64),
        None => Check::skipped(NAME, "it does not say when objects were written"),
    }
}

async fn space(store: &dyn Store, tables: Option<u64>) -> Option<Check> {
    const NAME: &str = "disk";
    let space = match store.space().await {
        Ok(space) => space?,
        Err(error) => return Some(Check::lacking(NAME, &error)),
    };
    let detail = format!("{} free", human_bytes(space.free));
    Some(match tables {
        Some(tables) if space.free < tables => Check::warning(
            NAME,
            format!("{detail}, and the tables take {}", human_bytes(tables)),
            "compressed they take less, but not for ever: make room, or choose another store",
        ),
        _ => Check::ok(NAME, detail),
    })
}

async fn rules(store: &dyn Store, lifecycle: &dyn Lifecycle, settings: &Settings) -> Check {
    const NAME: &str = "lifecycle";
    if lifecycle.keeping().is_lost() {
        return Check::skipped(
            NAME,
            "its rules go by tags, which are not kept here: run `pgstow prune --allow-delete` after the backups",
        );
    }
    let policy = &settings.retention.policy;
    let expiry = match expiry(store, lifecycle, policy).await {
        Ok(expiry) => expiry,
        Err(error) => return Check::lacking(NAME, &error),
    };
    if let Some(finding) = expiry.finding(store.url(), policy) {
        let remedy = finding.remedy(str::to_owned);
        return Check::warning(NAME, finding.told, remedy);
    }
    if !expiry.unsure.is_empty() {
        let remedy = "see whether one of them expires what lies in a database's folder: it is not pgstow's";
        return Check::warning(NAME, expiry.unsure.join("; "), remedy);
    }
    let told = match expiry.installed.len() {
        1 => "1 rule, as the retention wants it".to_owned(),
        many => format!("{many} rules, as the retention wants them"),
    };
    Check::ok(NAME, told)
}
