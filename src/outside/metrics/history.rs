//! What the store knows about a database's earlier backups, to compare a run with them.

use std::sync::Arc;

use jiff::Timestamp;

use crate::error::Result;
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::catalog::{self, Listed, Overview};
use crate::repository::manifest::Figures;
use crate::repository::signature::Trust;
use crate::store::Store;

/// The number of good backups whose median is compared.
const COMPARED: usize = 7;
/// With fewer than this there is no usual size.
const FEWEST: usize = 3;
/// How many of the newest backups are read; some of them may not be good.
const LOOKED_AT: usize = 10;

/// When the newest good backup began: changes after that are in no backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastGood {
    Began(Timestamp),
    /// The store holds no good backup.
    Never,
    /// The store was not asked, or did not answer.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub last_good: LastGood,
    /// Stored sizes of the newest good backups, newest first.
    sizes: Vec<(BackupKind, u64)>,
}

impl History {
    pub fn unknown() -> Self {
        Self {
            last_good: LastGood::Unknown,
            sizes: Vec::new(),
        }
    }

    /// Asks the stores in order until one answers, with some listings and one or two requests for each of the newest
    /// full backups. It ignores `but`, the run's own backup.
    pub async fn look(stores: &[Arc<dyn Store>], database: &str, but: Option<&BackupId>, trust: &Trust) -> Self {
        for store in stores {
            match seen_in(store.as_ref(), database, but, trust).await {
                Ok(history) => return history,
                Err(error) => tracing::debug!("the last good backup is not known from {}: {error}", store.url()),
            }
        }
        Self::unknown()
    }

    /// The factor by which a size differs from the median of the last good backups of the same kind, in either
    /// direction: 1 is exactly the median. `None` if there are too few backups.
    pub fn deviation(&self, kind: BackupKind, bytes: u64) -> Option<f64> {
        let same = self.sizes.iter().filter(|(of, _)| *of == kind);
        let mut sizes: Vec<u64> = same.map(|(_, bytes)| *bytes).take(COMPARED).collect();
        if sizes.len() < FEWEST {
            return None;
        }
        sizes.sort_unstable();
        let middle = sizes.len() / 2;
        let median = match sizes.len() % 2 {
            0 => (sizes[middle - 1] as f64 + sizes[middle] as f64) / 2.0,
            _ => sizes[middle] as f64,
        };
        let (median, bytes) = (median.max(1.0), (bytes as f64).max(1.0));
        Some((bytes / median).max(median / bytes))
    }
}

async fn seen_in(store: &dyn Store, database: &str, but: Option<&BackupId>, trust: &Trust) -> Result<History> {
    let mut listed = catalog::reachable_folders(store, Some(database)).await?;
    let now = Timestamp::now();
    // A backup dated in the future would hide how old the real ones are.
    // Increments need a full backup, and their sizes follow the load: neither says whether backups are as usual.
    let counts = |one: &Listed| one.id.kind() == BackupKind::Full && Some(&one.id) != but;
    listed.retain(|one| one.has_manifest && counts(one) && !one.id.is_ahead(now));
    let more = listed.len() > LOOKED_AT;
    listed.truncate(LOOKED_AT);
    let overviews = catalog::overviews(store, listed, trust).await?;
    Ok(sum_up(&overviews, more))
}

/// `overviews` are newest first; `more`: there are older backups that were not read.
fn sum_up(overviews: &[Overview], more: bool) -> History {
    let good: Vec<&Figures> = overviews
        .iter()
        .filter(|one| one.is_good())
        .filter_map(Overview::figures)
        .collect();
    let unread = overviews.iter().any(|one| {
        matches!(
            one.seen,
            catalog::ManifestState::Unread(_) | catalog::ManifestState::Archived(_)
        )
    });
    History {
        last_good: match good.first() {
            Some(newest) => LastGood::Began(newest.id.timestamp()),
            None if more || unread => LastGood::Unknown,
            None => LastGood::Never,
        },
        sizes: good
            .iter()
            .map(|figures| (figures.kind, figures.files.values().map(|file| file.bytes).sum()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::repository::catalog::tests::{id, plant};
    use crate::repository::manifest::tests::sample;
    use crate::repository::retention::Tier;
    use crate::store::memory::{Fault, MemoryStore, Op};

    fn of(sizes: &[u64]) -> History {
        History {
            last_good: LastGood::Unknown,
            sizes: sizes.iter().map(|bytes| (BackupKind::Full, *bytes)).collect(),
        }
    }

    fn day(number: u32) -> BackupId {
        id(&format!("shop/202501{number:02}T040500Z-full"))
    }

    #[test]
    fn a_size_is_compared_with_the_median_of_the_last_seven_in_either_direction() {
        let usual = of(&[100, 110, 90, 105, 95, 1_000_000, 1, 7, 7, 7]);
        assert_eq!(usual.deviation(BackupKind::Full, 100), Some(1.0));
        assert_eq!(usual.deviation(BackupKind::Full, 300), Some(3.0));
        assert_eq!(usual.deviation(BackupKind::Full, 25), Some(4.0));
        assert_eq!(of(&[10, 20, 30, 40]).deviation(BackupKind::Full, 50), Some(2.0));
        // A median of zero cannot be a divisor.
        assert_eq!(of(&[0, 0, 0]).deviation(BackupKind::Full, 5), Some(5.0));
    }

    #[test]
    fn fewer_than_three_of_a_kind_say_nothing() {
        assert_eq!(of(&[100, 100]).deviation(BackupKind::Full, 500), None);
        assert_eq!(of(&[100; 7]).deviation(BackupKind::Incremental, 1), None);
        assert_eq!(History::unknown().deviation(BackupKind::Full, 1), None);
    }

    #[tokio::test]
    async fn good_backups_alone_count_and_the_runs_own_does_not() {
        let store = MemoryStore::without_lifecycle();
        for number in 1..=5 {
            plant(&store, &sample(&day(number), Tier::Daily), "");
        }
        store.remove(&day(4).key("shop.toc"));
        let history = seen_in(&store, "shop", Some(&day(5)), &Trust::default()).await.unwrap();
        assert_eq!(history.last_good, LastGood::Began(day(3).timestamp()));
        assert_eq!(history.sizes, [(BackupKind::Full, 8); 3]);
        let other = seen_in(&store, "shop2", None, &Trust::default()).await.unwrap();
        assert_eq!((other.last_good, other.sizes.len()), (LastGood::Never, 0));
    }

    #[tokio::test]
    async fn of_hundreds_the_newest_ten_are_read() {
        let store = MemoryStore::without_lifecycle();
        for hour in 0..300 {
            let at = day(1).timestamp() + jiff::SignedDuration::from_hours(hour);
            plant(
                &store,
                &sample(&BackupId::next("shop", BackupKind::Full, at, None), Tier::Daily),
                "",
            );
        }
        let history = seen_in(&store, "shop", None, &Trust::default()).await.unwrap();
        assert_eq!((history.sizes.len(), store.calls(Op::Get).len()), (10, 10));
        // If none of these is good, an older one may be.
        assert_eq!(sum_up(&[], true).last_good, LastGood::Unknown);
    }

    #[tokio::test]
    async fn the_first_store_that_answers_is_asked() {
        let ill = MemoryStore::without_lifecycle();
        ill.fault(Op::List, 1, Fault::Reject);
        assert_eq!(
            seen_in(&ill, "shop", None, &Trust::default()).await.unwrap_err().code(),
            Code::Store
        );
        ill.fault(Op::List, 1, Fault::Reject);
        let copy = MemoryStore::without_lifecycle();
        plant(&copy, &sample(&day(1), Tier::Daily), "");
        let ill: Arc<dyn Store> = Arc::new(ill);
        let stores: [Arc<dyn Store>; 2] = [Arc::clone(&ill), Arc::new(copy)];
        let history = History::look(&stores, "shop", None, &Trust::default()).await;
        assert_eq!(history.last_good, LastGood::Began(day(1).timestamp()));
        assert_eq!(
            History::look(&[], "shop", None, &Trust::default()).await,
            History::unknown()
        );
    }
}
