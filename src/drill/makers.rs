//! Who makes an entry of the archive in the throwaway server. Everything that can call a function of the
//! backup's (a check, an index, a view, a row) is made by a role that is no superuser. What only a superuser
//! can make calls none, and could be made by no other in the source either.

use std::collections::{HashMap, HashSet};

use super::outline::words;
use crate::archive::Item;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    Loader,
    Superuser,
}

/// What the throwaway server says of itself.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Languages that everybody may write functions in.
    pub languages: HashSet<String>,
    /// Settings that only a superuser may set.
    pub guarded_settings: HashSet<String>,
}

/// Kinds that are a superuser's, or need to own what is the system's. None of them evaluates an
/// expression.
const KINDS: [&str; 21] = [
    "ACCESS METHOD",
    "ACL",
    "ACL LANGUAGE",
    "CAST",
    "CONVERSION",
    "DEFAULT ACL",
    "EVENT TRIGGER",
    "EXTENSION",
    "FOREIGN DATA WRAPPER",
    // Its options may name a file, which not everybody may; it has no rows here.
    "FOREIGN TABLE",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "PUBLICATION",
    "PUBLICATION TABLES IN SCHEMA",
    "SCHEMA",
    "SERVER",
    "SUBSCRIPTION",
    "SUBSCRIPTION TABLE",
    "TRANSFORM",
    "USER MAPPING",
];

/// Where the name has two words, both of PostgreSQL's.
const TEXT_SEARCH: [&str; 2] = ["TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE"];

pub(super) struct Makers(HashMap<i64, Maker>);

impl Makers {
    pub fn of(items: &[Item], known: &Known) -> Makers {
        let mut makers: HashMap<i64, Maker> = HashMap::new();
        for item in items {
            makers.insert(item.entry.dump_id, maker(item, known));
        }
        // A comment is made by who made what it is about, as it must own that.
        for item in items.iter().filter(|item| item.entry.desc == "COMMENT") {
            let about = item.details.dependencies.iter().filter_map(|id| makers.get(id));
            let superuser = about.into_iter().any(|maker| *maker == Maker::Superuser);
            if superuser {
                makers.insert(item.entry.dump_id, Maker::Superuser);
            }
        }
        Makers(makers)
    }

    /// Neighbours of one maker together, in the order that they have.
    pub fn runs(&self, ids: &[i64]) -> Vec<(Maker, Vec<i64>)> {
        let mut runs: Vec<(Maker, Vec<i64>)> = Vec::new();
        for id in ids {
            let maker = self.0.get(id).copied().unwrap_or(Maker::Loader);
            match runs.last_mut() {
                Some((last, run)) if *last == maker => run.push(*id),
                _ => runs.push((maker, vec![*id])),
            }
        }
        runs
    }
}

/// Whether it must be there before everything else: schemas, and what is in none of the backup's hands.
pub(super) fn is_ground(item: &Item) -> bool {
    matches!(item.entry.desc.as_str(), "SCHEMA" | "EXTENSION")
}

fn maker(item: &Item, known: &Known) -> Maker {
    let desc = item.entry.desc.as_str();
    let definition = item.details.definition.as_str();
    let superuser = KINDS.contains(&desc)
        || TEXT_SEARCH.contains(&desc)
        || match desc {
            "FUNCTION" | "PROCEDURE" => function(definition, known),
            "AGGREGATE" => aggregate(definition),
            "TYPE" => base_type(definition),
            _ => false,
        };
    if superuser { Maker::Superuser } else { Maker::Loader }
}

/// In an untrusted language, or with a property that the planner or the session must be able to trust.
fn function(definition: &str, known: &Known) -> bool {
    let outside = words(definition).into_iter().filter(|(depth, _)| *depth == 0);
    let header: Vec<&str> = outside
        .map(|(_, word)| word)
        .skip_while(|word| *word != "LANGUAGE")
        .take_while(|word| !matches!(*word, "AS" | "BEGIN" | "RETURN"))
        .collect();
    let trusted = header
        .get(1)
        .is_some_and(|language| known.languages.contains(*language));
    let setting = |pair: &[&str]| pair[0] == "SET" && known.guarded_settings.contains(pair[1]);
    !trusted || header.iter().any(|word| matches!(*word, "LEAKPROOF" | "SUPPORT")) || header.windows(2).any(setting)
}

/// Its state is one of the server's own structures.
fn aggregate(definition: &str) -> bool {
    let words = words(definition);
    let internal = |pair: &[(usize, &str)]| matches!(pair[0].1, "STYPE" | "MSTYPE") && pair[1].1 == "internal";
    words.windows(2).any(internal)
}

/// Its values are read by functions in C. (Ranges, enums and rows have `AS` after their name.)
fn base_type(definition: &str) -> bool {
    words(definition)
        .iter()
        .any(|(depth, word)| *depth == 1 && *word == "INTERNALLENGTH")
        && !words(definition)
            .iter()
            .any(|(depth, word)| *depth == 0 && *word == "AS")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        Known {
            languages: ["sql", "plpgsql"].map(str::to_owned).into(),
            guarded_settings: ["session_replication_role".to_owned()].into(),
        }
    }

    #[test]
    fn functions_that_need_a_superuser_are_told_by_their_head_alone() {
        let needs = |definition: &str| function(definition, &known());
        assert!(needs(
            "CREATE FUNCTION s.f(a integer) RETURNS integer\n    LANGUAGE c\n    AS '$libdir/x', 'f';"
        ));
        assert!(needs(
            "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql LEAKPROOF\n    AS $$ SELECT 1 $$;"
        ));
        assert!(needs(
            "CREATE FUNCTION s.f() RETURNS int\n    LANGUAGE sql SUPPORT s.help\n    RETURN 1;"
        ));
        assert!(needs(
            "CREATE PROCEDURE s.f()\n    LANGUAGE plpgsql\n    SET session_replication_role TO 'replica'\n    AS $$ $$;"
        ));
        assert!(!needs(
            "CREATE FUNCTION s.f(a text DEFAULT 'LANGUAGE c LEAKPROOF'::text) RETURNS language\n    LANGUAGE plpgsql\n    \
             SET search_path TO 'SUPPORT'\n    AS $_$ LANGUAGE c LEAKPROOF SET session_replication_role $_$;"
        ));
        assert!(!needs(
            "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql\n    BEGIN ATOMIC\n SELECT 1 AS \"LEAKPROOF\";\nEND;"
        ));
        // A language that is not known, and one whose name cannot be read here.
        assert!(needs(
            "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE \"Odd\"\n    AS '';"
        ));
    }

    #[test]
    fn types_and_aggregates_of_the_servers_own_structures_need_one() {
        assert!(base_type(
            "CREATE TYPE s.t (\n    INTERNALLENGTH = 16,\n    INPUT = s.t_in,\n    OUTPUT = s.t_out\n);"
        ));
        assert!(!base_type("CREATE TYPE s.t AS (\n\t\"INTERNALLENGTH\" integer\n);"));
        assert!(!base_type("CREATE TYPE s.t AS RANGE (\n    subtype = integer\n);"));
        assert!(aggregate(
            "CREATE AGGREGATE s.a(integer) (\n    SFUNC = int4_avg_accum,\n    STYPE = internal\n);"
        ));
        assert!(!aggregate(
            "CREATE AGGREGATE s.a(\"STYPE\" integer) (\n    SFUNC = s.f,\n    STYPE = bigint\n);"
        ));
    }

    #[test]
    fn what_is_made_by_one_goes_in_one_run_and_the_order_stays() {
        let makers = Makers(HashMap::from([
            (1, Maker::Loader),
            (2, Maker::Superuser),
            (3, Maker::Superuser),
            (4, Maker::Loader),
        ]));
        assert_eq!(
            makers.runs(&[1, 2, 3, 4]),
            [
                (Maker::Loader, vec![1]),
                (Maker::Superuser, vec![2, 3]),
                (Maker::Loader, vec![4])
            ]
        );
    }
}
