//! The program that a profile names in `credential_process`. With the SDK, a program that hangs would outlive pgstow,
//! and the next one would run beside it; ours ends with the request that waits for it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use aws_config::profile::ProfileSet;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::printable;

/// Shorter than one attempt of any request, so that the error names the program and not the service.
const LIMIT: Duration = Duration::from_secs(14);
/// How many bytes of each of its outputs are kept.
const KEPT: usize = 64 << 10;
/// An error quotes at most this many characters of what it wrote to stderr.
const QUOTED: usize = 300;
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
        let ended = match tokio::time::timeout(LIMIT, self.run()).await {
            Ok(ended) => ended.map_err(failed)?,
            Err(_) => return Err(failed(format!("gave no credentials within {} s", LIMIT.as_secs()))),
        };
        if !ended.status.success() {
            let why = match last_line(&ended.stderr) {
                Some(line) => format!("ended with {}: {line}", ended.status),
                None => format!("ended with {}", ended.status),
            };
            return Err(failed(why));
        }
        credentials(&ended.stdout).map_err(|why| failed(format!("printed no credentials: {why}")))
    }

    /// Runs in its own process group, without stdin: a question to a person would get no answer.
    async fn run(&self) -> Result<Ended, String> {
        let mut group = Group(None);
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", &self.command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot be started: {error}"))?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok());
        group.0 = leader.and_then(Pid::from_raw);
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err("has no pipes for its output".to_owned());
        };
        let (stdout, stderr) = tokio::try_join!(whole(stdout), end(stderr))?;
        let status = child.wait().await;
        // Its leader has been reaped, so the number may belong to another process now.
        group.0 = None;
        Ok(Ended {
            status: status.map_err(|error| format!("cannot be waited for: {error}"))?,
            stdout,
            stderr,
        })
    }

    fn failure(&self, why: String) -> ProcessFailure {
        ProcessFailure {
            profile: self.profile.clone(),
            why,
        }
    }
}

/// How the program ended, and what it wrote.
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    /// Its last [`KEPT`] bytes.
    stderr: Vec<u8>,
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

/// All bytes, if they are at most [`KEPT`].
async fn whole(output: impl AsyncRead + Unpin) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = output.take(KEPT as u64 + 1).read_to_end(&mut bytes).await;
    match read.map_err(|error| unread(&error))? {
        count if count > KEPT => Err(format!("printed more than {} KiB instead of credentials", KEPT >> 10)),
        _ => Ok(bytes),
    }
}

/// The last [`KEPT`] bytes. The others are read too, so that the program does not wait.
async fn end(mut output: impl AsyncRead + Unpin) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(2 * KEPT);
    while output.read_buf(&mut bytes).await.map_err(|error| unread(&error))? > 0 {
        bytes.drain(..bytes.len().saturating_sub(KEPT));
    }
    Ok(bytes)
}

fn unread(error: &io::Error) -> String {
    format!("has an output that cannot be read: {error}")
}

/// The last line that is not empty. Programs write debugging output before it, which is long and may hold secrets.
fn last_line(written: &[u8]) -> Option<String> {
    let written = String::from_utf8_lossy(written);
    let line = written.trim().lines().next_back()?;
    let line = printable::line(line.trim());
    let excess = line.char_indices().nth(QUOTED).map(|(at, _)| at);
    Some(match excess {
        Some(at) => format!("{}…", &line[..at]),
        None => line,
    })
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

    /// Why this shell command gives no credentials.
    async fn failure_of(command: &str) -> String {
        let process = Process {
            profile: "broken".to_owned(),
            command: command.to_owned(),
        };
        let asked = tokio::time::timeout(Duration::from_secs(10), process.ask()).await;
        let error = asked.unwrap().unwrap_err();
        let source = error.source().unwrap();
        source.downcast_ref::<ProcessFailure>().unwrap().why.clone()
    }

    #[tokio::test]
    async fn of_what_a_failed_program_wrote_only_the_last_line_is_quoted() {
        // More than a pipe and a buffer can hold, then what a person can act on.
        let flood = "head -c 300000 /dev/zero | tr '\\0' 'x' >&2";
        let last = "printf '\\nsecret\\nno ticket \\033[2J \\n\\n' >&2";
        let why = failure_of(&format!("{flood}; {last}; exit 3")).await;
        assert_eq!(why, "ended with exit status: 3: no ticket \u{fffd}[2J");
        let why = failure_of(&format!("{flood}; exit 3")).await;
        assert_eq!(why, format!("ended with exit status: 3: {}…", "x".repeat(QUOTED)));
        assert_eq!(failure_of("exit 3").await, "ended with exit status: 3");
        assert_eq!(last_line("é".repeat(QUOTED).as_bytes()), Some("é".repeat(QUOTED)));
        assert_eq!(last_line(b" \n\n"), None);
    }

    #[tokio::test]
    async fn a_program_that_prints_without_end_is_not_read_to_its_end() {
        let why = failure_of("yes").await;
        assert!(why.starts_with("printed more than 64 KiB"), "{why}");
        let why = failure_of("printf '[]'").await;
        assert_eq!(why, "printed no credentials: it is not a JSON object");
        let why = failure_of("exec pgstow-lacks-this").await;
        assert!(why.starts_with("ended with exit status: 127: "), "{why}");
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
