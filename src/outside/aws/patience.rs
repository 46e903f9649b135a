//! How long pgstow waits for services.

use std::time::Duration;

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;

/// How long pgstow waits for a store, and how often it retries.
///
/// The back-off is random between zero and a ceiling that doubles from `first_backoff` to `longest_backoff`. With
/// many attempts and a low ceiling, the sum of the pauses is nearly the same each time: about 36 s by default
/// (`BACKUP_S3_RETRY_SECONDS`). So a run survives a store that fails for 25 s, and gives up in less than a minute if
/// the store always answers 500.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    pub connect: Duration,
    /// Limit for one attempt of a request with little data.
    pub answer: Duration,
    /// Limit for one attempt to complete an upload; the store has to join many parts.
    pub complete: Duration,
    /// If no byte of a body moves for this long, the connection is dead.
    pub stalled: Duration,
    /// The slowest network that is supported, in bytes per second: it limits the time for one attempt to move a part.
    pub slowest: u64,
    pub attempts: u32,
    pub first_backoff: Duration,
    pub longest_backoff: Duration,
    /// How long parts in flight may take when an upload is given up. A part that ends after the abort would stay in
    /// the store, so pgstow waits for it, but not for ever.
    pub abort: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            complete: Duration::from_secs(120),
            stalled: Duration::from_secs(60),
            slowest: 64 * 1024,
            attempts: 22,
            first_backoff: Duration::from_millis(250),
            longest_backoff: Duration::from_secs(4),
            abort: Duration::from_secs(5),
        }
    }
}

impl Patience {
    /// The default, but with as many attempts as make the pauses last about this long.
    pub fn lasting(pauses: Duration) -> Self {
        let mut patience = Self {
            attempts: 2,
            ..Self::default()
        };
        while patience.longest_pauses() / 2 < pauses {
            patience.attempts += 1;
        }
        patience
    }

    /// The sum of the back-off's ceilings; on average the pauses last half of it.
    fn longest_pauses(&self) -> Duration {
        let ceilings = (0..self.attempts.saturating_sub(1)).map(|n| {
            self.first_backoff
                .saturating_mul(1 << n.min(16))
                .min(self.longest_backoff)
        });
        ceilings.sum()
    }

    /// The average wait before the next request to an overloaded service: all attempts together take as long as with
    /// the back-off.
    pub(super) fn slow_down(&self) -> Duration {
        self.longest_pauses() / 2 / self.attempts.saturating_sub(1).max(1)
    }

    /// The limits for a request of which one attempt may take `attempt`. The whole operation gets the time of three
    /// attempts, or the time of the pauses if that is longer: quick refusals are retried often, but pgstow does not
    /// wait 22 times for a silent store.
    pub fn timeouts(&self, attempt: Duration) -> TimeoutConfig {
        // No read timeout: it would be part of the connection pool's key, and the limit of the attempt already covers
        // it.
        TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .operation_attempt_timeout(attempt)
            .operation_timeout((attempt * 3).max(self.longest_pauses()) + self.connect)
            .build()
    }

    /// The limit for one attempt to move `bytes` of body.
    pub fn transfer(&self, bytes: u64) -> Duration {
        self.answer + Duration::from_secs(bytes / self.slowest.max(1))
    }

    pub(super) fn retries(&self) -> RetryConfig {
        RetryConfig::standard()
            .with_max_attempts(self.attempts)
            .with_initial_backoff(self.first_backoff)
            .with_max_backoff(self.longest_backoff)
            // The SDK's newer schedule starts at 50 ms for all errors but throttling: it would use up its attempts
            // during a burst of 500s.
            .with_retry_spec(aws_smithy_types::retry::RetrySpec::v2_0())
    }

    /// For the clean-up after a failure, which may be the store's: it should not wait as long a second time. Also for
    /// the first request to a store, where a wrong name is more likely than an outage.
    pub fn brief_retries(&self) -> RetryConfig {
        self.retries().with_max_attempts(self.attempts.min(6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_on_a_slow_line_gets_the_time_that_it_needs() {
        let patience = Patience::default();
        assert!(patience.transfer(8 << 20) >= Duration::from_secs(150));
        assert!(patience.transfer(0) == patience.answer);
    }

    #[test]
    fn a_permanent_refusal_is_given_up_in_less_than_a_minute_on_average_and_a_burst_is_outlived() {
        let patience = Patience::default();
        let ceilings: Vec<f64> = (0..patience.attempts - 1)
            .map(|n| {
                (patience.first_backoff.as_secs_f64() * 2f64.powi(i32::try_from(n).unwrap()))
                    .min(patience.longest_backoff.as_secs_f64())
            })
            .collect();
        let mean: f64 = ceilings.iter().sum::<f64>() / 2.0;
        let deviation = (ceilings.iter().map(|c| c * c).sum::<f64>() / 12.0).sqrt();
        assert!(mean - 2.0 * deviation > 25.0, "{mean} {deviation}");
        assert!(mean + 4.0 * deviation < 60.0, "{mean} {deviation}");
    }

    #[test]
    fn as_many_attempts_are_made_as_the_settings_time_asks_for() {
        assert_eq!(Patience::lasting(Duration::from_secs(35)), Patience::default());
        for seconds in [1, 2, 5, 60, 3600] {
            let pauses = Duration::from_secs(seconds);
            let patience = Patience::lasting(pauses);
            let mean = patience.longest_pauses() / 2;
            assert!(
                mean >= pauses && mean <= pauses + patience.longest_backoff / 2,
                "{mean:?}"
            );
            let whole = patience.timeouts(Duration::from_secs(1)).operation_timeout().unwrap();
            assert!(whole >= pauses * 2);
        }
    }
}
