//! Materialized views that read tables of PostgreSQL's own which the role may not read: they are filled after
//! everything else.

use std::collections::{BTreeSet, HashSet};

use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::ready::{Target, some_of};

pub(super) async fn check(target: &Target, planned: &[&Item]) -> Result<()> {
    let filled: Vec<&Item> = planned
        .iter()
        .copied()
        .filter(|item| item.entry.desc == "MATERIALIZED VIEW DATA")
        .collect();
    if filled.is_empty() {
        return Ok(());
    }
    let hidden = target.session.hidden_catalogs().await?;
    let names: Vec<String> = unreadable(planned, &filled, &hidden)
        .iter()
        .map(|item| item.entry.name())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let user = &target.session.server().user;
    let what = format!(
        "the role {user} may not read tables that materialized views use: {}",
        some_of(&names, names.len() as u64)
    );
    Err(Error::new(Code::Permission, what)
        .hint("leave their rows out with --exclude \"MATERIALIZED VIEW DATA:NAME\", or restore as a superuser"))
}

/// Those of `filled` that read one of these names, also through other views.
fn unreadable<'a>(planned: &[&Item], filled: &[&'a Item], hidden: &BTreeSet<String>) -> Vec<&'a Item> {
    let is_view = |item: &Item| matches!(item.entry.desc.as_str(), "VIEW" | "MATERIALIZED VIEW");
    let mut reading: HashSet<i64> = HashSet::new();
    loop {
        let before = reading.len();
        for item in planned.iter().filter(|item| is_view(item)) {
            let through = item.details.dependencies.iter().any(|id| reading.contains(id));
            if through || hidden.iter().any(|name| reads(&item.details.definition, name)) {
                reading.insert(item.entry.dump_id);
            }
        }
        if reading.len() == before {
            break;
        }
    }
    let needs = |item: &&&Item| item.details.dependencies.iter().any(|id| reading.contains(id));
    filled.iter().filter(needs).copied().collect()
}

/// Whether a view's text reads from this name, which pg_dump writes without its schema.
fn reads(definition: &str, name: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || "_$.(\"".contains(c);
    definition.match_indices(name).any(|(at, _)| {
        let before = definition[..at].trim_end_matches(|c: char| c.is_whitespace() || c == '(');
        let mut after = definition[at + name.len()..].chars();
        ["FROM", "JOIN", "ONLY", ",", "pg_catalog."]
            .iter()
            .any(|word| before.ends_with(word))
            && after.next().is_none_or(|c| !goes_on(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_over_what_the_role_may_not_read_is_found_also_through_others() {
        for (definition, found) in [
            ("SELECT rolname\n   FROM pg_authid\n  WITH NO DATA;", true),
            ("SELECT 1\n   FROM (t\n     JOIN pg_authid a ON (true));", true),
            ("SELECT 1\n   FROM t,\n    pg_authid;", true),
            ("SELECT 1\n   FROM s.pg_authid;", false),
            ("SELECT t.pg_authid\n   FROM pg_authid_too t;", false),
            ("SELECT 1\n   FROM pg_authid() pg_authid(a);", false),
        ] {
            assert_eq!(reads(definition, "pg_authid"), found, "{definition}");
        }
        let item = |id: i64, desc: &str, definition: &str, dependencies: &[i64]| {
            Item::sample(id, desc, "").defined(definition).needing(dependencies)
        };
        let items = [
            item(1, "VIEW", "SELECT 1 FROM pg_authid", &[]),
            item(2, "MATERIALIZED VIEW", "SELECT 1 FROM s.v", &[1]),
            item(3, "MATERIALIZED VIEW", "SELECT 1 FROM s.t", &[]),
            item(4, "MATERIALIZED VIEW DATA", "", &[2]),
            item(5, "MATERIALIZED VIEW DATA", "", &[3]),
        ];
        let planned: Vec<&Item> = items.iter().collect();
        let hidden = BTreeSet::from(["pg_authid".to_owned()]);
        let found = unreadable(&planned, &planned[3..], &hidden);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].entry.dump_id, 4);
    }
}
