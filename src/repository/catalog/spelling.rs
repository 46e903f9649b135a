//! The databases of a store, for a user who named another one.

use super::{Listed, with_backups};
use crate::store::Store;
use crate::units::some_of;

/// How many databases a hint names.
const NAMED: usize = 5;
/// From longer text only this much is compared: no id is longer.
pub(super) const COMPARED: usize = 300;

/// The hint for a database without backups in this store: the databases that have some, the most similar names first.
/// `None` if this database has backups, or no other has.
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
