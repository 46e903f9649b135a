//! The people who log in with a password.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Semaphore;

use super::identity::{Credential, Identity, Role};
use crate::error::{Error, Result};

/// Each comparison needs 19 MiB of memory, and a processor for some tens of milliseconds.
const AT_ONCE: usize = 2;
/// No password is longer.
const LONGEST: usize = 1_000;

pub(super) struct Users {
    known: HashMap<String, (Role, PasswordHash)>,
    /// Compared with where there is no such user, so that the time says nothing.
    nobody: PasswordHash,
    at_once: Arc<Semaphore>,
}

impl Users {
    /// Reads the lines `name:role:argon2id-hash` of a file.
    ///
    /// # Errors
    /// `CONFIG`, with the number of the line. The line is not in the error.
    pub fn read(file: &Path) -> Result<Users> {
        let text = fs::read_to_string(file).map_err(|error| {
            Error::config(format!("BACKUP_USERS_FILE: {} cannot be read", file.display())).source(error)
        })?;
        let mut known = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, user) = user_line(line).ok_or_else(|| {
                Error::config(format!("BACKUP_USERS_FILE: line {} is not understood", number + 1))
                    .hint("each line is name:role:hash; `pgstow serve hash-password` makes the hash")
            })?;
            known.insert(name, user);
        }
        Ok(Users {
            known,
            nobody: hash("nobody")?,
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// Who this is, if the password is theirs.
    pub async fn identity(&self, name: &str, password: String) -> Option<Identity> {
        let (role, hash) = match self.known.get(name) {
            Some((role, hash)) => (Some(*role), hash.clone()),
            None => (None, self.nobody.clone()),
        };
        let turn = Arc::clone(&self.at_once).acquire_owned().await.ok()?;
        let compare = move || {
            let _turn = turn;
            password.len() <= LONGEST && Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
        };
        let is_right = tokio::task::spawn_blocking(compare).await.ok()?;
        let name = name.to_owned();
        role.filter(|_| is_right).map(|role| Identity {
            credential: Credential::Password,
            name,
            role,
        })
    }
}

fn user_line(line: &str) -> Option<(String, (Role, PasswordHash))> {
    let mut parts = line.splitn(3, ':');
    let (name, role, hash) = (parts.next()?.trim(), parts.next()?.trim(), parts.next()?.trim());
    if name.is_empty() || name.chars().any(char::is_control) || !hash.starts_with("$argon2id$") {
        return None;
    }
    Some((name.to_owned(), (role.parse().ok()?, PasswordHash::new(hash).ok()?)))
}

fn hash(password: &str) -> Result<PasswordHash> {
    let mut salt = [0; 16];
    SystemRandom::new()
        .fill(&mut salt)
        .map_err(|_| Error::internal("the system gives no random numbers"))?;
    let hashed = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
    hashed.map_err(|error| Error::internal(format!("the password cannot be hashed: {error}")))
}

/// The hash of a password, for the file.
///
/// # Errors
/// `CONFIG` for a password that is empty, short or very long.
pub fn hashed(password: &str) -> Result<String> {
    if !(8..=LONGEST).contains(&password.len()) {
        return Err(Error::config("the password must have 8 to 1000 bytes").hint("give a longer one on stdin"));
    }
    hash(password).map(|hash| hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_gets_in_with_their_own_password_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        let line = format!("# people\nann:admin:{}\n", hashed("correct horse").unwrap());
        fs::write(&file, line).unwrap();
        let users = Users::read(&file).unwrap();
        let ann = users.identity("ann", "correct horse".to_owned()).await.unwrap();
        assert_eq!((ann.name.as_str(), ann.role), ("ann", Role::Admin));
        for (name, password) in [
            ("ann", "correct horsf"),
            ("ann", ""),
            ("bob", "correct horse"),
            ("", "nobody"),
        ] {
            assert_eq!(
                users.identity(name, password.to_owned()).await,
                None,
                "{name} {password}"
            );
        }
    }

    #[test]
    fn a_line_that_is_none_is_named_by_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        for wrong in ["ann:admin:secret", "ann:root:$argon2id$x", ":admin:$argon2id$x", "ann"] {
            fs::write(&file, format!("\n{wrong}\n")).unwrap();
            let error = Users::read(&file).err().unwrap();
            let message = error.to_string();
            assert!(message.contains("line 2") && !message.contains("secret"), "{message}");
        }
        assert!(hashed("short").is_err() && hashed(&"x".repeat(1001)).is_err());
    }
}
