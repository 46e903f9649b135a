//! Reads the text of a secret.

use serde_json::{Map, Value};

use crate::postgres::{ConnectionInfo, Files};

/// The connection in a secret, in any form: JSON with the parts, JSON that holds a URL, or a URL. Errors quote only
/// the names of fields that pgstow knows.
pub(super) fn parse(text: &str) -> Result<ConnectionInfo, String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Err("it is empty".into());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => parse_fields(&fields),
        Ok(Value::String(url)) => parse_url(&url),
        Ok(_) => Err("its JSON is not an object".into()),
        // Without serde's message, which may quote the text.
        Err(_) if text.starts_with('{') => Err("it looks like JSON, but is broken".into()),
        Err(_) => parse_url(text),
    }
}

fn parse_url(text: &str) -> Result<ConnectionInfo, String> {
    let info = ConnectionInfo::parse_url(text).map_err(|error| {
        let why = match is_url(text) {
            true => "its connection URL cannot be used",
            false => "it is neither JSON nor a usable URL",
        };
        match error.has_own_hint() {
            true => format!("{why}: {}: {}", error.message(), error.hint_text()),
            false => format!("{why}: {}", error.message()),
        }
    })?;
    if info.files != Files::default() {
        return Err("it names a service or a password file, which are files of one machine".into());
    }
    Ok(info)
}

fn is_url(text: &str) -> bool {
    ConnectionInfo::is_url(text.trim_start())
}

/// A connection URL in any of the fields: systems that write one use different names for it.
fn url_among(fields: &Map<String, Value>) -> Result<Option<ConnectionInfo>, String> {
    let texts = fields.values().filter_map(Value::as_str);
    let mut urls: Vec<&str> = texts.filter(|text| is_url(text)).collect();
    urls.sort_unstable();
    urls.dedup();
    match urls.as_slice() {
        [] => Ok(None),
        [url] => parse_url(url).map(Some),
        _ => Err("it holds several connection URLs".into()),
    }
}

/// The names that RDS and other systems use for libpq's parts.
const FIELDS: &[(&str, &[&str])] = &[
    ("host", &["host"]),
    ("port", &["port"]),
    ("user", &["username", "user"]),
    ("password", &["password"]),
    ("dbname", &["dbname", "database"]),
];

/// Parameters of the connection that a secret may have too.
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
    // A URL beside a host belongs to another connection. A rotation changes the password's field, so the fields take
    // precedence over the URL.
    let mut info = match text_of(fields, "host")? {
        Some(_) => ConnectionInfo::default(),
        None => url_among(fields)?.unwrap_or_default(),
    };
    for (name, aliases) in FIELDS {
        for alias in *aliases {
            if let Some(value) = text_of(fields, alias)? {
                // The message does not quote the value.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn secret(info: &ConnectionInfo) -> &str {
        info.password.as_ref().unwrap().expose_secret()
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
    fn a_url_that_cannot_be_used_is_called_one() {
        for (text, why) in [
            (r#"{"url": "postgres://u:p@ss@h/d"}"#, "write @ as %40"),
            (r#"{"url": "postgres://u:p@h/d?search_path=public"}"#, "search_path"),
        ] {
            let told = parse(text).unwrap_err();
            assert!(told.starts_with("its connection URL cannot be used"), "{told}");
            assert!(told.contains(why), "{told}");
        }
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
            "postgres://u:hunter2@h/d?passfile=/etc/passwd",
            r#"{"url":"postgres://u:hunter2@@h/d"}"#,
            r#"{"a":"postgres://u:hunter2@h/d","b":"postgres://u:hunter2@i/d"}"#,
        ] {
            let why = parse(text).expect_err(text);
            assert!(!why.contains("hunter2"), "{text}: {why}");
        }
    }

    #[test]
    fn a_url_in_json_counts_under_any_name_and_fields_count_more() {
        let info =
            parse(r#"{"DATABASE_URL":"postgresql://u:old@h:5433/d?sslmode=require","password":"new","note":"x"}"#);
        let info = info.unwrap();
        assert_eq!(info.target(), "u@h:5433/d");
        assert_eq!(secret(&info), "new");
        assert_eq!(info.params["sslmode"], "require");
        let same = parse(r#"{"url":"postgres://u:p@h/d","uri":"postgres://u:p@h/d"}"#).unwrap();
        assert_eq!(same.target(), "u@h:5432/d");
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
