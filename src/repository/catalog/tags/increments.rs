//! The tags of increments: `latest` while a full backup that they follow has it, then that of their tier.

use futures::future::try_join_all;
use jiff::Timestamp;

use super::{Retagged, apply, read_backup};
use crate::error::{Error, Result};
use crate::repository::backup_id::BackupKind;
use crate::repository::catalog::Listed;
use crate::repository::retention::{Tag, Tier, increments_needed_since, tag_of_increment};
use crate::store::{Lifecycle, Store};

/// How many increments get their tags at the same time.
const INCREMENTS_AT_ONCE: usize = 16;

/// Gives the increments that no newest full backup needs the tag of their tier, and those that one needs again the tag
/// `latest`. Goes back only to the first that has the tier's tag already, unless tags must be given back.
pub(super) async fn retag(
    store: &dyn Store,
    lifecycle: &dyn Lifecycle,
    past: &[Listed],
    oldest: Option<Timestamp>,
    (promotes, demotes): (bool, bool),
) -> Result<Vec<Retagged>> {
    let increments = past
        .iter()
        .filter(|one| one.id.kind() == BackupKind::Incremental && one.has_manifest);
    let since = increments_needed_since(oldest, increments.clone().map(|one| one.id.timestamp()));
    let (needed, others): (Vec<&Listed>, Vec<&Listed>) =
        increments.partition(|one| tag_of_increment(one.id.timestamp(), since) == Tag::Latest);
    let mut done = Vec::new();
    for (wanted, tag, acts) in [
        (needed, Tag::Latest, promotes),
        (others, Tag::Tier(Tier::Increment), demotes),
    ] {
        if !acts {
            continue;
        }
        // Each has its manifest's tag asked; the oldest of those to be changed come first, so that after an
        // interruption the next walk meets the others.
        let mut changing = Vec::new();
        'search: for some in wanted.chunks(INCREMENTS_AT_ONCE) {
            let bear = try_join_all(some.iter().map(|one| async move {
                let tags = lifecycle.tags(&one.id.manifest_key()).await?;
                Ok::<_, Error>(tags.and_then(|tags| Tag::of(&tags)))
            }));
            for (one, bears) in some.iter().zip(bear.await?) {
                match bears == Some(tag) {
                    true if tag != Tag::Latest => break 'search,
                    true => {}
                    false => changing.push(*one),
                }
            }
        }
        changing.reverse();
        for some in changing.chunks(INCREMENTS_AT_ONCE) {
            let changed = try_join_all(some.iter().map(|one| async move {
                let Some(backup) = read_backup(store, (*one).clone()).await? else {
                    return Ok::<_, Error>(None);
                };
                apply(lifecycle, &backup, tag).await?;
                Ok(Some(Retagged {
                    id: one.id.clone(),
                    to: tag.name().to_owned(),
                }))
            }));
            done.extend(changed.await?.into_iter().flatten());
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{day, now, store_with};
    use super::super::{retag, retag_all};
    use super::*;
    use crate::repository::backup_id::BackupId;
    use crate::repository::catalog::VERIFICATION;
    use crate::repository::catalog::tests::{id, plant};
    use crate::repository::chain::tests::link;
    use crate::repository::manifest::tests::{sample, sample_increment};
    use crate::repository::retention::TIER_TAG;

    #[tokio::test]
    async fn increments_stay_latest_while_the_full_backup_before_them_does_and_go_with_it() {
        let store = store_with(&["monthly", "latest"]);
        let increment = |day: u32| id(&format!("shop/202501{day:02}T120000Z-incr"));
        for number in 1..=3 {
            let increment = increment(number);
            let stream = link(0, 10).stream;
            plant(&store, &sample_increment(&increment, stream), "latest");
        }
        let tag = |id: &BackupId| store.tag(&id.key("shop.changes"), TIER_TAG);
        // The full backup of the second day is the last one: what follows it stays, and a day before it.
        assert_eq!(retag(&store, "shop", 1, now()).await.unwrap(), []);
        assert_eq!(tag(&increment(1)).as_deref(), Some("latest"));
        // Two days later there is another one.
        plant(&store, &sample(&day(4), Tier::Daily), "latest");
        let done = retag(&store, "shop", 1, now()).await.unwrap();
        let ids: Vec<&BackupId> = done.iter().map(|one| &one.id).collect();
        assert_eq!(ids, [&day(2), &increment(1), &increment(2)]);
        assert_eq!(tag(&increment(1)).as_deref(), Some("increment"));
        assert_eq!(
            store.tag(&increment(2).manifest_key(), TIER_TAG).as_deref(),
            Some("increment")
        );
        assert_eq!(tag(&increment(3)).as_deref(), Some("latest"));
        assert_eq!(retag(&store, "shop", 1, now()).await.unwrap(), []);
        // If the newest is found damaged, the one before it stays again, with what follows it.
        let verdict = format!(
            r#"{{"schema": 1, "id": "{}", "verify": {{"status": "failed", "at": "2025-01-05T00:00:00Z"}}}}"#,
            day(4)
        );
        store.plant(&day(4).key(VERIFICATION), verdict, &[(TIER_TAG, "latest")]);
        retag_all(&store, "shop", 1, now()).await.unwrap();
        assert_eq!(tag(&increment(1)).as_deref(), Some("latest"));
        assert_eq!(tag(&increment(2)).as_deref(), Some("latest"));
    }
}
