//! The extensions of the database, as the source's catalog says.

use serde::{Deserialize, Serialize};

/// What is of an extension depends on its version: an archive says none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    pub name: String,
    pub version: String,
}
