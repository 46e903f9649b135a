//! What a test of the settings starts with.

use std::path::PathBuf;

use secrecy::ExposeSecret;

use crate::error::Code;
use crate::settings::{CredentialSource, Input, Settings, StoreUrl};

/// A working directory with the files that a test needs.
pub struct Place {
    pub folder: tempfile::TempDir,
    pub input: Input,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = Input {
            working_dir: folder.path().to_owned(),
            cpus: 3,
            memory: None,
            ..Input::default()
        };
        Self { folder, input }
    }

    pub fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    pub fn env_file(self, text: &str) -> Self {
        self.file(".env", text)
    }

    /// An env file that the user has named, so that all its settings count.
    pub fn named_env_file(mut self, text: &str) -> Self {
        self.input.env_file = Some("named.env".into());
        self.file("named.env", text)
    }

    pub fn toml(mut self, text: &str) -> Self {
        self.input.config_file = Some("pgstow.toml".into());
        self.file("pgstow.toml", text)
    }

    pub fn env(mut self, pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.input.env.extend(pairs);
        self
    }

    pub fn flag(mut self, variable: &'static str, value: &str) -> Self {
        self.input.flags.entry(variable).or_default().push(value.to_owned());
        self
    }

    pub fn in_lambda(mut self) -> Self {
        self.input.in_lambda = true;
        self
    }

    #[track_caller]
    pub fn load(&self) -> Settings {
        Settings::load(&self.input).unwrap()
    }

    #[track_caller]
    pub fn refused(&self, parts: &[&str]) -> String {
        let error = Settings::load(&self.input).unwrap_err();
        assert_eq!(error.code(), Code::Config);
        let message = error.message();
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
        message
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

pub fn env(pairs: &[(&str, &str)]) -> Place {
    Place::new().env(pairs)
}

pub fn s3_store(bucket: &str) -> StoreUrl {
    StoreUrl::S3 {
        bucket: bucket.into(),
        prefix: String::new(),
    }
}

#[track_caller]
pub fn noted(settings: &Settings, part: &str) {
    assert!(
        settings.notes.iter().any(|note| note.contains(part)),
        "{:?}",
        settings.notes
    );
}

pub fn direct(settings: &Settings) -> &crate::postgres::ConnectionInfo {
    match settings.source() {
        CredentialSource::Direct(info) => info,
        other => panic!("{other:?}"),
    }
}

pub fn password(settings: &Settings) -> Option<&str> {
    direct(settings).password.as_ref().map(ExposeSecret::expose_secret)
}
