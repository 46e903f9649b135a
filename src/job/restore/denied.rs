//! Settings that the backup's database had, and that this role may not give to a new one: a custom setting (`shop.rate`)
//! and some of the server's own belong to superusers. What is computed while the database is filled depends on them,
//! so the restore's own sessions have them if a session may.

use super::database;
use super::plan::LeftOut;
use super::ready::Target;
use crate::error::Result;
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::postgres::{ConnectionInfo, DatabaseSetting};

pub(super) struct DeniedSetting {
    setting: DatabaseSetting,
    /// Whether the restore's sessions have it.
    is_of_sessions: bool,
}

/// How long the options of a session may become: the server takes 10,000 bytes of all parameters.
const LONGEST: usize = 8_000;

/// Asks the server about each setting of a database that the restore will make.
pub(super) async fn find(target: &Target, items: &[Item], request: &RestoreRequest) -> Result<Vec<DeniedSetting>> {
    let mut denied = Vec::new();
    if !request.create || target.found.is_superuser {
        return Ok(denied);
    }
    let user = &target.session.server().user;
    let is_utf8 = database::is_utf8(items);
    let mut length = 0;
    for statement in database::properties(items, target.name(), false).settings {
        let Some(setting) = DatabaseSetting::parse(&statement) else {
            continue;
        };
        // Another role's settings do not count in this role's sessions.
        if setting.role.as_ref().is_some_and(|role| role != user) || target.session.may_keep(&setting).await? {
            continue;
        }
        let option = option(&setting, is_utf8).filter(|option| length + option.len() < LONGEST);
        let is_of_sessions = option.is_some() && target.session.may_have(&setting).await?;
        if is_of_sessions {
            length += option.map_or(0, |option| option.len() + 1);
        }
        denied.push(DeniedSetting {
            setting,
            is_of_sessions,
        });
    }
    Ok(denied)
}

impl DeniedSetting {
    pub fn left_out(&self, database: &str) -> LeftOut {
        let (what, cure) = self.setting.told(database);
        let why = match self.is_of_sessions {
            true => "this role may not set it: the restore computes with it, but later sessions do not have it until a",
            false => {
                "this role may not set it, and the restore's sessions cannot have it: what depends on it is computed \
                 without it, until a"
            }
        };
        LeftOut {
            what,
            why: format!("{why} superuser sets it: {cure}"),
        }
    }

    /// Whether the statement sets it.
    pub fn is(&self, statement: &str) -> bool {
        DatabaseSetting::parse(statement)
            .is_some_and(|setting| setting.name == self.setting.name && setting.role == self.setting.role)
    }
}

/// Gives them to the sessions of this connection.
pub(super) fn add_to(info: &mut ConnectionInfo, denied: &[DeniedSetting]) {
    for one in denied.iter().filter(|one| one.is_of_sessions) {
        let Some(option) = option(&one.setting, true) else {
            continue;
        };
        let options = info.params.entry("options".into()).or_default();
        *options = format!("{options} {option}").trim_start().to_owned();
    }
}

/// The option that gives it to a session. `None`: no option can. The server reads the bytes of options in the
/// database's encoding, and pgstow sends UTF-8.
fn option(setting: &DatabaseSetting, is_utf8: bool) -> Option<String> {
    let [value] = setting.values.as_slice() else {
        return None;
    };
    // In an option's name the server takes `-` for `_`.
    let is_sent_as_it_is = !setting.name.contains('-') && (is_utf8 || (setting.name.is_ascii() && value.is_ascii()));
    is_sent_as_it_is.then(|| format!("-c {}={}", escaped(&setting.name), escaped(value)))
}

/// The server splits the options at spaces.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\\' || c.is_ascii_whitespace() || c == '\u{b}' {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sessions_get_what_they_may_have() {
        let denied = |statement: &str, is_of_sessions| DeniedSetting {
            setting: DatabaseSetting::parse(statement).unwrap(),
            is_of_sessions,
        };
        let all = [
            denied("ALTER DATABASE shop SET \"shop.name\" TO E'it''s \\\\ two';", true),
            denied("ALTER DATABASE shop SET log_statement TO 'all';", false),
        ];
        let mut info = ConnectionInfo::default();
        info.params.insert("options".into(), "-c a=b".into());
        add_to(&mut info, &all);
        assert_eq!(info.params["options"], r"-c a=b -c shop.name=it's\ \\\ two");
        assert!(all[0].is("ALTER DATABASE \"new\" SET \"shop.name\" TO 'other';"));
        let sent = |statement: &str, is_utf8| option(&DatabaseSetting::parse(statement).unwrap(), is_utf8).is_some();
        let umlaut = "ALTER DATABASE shop SET \"shop.name\" TO 'Käse';";
        assert!(sent(umlaut, true) && !sent(umlaut, false));
        assert!(!sent("ALTER DATABASE shop SET search_path TO 'a', 'b';", true));
        assert!(!sent("ALTER DATABASE shop SET \"shop.my-name\" TO 'a';", true));
        assert!(!all[0].is("ALTER ROLE ada IN DATABASE \"new\" SET \"shop.name\" TO 'other';"));
    }
}
