//! AWS credentials from the SDK's own chain. pgstow asks for them again when they expire, when a service says that
//! they have expired, and when the profile's file has changed.
//!
//! The SDK's chain reads a profile once and caches its content; so pgstow builds the chain again each time.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_config::Region;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use aws_smithy_types::retry::ErrorKind;
use aws_types::os_shim_internal::{Env, Fs};

use super::container::{Container, OfContainer};
use super::process::{self, Process, ProcessFailure};
use crate::run::named_file;

/// pgstow asks for new credentials this long before the old ones expire.
const AHEAD: Duration = Duration::from_secs(300);
/// The shortest time between two requests for new credentials because a service calls them expired.
const PAUSE: Duration = Duration::from_secs(10);
/// Only this much of a body is read.
const LOOKED_AT: usize = 4096;
/// The services' codes for expired credentials, and for a key that was deleted when another replaced it.
const EXPIRED: [&str; 8] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "RequestExpired",
    "InvalidToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
];

/// The credentials that all clients share.
#[derive(Clone)]
pub(super) struct Renewed(Arc<Shared>);

struct Shared {
    http: SharedHttpClient,
    region: Option<Region>,
    /// One task asks on behalf of all.
    asking: tokio::sync::Mutex<()>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    credentials: Option<Credentials>,
    asked: Option<Instant>,
    /// A service has refused them, and pgstow has not asked for new ones since.
    refused: bool,
    /// When pgstow asked again because of a refusal, and whether it got other credentials.
    asked_again: Option<(Instant, bool)>,
}

impl Renewed {
    pub fn new(http: SharedHttpClient, region: Option<Region>) -> Self {
        Self(Arc::new(Shared {
            http,
            region,
            asking: tokio::sync::Mutex::new(()),
            held: Mutex::default(),
        }))
    }

    /// For a client: repeats requests that were refused because of old credentials.
    pub fn classifier(&self) -> impl ClassifyRetry + 'static {
        Expired(self.clone())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn current(&self) -> provider::Result {
        if let Some(credentials) = self.held().usable() {
            return Ok(credentials);
        }
        let _asking = self.0.asking.lock().await;
        // Another task has asked in the meantime.
        if let Some(credentials) = self.held().usable() {
            return Ok(credentials);
        }
        let chain = Box::pin(self.0.chain()).await;
        let answer = match Box::pin(chain.provide_credentials()).await {
            Err(error) => Err(Box::pin(naming_the_token(error)).await),
            answer => answer,
        };
        let mut held = self.held();
        let now = Instant::now();
        held.asked = Some(now);
        let same = matches!((&answer, &held.credentials), (Ok(new), Some(old)) if new == old);
        if std::mem::take(&mut held.refused) {
            held.asked_again = Some((now, answer.is_ok() && !same));
        }
        match answer {
            Ok(credentials) => {
                held.credentials = Some(credentials.clone());
                Ok(credentials)
            }
            Err(error) => {
                // The old ones can be used until they expire.
                held.credentials
                    .clone()
                    .filter(|old| !expires_within(old, Duration::ZERO))
                    .ok_or(error)
            }
        }
    }
}

impl Shared {
    /// The SDK's own default chain, with two providers of ours.
    async fn chain(&self) -> CredentialsProviderChain {
        let config = ProviderConfig::without_region()
            .with_region(self.region.clone())
            .with_http_client(self.http.clone());
        let profiles = aws_config::profile::load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), None).await;
        let mut profile = ProfileFileCredentialsProvider::builder().configure(&config);
        if let Some(process) = profiles.ok().as_ref().and_then(Process::of) {
            profile = profile
                .profile_files(process.files())
                .with_custom_provider(Process::SOURCE, process);
        }
        let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(&config);
        let container = EcsCredentialsProvider::builder().configure(&config);
        let instance = ImdsCredentialsProvider::builder().configure(&config);
        CredentialsProviderChain::first_try("Environment", EnvironmentVariableCredentialsProvider::new())
            .or_else("Profile", profile.build())
            .or_else("WebIdentityToken", web_identity.build())
            .or_else("EcsContainer", Container(container.build()))
            .or_else("Ec2InstanceMetadata", instance.build())
    }
}

impl Held {
    fn usable(&self) -> Option<Credentials> {
        let credentials = self.credentials.as_ref().filter(|_| !self.refused)?;
        // Some services give no newer credentials until shortly before the old ones expire.
        let lately = self.asked.is_some_and(|asked| asked.elapsed() < PAUSE);
        let ahead = if lately { Duration::ZERO } else { AHEAD };
        (!expires_within(credentials, ahead)).then(|| credentials.clone())
    }
}

fn expires_within(credentials: &Credentials, ahead: Duration) -> bool {
    credentials
        .expiry()
        .is_some_and(|expiry| expiry <= SystemTime::now() + ahead)
}

impl ProvideCredentials for Renewed {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(Box::pin(self.current()))
    }
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewed")
    }
}

#[derive(Debug)]
struct Expired(Renewed);

impl ClassifyRetry for Expired {
    fn name(&self) -> &'static str {
        "Expired"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let failed = context.output_or_error().is_some_and(|outcome| outcome.is_err());
        if !failed || !context.response().is_some_and(says_expired) {
            return RetryAction::NoActionIndicated;
        }
        let mut held = self.0.held();
        match held.asked_again.filter(|(asked, _)| asked.elapsed() < PAUSE) {
            // The last request gave the same credentials.
            Some((_, false)) if !held.refused => return RetryAction::NoActionIndicated,
            // The last request gave newer credentials than the refused ones.
            Some(_) => {}
            None => held.refused = true,
        }
        RetryAction::retryable_error(ErrorKind::ServerError)
    }
}

fn says_expired(response: &HttpResponse) -> bool {
    let body = response.body().bytes().unwrap_or_default();
    // An answer to HEAD has no body; S3's status for expired credentials is 400.
    if body.is_empty() {
        return response.status().as_u16() == 400;
    }
    let body = String::from_utf8_lossy(&body[..body.len().min(LOOKED_AT)]);
    EXPIRED.iter().any(|code| body.contains(code))
}

/// A web identity's token file that cannot be read. The SDK does not say which file.
#[derive(Debug)]
struct NoToken {
    file: String,
    /// The variable or key that names it.
    by: &'static str,
    source: io::Error,
}

impl NoToken {
    /// The first of these files that cannot be opened for this reason.
    fn among(named: [(Option<String>, &'static str); 2], kind: io::ErrorKind) -> Option<Self> {
        named.into_iter().find_map(|(file, by)| {
            let file = file.filter(|file| !file.is_empty())?;
            // The SDK opened it a moment ago.
            let source = named_file::open(Path::new(&file)).err()?;
            (source.kind() == kind).then_some(Self { file, by, source })
        })
    }
}

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} names {}, which cannot be read: {}",
            self.by, self.file, self.source
        )
    }
}

impl StdError for NoToken {}

async fn naming_the_token(error: CredentialsError) -> CredentialsError {
    let Some(kind) = kind_of_file_error(&error) else {
        return error;
    };
    let variable = Env::real().get("AWS_WEB_IDENTITY_TOKEN_FILE").ok();
    let profile = aws_config::profile::load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), None).await;
    let key = profile
        .ok()
        .and_then(|profile| profile.get("web_identity_token_file").map(str::to_owned));
    let named = [
        (key, "web_identity_token_file of the AWS profile"),
        (variable, "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ];
    match NoToken::among(named, kind) {
        Some(token) => CredentialsError::provider_error(token),
        None => error,
    }
}

/// The kind of a file error, if reading a file is what failed.
fn kind_of_file_error(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found.kind());
        }
        next = error.source();
    }
    None
}

/// Why there are no credentials, and what to do: in our own words if we have them, and with the provider's message.
pub fn credentials_error(error: &CredentialsError) -> (String, &'static str) {
    let why = match error {
        CredentialsError::CredentialsNotLoaded(_) => "no credentials were found",
        CredentialsError::ProviderTimedOut(_) => "the provider of the credentials did not answer in time",
        CredentialsError::InvalidConfiguration(_) => "the profile cannot be used",
        _ => "the credentials could not be loaded",
    };
    let source = StdError::source(error);
    // A chain of providers wraps what one of them says.
    let chain = || std::iter::successors(source, |&error: &&(dyn StdError + 'static)| error.source());
    if let Some(failure) = chain().find_map(|error| error.downcast_ref::<ProcessFailure>()) {
        return (format!("{why}: {failure}"), process::HINT);
    }
    if let Some(failure) = chain().find_map(|error| error.downcast_ref::<OfContainer>()) {
        let told = super::causes::causes(StdError::source(failure));
        return match told.last() {
            Some(last) => (format!("{why}: {failure}: {last}"), failure.hint()),
            None => (format!("{why}: {failure}"), failure.hint()),
        };
    }
    let told = super::causes::causes(source);
    // The SDK is built without support for this one kind of profile.
    if told.iter().any(|cause| cause.contains("credentials-login")) {
        return (
            format!("{why}: the profile has a login_session (of `aws login`), which pgstow does not read"),
            LOGIN,
        );
    }
    if told.iter().any(|cause| cause.contains("cargo feature")) {
        return (
            format!("{why}: the profile is of a kind that pgstow does not read"),
            PROFILE,
        );
    }
    if let Some(token) = chain().find_map(|error| error.downcast_ref::<NoToken>()) {
        return (format!("{why}: {token}"), TOKEN);
    }
    if let Some(lacking) = told.iter().find(|cause| cause.contains("sso-session named")) {
        return (format!("{why}: {lacking}"), SSO_SESSION);
    }
    let signed_out = told.iter().any(|cause| {
        let cause = cause.to_ascii_lowercase();
        cause.contains("sso") && (cause.contains("expired") || cause.contains("not found") || cause.contains("cache"))
    });
    let proxy = super::proxy::on_the_way(source);
    let hint = match error {
        _ if signed_out => "log in again: aws sso login, with the same AWS_PROFILE",
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::ProviderTimedOut(_) => NO_CREDENTIALS,
        _ if proxy.is_some() => super::proxy::BEHIND_PROXY,
        _ => PROFILE,
    };
    let why = match proxy {
        Some(proxy) => format!("{why} by way of the proxy {proxy}"),
        None => why.to_owned(),
    };
    match told.last().map(|last| attempts(last)) {
        Some(last) if !last.is_empty() => (format!("{why}: {last}"), hint),
        _ => (why, hint),
    }
}

/// From the list of all places that the SDK tried, the problem with the profile. That the other places hold nothing
/// is expected.
fn attempts(told: &str) -> &str {
    if !told.contains("Attempted:") {
        return told;
    }
    let profile = told.lines().find_map(|line| line.trim().strip_prefix("Profile: "));
    let reason = profile.and_then(|told| told.strip_prefix("the credential provider was not enabled"));
    reason.map_or("", |reason| reason.trim_start_matches([':', ' ']))
}

pub(super) const NO_CREDENTIALS: &str = "give credentials: the task's role, AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, or \
                                         AWS_PROFILE in the environment itself (not in .env)";
const PROFILE: &str = "check the profile that AWS_PROFILE names, in ~/.aws/config and ~/.aws/credentials";
const SSO_SESSION: &str = "add the section [sso-session NAME], with the name that the profile has in sso_session, to ~/.aws/config \
                           (`aws configure sso` writes it)";
const LOGIN: &str = "let the AWS CLI provide them, with `credential_process = aws configure export-credentials \
                     --profile NAME --format process` in a profile; or use an access key, a role, or a profile of \
                     `aws sso login`";
const TOKEN: &str = "name the file that the platform mounts (on EKS by the annotation of the service account), or \
                     remove the setting";

#[cfg(test)]
mod tests {
    use super::*;

    fn held(expires_in: Option<i64>, asked: Duration, refused: bool) -> Held {
        let expiry = expires_in.map(|seconds| {
            let span = Duration::from_secs(seconds.unsigned_abs());
            let now = SystemTime::now();
            if seconds < 0 { now - span } else { now + span }
        });
        Held {
            credentials: Some(Credentials::new("id", "secret", None, expiry, "test")),
            asked: Instant::now().checked_sub(asked),
            refused,
            asked_again: None,
        }
    }

    #[test]
    fn credentials_are_asked_for_again_before_they_expire_and_when_they_are_refused() {
        let long_ago = Duration::from_secs(60);
        for (expires_in, asked, refused, usable) in [
            (None, long_ago, false, true),
            (None, long_ago, true, false),
            (Some(3600), long_ago, false, true),
            (Some(200), long_ago, false, false),
            // No newer credentials are available.
            (Some(200), Duration::ZERO, false, true),
            (Some(-1), Duration::ZERO, false, false),
        ] {
            let held = held(expires_in, asked, refused);
            assert_eq!(held.usable().is_some(), usable, "{expires_in:?} {asked:?} {refused}");
        }
    }

    #[test]
    fn the_token_file_that_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (fifo, absent) = (folder.path().join("fifo"), folder.path().join("absent"));
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        let name = |path: &Path| Some(path.to_str().unwrap().to_owned());
        // It does not wait for a writer of the FIFO.
        let named = [(name(&fifo), "profile"), (name(&absent), "variable")];
        let token = NoToken::among(named, io::ErrorKind::NotFound).unwrap();
        assert_eq!((token.by, Some(token.file)), ("variable", name(&absent)));
        let named = [(None, "profile"), (Some(String::new()), "variable")];
        assert!(NoToken::among(named, io::ErrorKind::NotFound).is_none());
    }

    #[test]
    fn a_providers_reason_is_told_in_its_words() {
        let error = CredentialsError::provider_error("external process exited with code 3. Stderr: no ticket\n");
        let (why, hint) = credentials_error(&error);
        assert!(
            why.ends_with("could not be loaded: external process exited with code 3. Stderr: no ticket"),
            "{why}"
        );
        assert!(hint.contains("AWS_PROFILE"));
        let chain = "no credentials found in chain. Attempted:\n  Environment: x\n  Profile: the credential provider was not \
                     enabled: profile `p` was not defined\n  EcsContainer: y";
        let (why, _) = credentials_error(&CredentialsError::not_loaded(chain));
        assert_eq!(why, "no credentials were found: profile `p` was not defined");
        let chain = "no credentials found in chain. Attempted:\n  Profile: the credential provider was not enabled\n";
        assert_eq!(
            credentials_error(&CredentialsError::not_loaded(chain)).0,
            "no credentials were found"
        );
        let error = CredentialsError::provider_error(
            "This behavior requires following cargo feature(s) enabled: credentials-login. In order to use x",
        );
        let (why, hint) = credentials_error(&error);
        assert!(why.contains("login_session") && !why.contains("cargo"), "{why}");
        assert!(hint.contains("credential_process"), "{hint}");
        let error = CredentialsError::provider_error(NoToken {
            file: "/run/none".into(),
            by: "AWS_WEB_IDENTITY_TOKEN_FILE",
            source: io::ErrorKind::NotFound.into(),
        });
        let (why, hint) = credentials_error(&error);
        assert!(why.contains("AWS_WEB_IDENTITY_TOKEN_FILE names /run/none"), "{why}");
        assert!(!hint.contains("AWS_PROFILE"), "{hint}");
        let error = CredentialsError::provider_error("the cached SSO token is expired");
        assert!(credentials_error(&error).1.contains("aws sso login"));
        let error = CredentialsError::invalid_configuration(
            "sso-session named `corp` (referenced by profile `p`) was not found",
        );
        let (why, hint) = credentials_error(&error);
        assert!(why.contains("`corp`") && hint.contains("[sso-session"), "{why} {hint}");
    }
}
