//! Reasons why a drill cannot prove something, which several parts of a drill use.

use crate::error::{Code, Error};

/// The start of the message.
pub(super) const NOTHING_PROVED: &str = "the drill proved nothing: ";

/// The reason for facts that a plain dump does not hold.
pub(super) const NOT_IN_A_SCRIPT: &str = "a plain dump does not hold them";
pub(super) const FOREIGN: &str =
    "it is about an object of an extension or of the server itself, and the drill's role owns neither";

/// The error of a drill that proved nothing.
pub(super) fn nothing_proved(why: &str) -> Error {
    Error::new(Code::NotProved, format!("{NOTHING_PROVED}{why}"))
        .hint("restore the backup by hand, into a server that holds nothing else, to see whether it restores")
}
