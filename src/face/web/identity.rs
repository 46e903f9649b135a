//! Who asks, and what they may do.

use std::fmt;
use std::str::FromStr;

/// What a person or a program may do. Each role may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Viewer,
    /// Back up, verify, drill, cancel, download, pause.
    Operator,
    /// Restore, and read who did what.
    Admin,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRole;

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        let known = [Role::Viewer, Role::Operator, Role::Admin].into_iter();
        known.into_iter().find(|role| role.name() == text).ok_or(NoRole)
    }
}

/// What has proved who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// A token of the settings, or of this process.
    Token,
    /// A JSON Web Token that another program has signed.
    Jwt,
    /// A user's password.
    Password,
}

/// Who asks. Printed, it is the credential and the name: the journal, the plans and the rates know people by that text,
/// so a user and a token of the same name have nothing in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub credential: Credential,
    /// Empty for a JSON Web Token that names nobody.
    pub name: String,
    pub role: Role,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credential = match self.credential {
            Credential::Token => "token",
            Credential::Jwt => "jwt",
            Credential::Password => "user",
        };
        write!(f, "{credential}:{}", self.name)
    }
}
