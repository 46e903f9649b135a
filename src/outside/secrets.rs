//! Where a run's credentials come from: settings, Secrets Manager, IAM. Each connection asks for the current
//! credentials, since a secret may be rotated, and a token may expire, during a run.

mod contents;
mod iam;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;

use crate::error::{Code, Error, Result};
use crate::outside::aws;
use crate::postgres::settings;
use crate::postgres::{ConnectionInfo, Keys, Login, Provider, Session, Whose};

pub use iam::IamLogin;

/// One secret, and the parts of the connection that the settings add.
#[derive(Clone)]
pub struct SecretSource {
    client: Client,
    id: String,
    overrides: Box<ConnectionInfo>,
    defaults: Box<ConnectionInfo>,
    /// The settings that give defaults: libpq's name of the part, and the setting's name.
    beside: Vec<(&'static str, String)>,
    /// Parts for which a setting has an unusable value, and why.
    unusable: Vec<(&'static str, String)>,
    /// Settings that contradict the secret as it was last read.
    unused: Arc<Mutex<Vec<String>>>,
    /// Logs in with a token instead of the password.
    login: Option<Arc<IamLogin>>,
    /// The database's name as it was last read: a failed run has no other source for it.
    database: Arc<Mutex<Option<String>>>,
}

impl SecretSource {
    pub fn new(client: Client, id: impl Into<String>, overrides: ConnectionInfo) -> Self {
        Self {
            client,
            id: id.into(),
            overrides: Box::new(overrides),
            defaults: Box::default(),
            beside: Vec::new(),
            unusable: Vec::new(),
            unused: Arc::default(),
            login: None,
            database: Arc::default(),
        }
    }

    /// Uses these parts if the secret lacks them; `beside` names their settings.
    #[must_use]
    pub fn completed_by(self, defaults: ConnectionInfo, beside: Vec<(&'static str, String)>) -> Self {
        Self {
            defaults: Box::new(defaults),
            beside,
            ..self
        }
    }

    /// Fails if the secret lacks one of these parts: a setting gives it, but with an unusable value.
    #[must_use]
    pub fn lacking(self, unusable: Vec<(&'static str, String)>) -> Self {
        Self { unusable, ..self }
    }

    /// Takes host and names from the secret, but no password.
    #[must_use]
    pub fn proved_by(self, login: Option<Arc<IamLogin>>) -> Self {
        Self { login, ..self }
    }

    /// Reads the secret and replaces its parts by the overrides. Errors are `SECRET` and name the secret, but never
    /// its content.
    pub async fn fetch(&self) -> Result<ConnectionInfo> {
        let answer = self.client.get_secret_value().secret_id(&self.id).send().await;
        let answer = answer.map_err(|error| refused(&self.id, self.overrides.whose, &error))?;
        let text = match (answer.secret_string(), answer.secret_binary()) {
            (Some(text), _) => text,
            (None, Some(binary)) => {
                std::str::from_utf8(binary.as_ref()).map_err(|_| self.unfit("its binary value is not text"))?
            }
            (None, None) => return Err(self.unfit("it is empty")),
        };
        let given = contents::parse(text).map_err(|why| self.unfit(&why))?;
        if let Some(problem) = first_needed(&self.unusable, &given) {
            let hint = "correct the setting, or remove it, or add that part to the secret";
            return Err(Error::config(problem).hint(hint));
        }
        let unused = self
            .beside
            .iter()
            .filter(|(part, _)| differ(part, &given, &self.defaults));
        let unused = unused.map(|(_, name)| name.clone()).collect();
        *self.unused.lock().unwrap_or_else(PoisonError::into_inner) = unused;
        let mut info = merged((*self.defaults).clone().merge(&given), &self.overrides);
        if self.login.is_some() {
            info.password = None;
        }
        if let Some(name) = &info.dbname {
            *self.database.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.clone());
        }
        match missing(&info).filter(|(field, _)| *field != "password" || self.login.is_none()) {
            Some((field, cure)) => Err(self.unfit(&format!("it lacks `{field}`")).hint(cure)),
            None => Ok(info),
        }
    }

    /// The current credentials, and the source of the next ones.
    async fn current(&self) -> Result<ConnectionInfo> {
        let mut info = self.fetch().await?;
        match &self.login {
            Some(login) => {
                info.keys = Keys::Provider(Arc::clone(login) as Arc<dyn Provider>);
                info.renewed().await
            }
            None => {
                info.keys = Keys::Provider(Arc::new(self.clone()));
                Ok(info)
            }
        }
    }

    fn unfit(&self, why: &str) -> Error {
        Error::new(Code::Secret, format!("the secret `{}` cannot be used: {why}", self.id))
            .hint("store JSON with host, port, username, password and dbname (as RDS does), or a postgres:// URL")
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSource")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Provider for SecretSource {
    /// User and password together, since a rotation may alternate between two users.
    async fn login(&self, _: &ConnectionInfo) -> Result<Login> {
        let info = self.fetch().await?;
        Ok(Login {
            user: info.user,
            password: info.password,
        })
    }
}

/// Where a run's credentials come from.
#[derive(Debug, Clone)]
pub enum Credentials {
    Direct(ConnectionInfo),
    Secret(SecretSource),
}

impl Credentials {
    /// The connection that the settings name; a token may replace its password.
    pub fn direct(mut info: ConnectionInfo, login: Option<Arc<IamLogin>>) -> Self {
        if let Some(login) = login {
            info.keys = Keys::Provider(login);
        }
        Credentials::Direct(info)
    }

    /// Connects, and returns the credentials beside the session: pg_dump needs the password from the secret.
    /// [`Session::info`] has the same credentials, pinned to the server that was reached.
    ///
    /// A password that the database refuses may have been rotated a moment ago. Then pgstow reads the secret again
    /// and tries once more, even if it is unchanged: a rotation changes the database and the secret at slightly
    /// different times.
    pub async fn connect(&self, settings: &settings::Postgres) -> Result<(ConnectionInfo, Session)> {
        let info = self.current().await?;
        match Session::connect_as_given(&info, settings).await {
            Ok(session) => Ok((info, session)),
            Err(error) if error.code() == Code::Auth && info.keys.may_change() => {
                let info = self.current().await.map_err(|second| error.also(second))?;
                let session = Session::connect_as_given(&info, settings).await;
                Ok((info, session.map_err(|error| self.explained(error))?))
            }
            Err(error) => Err(error),
        }
    }

    /// RDS does not say why it refuses a token.
    fn explained(&self, error: Error) -> Error {
        let by_iam = match self {
            // For a connection from the settings, only IAM login is such a provider.
            Credentials::Direct(info) => matches!(info.keys, Keys::Provider(_)),
            Credentials::Secret(source) => source.login.is_some(),
        };
        if by_iam && error.code() == Code::Auth {
            return error.hint(iam::REFUSED);
        }
        error
    }

    /// The settings that were not used because the secret gives another value; known once the secret was read.
    pub fn unused_settings(&self) -> Option<String> {
        let Credentials::Secret(source) = self else { return None };
        let unused = source.unused.lock().unwrap_or_else(PoisonError::into_inner);
        (!unused.is_empty()).then(|| {
            format!(
                "{} not used: the secret `{}` has another value and takes precedence",
                unused.join(", "),
                source.id
            )
        })
    }

    /// The database's name, if the settings or the secret have given it.
    pub fn database(&self) -> Option<String> {
        match self {
            Credentials::Direct(info) => info.database().map(str::to_owned),
            Credentials::Secret(source) => {
                let read = source.database.lock().unwrap_or_else(PoisonError::into_inner);
                let named = source.overrides.dbname.clone().or_else(|| read.clone());
                named.or_else(|| source.defaults.dbname.clone())
            }
        }
    }

    /// The current credentials.
    pub async fn current(&self) -> Result<ConnectionInfo> {
        match self {
            Credentials::Direct(info) => info.renewed().await,
            Credentials::Secret(source) => Box::pin(source.current()).await,
        }
    }
}

fn refused(id: &str, whose: Whose, error: &SdkError<GetSecretValueError>) -> Error {
    let Some(service) = error.as_service_error() else {
        let mut what = format!("the secret `{id}` cannot be read");
        if !aws::lacks_credentials(error) {
            what.push_str(": Secrets Manager does not answer");
        }
        let told = aws::error(Code::Secret, &what, error);
        return match told.has_own_hint() {
            true => told,
            false => told.hint(
                "check the region, the network path (a VPC needs an endpoint or NAT) and the task's AWS credentials",
            ),
        };
    };
    // A gateway in between may refuse with its own text, from which the SDK reads no code.
    let forbidden = error
        .raw_response()
        .is_some_and(|answer| answer.status().as_u16() == 403);
    let kind = match service.code() {
        Some(code) => code,
        None if forbidden => "HTTP 403",
        None => "an unknown error",
    };
    let words = service.message().unwrap_or_default();
    let needed = format!(
        "allow it to the task's role: {}; and kms:Decrypt on the secret's key, if that is a key of your own",
        aws::statement(&["secretsmanager:GetSecretValue"], id)
    );
    let (what, hint) = meaning(kind, whose, &needed);
    Error::new(
        Code::Secret,
        format!("the secret `{id}` cannot be read: {what} ({kind}: {words})"),
    )
    .hint(hint)
}

/// What a code of Secrets Manager says, and what to do. `needed` is the permission that reading needs.
fn meaning<'a>(kind: &str, whose: Whose, needed: &'a str) -> (&'static str, &'a str) {
    match kind {
        "ResourceNotFoundException" => (
            "there is no such secret in this account and region",
            match whose {
                Whose::Source => "check BACKUP_SECRET_ID and the region",
                Whose::Target => "check BACKUP_TARGET_SECRET_ID and the region",
            },
        ),
        "AccessDeniedException" | "UnrecognizedClientException" | "InvalidSignatureException" | "HTTP 403" => {
            ("access is denied", needed)
        }
        "ExpiredTokenException" | "ExpiredToken" => (
            "the AWS credentials have expired",
            "get new ones (aws sso login), or let the task use its role",
        ),
        "DecryptionFailure" => (
            "it cannot be decrypted",
            "the task's role needs kms:Decrypt on the secret's key",
        ),
        "InvalidRequestException" => (
            "it has no usable value",
            "the secret is marked for deletion, or was created without a value",
        ),
        _ => (
            "Secrets Manager refuses",
            "check the secret's id, the region and the task's permissions",
        ),
    }
}

/// From weak to strong.
const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// The parts of the settings replace the secret's; but a deployment's default of `require` must not weaken a stricter
/// `sslmode` of the secret.
fn merged(secret: ConnectionInfo, overrides: &ConnectionInfo) -> ConnectionInfo {
    let strength = |mode: &String| MODES.iter().position(|known| known == mode);
    let asked = secret.params.get("sslmode").cloned();
    let mut info = secret.merge(overrides);
    if let Some(asked) = asked.filter(|asked| strength(asked) > info.params.get("sslmode").and_then(strength)) {
        info.params.insert("sslmode".into(), asked);
    }
    info
}

/// Whether the secret has this part with another value.
fn differ(part: &str, secret: &ConnectionInfo, setting: &ConnectionInfo) -> bool {
    fn of<T: PartialEq>(secret: Option<&T>, setting: Option<&T>) -> bool {
        secret.is_some() && secret != setting
    }
    match part {
        "host" => of(secret.host.as_ref(), setting.host.as_ref()),
        "port" => of(secret.port.as_ref(), setting.port.as_ref()),
        "dbname" => of(secret.dbname.as_ref(), setting.dbname.as_ref()),
        "user" => of(secret.user.as_ref(), setting.user.as_ref()),
        _ => false,
    }
}

/// The problem with the first unusable setting whose part the secret lacks.
fn first_needed<'a>(unusable: &'a [(&'static str, String)], secret: &ConnectionInfo) -> Option<&'a str> {
    // The address is replaced together with the host.
    let says = |part: &str| secret.says(part) || (part == "hostaddr" && secret.host.is_some());
    let mut needed = unusable.iter().filter(|(part, _)| !says(part));
    needed.next().map(|(_, problem)| problem.as_str())
}

/// The first required part that is missing, and what to do about it.
fn missing(info: &ConnectionInfo) -> Option<(&'static str, &'static str)> {
    if info.host.is_none() && !info.params.contains_key("hostaddr") {
        let cure = match info.whose {
            Whose::Source => "add `host` to the secret, or set DB_HOST (RDS's own secrets have no host)",
            Whose::Target => {
                "add `host` to the secret (RDS's own have none), or set BACKUP_TARGET_HOST, or give --target \
                 postgres://host/database"
            }
        };
        return Some(("host", cure));
    }
    if info.user.is_none() {
        let cure = match info.whose {
            Whose::Source => "add `username` to the secret, or set DB_USER",
            Whose::Target => "add `username` to the secret, or set BACKUP_TARGET_USER",
        };
        return Some(("username", cure));
    }
    if info.password.is_none() {
        return Some(("password", "add `password` to the secret"));
    }
    if info.dbname.is_none() {
        let cure = match info.whose {
            Whose::Source => "add `dbname` to the secret, or set DB_NAME, or give `backup --database NAME`",
            Whose::Target => {
                "add `dbname` to the secret, or set BACKUP_TARGET_NAME, or give --target postgres://host/database"
            }
        };
        return Some(("dbname", cure));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::contents::parse;
    use super::*;

    #[test]
    fn a_secrets_own_sslmode_is_never_weakened() {
        for (secret, setting, result) in [
            ("verify-full", "require", "verify-full"),
            ("prefer", "require", "require"),
            ("require", "verify-full", "verify-full"),
            ("require", "disable", "require"),
        ] {
            let with = |mode: &str| ConnectionInfo::parse_url(&format!("postgres://u@h/d?sslmode={mode}")).unwrap();
            assert_eq!(merged(with(secret), &with(setting)).params["sslmode"], result);
        }
        let plain = ConnectionInfo::parse_url("postgres://u@h/d").unwrap();
        let setting = ConnectionInfo::parse_url("postgres://u@h/d?sslmode=require").unwrap();
        assert_eq!(merged(plain, &setting).params["sslmode"], "require");
    }

    #[test]
    fn a_part_that_the_secret_lacks_or_says_too_is_used() {
        let secret = parse(r#"{"host":"h","username":"u","password":"p","dbname":"d"}"#).unwrap();
        let setting = ConnectionInfo::parse_url("postgres://v@h:5433/e").unwrap();
        for (part, differs) in [("host", false), ("port", false), ("dbname", true), ("user", true)] {
            assert_eq!(differ(part, &secret, &setting), differs, "{part}");
        }
    }

    #[test]
    fn a_setting_that_is_wrong_is_told_where_the_secret_lacks_its_part() {
        let unusable = [("port", "PGPORT: no number".to_owned())];
        let secret = |text: &str| parse(text).unwrap();
        let with = secret(r#"{"host":"h","port":5432,"username":"u","password":"p","dbname":"d"}"#);
        assert_eq!(first_needed(&unusable, &with), None);
        let without = secret(r#"{"host":"h","username":"u","password":"p","dbname":"d"}"#);
        assert_eq!(first_needed(&unusable, &without), Some("PGPORT: no number"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, field) in [
            (r#"{"username":"u","password":"p","dbname":"d"}"#, "host"),
            (r#"{"host":"h","password":"p","dbname":"d"}"#, "username"),
            (r#"{"host":"h","username":"u","dbname":"d"}"#, "password"),
            (r#"{"host":"h","username":"u","password":"","dbname":"d"}"#, "password"),
            (r#"{"host":"h","username":"u","password":"p","dbname":null}"#, "dbname"),
        ] {
            assert_eq!(missing(&parse(text).unwrap()).unwrap().0, field);
        }
    }
}
