//! Large tables in parts: several pg_restores load one table, each some of its rows.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::load::{Load, Part};
use crate::format::archive::{Item, SealedRange};

/// How many parts per job everything is cut into, so that the jobs end at about the same time.
const PER_JOB: u64 = 4;

/// Which tables may be loaded in parts: those whose definition this restore makes, so that no constraint and no
/// trigger exists yet, and for which the order of rows does not matter.
pub struct Divisible {
    tables: HashSet<i64>,
}

impl Divisible {
    pub fn among(items: &[Item], chosen: &HashSet<i64>) -> Self {
        let definitions: HashMap<i64, &Item> = items
            .iter()
            .filter(|item| item.entry.desc == "TABLE" && chosen.contains(&item.entry.dump_id))
            .filter(|item| !calls_own_function(&item.details.definition))
            .map(|item| (item.entry.dump_id, item))
            .collect();
        let mut tables: HashSet<i64> = definitions.into_keys().collect();
        for item in items.iter().filter(|item| wants_order(item)) {
            for id in &item.details.dependencies {
                tables.remove(id);
            }
        }
        Self { tables }
    }

    /// Whether the rows of this `TABLE DATA` entry may be loaded in parts.
    pub fn allows(&self, data: &Item) -> bool {
        data.details.dependencies.iter().any(|id| self.tables.contains(id))
    }
}

/// A BRIN index is only as good as the order of the rows, and a clustered table should keep its order.
fn wants_order(item: &Item) -> bool {
    let definition = &item.details.definition;
    matches!(item.entry.desc.as_str(), "INDEX" | "CONSTRAINT")
        && (definition.contains(" USING brin ") || definition.contains(" CLUSTER ON "))
}

/// Whether a check of the table may call a function of the database's own, which may look at rows that are loaded
/// already. pg_dump qualifies every name outside of pg_catalog.
fn calls_own_function(definition: &str) -> bool {
    let Some(at) = definition.find("CHECK (") else {
        return false;
    };
    let text = &definition.as_bytes()[at..];
    let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80 || matches!(byte, b'_' | b'$');
    memchr::memchr_iter(b'(', text).any(|at| {
        let before = &text[..at];
        let name = before.iter().rev().take_while(|byte| of_name(byte)).count();
        let qualified = before[..before.len() - name].ends_with(b".");
        let operator = before.ends_with(b"OPERATOR") && !text[at + 1..].starts_with(b"pg_catalog.");
        (name > 0 && qualified) || before.ends_with(b"\"") || operator
    })
}

/// No part is larger than this, if the ranges allow it.
pub fn target(stored_bytes: u64, jobs: usize) -> u64 {
    stored_bytes / (PER_JOB * jobs as u64)
}

/// The loads that one table's load is split into.
pub fn cut(load: Load, ranges: &[SealedRange], target: u64) -> Vec<Load> {
    let mut parts: Vec<(Range<usize>, u64)> = Vec::new();
    for (index, range) in ranges.iter().enumerate() {
        match parts.last_mut() {
            // A part without rows, such as the end of COPY alone, does not need a process of its own.
            Some((part, stored)) if *stored + range.length <= target || range.rows == 0 => {
                part.end = index + 1;
                *stored += range.length;
            }
            _ => parts.push((index..index + 1, range.length)),
        }
    }
    if parts.len() < 2 {
        return vec![load];
    }
    let part = |(ranges, stored_bytes)| Load {
        part: Some(Part { ranges }),
        stored_bytes,
        ..load.clone()
    };
    parts.into_iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(length: u64, rows: u64) -> SealedRange {
        SealedRange {
            offset: 0,
            length,
            rows,
            bytes: 0,
            stored_sha256: [0; 32],
        }
    }

    proptest! {
        #[test]
        fn the_parts_hold_every_range_once_and_are_no_larger_than_they_must(
            lengths in prop::collection::vec((1_u64..1000, 0_u64..3), 0..40),
            target in 0_u64..3000,
        ) {
            let ranges: Vec<SealedRange> = lengths.iter().map(|(length, rows)| range(*length, *rows)).collect();
            let load = Load { blocks: vec![7], list: vec![9], stored_bytes: 5, part: None };
            let parts = cut(load.clone(), &ranges, target);
            if let [whole] = &parts[..] {
                prop_assert_eq!(whole, &load);
                return Ok(());
            }
            let mut due = 0;
            for part in &parts {
                prop_assert_eq!((&part.blocks, &part.list), (&load.blocks, &load.list));
                let Part { ranges: of } = part.part.clone().unwrap();
                prop_assert_eq!(of.start, due);
                prop_assert!(!of.is_empty());
                due = of.end;
                let stored: u64 = ranges[of.clone()].iter().map(|range| range.length).sum();
                prop_assert_eq!(part.stored_bytes, stored);
                let full = ranges[of.clone()].iter().skip(1).filter(|range| range.rows > 0).count();
                prop_assert!(full == 0 || ranges[of].iter().filter(|range| range.rows > 0).map(|range| range.length).sum::<u64>() <= target);
            }
            prop_assert_eq!(due, ranges.len());
        }
    }

    #[test]
    fn a_check_that_calls_a_function_of_the_databases_own_is_seen() {
        let own = [
            "CREATE TABLE public.t (a integer, CONSTRAINT c CHECK (public.is_right(a)));",
            r#"CREATE TABLE public.t (a integer, CONSTRAINT c CHECK ("My Schema"."is right"(a)));"#,
            "CREATE TABLE public.t (a integer, CHECK ((a OPERATOR(public.@@) 3)));",
        ];
        for definition in own {
            assert!(calls_own_function(definition), "{definition}");
        }
        let plain = [
            "CREATE TABLE public.t (a public.mine(3), b integer DEFAULT public.next());",
            "CREATE TABLE public.t (a integer, CONSTRAINT c CHECK ((a > 0) AND (length((b)::text) < 1.5)));",
            "CREATE TABLE public.t (a integer, CHECK ((a OPERATOR(pg_catalog.=) (3))));",
        ];
        for definition in plain {
            assert!(!calls_own_function(definition), "{definition}");
        }
    }
}
