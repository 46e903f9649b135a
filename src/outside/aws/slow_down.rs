//! Recognises the answers of overloaded services, in all their forms. The SDK knows only AWS's own codes, and would
//! retry other answers within milliseconds.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction, RetryClassifierPriority};
use aws_smithy_types::retry::ErrorKind;

/// Statuses that always mean this: Too Many Requests, and the own statuses of some providers.
const STATUSES: [u16; 3] = [429, 509, 529];
/// Codes that mean this with any status.
pub(super) const CODES: [&str; 19] = [
    "BandwidthLimitExceeded",
    "Busy",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "ServerBusy",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
    "TransactionInProgressException",
];
/// Only this much of a body is read.
const LOOKED_AT: usize = 4096;
/// The longest wait that a service may ask for, in seconds.
const LONGEST: u64 = 60;

#[derive(Debug)]
pub(super) struct SlowDown {
    pause: Duration,
}

impl SlowDown {
    /// Retries after about this long.
    pub(super) fn every(pause: Duration) -> Self {
        Self { pause }
    }

    /// Between half the pause and one and a half, so that clients that were refused together do not return together.
    fn pause(&self) -> Duration {
        let random = RandomState::new().build_hasher().finish() % 1_000;
        self.pause.mul_f64(0.5 + random as f64 / 1_000.0)
    }
}

impl ClassifyRetry for SlowDown {
    /// Runs after the SDK's own classifiers, which know some of these answers and would retry within milliseconds.
    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }

    fn name(&self) -> &'static str {
        "SlowDown"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let failed = context.output_or_error().is_some_and(|outcome| outcome.is_err());
        let Some(response) = context.response().filter(|response| failed && asks_too_much(response)) else {
            return RetryAction::NoActionIndicated;
        };
        let asked = response.headers().get("retry-after");
        let asked = asked.and_then(|text| text.trim().parse::<u64>().ok());
        let pause = asked.map_or_else(|| self.pause(), |seconds| Duration::from_secs(seconds.min(LONGEST)));
        RetryAction::retryable_error_with_explicit_delay(ErrorKind::ThrottlingError, pause)
    }
}

fn asks_too_much(response: &HttpResponse) -> bool {
    if STATUSES.contains(&response.status().as_u16()) {
        return true;
    }
    // The body is in memory already, since the SDK has made an error from it.
    let body = response.body().bytes().unwrap_or_default();
    let body = String::from_utf8_lossy(&body[..body.len().min(LOOKED_AT)]);
    body.split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .is_some_and(|(code, _)| CODES.contains(&code.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(status: u16, body: &'static str) -> bool {
        asks_too_much(&HttpResponse::new(status.try_into().unwrap(), body.into()))
    }

    #[test]
    fn whoever_says_slow_down_is_understood_and_nobody_else() {
        let code = |code: &'static str| -> &'static str {
            Box::leak(format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>").into_boxed_str())
        };
        assert!(says(429, "") && says(429, code("AccessDenied")));
        assert!(says(503, code("SlowDown")) && says(503, code("SlowDownWrite")) && says(400, code("Throttling")));
        assert!(!says(503, "") && !says(500, code("InternalError")) && !says(404, code("NoSuchKey")));
    }

    #[test]
    fn the_pauses_differ_and_are_as_long_as_they_should_be() {
        let slow_down = SlowDown::every(Duration::from_secs(2));
        let pauses: Vec<Duration> = (0..200).map(|_| slow_down.pause()).collect();
        assert!(
            pauses
                .iter()
                .all(|pause| *pause >= Duration::from_secs(1) && *pause < Duration::from_secs(3))
        );
        let mean = pauses.iter().sum::<Duration>() / 200;
        assert!(
            mean > Duration::from_millis(1_800) && mean < Duration::from_millis(2_200),
            "{mean:?}"
        );
    }
}
