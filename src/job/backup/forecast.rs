//! An estimate, before the start, of how long a backup will take. A task with too little time must not begin a backup
//! that it cannot finish.

use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::postgres::DatabaseSize;
use crate::repository::manifest::Summary;
use crate::units::human_bytes;

/// The number of earlier backups whose pace counts.
pub(super) const ASKED: usize = 5;
/// Bytes of COPY text per second that one backend never exceeded. Without an earlier backup nothing else is known, so
/// pgstow refuses only a backup that is surely impossible.
const FASTEST: f64 = 130e6;
/// The factor by which one run may be slower than the one before it.
const SPREAD: f64 = 1.1;

/// The pace of one earlier backup.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pace {
    bytes_per_second: f64,
    threads: Option<u64>,
    streams: Option<u64>,
}

/// The threads and streams of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Means {
    pub threads: usize,
    pub streams: usize,
}

impl Pace {
    fn of(summary: &Summary) -> Option<Self> {
        let metadata = &summary.metadata;
        let seconds = summary.finished_at.duration_since(summary.timestamp).as_secs_f64();
        let bytes = metadata.database_bytes? as f64;
        (seconds > 0.0 && bytes > 0.0).then_some(Self {
            bytes_per_second: bytes / seconds,
            threads: metadata.threads,
            streams: metadata.streams,
        })
    }

    /// The pace with these means. More threads or streams than before promise nothing, because something else may limit
    /// the pace.
    fn with(self, means: Means) -> f64 {
        let share = |has: usize, had: Option<u64>| had.map_or(1.0, |had| (has as f64 / had.max(1) as f64).min(1.0));
        self.bytes_per_second * share(means.threads, self.threads).min(share(means.streams, self.streams))
    }
}

/// The time for a database of this size, by the median of the earlier backups. With the median, one backup that waited
/// for a lock or a cold disk does not distort the estimate.
fn forecast(size: &DatabaseSize, means: Means, past: &[Summary]) -> Duration {
    let mut paces: Vec<f64> = past.iter().filter_map(Pace::of).map(|pace| pace.with(means)).collect();
    paces.sort_by(f64::total_cmp);
    let seconds = match (size.database, paces.get(paces.len() / 2)) {
        (Some(bytes), Some(pace)) => bytes as f64 / pace * SPREAD,
        _ => size.tables as f64 / (FASTEST * means.streams as f64),
    };
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// `DEADLINE` if the backup will need more than `left`.
pub(super) fn check(size: &DatabaseSize, means: Means, past: &[Summary], left: Duration) -> Result<()> {
    let needed = forecast(size, means, past);
    if needed <= left {
        return Ok(());
    }
    let bytes = human_bytes(size.database.unwrap_or(size.tables));
    Err(Error::new(
        Code::Deadline,
        format!(
            "a backup of this database ({bytes}) takes about {} s, but only {} s are left; it was not begun",
            needed.as_secs().max(1),
            left.as_secs()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::backup_id::BackupId;
    use crate::repository::manifest::tests::sample;
    use crate::repository::retention::Tier;

    const GB: u64 = 1_000_000_000;

    fn took(gigabytes: u64, seconds: i64, threads: u64) -> Summary {
        let id: BackupId = "shop/20250131T040500Z-full".parse().unwrap();
        let mut summary = sample(&id, Tier::Daily).summary();
        summary.finished_at = summary.timestamp + jiff::SignedDuration::from_secs(seconds);
        summary.metadata.database_bytes = Some(gigabytes * GB);
        summary.metadata.threads = Some(threads);
        summary
    }

    fn with(threads: usize) -> Means {
        Means { threads, streams: 1 }
    }

    fn seconds(gigabytes: u64, threads: usize, past: &[Summary]) -> u64 {
        let size = DatabaseSize {
            database: Some(gigabytes * GB),
            tables: gigabytes * GB,
        };
        forecast(&size, with(threads), past).as_secs()
    }

    #[test]
    fn it_goes_by_the_median_of_the_earlier_runs_and_leaves_room() {
        assert_eq!(seconds(10, 2, &[took(10, 100, 2)]), 110);
        let past = [took(10, 100, 2), took(10, 5_000, 2), took(9, 100, 2)];
        assert_eq!(seconds(20, 2, &past), 244);
    }

    #[test]
    fn runs_with_more_threads_were_faster_and_with_fewer_promise_nothing() {
        assert_eq!(seconds(10, 2, &[took(10, 100, 4)]), 220);
        assert_eq!(seconds(10, 4, &[took(10, 100, 2)]), 110);
    }

    #[test]
    fn runs_with_more_streams_were_faster_too() {
        let mut many = took(10, 100, 2);
        many.metadata.streams = Some(4);
        assert_eq!(seconds(10, 2, &[many]), 440);
    }

    #[test]
    fn without_an_earlier_run_only_the_impossible_is_refused() {
        let size = DatabaseSize {
            database: None,
            tables: 100 * GB,
        };
        assert!(check(&size, with(2), &[], Duration::from_secs(890)).is_ok());
        let size = DatabaseSize {
            tables: 150 * GB,
            ..size
        };
        let error = check(&size, with(2), &[], Duration::from_secs(890)).unwrap_err();
        assert_eq!(error.code(), Code::Deadline);
        assert!(error.message().contains("150.0 GB") && error.hint_text().contains("container task"));
    }

    #[test]
    fn what_a_manifest_does_not_say_counts_for_nothing() {
        let mut odd = took(10, 100, 2);
        odd.metadata.database_bytes = None;
        let instant = took(10, 0, 2);
        assert_eq!(seconds(13, 2, &[odd, instant]), 100);
    }
}
