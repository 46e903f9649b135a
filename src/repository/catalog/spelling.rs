//! The databases of a store, told to a user who asked for another.

use super::{Listed, with_backups};
use crate::store::Store;
use crate::units::some_of;

/// How many databases are named.
const NAMED: usize = 5;
/// Longer text than this is compared by its beginning: no id is that long.
pub(super) const COMPARED: usize = 300;

/// For somebody who asked for the backups of a database that has none in this store: which ones have, those first that are
/// spelt alike. `None` where it has some, or no other has.
pub(super) fn others(store: &dyn Store, wanted: &str, listed: &[Listed]) -> Option<String> {
    let names = with_backups(listed);
    if names.is_empty() || names.contains(wanted) {
        return None;
    }
    let mut names: Vec<&str> = names.into_iter().collect();
    let wanted: String = wanted.chars().take(COMPARED).collect();
    names.sort_by_cached_key(|name| strsim::damerau_levenshtein(&wanted, name));
    Some(format!(
        "{} has backups of: {}; name the database with --database, or correct --store",
        store.url(),
        some_of(&names, NAMED)
    ))
}
