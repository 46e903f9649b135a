//! The database's locale: how text sorts, compares and is classed. If this machine lacks it, the database is made with
//! another one. Refusals and differences may then come from the locale, and prove nothing about the backup.

use serde_json::Value;

use crate::error::Error;
use crate::postgres::quoting::literal;

/// The options for locales in CREATE DATABASE.
const OPTIONS: [&str; 5] = ["LOCALE", "ICU_LOCALE", "BUILTIN_LOCALE", "LC_COLLATE", "LC_CTYPE"];

/// The reason if the backup does not record the locale.
pub(crate) const UNKNOWN: &str = "the backup does not say which locale the database has";

/// Why a database made by `creation` differs from the source's.
pub(crate) fn lacking(creation: &str, error: &Error) -> String {
    let mut names: Vec<&str> = Vec::new();
    for option in OPTIONS {
        let Some((_, rest)) = creation.split_once(&format!(" {option} = '")) else {
            continue;
        };
        let name = rest.split('\'').next().unwrap_or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let names = names.join(", ");
    format!(
        "this machine's PostgreSQL lacks the locale {names} ({})",
        error.message()
    )
}

/// The statement that makes a database with the properties in `system_info.json`.
pub(crate) fn creation(name: &str, encoding: &str, info: &Value) -> String {
    let mut statement = format!(
        "CREATE DATABASE {name} WITH TEMPLATE = template0 ENCODING = {}",
        literal(encoding)
    );
    let mut option = |name: &str, value: &Value| {
        if let Some(value) = value.as_str() {
            statement.push_str(&format!(" {name} = {}", literal(value)));
        }
    };
    let locale = &info["locale"];
    let of_provider = match locale["provider"].as_str() {
        Some("icu") => Some("ICU_LOCALE"),
        Some("builtin") => Some("BUILTIN_LOCALE"),
        _ => None,
    };
    if let Some(name) = of_provider {
        option("LOCALE_PROVIDER", &locale["provider"]);
        option(name, &locale["locale"]);
    }
    option("LC_COLLATE", &info["database"]["collate"]);
    option("LC_CTYPE", &info["database"]["ctype"]);
    statement.push(';');
    statement
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Code;

    #[test]
    fn what_the_server_said_of_itself_is_how_it_is_made() {
        assert_eq!(
            creation("x", "UTF8", &Value::Null),
            "CREATE DATABASE x WITH TEMPLATE = template0 ENCODING = 'UTF8';"
        );
        let info = json!({
            "database": {"collate": "C", "ctype": "de_DE.UTF-8"},
            "locale": {"provider": "icu", "locale": "de", "collation_version": "1"},
        });
        let statement = creation("x", "UTF8", &info);
        assert_eq!(
            statement,
            "CREATE DATABASE x WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = 'icu' ICU_LOCALE = 'de' \
             LC_COLLATE = 'C' LC_CTYPE = 'de_DE.UTF-8';"
        );
        assert_eq!(
            lacking(&statement, &Error::new(Code::RestoreErr, "no ICU")),
            "this machine's PostgreSQL lacks the locale de, C, de_DE.UTF-8 (no ICU)"
        );
    }
}
