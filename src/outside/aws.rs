//! AWS clients, made once and passed to the code that uses them, and the translation of the SDK's errors into ours.

mod causes;
mod container;
mod credentials;
mod failure;
mod http;
mod patience;
mod process;
mod proxy;
mod refusal;
pub mod settings;
mod slow_down;

use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::identity::IdentityCache;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig, timeout::TimeoutConfig,
};
use aws_types::service_config::ServiceConfigKey;
use secrecy::{ExposeSecret, SecretString};

use crate::error::Result;

pub use credentials::credentials_error;
pub use failure::{BYTES_CHANGE, error, lacks_credentials, service_code};
pub use patience::Patience;
pub use refusal::{error_needing, statement};

use credentials::Renewed;
use settings::Checksums;

/// What all AWS clients share: region, credentials, HTTP client.
#[derive(Debug, Clone)]
pub struct Config {
    sdk: SdkConfig,
    /// `Some` if the SDK finds the credentials itself.
    renewed: Option<Renewed>,
}

impl Config {
    pub fn region(&self) -> Option<&Region> {
        self.sdk.region()
    }

    pub fn credentials(&self) -> Option<SharedCredentialsProvider> {
        self.sdk.credentials_provider()
    }

    /// Takes the region from an ARN, for a client that is used for that one resource only.
    fn at(&self, arn: &str) -> SdkConfig {
        match region_of(arn) {
            Some(region) => self.sdk.to_builder().region(region).build(),
            None => self.sdk.clone(),
        }
    }
}

/// `arn:partition:service:region:account:…`
fn region_of(arn: &str) -> Option<Region> {
    let mut parts = arn.strip_prefix("arn:")?.splitn(4, ':');
    let region = parts.nth(2).filter(|region| !region.is_empty())?;
    Some(Region::new(region.to_owned()))
}

/// Secrets Manager and SNS use the limits of this configuration unchanged.
pub async fn load(settings: &settings::Aws) -> Result<Config> {
    let http = http::client(settings).await?;
    let answer = Duration::from_secs(15);
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http.clone())
        .retry_config(RetryConfig::standard().with_max_attempts(5))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(5))
                .operation_attempt_timeout(answer)
                .operation_timeout(answer * 3)
                .build(),
        );
    let region = region(settings).await;
    if let Some(region) = region.clone() {
        loader = loader.region(region);
    }
    let given = credentials(
        settings.access_key_id.as_deref(),
        settings.secret_access_key.as_ref(),
        settings.session_token.as_ref(),
    );
    let (loader, renewed) = match given {
        Some(credentials) => (loader.credentials_provider(credentials), None),
        None => {
            let renewed = Renewed::new(http, region);
            // Our provider caches them itself.
            let loader = loader
                .credentials_provider(renewed.clone())
                .identity_cache(IdentityCache::no_cache());
            (loader, Some(renewed))
        }
    };
    Ok(Config {
        sdk: loader.load().await,
        renewed,
    })
}

/// The region, if the SDK should not search for it.
async fn region(settings: &settings::Aws) -> Option<Region> {
    if let Some(named) = &settings.region {
        return Some(Region::new(named.clone()));
    }
    let given = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new());
    let given = given.region().await;
    // A blank variable counts as not set; the SDK does not treat it so.
    let is_blank = given.as_ref().is_some_and(|region| region.as_ref().trim().is_empty());
    let is_custom = settings.endpoint.is_some() || settings.endpoint_s3.is_some();
    if !is_blank && (given.is_some() || !is_custom) {
        return given;
    }
    // Not the whole default chain: at its end it asks the instance metadata service, which costs seconds where there
    // is none, and a custom endpoint seldom needs the region.
    let chain = RegionProviderChain::first_try(ProfileFileRegionProvider::new());
    match is_custom {
        true => chain.or_else(Region::new("us-east-1")).region().await,
        false => chain.region().await,
    }
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

/// The endpoint that the environment or the profile sets for one service, found as the SDK finds it.
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

/// Part of the warning if requests and answers cross a network unencrypted.
pub const OPEN_ENDPOINT: &str = "reached without encryption";

/// The services that a run uses.
#[derive(Debug, Clone, Copy, Default)]
pub struct InUse {
    pub s3: bool,
    pub secrets: bool,
    pub sns: bool,
    pub kms: bool,
}

/// A warning for each service whose `http://` endpoint is on another machine.
pub fn open_endpoints(config: &Config, settings: &settings::Aws, used: InUse) -> Vec<String> {
    let given = |own: &Option<String>, service: &str| {
        own.clone()
            .or_else(|| settings.endpoint.clone())
            .or_else(|| endpoint_of(&config.sdk, service))
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
            "{service} is {OPEN_ENDPOINT} (http://{place}): anyone on the network path can {harm}; give an https:// endpoint"
        ))
    })
    .collect()
}

/// Host and port of an endpoint that is on another machine and not encrypted.
fn open_place(endpoint: &str) -> Option<String> {
    let (scheme, rest) = endpoint.split_once("://")?;
    // Without user and password, which no message should show, and without a path.
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

/// The client for the S3 stores. `path_style`: `None` is path-style for a custom endpoint, virtual-hosted otherwise.
pub fn s3_client(
    config: &Config,
    settings: &settings::Aws,
    checksums: Checksums,
    path_style: Option<bool>,
    patience: &Patience,
) -> aws_sdk_s3::Client {
    let endpoint = s3_endpoint(&config.sdk, settings);
    let (request, response) = match checksums {
        Checksums::Always => (
            RequestChecksumCalculation::WhenSupported,
            ResponseChecksumValidation::WhenSupported,
        ),
        Checksums::WhenRequired => (
            RequestChecksumCalculation::WhenRequired,
            ResponseChecksumValidation::WhenRequired,
        ),
    };
    let mut builder = aws_sdk_s3::config::Builder::from(&config.sdk)
        .force_path_style(path_style.unwrap_or(endpoint.is_some()))
        .request_checksum_calculation(request)
        .response_checksum_validation(response)
        .retry_config(patience.retries())
        .retry_classifier(slow_down::SlowDown::every(patience.slow_down()))
        // Only the number of attempts limits retries. With the SDK's shared quota, a burst of errors that hits all
        // parts in flight would use up the retries of every part.
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
    } else if let Some(renewed) = &config.renewed {
        builder = builder.retry_classifier(renewed.classifier());
    }
    aws_sdk_s3::Client::from_conf(builder.build())
}

pub fn secrets_client(config: &Config, settings: &settings::Aws, id: &str) -> aws_sdk_secretsmanager::Client {
    let mut builder = aws_sdk_secretsmanager::config::Builder::from(&config.at(id));
    if let Some(endpoint) = settings.endpoint_secrets.as_ref().or(settings.endpoint.as_ref()) {
        builder = builder.endpoint_url(endpoint);
    }
    if let Some(renewed) = &config.renewed {
        builder = builder.retry_classifier(renewed.classifier());
    }
    aws_sdk_secretsmanager::Client::from_conf(builder.build())
}

pub fn sns_client(config: &Config, settings: &settings::Aws, topic: &str) -> aws_sdk_sns::Client {
    let mut builder = aws_sdk_sns::config::Builder::from(&config.at(topic));
    if let Some(endpoint) = settings.endpoint_sns.as_ref().or(settings.endpoint.as_ref()) {
        builder = builder.endpoint_url(endpoint);
    }
    if let Some(renewed) = &config.renewed {
        builder = builder.retry_classifier(renewed.classifier());
    }
    aws_sdk_sns::Client::from_conf(builder.build())
}

/// For keys of one region, which may differ from the stores' region.
pub fn kms_client(config: &Config, settings: &settings::Aws, region: &str) -> aws_sdk_kms::Client {
    let mut builder = aws_sdk_kms::config::Builder::from(&config.sdk).region(Region::new(region.to_owned()));
    if let Some(endpoint) = settings.endpoint_kms.as_ref().or(settings.endpoint.as_ref()) {
        builder = builder.endpoint_url(endpoint);
    }
    if let Some(renewed) = &config.renewed {
        builder = builder.retry_classifier(renewed.classifier());
    }
    aws_sdk_kms::Client::from_conf(builder.build())
}

pub fn ecs_client(config: &Config, settings: &settings::Aws, cluster: &str) -> aws_sdk_ecs::Client {
    let mut builder = aws_sdk_ecs::config::Builder::from(&config.at(cluster));
    if let Some(endpoint) = settings.endpoint_ecs.as_ref().or(settings.endpoint.as_ref()) {
        builder = builder.endpoint_url(endpoint);
    }
    if let Some(renewed) = &config.renewed {
        builder = builder.retry_classifier(renewed.classifier());
    }
    aws_sdk_ecs::Client::from_conf(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Config {
        fn of(sdk: SdkConfig) -> Self {
            Self { sdk, renewed: None }
        }
    }

    #[test]
    fn an_arn_names_the_region() {
        for (arn, region) in [
            (
                "arn:aws:secretsmanager:eu-west-1:123456789012:secret:shop-AbCdEf",
                Some("eu-west-1"),
            ),
            ("arn:aws-cn:sns:cn-north-1:123456789012:topic", Some("cn-north-1")),
            ("arn:aws:iam::123456789012:role/x", None),
            ("prod/shop", None),
            ("arn:aws", None),
        ] {
            assert_eq!(region_of(arn).as_ref().map(Region::as_ref), region, "{arn}");
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
            !open_endpoints(&Config::of(SdkConfig::builder().build()), &settings, used).is_empty()
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
        let told = open_endpoints(&Config::of(SdkConfig::builder().build()), &everywhere, used);
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
