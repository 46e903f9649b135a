//! Services that say that they are asked too much, in whichever of the ways that there are. The SDK knows
//! AWS's own words alone, and would ask again within milliseconds.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction, RetryClassifierPriority};
use aws_smithy_types::retry::ErrorKind;

/// Such answers whatever they say: Too Many Requests, and a provider's own for it.
const STATUSES: [u16; 3] = [429, 509, 529];
/// Such answers whatever their status.
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
/// Of a body, this much is looked at.
const LOOKED_AT: usize = 4096;
/// What a service may ask us to wait.
const LONGEST: u64 = 60;

#[derive(Debug)]
pub(super) struct SlowDown {
    pause: Duration,
}

impl SlowDown {
    /// Asks again after about so long.
    pub(super) fn every(pause: Duration) -> Self {
        Self { pause }
    }

    /// Between half of it and half more, so that those who were refused together do not come again together.
    fn pause(&self) -> Duration {
        let random = RandomState::new().build_hasher().finish() % 1_000;
        self.pause.mul_f64(0.5 + random as f64 / 1_000.0)
    }
}

impl ClassifyRetry for SlowDown {
    /// After the SDK's own, who know some of these and would ask again within milliseconds.
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
    // It has been read already, since the SDK has made an error of it.
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
