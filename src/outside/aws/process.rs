//! The program that a profile names in `credential_process`. With the SDK, a program that hangs would outlive pgstow,
//! and the next one would run beside it; ours ends with the request that waits for it.

use std::error::Error as StdError;
use std::fmt;
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime};

use aws_config::profile::ProfileSet;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

/// Shorter than one attempt of any request, so that the error names the program and not the service.
const LIMIT: Duration = Duration::from_secs(14);
const KEY: &str = "credential_process";
/// Keys of a profile that take precedence over it.
const STRONGER: [&str; 6] = [
    "credential_source",
    "web_identity_token_file",
    "sso_session",
    "sso_account_id",
    "sso_start_url",
    "login_session",
];

#[derive(Clone)]
pub(super) struct Process {
    profile: String,
    command: String,
}

impl Process {
    /// Its name for the SDK.
    pub const SOURCE: &'static str = "pgstow";

    /// The program that the selected profile leads to, through the profiles of its `source_profile` chain.
    pub fn of(profiles: &ProfileSet) -> Option<Self> {
        let mut name = profiles.selected_profile();
        // No real chain has so many steps.
        for step in 0..10 {
            let profile = profiles.get_profile(name)?;
            let has_keys = profile.get("aws_access_key_id").is_some();
            match profile.get("role_arn").and(profile.get("source_profile")) {
                Some(source) if source != name && !(step > 0 && has_keys) => name = source,
                // The SDK offers no way to provide this kind.
                Some(_) => return None,
                None if profile.get("role_arn").is_some() || (step > 0 && has_keys) => return None,
                None => {
                    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@+/".contains(c));
                    let is_other = STRONGER.iter().any(|key| profile.get(key).is_some());
                    let command = profile.get(KEY).filter(|_| is_plain && !is_other)?;
                    return Some(Self {
                        profile: name.to_owned(),
                        command: command.to_owned(),
                    });
                }
            }
        }
        None
    }

    /// The profile files, changed so that this profile takes its credentials from us.
    pub fn files(&self) -> EnvConfigFiles {
        let section = match self.profile.as_str() {
            "default" => "[default]".to_owned(),
            name => format!("[profile {name}]"),
        };
        EnvConfigFiles::builder()
            .include_default_config_file(true)
            .include_default_credentials_file(true)
            .with_contents(
                EnvConfigFileKind::Config,
                format!("{section}\ncredential_source = {}\n", Self::SOURCE),
            )
            .build()
    }

    async fn ask(&self) -> provider::Result {
        let failed = |why: String| CredentialsError::provider_error(self.failure(why));
        let output = match tokio::time::timeout(LIMIT, self.run()).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(failed(format!("cannot be started: {error}"))),
            Err(_) => return Err(failed(format!("gave no credentials within {} s", LIMIT.as_secs()))),
        };
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("ended with {}: {}", output.status, told.trim())));
        }
        credentials(&output.stdout).map_err(|why| failed(format!("printed no credentials: {why}")))
    }

    /// Runs in its own process group, without stdin: a question to a person would get no answer.
    async fn run(&self) -> std::io::Result<Output> {
        let mut group = Group(None);
        let child = tokio::process::Command::new("sh")
            .args(["-c", &self.command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok());
        group.0 = leader.and_then(Pid::from_raw);
        let output = child.wait_with_output().await;
        // Its leader has been reaped, so the number may belong to another process now.
        group.0 = None;
        output
    }

    fn failure(&self, why: String) -> ProcessFailure {
        ProcessFailure {
            profile: self.profile.clone(),
            why,
        }
    }
}

/// Killed on drop.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It fails if the processes have ended already.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Documentation: "Sourcing credentials with an external process in the AWS CLI". Field names are case-insensitive,
/// as in the SDK.
fn credentials(printed: &[u8]) -> Result<Credentials, String> {
    let printed: Value = serde_json::from_slice(printed).map_err(|_| "it is not JSON".to_owned())?;
    let fields = printed.as_object().ok_or("it is not a JSON object")?;
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    };
    let text = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
    if field("Version").and_then(Value::as_u64) != Some(1) {
        return Err("its Version is not 1".to_owned());
    }
    let id = text("AccessKeyId").ok_or("it lacks AccessKeyId")?;
    let secret = text("SecretAccessKey").ok_or("it lacks SecretAccessKey")?;
    let expiry = match text("Expiration") {
        Some(time) => {
            let time: jiff::Timestamp = time
                .parse()
                .map_err(|_| "its Expiration is not a time in RFC 3339 format")?;
            // A time before 1970 counts as expired.
            let seconds = u64::try_from(time.as_second()).unwrap_or_default();
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        }
        None => None,
    };
    Ok(Credentials::new(
        id,
        secret,
        text("SessionToken"),
        expiry,
        "CredentialProcess",
    ))
}

impl ProvideCredentials for Process {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.ask())
    }
}

/// Does not print the command, which may hold a secret.
impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// Why the program gave no credentials.
#[derive(Debug)]
pub(super) struct ProcessFailure {
    profile: String,
    why: String,
}

impl fmt::Display for ProcessFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KEY} of the AWS profile `{}` {}", self.profile, self.why)
    }
}

impl StdError for ProcessFailure {}

pub(super) const HINT: &str = "run that command by hand: it must print the credentials within 14 s, without asking questions; \
                               pgstow ends one that takes longer";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_prints_is_read_as_awss_tools_read_it() {
        let printed = br#"{"version": 1, "AccessKeyId": "id", "secretaccesskey": "s", "SessionToken": "t",
            "Expiration": "2030-05-02T18:36:00+00:00", "AccountId": "1"}"#;
        let read = credentials(printed).unwrap();
        assert_eq!(
            (read.access_key_id(), read.secret_access_key(), read.session_token()),
            ("id", "s", Some("t"))
        );
        assert!(read.expiry().is_some());
        for (printed, why) in [
            ("no ticket", "not JSON"),
            ("[]", "not a JSON object"),
            ("{}", "Version"),
            (r#"{"Version": 2}"#, "Version"),
            (r#"{"Version": 1, "AccessKeyId": "x"}"#, "SecretAccessKey"),
            (
                r#"{"Version": 1, "AccessKeyId": "x", "SecretAccessKey": "y", "Expiration": "soon"}"#,
                "Expiration",
            ),
        ] {
            let told = credentials(printed.as_bytes()).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    #[tokio::test]
    async fn the_profile_that_the_roles_begin_with_names_the_program() {
        for (selected, found) in [
            ("process", Some("process")),
            ("role", Some("process")),
            ("keys", None),
            ("sso", None),
            ("itself", None),
            ("circle", None),
        ] {
            let files = EnvConfigFiles::builder()
                .with_contents(
                    EnvConfigFileKind::Config,
                    "[profile process]\ncredential_process = x\n[profile role]\nrole_arn = r\nsource_profile = process\n\
                     [profile keys]\nrole_arn = r\nsource_profile = static\n[profile static]\naws_access_key_id = i\n\
                     aws_secret_access_key = s\ncredential_process = x\n[profile sso]\nsso_session = s\n\
                     credential_process = x\n[profile itself]\nrole_arn = r\nsource_profile = itself\n\
                     credential_process = x\n[profile circle]\nrole_arn = r\nsource_profile = round\n\
                     [profile round]\nrole_arn = r\nsource_profile = circle\n",
                )
                .build();
            let (fs, env) = (
                aws_types::os_shim_internal::Fs::real(),
                aws_types::os_shim_internal::Env::from_slice(&[]),
            );
            let profiles = aws_config::profile::load(&fs, &env, &files, Some(selected.into())).await;
            let process = Process::of(&profiles.unwrap());
            assert_eq!(
                process.as_ref().map(|process| process.profile.as_str()),
                found,
                "{selected}"
            );
        }
    }

    #[tokio::test]
    async fn a_program_that_hangs_ends_with_who_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let process = Process {
            profile: "slow".to_owned(),
            command: format!("sleep 333 & echo $! > '{}'; wait", pid.display()),
        };
        let waited = tokio::time::timeout(Duration::from_secs(2), process.ask()).await;
        assert!(waited.is_err());
        let child: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        let child = Pid::from_raw(child).unwrap();
        for _ in 0..100 {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero()));
            match state {
                Ok(state) if !state.contains(") Z ") => {}
                // Gone, or dead and not reaped yet by the machine's first process.
                _ => return,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it lives on");
    }
}
