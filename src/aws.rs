//! AWS clients, made once and handed down, and the translation of the SDK's errors into ours.

mod refusal;
mod slow_down;

use std::error::Error as StdError;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig, timeout::TimeoutConfig,
};
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::service_config::ServiceConfigKey;
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Code, Error};
use crate::settings::{self, Checksums};

pub use refusal::{error_needing, statement};

/// How long a store is waited for, and how often it is asked again.
///
/// The back-off is random between nothing and a ceiling that doubles from `first_backoff` to
/// `longest_backoff`. Many attempts with a low ceiling make the sum of the pauses nearly the same
/// each time: about 36 s by default (`BACKUP_S3_RETRY_SECONDS`), so a store that is ill for 25 s is
/// outlived, and one that answers 500 for ever is given up in less than a minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    pub connect: Duration,
    /// For one attempt of a request that moves little data.
    pub answer: Duration,
    /// For one attempt to complete an upload, where the store has to put many parts together.
    pub complete: Duration,
    /// No byte of a body moves for this long: the connection is dead.
    pub stalled: Duration,
    /// The slowest network that is still worth waiting for, in bytes per second: it sets how
    /// long one attempt to move a part may take.
    pub slowest: u64,
    pub attempts: u32,
    pub first_backoff: Duration,
    pub longest_backoff: Duration,
    /// How long parts in flight may go on when an upload is given up. A part that ends after the
    /// abort would stay in the store, so they are waited for, but not for ever.
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
    /// As by default, but with so many attempts that the pauses between them last about this long.
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

    /// The sum of the back-off's ceilings; the pauses are half of it on average.
    fn longest_pauses(&self) -> Duration {
        let ceilings = (0..self.attempts.saturating_sub(1)).map(|n| {
            self.first_backoff
                .saturating_mul(1 << n.min(16))
                .min(self.longest_backoff)
        });
        ceilings.sum()
    }

    /// How long to wait, on average, before a service that is overwhelmed is asked again: all attempts
    /// take as long together as with the back-off.
    fn slow_down(&self) -> Duration {
        self.longest_pauses() / 2 / self.attempts.saturating_sub(1).max(1)
    }

    /// The limits for a request whose one attempt may take `attempt`. The whole operation gets
    /// three attempts' time, or that of the pauses if they are longer: fast refusals are retried
    /// often, silence is not waited for 22 times.
    pub fn timeouts(&self, attempt: Duration) -> TimeoutConfig {
        // No read timeout: it would be part of the connection pool's key, and the attempt's limit
        // covers it.
        TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .operation_attempt_timeout(attempt)
            .operation_timeout((attempt * 3).max(self.longest_pauses()) + self.connect)
            .build()
    }

    /// One attempt to move `bytes` of body.
    pub fn transfer(&self, bytes: u64) -> Duration {
        self.answer + Duration::from_secs(bytes / self.slowest.max(1))
    }

    fn retries(&self) -> RetryConfig {
        RetryConfig::standard()
            .with_max_attempts(self.attempts)
            .with_initial_backoff(self.first_backoff)
            .with_max_backoff(self.longest_backoff)
            // The SDK's newer schedule starts at 50 ms for anything but throttling, and would be
            // through with its attempts while a burst of 500s still lasts.
            .with_retry_spec(aws_smithy_types::retry::RetrySpec::v2_0())
    }

    /// For clean-up after a failure, whose reason may be the store: its illness must not be sat
    /// through twice. And for a first look, where a wrong name is likelier than an illness.
    pub fn brief_retries(&self) -> RetryConfig {
        self.retries().with_max_attempts(self.attempts.min(6))
    }
}

/// What all AWS clients share: region, credentials, HTTP client. Secrets Manager and SNS use its
/// limits as they are.
pub async fn load(settings: &settings::Aws) -> SdkConfig {
    // The provider is named: a process-wide default could be anything that a dependency set.
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let answer = Duration::from_secs(15);
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::standard().with_max_attempts(5))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(5))
                .operation_attempt_timeout(answer)
                .operation_timeout(answer * 3)
                .build(),
        );
    if let Some(region) = region(settings).await {
        loader = loader.region(region);
    }
    if let Some(credentials) = credentials(
        settings.access_key_id.as_deref(),
        settings.secret_access_key.as_ref(),
        settings.session_token.as_ref(),
    ) {
        loader = loader.credentials_provider(credentials);
    }
    loader.load().await
}

/// The region, where it is not for the SDK to find.
async fn region(settings: &settings::Aws) -> Option<Region> {
    let named = settings.region.clone().map(Region::new);
    if named.is_some() || (settings.endpoint.is_none() && settings.endpoint_s3.is_none()) {
        return named;
    }
    // Not the whole default chain: it ends in a question to the instance metadata service, which
    // costs seconds where there is none, and a custom endpoint seldom cares for the region.
    RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .or_else(Region::new("us-east-1"))
        .region()
        .await
}

fn credentials(id: Option<&str>, secret: Option<&SecretString>, token: Option<&SecretString>) -> Option<Credentials> {
    Some(Credentials::new(
        id?,
        secret?.expose_secret(),
        token.map(|token| token.expose_secret().to_owned()),
        None,
        "pgstow settings",
    ))
}

/// An endpoint that the environment or the profile gives to one service, as the SDK finds it.
fn endpoint_of(config: &SdkConfig, service: &str) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id(service)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    config
        .service_config()
        .and_then(|found| found.load_config(key))
        .or_else(|| config.endpoint_url().map(str::to_owned))
}

fn s3_endpoint(config: &SdkConfig, settings: &settings::Aws) -> Option<String> {
    settings
        .endpoint_s3
        .clone()
        .or_else(|| settings.endpoint.clone())
        .or_else(|| endpoint_of(config, "S3"))
}

/// Said where what we send and get would cross a network as it is.
pub const OPEN_ENDPOINT: &str = "reached without encryption";

/// The services that a run uses.
#[derive(Debug, Clone, Copy, Default)]
pub struct InUse {
    pub s3: bool,
    pub secrets: bool,
    pub sns: bool,
    pub kms: bool,
}

/// A warning for each service that `http://` leads to on another machine.
pub fn open_endpoints(config: &SdkConfig, settings: &settings::Aws, used: InUse) -> Vec<String> {
    let given = |own: &Option<String>, service: &str| {
        own.clone()
            .or_else(|| settings.endpoint.clone())
            .or_else(|| endpoint_of(config, service))
    };
    [
        (used.s3, "S3", &settings.endpoint_s3, "read the backups"),
        (
            used.secrets,
            "Secrets Manager",
            &settings.endpoint_secrets,
            "read the database's password",
        ),
        (used.sns, "SNS", &settings.endpoint_sns, "read the notifications"),
        (used.kms, "KMS", &settings.endpoint_kms, "sign in our place"),
    ]
    .into_iter()
    .filter(|(used, ..)| *used)
    .filter_map(|(_, service, own, harm)| {
        let place = open_place(&given(own, service)?)?;
        Some(format!(
            "{service} is {OPEN_ENDPOINT} (http://{place}): whoever is on the way can {harm}; give an https:// endpoint"
        ))
    })
    .collect()
}

/// Host and port of an endpoint that is another machine's and not encrypted.
fn open_place(endpoint: &str) -> Option<String> {
    let (scheme, rest) = endpoint.split_once("://")?;
    // Without a login, which no message should show, and without a path.
    let authority = rest.split(['/', '?', '#']).next()?.rsplit('@').next()?;
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => authority.split(':').next()?,
    };
    let local = match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
    };
    (scheme.eq_ignore_ascii_case("http") && !local).then(|| authority.to_owned())
}

/// The client for the S3 stores.
pub fn s3_client(
    config: &SdkConfig,
    settings: &settings::Aws,
    s3: &settings::S3,
    patience: &Patience,
) -> aws_sdk_s3::Client {
    let endpoint = s3_endpoint(config, settings);
    let (request, response) = match s3.checksums {
        Checksums::Always => (
            RequestChecksumCalculation::WhenSupported,
            ResponseChecksumValidation::WhenSupported,
        ),
        Checksums::WhenRequired => (
            RequestChecksumCalculation::WhenRequired,
            ResponseChecksumValidation::WhenRequired,
        ),
    };
    let mut builder = aws_sdk_s3::config::Builder::from(config)
        .force_path_style(s3.path_style.unwrap_or(endpoint.is_some()))
        .request_checksum_calculation(request)
        .response_checksum_validation(response)
        .retry_config(patience.retries())
        .retry_classifier(slow_down::SlowDown::every(patience.slow_down()))
        // The number of attempts is the bound. The shared quota would let a burst that hits all
        // parts in flight at once use up the patience of each.
        .retry_partition(
            RetryPartition::custom("pgstow-s3")
                .token_bucket(TokenBucket::unlimited())
                .build(),
        )
        .timeout_config(patience.timeouts(patience.answer))
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled()
                .grace_period(patience.stalled)
                .build(),
        );
    builder.set_endpoint_url(endpoint);
    if let Some(credentials) = credentials(
        settings.s3_access_key_id.as_deref(),
        settings.s3_secret_access_key.as_ref(),
        None,
    ) {
        builder = builder.credentials_provider(credentials);
    }
    aws_sdk_s3::Client::from_conf(builder.build())
}

pub fn secrets_client(config: &SdkConfig, settings: &settings::Aws) -> aws_sdk_secretsmanager::Client {
    let mut builder = aws_sdk_secretsmanager::config::Builder::from(config);
    if let Some(endpoint) = settings.endpoint_secrets.as_ref().or(settings.endpoint.as_ref()) {
        builder = builder.endpoint_url(endpoint);
    }
    aws_sdk_secretsmanager::Client::from_conf(builder.build())
}

pub fn sns_client(config: &SdkConfig, settings: &settings::Aws) -> aws_sdk_sns::Client {
    let mut builder = aws_sdk_sns::config::Builder::from(config);
    if let Some(endpoint) = settings.endpoint_sns.as_ref().or(settings.endpoint.as_ref()) {
        builder = builder.endpoint_url(endpoint);
    }
    aws_sdk_sns::Client::from_conf(builder.build())
}

/// For the keys of one region, which may be another than that of the stores.
pub fn kms_client(config: &SdkConfig, settings: &settings::Aws, region: &str) -> aws_sdk_kms::Client {
    let mut builder = aws_sdk_kms::config::Builder::from(config).region(Region::new(region.to_owned()));
    if let Some(endpoint) = settings.endpoint_kms.as_ref().or(settings.endpoint.as_ref()) {
        builder = builder.endpoint_url(endpoint);
    }
    aws_sdk_kms::Client::from_conf(builder.build())
}

pub fn ecs_client(config: &SdkConfig, settings: &settings::Aws) -> aws_sdk_ecs::Client {
    let mut builder = aws_sdk_ecs::config::Builder::from(config);
    if let Some(endpoint) = settings.endpoint_ecs.as_ref().or(settings.endpoint.as_ref()) {
        builder = builder.endpoint_url(endpoint);
    }
    aws_sdk_ecs::Client::from_conf(builder.build())
}

/// The service's own code for a failure (`NoSuchBucket`), or one made of the bare status where an
/// answer has no body, as to every HEAD request.
pub fn service_code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    let SdkError::ServiceError(service) = error else {
        return None;
    };
    match service.err().code() {
        Some("Forbidden") => Some("AccessDenied"),
        Some(code) => Some(code),
        None => match service.raw().status().as_u16() {
            301 | 307 | 308 => Some("PermanentRedirect"),
            400 => Some("BadRequest"),
            401 | 403 => Some("AccessDenied"),
            404 => Some("NotFound"),
            412 => Some("PreconditionFailed"),
            429 => Some("TooManyRequests"),
            500 => Some("InternalError"),
            501 => Some("NotImplemented"),
            503 => Some("ServiceUnavailable"),
            _ => None,
        },
    }
}

/// Our error for a failed request. `what` says what was being done, without a colon at its end:
/// `cannot write shop.dump to s3://bucket`.
pub fn error<E>(code: Code, what: &str, error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let (why, hint) = match error {
        SdkError::ServiceError(service) => {
            let name = service_code(error).unwrap_or("unknown error");
            let status = service.raw().status().as_u16();
            let why = match service.err().message() {
                Some(message) if !message.is_empty() => format!("{name}: {message} (HTTP {status})"),
                _ => format!("{name} (HTTP {status})"),
            };
            (why, service_hint(name))
        }
        SdkError::TimeoutError(_) => ("no answer in time".to_owned(), Some(UNREACHABLE)),
        SdkError::DispatchFailure(failure) => {
            let cause = failure
                .as_connector_error()
                .map(|cause| cause as &(dyn StdError + 'static));
            transport(cause, failure.is_timeout(), failure.is_io())
        }
        SdkError::ConstructionFailure(_) => transport(StdError::source(error), false, false),
        SdkError::ResponseError(response) => (
            format!(
                "the answer could not be understood (HTTP {})",
                response.raw().status().as_u16()
            ),
            Some("check that the endpoint is the one of the service: AWS_ENDPOINT_URL and its kin"),
        ),
        _ => ("the request failed".to_owned(), None),
    };
    let ours = Error::new(code, format!("{what}: {why}"));
    match hint {
        Some(hint) => ours.hint(hint),
        None => ours,
    }
}

const UNREACHABLE: &str = "check the endpoint (AWS_ENDPOINT_URL_S3 and its kin), DNS, and the network path: a private subnet needs a NAT or a VPC endpoint";
pub const BYTES_CHANGE: &str =
    "bytes change between here and the store: look for a proxy or faulty memory on the way, then run again";
const NO_CREDENTIALS: &str =
    "give credentials: the task's role, AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, or AWS_PROFILE";

fn service_hint(name: &str) -> Option<&'static str> {
    Some(match name {
        "NoSuchBucket" => "create the bucket, or correct --store",
        name if refusal::CODES.contains(&name) => {
            "allow the action to this role or key: in its own policy, and in the policy of the bucket, secret, topic or KMS key"
        }
        "InvalidAccessKeyId" | "InvalidClientTokenId" | "UnrecognizedClientException" => {
            "the access key id is not known there: check AWS_ACCESS_KEY_ID, AWS_SESSION_TOKEN and the endpoint"
        }
        "SignatureDoesNotMatch" | "InvalidSignatureException" => {
            "check AWS_SECRET_ACCESS_KEY: it does not belong to this access key id"
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => {
            "the session's credentials have expired: get new ones, or let the task use its role"
        }
        "RequestTimeTooSkewed" | "RequestExpired" => "set this machine's clock",
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            "the bucket is in another region: set AWS_REGION to it"
        }
        name if matches!(name, "InternalError" | "InternalFailure" | "ServiceUnavailable")
            || slow_down::CODES.contains(&name) =>
        {
            "the service kept failing after all retries: look at its health, then run again"
        }
        "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => BYTES_CHANGE,
        "NotImplemented" => {
            "the endpoint does not know this feature of S3: BACKUP_S3_CHECKSUMS=when_required helps where it is the \
             checksums, BACKUP_S3_TAGGING=off where it is the object tags"
        }
        "KMS.DisabledException" | "KMS.NotFoundException" | "KMS.KMSInvalidStateException" => {
            "check the KMS key and the role's kms:GenerateDataKey and kms:Decrypt on it"
        }
        _ => return None,
    })
}

/// Why a request never reached the service, from the chain of causes below it.
fn transport(cause: Option<&(dyn StdError + 'static)>, timeout: bool, io: bool) -> (String, Option<&'static str>) {
    let mut causes = Vec::new();
    let mut next = cause;
    while let Some(error) = next {
        if let Some(credentials) = error.downcast_ref::<CredentialsError>() {
            let why = match credentials {
                CredentialsError::CredentialsNotLoaded(_) => "no credentials were found",
                CredentialsError::ProviderTimedOut(_) => "the provider of the credentials did not answer in time",
                _ => "the credentials could not be loaded",
            };
            return (why.to_owned(), Some(NO_CREDENTIALS));
        }
        causes.push(error.to_string());
        next = error.source();
    }
    // The innermost cause is the one that a reader can act on ("Connection refused").
    let innermost = causes.last().map_or("", String::as_str).trim();
    let why = if causes.iter().any(|cause| cause.contains("dns error")) {
        format!("the endpoint's name cannot be resolved: {innermost}")
    } else if causes.iter().any(|cause| cause.contains("InvalidContentType")) {
        let hint = "the endpoint does not speak TLS: begin it with http://, or give its TLS port";
        return ("TLS failed: the answer is not TLS".to_owned(), Some(hint));
    } else if causes.iter().any(|cause| cause.contains("certificate")) {
        let hint =
            "the server's certificate is not trusted: check the endpoint's name and this machine's CA certificates";
        return (format!("TLS failed: {innermost}"), Some(hint));
    } else if causes.iter().any(|cause| cause.contains("region")) && !io {
        return (innermost.to_owned(), Some("set AWS_REGION"));
    } else if timeout {
        "no connection in time".to_owned()
    } else if io && innermost.is_empty() {
        "the connection broke".to_owned()
    } else {
        innermost.to_owned()
    };
    (why, Some(UNREACHABLE))
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

    #[test]
    fn an_endpoint_in_clear_text_is_told_unless_it_is_on_this_machine() {
        let told = |endpoint: &str| {
            let settings = settings::Aws {
                endpoint_s3: Some(endpoint.to_owned()),
                ..settings::Aws::default()
            };
            let used = InUse {
                s3: true,
                ..InUse::default()
            };
            !open_endpoints(&SdkConfig::builder().build(), &settings, used).is_empty()
        };
        for open in [
            "http://minio:9000",
            "HTTP://10.0.0.1",
            "http://localhost.example/",
            "http://[fd00::1]:9000",
            "http://localhost@far/",
        ] {
            assert!(told(open), "{open}");
        }
        for fine in [
            "https://minio:9000",
            "http://127.0.0.1:9000",
            "http://localhost:1/",
            "http://s3.localhost",
            "http://[::1]:9000",
        ] {
            assert!(!told(fine), "{fine}");
        }
        // The password's way counts as much, and only of what is used.
        let everywhere = settings::Aws {
            endpoint: Some("http://far".to_owned()),
            ..settings::Aws::default()
        };
        let used = InUse {
            secrets: true,
            ..InUse::default()
        };
        let told = open_endpoints(&SdkConfig::builder().build(), &everywhere, used);
        assert!(
            told.len() == 1 && told[0].contains("the database's password"),
            "{told:?}"
        );
    }

    #[tokio::test]
    async fn a_custom_endpoint_needs_no_region() {
        let settings = settings::Aws {
            endpoint_s3: Some("http://127.0.0.1:1".to_owned()),
            ..settings::Aws::default()
        };
        assert!(region(&settings).await.is_some());
    }
}
