//! What a drill cannot prove: words that more than one part of it uses.

use crate::error::{Code, Error};

/// How the message begins.
pub(super) const NOTHING_PROVED: &str = "the drill proved nothing: ";

/// Of what a dump of this kind says nothing of.
pub(super) const NOT_IN_A_SCRIPT: &str = "a plain dump does not hold them";
pub(super) const FOREIGN: &str =
    "it is said of what an extension has made, or the server itself, and the drill's role owns neither";

/// Why a drill gives no result.
pub(super) fn nothing_proved(why: &str) -> Error {
    Error::new(Code::NotProved, format!("{NOTHING_PROVED}{why}"))
        .hint("restore the backup by hand, into a server that holds nothing else, to see what it is worth")
}
