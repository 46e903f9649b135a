//! The positions of sequences, as statements of an archive.

use std::collections::HashMap;

use super::bases::begun;
use super::place::Place;
use super::report::NotExact;
use super::spelling::{literal, qualified};
use crate::error::Result;
use crate::format::archive::{Addition, Head, Item, contents};
use crate::repository::manifest::{Manifest, SequenceState};

/// The section of the rows.
const DATA: i64 = 3;

/// The positions around the moment: those in the full or at the last end of an increment before it, and those at the first
/// end of an increment after it.
#[derive(Clone, Copy)]
pub(super) struct Positions<'a> {
    before: &'a [SequenceState],
    after: &'a [SequenceState],
}

/// `of_full` are those in the archive of the full. After the last increment, `after` are those at its end.
pub(super) fn positions<'a>(
    (full, of_full): (&Manifest, &'a [SequenceState]),
    increments: &'a [Manifest],
    place: Place,
) -> Positions<'a> {
    let begun = begun(full);
    let end = |manifest: &&Manifest| manifest.increment.as_ref().map(|one| one.stream.to);
    let is_before = |manifest: &&Manifest| {
        // The positions in the full are newer than those at an end before it.
        end(manifest).is_some_and(|to| to < place.earliest && begun.is_none_or(|begun| begun < to))
    };
    let before = increments.iter().rev().find(is_before);
    let after = increments
        .iter()
        .find(|manifest| end(manifest).is_some_and(|to| to >= place.latest));
    Positions {
        before: states(before).unwrap_or(of_full),
        after: states(after.or(increments.last())).unwrap_or_default(),
    }
}

fn states(manifest: Option<&Manifest>) -> Option<&[SequenceState]> {
    Some(&manifest?.increment.as_ref()?.sequences)
}

/// The positions that this archive gives to its sequences.
pub(super) fn of_archive(head: &Head) -> Result<Vec<SequenceState>> {
    let items = contents(head)?;
    let of_kind = |kind: &'static str| items.iter().filter(move |item| item.entry.desc == kind);
    let named = |item: &Item| (item.entry.namespace.clone().unwrap_or_default(), item.entry.tag.clone());
    let oids: HashMap<(String, String), u32> = of_kind("SEQUENCE").map(|item| (named(item), item.entry.oid)).collect();
    let state = |item: &Item| {
        let (schema, name) = named(item);
        let oid = *oids.get(&(schema.clone(), name.clone()))?;
        let (_, last_value, is_called) = position_in(item.definition())?;
        Some(SequenceState {
            schema,
            name,
            oid,
            last_value,
            is_called,
            ascends: None,
        })
    };
    Ok(of_kind("SEQUENCE SET").filter_map(state).collect())
}

/// The position after the moment, because a sequence that is a little ahead gives no number twice. But if it was set back
/// since (`TRUNCATE … RESTART IDENTITY`, `setval`), or is gone, the position before the moment. A sequence that got
/// another name since is found by its OID.
pub(super) fn find<'a>(positions: Positions<'a>, item: &Item) -> Option<&'a SequenceState> {
    let schema = item.entry.namespace.as_deref().unwrap_or_default();
    let named = |states: &'a [SequenceState]| {
        states
            .iter()
            .find(|state| state.name == item.entry.tag && state.schema == schema)
    };
    let oid = Some(item.entry.oid).filter(|oid| *oid != 0);
    let oid = oid.or_else(|| Some(named(positions.before)?.oid));
    let of = |states: &'a [SequenceState]| {
        let known = oid.and_then(|oid| states.iter().find(|state| state.oid == oid));
        known.or_else(|| named(states).filter(|_| oid.is_none()))
    };
    match (of(positions.before), of(positions.after)) {
        (Some(before), Some(after)) if after.is_behind(before) => Some(before),
        (before, after) => after.or(before),
    }
}

/// A sequence that is not where it was at the moment.
#[derive(Clone)]
pub(crate) struct SetBack {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub not_exact: NotExact,
}

/// The sequences that were set back or dropped after the moment: where they were at the moment is not known, and their
/// position before it can be behind the rows.
pub(super) fn set_back(positions: Positions<'_>) -> impl Iterator<Item = SetBack> {
    let of_oid = |oid: u32| positions.after.iter().find(move |after| after.oid == oid);
    let was_set_back = move |before: &&SequenceState| of_oid(before.oid).is_none_or(|after| after.is_behind(before));
    positions.before.iter().filter(was_set_back).map(|before| SetBack {
        oid: before.oid,
        schema: before.schema.clone(),
        name: before.name.clone(),
        not_exact: NotExact {
            what: format!("the sequence {}.{}", before.schema, before.name),
            why: format!(
                "it was set back or dropped after the moment, so it is restored with its last position before the moment, \
                 {}: set it to the largest number in the rows",
                before.last_value
            ),
            before: None,
            after: None,
        },
    })
}

/// The statement of an entry `SEQUENCE SET` with another position. `None`: the position is behind the entry's, or the
/// entry is not written as pg_dump writes it.
pub(super) fn moved(definition: &[u8], state: &SequenceState) -> Option<Vec<u8>> {
    let (call, last_value, is_called) = position_in(definition)?;
    let before = SequenceState {
        last_value,
        is_called,
        ..state.clone()
    };
    if state.is_behind(&before) {
        return None;
    }
    Some([call, b", ", position(state).as_bytes()].concat())
}

/// The statement up to the name of the sequence, and the position that it gives.
fn position_in(definition: &[u8]) -> Option<(&[u8], i64, bool)> {
    const BEFORE: &[u8] = b"SELECT pg_catalog.setval(";
    let rest = definition.strip_prefix(BEFORE)?;
    // The name is a literal, which may hold anything but ends with a quote before the last commas.
    let end = rest.windows(3).rposition(|window| window == b"', ")? + 1;
    let (last_value, is_called) = std::str::from_utf8(&rest[end..])
        .ok()?
        .strip_prefix(", ")?
        .strip_suffix(");\n")?
        .split_once(", ")?;
    let call = &definition[..BEFORE.len() + end];
    Some((call, last_value.parse().ok()?, is_called.parse().ok()?))
}

fn position(state: &SequenceState) -> String {
    format!("{}, {});\n", state.last_value, state.is_called)
}

/// The entry that pg_dump writes for the position of a sequence.
pub(super) fn addition(dump_id: i64, sequence: &Item, state: &SequenceState) -> Addition {
    let [namespace, tag] = sequence.entry.path();
    let name = qualified(&namespace, &tag);
    let definition = [
        b"SELECT pg_catalog.setval(",
        &*literal(&name),
        b", ",
        position(state).as_bytes(),
    ]
    .concat();
    Addition {
        dump_id,
        oid: 0,
        tag,
        desc: "SEQUENCE SET",
        section: DATA,
        definition,
        namespace,
        owner: sequence.details.owner.clone().into_bytes(),
        dependencies: vec![sequence.entry.dump_id],
        ..Addition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_set_to_another_position() {
        let state = SequenceState {
            schema: "public".into(),
            name: "s".into(),
            oid: 1,
            last_value: -7,
            is_called: false,
            ascends: None,
        };
        let before = b"SELECT pg_catalog.setval('public.\"it''s, \"', 5, true);\n";
        let after = b"SELECT pg_catalog.setval('public.\"it''s, \"', -7, false);\n";
        assert_eq!(moved(before, &state).as_deref(), Some(&after[..]));
        assert_eq!(moved(b"SELECT 1;\n", &state), None);
        // It was set back: the numbers up to 5 are in the rows.
        let ascending = SequenceState {
            ascends: Some(true),
            ..state.clone()
        };
        assert_eq!(moved(before, &ascending), None);
        let descending = SequenceState {
            ascends: Some(false),
            ..state
        };
        assert_eq!(moved(before, &descending).as_deref(), Some(&after[..]));
    }

    #[test]
    fn a_sequence_that_was_set_back_is_behind() {
        let state = |last_value, is_called, ascends| SequenceState {
            schema: "public".into(),
            name: "s".into(),
            oid: 1,
            last_value,
            is_called,
            ascends,
        };
        let up = |value, called| state(value, called, Some(true));
        assert!(up(1, false).is_behind(&up(9, true)));
        assert!(up(9, false).is_behind(&up(9, true)));
        assert!(!up(9, true).is_behind(&up(9, true)));
        let down = |value, called| state(value, called, Some(false));
        assert!(down(-1, true).is_behind(&down(-9, true)));
        assert!(!down(i64::MIN, true).is_behind(&down(-9, true)));
        assert!(!state(1, true, None).is_behind(&state(9, true, None)));
    }
}
