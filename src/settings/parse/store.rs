//! The stores, and the folder for what this machine remembers of them.

use std::convert::Infallible;
use std::path::PathBuf;

use super::Reader;
use crate::settings::{StoreCreate, StoreUrl, stores};

const DEFAULT_STORE: &str = "./backups";

impl Reader<'_> {
    pub(super) fn stores(&mut self) -> Vec<StoreUrl> {
        let home = self.input.env.get("HOME").map(String::as_str);
        let Some(value) = self.values.get("BACKUP_STORE") else {
            if self.input.in_lambda {
                self.problems.add(
                    "BACKUP_STORE is not set, and no folder of a Lambda function outlives the run; set s3://bucket/prefix"
                        .to_owned(),
                );
                return Vec::new();
            }
            self.note(format!("no store is set: backups go to {DEFAULT_STORE}"));
            return vec![StoreUrl::Folder(self.input.working_dir.join("backups"))];
        };
        let mut found: Vec<StoreUrl> = Vec::new();
        for text in &value.texts {
            match stores::parse(text, &self.input.working_dir, home) {
                Ok(store) if found.contains(&store) => {
                    self.problems.add(format!("{}: {text} is given twice", value.name));
                }
                Ok(store) => found.push(store),
                Err(why) => self.problems.add(format!("{}: {why}", value.name)),
            }
        }
        found
    }

    /// The folder that systemd gives to a service, or the usual place for such files. Root does not use `HOME`: after
    /// `sudo`, that may be the folder of another user.
    pub(super) fn state_dir(&mut self) -> Option<PathBuf> {
        let working_dir = self.input.working_dir.clone();
        if let Some(folder) = self.read("BACKUP_STATE_DIR", |text| Ok::<_, Infallible>(working_dir.join(text))) {
            return Some(folder);
        }
        if self.input.in_lambda {
            return None;
        }
        let folder = |name: &str| {
            let value = self.input.env.get(name).map(String::as_str).unwrap_or_default();
            let first = value.split(':').next().unwrap_or_default();
            Some(PathBuf::from(first)).filter(|folder| folder.is_absolute())
        };
        folder("STATE_DIRECTORY").or_else(|| {
            if rustix::process::geteuid().is_root() {
                return Some(PathBuf::from("/var/lib/pgstow"));
            }
            let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
            Some(state?.join("pgstow"))
        })
    }

    pub(super) fn store_create(&mut self) -> StoreCreate {
        let creations = [
            ("auto", StoreCreate::Auto),
            ("always", StoreCreate::Always),
            ("never", StoreCreate::Never),
        ];
        self.choice("BACKUP_STORE_CREATE", &creations).unwrap_or_default()
    }
}
