//! Tries a store with a probe: one small object that pgstow writes, reads back, and removes from a folder. In a bucket
//! it has the tag `pending`, and expires if it cannot be deleted.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::database::skew;
use super::{Check, CheckState};
use crate::error::{Code, Error, Result};
use crate::repository::catalog::expiry;
use crate::repository::retention::{PENDING, TIER_TAG};
use crate::run::clock::Clock;
use crate::settings::{Checksums, Settings};
use crate::store::{Condition, Deleted, Expected, Lifecycle, ObjectInfo, Put, Store, Stored, TagKeeping, conditions};
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
                    "the first backup creates it; if you mean another folder, correct --store",
                )
            } else {
                Check::ok("reach", "it can be reached")
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
        Some(lifecycle) if checks[0].state == CheckState::Ok => checks.push(rules(store, lifecycle, settings).await),
        Some(_) => checks.push(Check::skipped("lifecycle", "it cannot be reached")),
        None => checks.push(Check::skipped(
            "lifecycle",
            "a folder has none: run `pgstow prune` after the backups",
        )),
    }
    checks.into_iter().map(|check| check.of(store.url())).collect()
}

/// The probe creates the folder and must remove it again: otherwise a mistyped name would look like a store from then
/// on.
async fn is_yet_to_be_made(store: &dyn Store) -> bool {
    // A store with a lifecycle is no folder.
    let is_folder = store.lifecycle().is_none();
    is_folder && store.is_there().await.is_err_and(|error| error.code() == Code::Enoent)
}

async fn probe(store: &dyn Store, is_copy: bool, settings: &Settings, clock: Clock, checks: &mut Vec<Check>) {
    let begun = clock();
    let body = Bytes::from(format!(
        "a probe of pgstow doctor, {begun}, process {}\n",
        std::process::id()
    ));
    let written = match write(store, &body, is_copy).await {
        Err(_) if is_copy && !conditions::are_known(store) => store.put(PROBE, body.clone(), &info()).await.map(|_| {
            Check::ok(
                "write",
                "written; it knows no conditional writes, which a copy does not need",
            )
        }),
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

/// Writes with a condition, as for leases: a store that ignores conditions would let two runs mix.
async fn write(store: &dyn Store, body: &Bytes, is_copy: bool) -> Result<Check> {
    const NAME: &str = "write";
    let conditional = conditions::of(store)?;
    let condition = match store.get(PROBE).await? {
        Some(older) => Condition::Unchanged(older.version),
        None => Condition::Absent,
    };
    if conditional.put_if(PROBE, body.clone(), &info(), condition).await? == Put::Refused {
        return Ok(Check::warning(
            NAME,
            "another doctor is running in this store",
            "run it again when the other has ended",
        ));
    }
    let other = Bytes::from_static(b"a probe that must not be written\n");
    match conditional.put_if(PROBE, other, &info(), Condition::Absent).await? {
        Put::Refused => Ok(Check::ok(NAME, "written; conditional writes work")),
        Put::Done(_) if is_copy => {
            store.put(PROBE, body.clone(), &info()).await?;
            Ok(Check::ok(
                NAME,
                "written; it ignores conditions, which a copy does not need",
            ))
        }
        Put::Done(_) => Err(Error::new(
            Code::Store,
            format!("{} overwrites an object although the request forbids that", store.url()),
        )
        .hint("use a store, or a version of it, that has conditional writes (If-None-Match): leases need them")),
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
        format!("{} returns other bytes than were written", store.url()),
    ))
}

async fn upload(store: &dyn Store, body: &Bytes) -> Result<Stored> {
    let mut upload = store.upload(PROBE, &info()).await?;
    let written = match upload.write(body.clone()).await {
        Ok(()) => upload.settle().await,
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        return Err(error.with_clean_up(upload.abort().await));
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
            format!("it reports its own {}, which agrees with pgstow's", checksum.algorithm),
        ),
        Ok(_) if settings.s3.checksums == Checksums::WhenRequired => Check::warning(
            NAME,
            "pgstow asks for none (BACKUP_S3_CHECKSUMS=when_required)",
            "leave out the setting if the store knows checksums: then the store proves what it holds",
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
        .hint("use a store that keeps tags: expiry depends on them"))
}

/// The key that makes backups does not need the right to delete, and should not have it.
async fn delete(lifecycle: &dyn Lifecycle) -> Check {
    const NAME: &str = "delete";
    match lifecycle.try_delete(PROBE).await {
        Ok(Deleted::Refused) if lifecycle.keeping().is_lost() => Check::ok(
            NAME,
            "refused: a thief of this key cannot remove backups; prune with another key, because nothing expires here",
        ),
        Ok(Deleted::Gone | Deleted::Hidden) if lifecycle.keeping().is_lost() => Check::warning(
            NAME,
            "allowed: a thief of this key can remove every backup",
            "give s3:DeleteObject to a separate key, and run `pgstow prune --allow-delete` with that",
        ),
        Ok(Deleted::Refused) => Check::ok(
            NAME,
            "refused, as it should be: a thief of this key cannot remove backups; the probe expires by its tag",
        ),
        Ok(Deleted::Gone | Deleted::Hidden) => Check::warning(
            NAME,
            "allowed: a thief of this key can remove every backup",
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
            format!("{PROBE} still exists after its removal"),
        ));
    }
    Ok(Check::ok("remove", "the probe is removed"))
}

/// Compares the clocks by the time that the store gives to the probe.
async fn clocks(store: &dyn Store, clock: Clock) -> Check {
    const NAME: &str = "clock";
    let listed = match store.list(PROBE).await {
        Ok(listed) => listed,
        Err(error) => return Check::failed(NAME, &error),
    };
    let Some(entry) = listed.iter().find(|entry| entry.key == PROBE) else {
        let error = Error::new(
            Code::Store,
            format!("{} does not list the probe that was written", store.url()),
        );
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
            "make room, or choose another store: compressed tables take less, but several backups may not fit",
        ),
        _ => Check::ok(NAME, detail),
    })
}

async fn rules(store: &dyn Store, lifecycle: &dyn Lifecycle, settings: &Settings) -> Check {
    const NAME: &str = "lifecycle";
    if lifecycle.keeping().is_lost() {
        return Check::warning(
            NAME,
            "its rules depend on tags, which it does not keep: nothing expires by itself",
            "run `pgstow prune --allow-delete` after the backups, with a key that may delete",
        );
    }
    let retention = &settings.retention;
    let expiry = match expiry(store, lifecycle, retention).await {
        Ok(expiry) => expiry,
        Err(error) => return Check::lacking(NAME, &error),
    };
    if let Some(finding) = expiry.finding(store.url(), retention) {
        let remedy = finding.remedy(str::to_owned);
        return Check::warning(NAME, finding.told, remedy);
    }
    if !expiry.unsure.is_empty() {
        let remedy = "check whether one of them expires objects in a database's folder: it is not pgstow's";
        return Check::warning(NAME, expiry.unsure.join("; "), remedy);
    }
    let told = match expiry.installed.len() {
        1 => "1 rule, as the retention wants it".to_owned(),
        many => format!("{many} rules, as the retention wants them"),
    };
    Check::ok(NAME, told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn a_store_that_overlooks_conditions_is_good_for_a_copy_alone() {
        let body = Bytes::from_static(b"a probe");
        let store = MemoryStore::with_lifecycle().overlooking_conditions();
        let error = write(&store, &body, false).await.unwrap_err();
        assert!(error.message().contains("overwrites an object"), "{error}");
        assert!(error.hint_text().contains("conditional writes"), "{error}");
        assert_eq!(write(&store, &body, true).await.unwrap().state, CheckState::Ok);
        assert_eq!(store.body(PROBE).unwrap(), body);

        let store = MemoryStore::with_lifecycle();
        for is_copy in [false, true] {
            assert_eq!(write(&store, &body, is_copy).await.unwrap().state, CheckState::Ok);
            assert_eq!(store.body(PROBE).unwrap(), body);
        }
    }
}
