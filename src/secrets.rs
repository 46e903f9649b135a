//! Credentials kept in Secrets Manager.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use serde_json::{Map, Value};

use crate::aws;
use crate::error::{Code, Error, Result};
use crate::postgres::{ConnectionInfo, Session};
use crate::settings;

/// One secret, and the parts of the connection that the settings give beside it.
#[derive(Clone)]
pub struct SecretSource {
    client: Client,
    id: String,
    overrides: ConnectionInfo,
    /// The database's name as it was last read: a run that fails has nothing else that names it.
    database: Arc<Mutex<Option<String>>>,
}

impl SecretSource {
    pub fn new(client: Client, id: impl Into<String>, overrides: ConnectionInfo) -> Self {
        Self {
            client,
            id: id.into(),
            overrides,
            database: Arc::default(),
        }
    }

    /// Reads the secret and lays the overrides over it. Errors are `SECRET` and name the secret,
    /// never what is in it.
    pub async fn fetch(&self) -> Result<ConnectionInfo> {
        let answer = self.client.get_secret_value().secret_id(&self.id).send().await;
        let answer = answer.map_err(|error| refused(&self.id, &error))?;
        let text = match (answer.secret_string(), answer.secret_binary()) {
            (Some(text), _) => text,
            (None, Some(binary)) => {
                std::str::from_utf8(binary.as_ref()).map_err(|_| self.unfit("its binary value is not text"))?
            }
            (None, None) => return Err(self.unfit("it is empty")),
        };
        let given = parse(text).map_err(|why| self.unfit(&why))?;
        let info = merged(given, &self.overrides);
        if let Some(name) = &info.dbname {
            *self.database.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.clone());
        }
        match missing(&info) {
            Some((field, cure)) => Err(self.unfit(&format!("it lacks `{field}`")).hint(cure)),
            None => Ok(info),
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

/// Where a run's credentials come from.
#[derive(Debug, Clone)]
pub enum Credentials {
    Direct(ConnectionInfo),
    Secret(SecretSource),
}

impl Credentials {
    /// Connects with the credentials, and gives them back beside the session: what the secret
    /// held, for the password that pg_dump needs. [`Session::info`] has the same, pinned to the
    /// server that was reached.
    ///
    /// A password that the database refuses may just have been rotated: the secret is then read
    /// once more, and tried once more even if it is the same, since a rotation changes the
    /// database and the secret at slightly different times.
    pub async fn connect(&self, settings: &settings::Postgres) -> Result<(ConnectionInfo, Session)> {
        let info = self.current().await?;
        match (Session::connect(&info, settings).await, self) {
            (Ok(session), _) => Ok((info, session)),
            (Err(error), Credentials::Secret(source)) if error.code() == Code::Auth => {
                let info = source.fetch().await.map_err(|second| error.also(second))?;
                let session = Session::connect(&info, settings).await?;
                Ok((info, session))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The database's name, as far as the settings tell it or the secret has told it.
    pub fn database(&self) -> Option<String> {
        match self {
            Credentials::Direct(info) => info.database().map(str::to_owned),
            Credentials::Secret(source) => {
                let read = source.database.lock().unwrap_or_else(PoisonError::into_inner);
                source.overrides.dbname.clone().or_else(|| read.clone())
            }
        }
    }

    /// The credentials as they are now.
    pub async fn current(&self) -> Result<ConnectionInfo> {
        match self {
            Credentials::Direct(info) => Ok(info.clone()),
            Credentials::Secret(source) => source.fetch().await,
        }
    }
}

fn refused(id: &str, error: &SdkError<GetSecretValueError>) -> Error {
    let Some(service) = error.as_service_error() else {
        return Error::new(
            Code::Secret,
            format!("the secret `{id}` cannot be read: Secrets Manager does not answer"),
        )
        .source(aws_sdk_secretsmanager::error::DisplayErrorContext(error).to_string())
        .hint("check the region, the network path (a VPC needs an endpoint or NAT) and the task's AWS credentials");
    };
    // A gateway in between refuses in its own words, of which the SDK makes no code.
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
        "allow it to the task's role: {}; and kms:Decrypt on the secret's key, where that is one of your own",
        aws::statement("secretsmanager:GetSecretValue", id)
    );
    let (what, hint) = match kind {
        "ResourceNotFoundException" => (
            "there is no such secret in this account and region",
            "check BACKUP_SECRET_ID and the region",
        ),
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "ExpiredTokenException"
        | "HTTP 403" => ("access is denied", needed.as_str()),
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
    };
    Error::new(
        Code::Secret,
        format!("the secret `{id}` cannot be read: {what} ({kind}: {words})"),
    )
    .hint(hint)
}

/// What a secret says, in either of its two forms. The error says why not, quoting nothing but
/// names of fields that are ours.
fn parse(text: &str) -> Result<ConnectionInfo, String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Err("it is empty".into());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => parse_fields(&fields),
        Ok(Value::String(url)) => parse_url(&url),
        Ok(_) => Err("its JSON is not an object".into()),
        // serde's message is left out: it may quote the text.
        Err(_) if text.starts_with('{') => Err("it looks like JSON, but is broken".into()),
        Err(_) => parse_url(text),
    }
}

fn parse_url(text: &str) -> Result<ConnectionInfo, String> {
    ConnectionInfo::parse_url(text).map_err(|error| format!("it is neither JSON nor a usable URL: {}", error.message()))
}

/// The names that RDS uses, and the usual others, for libpq's own.
const FIELDS: &[(&str, &[&str])] = &[
    ("host", &["host"]),
    ("port", &["port"]),
    ("user", &["username", "user"]),
    ("password", &["password"]),
    ("dbname", &["dbname", "database"]),
];

/// Parameters of the connection that a secret may carry too.
const PARAMETERS: [&str; 9] = [
    "sslmode",
    "require_auth",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "options",
    "channel_binding",
    "connect_timeout",
    "hostaddr",
];

fn parse_fields(fields: &Map<String, Value>) -> Result<ConnectionInfo, String> {
    let mut info = ConnectionInfo::default();
    for (name, aliases) in FIELDS {
        for alias in *aliases {
            if let Some(value) = text_of(fields, alias)? {
                // The parameter's own message quotes no value.
                info.set(name, &value).map_err(|error| error.message())?;
                break;
            }
        }
    }
    for name in PARAMETERS {
        if let Some(value) = text_of(fields, name)? {
            info.set(name, &value).map_err(|error| error.message())?;
        }
    }
    Ok(info)
}

/// A field's value as text; `None` if it is absent, null or empty.
fn text_of(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(format!("its `{name}` is neither text nor a number")),
    }
}

/// From the weakest to the strongest.
const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// The settings' parts replace the secret's; but a deployment's default of `require` must not take away
/// what a secret asks for beyond that.
fn merged(secret: ConnectionInfo, overrides: &ConnectionInfo) -> ConnectionInfo {
    let strength = |mode: &String| MODES.iter().position(|known| known == mode);
    let asked = secret.params.get("sslmode").cloned();
    let mut info = secret.merge(overrides);
    if let Some(asked) = asked.filter(|asked| strength(asked) > info.params.get("sslmode").and_then(strength)) {
        info.params.insert("sslmode".into(), asked);
    }
    info
}

/// The first part without which nobody can connect, and what to do about it.
fn missing(info: &ConnectionInfo) -> Option<(&'static str, &'static str)> {
    if info.host.is_none() && !info.params.contains_key("hostaddr") {
        return Some((
            "host",
            "add `host` to the secret, or set DB_HOST (RDS's own secrets have no host)",
        ));
    }
    if info.user.is_none() {
        return Some(("username", "add `username` to the secret, or set DB_USER"));
    }
    if info.password.is_none() {
        return Some(("password", "add `password` to the secret"));
    }
    if info.dbname.is_none() {
        return Some(("dbname", "add `dbname` to the secret, or set DB_NAME"));
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn secret(info: &ConnectionInfo) -> &str {
        info.password.as_ref().unwrap().expose_secret()
    }

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
    fn the_json_of_rds_is_read() {
        let info = parse(
            r#"{"username":"shop","password":"a'b\"c:d@e/f?%\\ü","engine":"postgres","host":"db.example","port":5433,
                "dbname":"shop","dbInstanceIdentifier":"db-1"}"#,
        )
        .unwrap();
        assert_eq!(info.target(), "shop@db.example:5433/shop");
        assert_eq!(secret(&info), "a'b\"c:d@e/f?%\\ü");
        assert_eq!(missing(&info), None);
    }

    #[test]
    fn the_usual_other_names_and_a_port_as_text_are_read() {
        let info =
            parse(r#"{"user":"u","password":"p","host":"h","port":"5433","database":"d","sslmode":"verify-full"}"#);
        let info = info.unwrap();
        assert_eq!(info.target(), "u@h:5433/d");
        assert_eq!(info.params["sslmode"], "verify-full");
    }

    #[test]
    fn a_url_is_read_bare_or_as_a_json_string() {
        for text in [
            "postgres://u:p%40@h/d?sslmode=require\n",
            r#""postgres://u:p%40@h/d?sslmode=require""#,
        ] {
            let info = parse(text).unwrap();
            assert_eq!(info.target(), "u@h:5432/d");
            assert_eq!(secret(&info), "p@");
            assert_eq!(info.params["sslmode"], "require");
        }
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

    #[test]
    fn an_unfit_secret_is_refused_without_quoting_it() {
        for text in [
            "",
            "  ",
            "hunter2",
            r#"{"password":"hunter2""#,
            r#"["hunter2"]"#,
            "42",
            r#"{"host":"h","port":"hunter2"}"#,
            r#"{"host":{"hunter2":1}}"#,
            r#"{"host":"h","sslmode":"hunter2"}"#,
            r#"{"password":"hunter2\u0000"}"#,
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@@h/d",
        ] {
            let why = parse(text).expect_err(text);
            assert!(!why.contains("hunter2"), "{text}: {why}");
        }
    }

    proptest! {
        #[test]
        fn any_password_comes_through_json(password in "[^\0]{1,40}", user in "[^\0]{1,20}") {
            let json = serde_json::json!({"host": "h", "username": user, "password": password, "dbname": "d"});
            let info = parse(&json.to_string()).unwrap();
            prop_assert_eq!(secret(&info), password);
            prop_assert_eq!(info.user.unwrap(), user);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }
    }
}
