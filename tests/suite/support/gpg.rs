//! A stock gpg with a keyring of its own, and the keys for tests (`tests/fixtures/keys`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::program;

fn fixture(name: &str) -> PathBuf {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys");
    keys.join(format!("{name}.asc"))
}

/// A public key, as gpg exports it.
pub fn public(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap()
}

pub fn secret(name: &str) -> Vec<u8> {
    fs::read(fixture(&format!("{name}.secret"))).unwrap()
}

pub struct Gpg(TempDir);

impl Gpg {
    /// With these secret keys in its ring, and no others.
    pub fn new(secrets: &[&str]) -> Self {
        // gpg takes only a folder of the user's own; an agent's socket needs a short path.
        let gpg = Self(tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").unwrap());
        for name in secrets {
            program::succeed(gpg.command().arg("--import").arg(fixture(&format!("{name}.secret"))));
        }
        gpg
    }

    pub fn command(&self) -> Command {
        let mut command = program::program("gpg");
        let options = ["--batch", "--quiet", "--yes", "--no-tty", "--trust-model", "always"];
        command.arg("--homedir").arg(self.0.path()).args(options);
        command.args(["--pinentry-mode", "loopback"]);
        command
    }

    pub fn decrypt(&self, message: &[u8]) -> program::Run {
        program::run_with_input(self.command().args(["--passphrase", "", "--decrypt"]), message)
    }

    /// What comes of it if all goes well.
    pub fn decrypted(&self, message: &[u8]) -> Vec<u8> {
        let run = self.decrypt(message);
        assert!(run.status.success(), "{}", run.stderr);
        run.stdout
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let mut stop = program::program("gpgconf");
        // Its agent also ends by itself, once its folder is gone.
        let _ = program::run(stop.arg("--homedir").arg(self.0.path()).args(["--kill", "gpg-agent"]));
    }
}
