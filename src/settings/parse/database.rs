//! The databases, and how pgstow logs in to them.

use super::Reader;
use crate::settings::problems::Problems;
use crate::settings::value::{Layer, Value};
use crate::settings::{Auth, CredentialSource, Database, libpq, source};

impl Reader<'_> {
    pub(super) fn databases(&mut self) -> (Vec<Database>, Vec<Database>) {
        let ways = [("password", Auth::Password), ("iam", Auth::Iam)];
        let auth = self.choice("BACKUP_DB_AUTH", &ways).unwrap_or_default();
        let target_auth = self.choice("BACKUP_TARGET_AUTH", &ways).unwrap_or_default();
        let source = self.login("DATABASE_URL", source::resolve, auth);
        if self.values.get("DATABASE_URL").is_some_and(shows_password) {
            self.warnings.push(
                "the password in --database-url is visible to every user of this machine; set DATABASE_URL or DB_PASSWORD"
                    .to_owned(),
            );
        }
        let target = self.login("BACKUP_TARGET_URL", source::target, target_auth);
        if self.values.get("BACKUP_TARGET_URL").is_some_and(shows_password) {
            self.warnings.push(
                "the password in --target is visible to every user of this machine; set BACKUP_TARGET_URL or \
                 BACKUP_TARGET_PASSWORD"
                    .to_owned(),
            );
        }
        (Database::listed(source, auth), Database::listed(target, target_auth))
    }

    /// Problems of a login are problems of the setting by which most people give it.
    pub(super) fn login(
        &mut self,
        variable: &'static str,
        resolve: fn(&mut source::Reading<'_>, Auth) -> CredentialSource,
        auth: Auth,
    ) -> CredentialSource {
        let mut found = Problems::default();
        let home = self.input.env.get("HOME").map(String::as_str);
        let place = libpq::SearchFolders {
            home: home.filter(|home| !home.is_empty()),
            working_dir: &self.input.working_dir,
        };
        let login = resolve(
            &mut source::Reading {
                values: &self.values,
                place,
                problems: &mut found,
                notes: &mut self.notes,
            },
            auth,
        );
        if let Some(values) = &self.without_found {
            let without = resolve(
                &mut source::Reading {
                    values,
                    place,
                    problems: &mut Problems::default(),
                    notes: &mut Vec::new(),
                },
                auth,
            );
            source::found::check(&login, &without, &self.values, variable, &mut found);
        }
        self.problems.absorb(found, variable);
        login
    }
}

/// Whether a URL on the command line holds a password, which every user of the machine can see with `ps`.
pub(super) fn shows_password(url: &Value) -> bool {
    url.layer == Layer::Flags
        && crate::postgres::ConnectionInfo::parse_url(url.text()).is_ok_and(|info| info.password.is_some())
}
