//! The database that a plain dump was made of: it does not say, but the file beside it does.

use serde_json::Value;

use crate::archive::{Details, Entry, Item, Section};
use crate::catalog::Located;
use crate::error::Result;
use crate::manifest::role;
use crate::postgres::quoting::literal;
use crate::stored_archive::read_file;

/// As an archive would say it.
pub(super) async fn creation(located: &Located) -> Result<Vec<Item>> {
    let manifest = &located.manifest;
    let info: Value = match manifest.files.get(role::SYSTEM_INFO) {
        Some(file) => {
            let bytes = read_file(&*located.store, &manifest.id, file).await?;
            serde_json::from_slice(&bytes).unwrap_or_default()
        }
        None => Value::Null,
    };
    let definition = statement(&manifest.server.encoding, &info);
    let item = Item {
        entry: Entry {
            desc: "DATABASE".into(),
            ..Entry::default()
        },
        section: Section::PreData,
        details: Details {
            definition,
            ..Details::default()
        },
    };
    Ok(vec![item])
}

fn statement(encoding: &str, info: &Value) -> String {
    let mut statement = format!(
        "CREATE DATABASE x WITH TEMPLATE = template0 ENCODING = {}",
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

    #[test]
    fn what_the_server_said_of_itself_is_how_it_is_made() {
        assert_eq!(
            statement("UTF8", &Value::Null),
            "CREATE DATABASE x WITH TEMPLATE = template0 ENCODING = 'UTF8';"
        );
        let info = json!({
            "database": {"collate": "C", "ctype": "de_DE.UTF-8"},
            "locale": {"provider": "icu", "locale": "de", "collation_version": "1"},
        });
        assert_eq!(
            statement("UTF8", &info),
            "CREATE DATABASE x WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = 'icu' ICU_LOCALE = 'de' \
             LC_COLLATE = 'C' LC_CTYPE = 'de_DE.UTF-8';"
        );
    }
}
