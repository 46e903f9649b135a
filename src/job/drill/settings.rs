//! The settings that affect computed values in the source's database: time zone, formats, text search, an application's
//! own. Checks and functions depend on them, so the drill's databases get them too, if they are known and give no power
//! over a session. If some are withheld, that may be the reason for a refusal.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore;
use crate::postgres::{DatabaseSetting, Session};
use crate::repository::catalog::Located;
use crate::repository::manifest::role;
use crate::repository::stored_archive::read_file;

/// Settings that change computed values. A drill takes no others.
const COMPUTING: [&str; 12] = [
    "bytea_output",
    "datestyle",
    "default_text_search_config",
    "extra_float_digits",
    "intervalstyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "quote_all_identifiers",
    "timezone",
    "timezone_abbreviations",
    "xmlbinary",
];

/// Of those, the settings that the backup's session recorded, whether they came from server, database or role.
const SAID: [&str; 8] = [
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "bytea_output",
    "default_text_search_config",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
];

/// The most settings to take: no real database has more.
const SETTINGS: usize = 1000;

/// Libraries that only observe, and change no value.
const ONLOOKERS: [&str; 3] = ["auto_explain", "pg_stat_statements", "pgaudit"];

/// Settings of the source that are missing here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Withheld {
    names: Vec<String>,
    /// Why amounts of money may be read and printed differently.
    pub money: Option<String>,
}

impl Withheld {
    /// The reason for any refusal.
    pub fn any(&self) -> Option<String> {
        (!self.names.is_empty()).then(|| {
            let names = self.names.join(", ");
            format!("the source's database has settings that a drill does not take: {names}")
        })
    }

    fn add(&mut self, name: &str, of_role: Option<&str>) {
        self.names.push(match of_role {
            Some(role) => format!("{name} (of the role {role})"),
            None => name.to_owned(),
        });
    }
}

/// Facts about the source that are not in its archive.
#[derive(Debug, Default)]
pub(super) struct SourceFacts {
    /// The role that made the backup. The same role may restore it.
    user: Option<String>,
    /// The settings of that role in all databases.
    of_user: Vec<DatabaseSetting>,
    said: Vec<(&'static str, String)>,
    /// Settings that a plain dump does not hold, with the role that has them.
    untold: Vec<(String, Option<String>)>,
}

impl SourceFacts {
    /// `session` must be on a server that has the source's roles.
    pub async fn of(located: &Located, session: &Session) -> Result<SourceFacts> {
        let info = system_info(located).await?;
        let said = SAID.into_iter();
        let said: Vec<(&str, String)> = said
            .filter_map(|name| Some((name, info["settings"][name].as_str()?.to_owned())))
            .collect();
        let user = info["server"]["user"].as_str();
        let of_user = match user {
            Some(user) => session.settings_of_role(user).await?,
            None => Vec::new(),
        };
        let untold = located.manifest.left_out.iter().filter(|one| one.kind == "database");
        Ok(SourceFacts {
            user: user.map(str::to_owned),
            of_user,
            said,
            untold: untold.filter_map(|one| untold_setting(&one.name)).collect(),
        })
    }

    /// Gives a new database the source's settings.
    pub async fn settle(&self, session: &Session, database: &str, items: &[Item]) -> Result<Withheld> {
        let (wanted, mut withheld) = self.wanted(items);
        let settings: Vec<DatabaseSetting> = wanted.into_values().take(SETTINGS).collect();
        let harmless = session.are_harmless(&settings).await?;
        for (setting, is_harmless) in settings.iter().zip(harmless) {
            let name = &setting.name;
            if !is_harmless {
                withheld.add(name, None);
                continue;
            }
            match session.execute(&setting.making(database)).await {
                Ok(()) => {}
                Err(error) if error.code() == Code::ConnErr => return Err(error),
                Err(error) if name == "lc_monetary" => withheld.money = Some(lacking(setting, &error)),
                // Every server has these, and few definitions depend on them.
                Err(_) if name.starts_with("lc_") => {}
                Err(_) => withheld.add(name, None),
            }
        }
        Ok(withheld)
    }

    /// The wanted settings by name. A role's setting wins over the database's, and that over the server's.
    fn wanted(&self, items: &[Item]) -> (BTreeMap<String, DatabaseSetting>, Withheld) {
        let mut withheld = Withheld::default();
        let mut wanted: BTreeMap<String, DatabaseSetting> = BTreeMap::new();
        for (name, value) in &self.said {
            let setting = DatabaseSetting {
                role: None,
                name: name.to_lowercase(),
                values: vec![value.clone()],
            };
            wanted.insert(setting.name.clone(), setting);
        }
        let mut of_role: Vec<DatabaseSetting> = self.of_user.clone();
        of_role.retain(|setting| computes(&setting.name));
        // The settings include those that a restore sets only after the data.
        for statement in restore::database::properties(items, "new", false).settings {
            let Some(setting) = DatabaseSetting::parse(&statement) else {
                let name = restore::database::setting(&statement)
                    .unwrap_or_default()
                    .to_lowercase();
                if computes(&name) {
                    withheld.add(&name, None);
                }
                continue;
            };
            if !computes(&setting.name) {
                continue;
            }
            if setting.role.is_none() {
                wanted.insert(setting.name.clone(), setting);
            } else if setting.role == self.user {
                of_role.push(setting);
            } else {
                withheld.add(&setting.name, setting.role.as_deref());
            }
        }
        wanted.extend(of_role.into_iter().map(|setting| (setting.name.clone(), setting)));
        for (name, role) in &self.untold {
            let is_said = self.said.iter().any(|(said, _)| said.eq_ignore_ascii_case(name));
            let of_another = role.as_ref().filter(|role| self.user.as_ref() != Some(*role));
            if computes(&name.to_lowercase()) && (of_another.is_some() || !is_said) {
                withheld.add(name, of_another.map(String::as_str));
            }
        }
        (wanted, withheld)
    }
}

fn computes(name: &str) -> bool {
    match name.split_once('.') {
        Some((prefix, _)) => !ONLOOKERS.contains(&prefix),
        None => COMPUTING.contains(&name),
    }
}

/// Reads the manifest's name for a setting that a plain dump leaves out: `setting TimeZone of role a`.
fn untold_setting(name: &str) -> Option<(String, Option<String>)> {
    let setting = name.strip_prefix("setting ")?;
    Some(match setting.split_once(" of role ") {
        Some((setting, role)) => (setting.to_owned(), Some(role.to_owned())),
        None => (setting.to_owned(), None),
    })
}

fn lacking(setting: &DatabaseSetting, error: &Error) -> String {
    let value = setting.values.join(", ");
    format!(
        "this machine's PostgreSQL lacks the locale {value} for amounts of money ({})",
        error.message()
    )
}

/// Whether a definition has a column of the type money: the word after a name.
pub(super) fn has_money(definition: &[u8]) -> bool {
    memchr::memmem::find_iter(definition, b" money").any(|at| {
        let is_of_a_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'"') || !byte.is_ascii();
        let ends = |byte: &u8| matches!(byte, b' ' | b',' | b'\n' | b'[' | b')' | b';');
        definition[..at].last().is_some_and(is_of_a_name) && definition.get(at + 6).is_none_or(ends)
    })
}

/// The backup's `system_info.json`; `null` if there is none, or none that can be read.
pub(super) async fn system_info(located: &Located) -> Result<Value> {
    let manifest = &located.manifest;
    let Some(file) = manifest.files.get(role::SYSTEM_INFO) else {
        return Ok(Value::Null);
    };
    let bytes = read_file(&*located.store, &manifest.id, file).await?;
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(definition: &str) -> Item {
        Item::sample(0, "DATABASE PROPERTIES", "").defined(definition)
    }

    #[test]
    fn a_role_counts_before_its_database_and_that_before_the_server_and_other_roles_are_told() {
        let items = [item(
            "ALTER DATABASE s SET \"TimeZone\" TO 'Asia/Tokyo';\nALTER DATABASE s SET \"my.tenant\" TO '7';\n\
             ALTER DATABASE s SET search_path TO 'evil';\nALTER DATABASE s SET session_preload_libraries TO 'evil';\n\
             ALTER DATABASE s SET work_mem TO '7GB';\nALTER DATABASE s SET \"auto_explain.log_analyze\" TO 'on';\n\
             ALTER ROLE a IN DATABASE s SET \"my.tenant\" TO '8';\nALTER ROLE b IN DATABASE s SET \"my.other\" TO '9';\n\
             ALTER ROLE b IN DATABASE s SET statement_timeout TO '1';\n",
        )];
        let source = SourceFacts {
            user: Some("a".into()),
            of_user: ["my.tenant", "my.wide", "work_mem"]
                .map(|name| DatabaseSetting {
                    role: Some("a".into()),
                    name: name.into(),
                    values: vec!["5".into()],
                })
                .into(),
            said: vec![("TimeZone", "UTC".into()), ("DateStyle", "German, DMY".into())],
            untold: Vec::new(),
        };
        let (wanted, withheld) = source.wanted(&items);
        let wanted: Vec<(&str, &str)> = wanted
            .iter()
            .map(|(name, setting)| (name.as_str(), setting.values[0].as_str()))
            .collect();
        assert_eq!(
            wanted,
            [
                ("datestyle", "German, DMY"),
                ("my.tenant", "8"),
                ("my.wide", "5"),
                ("timezone", "Asia/Tokyo")
            ]
        );
        assert_eq!(withheld.names, ["my.other (of the role b)"]);
    }

    #[test]
    fn what_a_plain_dump_does_not_hold_is_told_unless_the_source_said_it() {
        let untold = [
            "setting TimeZone",
            "setting my.tenant",
            "setting TimeZone of role b",
            "comment",
        ];
        let source = SourceFacts {
            user: Some("a".into()),
            said: vec![("TimeZone", "UTC".into())],
            of_user: Vec::new(),
            untold: untold.into_iter().filter_map(untold_setting).collect(),
        };
        let (wanted, withheld) = source.wanted(&[]);
        assert_eq!(wanted.len(), 1);
        assert_eq!(withheld.names, ["my.tenant", "TimeZone (of the role b)"]);
        assert!(withheld.any().unwrap().contains("my.tenant"));
        assert_eq!(Withheld::default().any(), None);
    }
}
