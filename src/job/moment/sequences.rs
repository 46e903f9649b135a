//! The positions of sequences, as statements of an archive.

use super::place::Place;
use super::report::NotExact;
use super::spelling::{literal, qualified};
use crate::format::archive::{Addition, Item};
use crate::repository::manifest::{Manifest, SequenceState};

/// The section of the rows.
const DATA: i64 = 3;

/// The positions around the moment: those at the last end of an increment before it, and those at the first after it.
#[derive(Clone, Copy)]
pub(super) struct Positions<'a> {
    before: &'a [SequenceState],
    after: &'a [SequenceState],
}

/// After the last increment, `after` are those at its end.
pub(super) fn positions(increments: &[Manifest], place: Place) -> Positions<'_> {
    let end = |manifest: &Manifest| manifest.increment.as_ref().map(|one| one.stream.to);
    let before = increments
        .iter()
        .rev()
        .find(|manifest| end(manifest).is_some_and(|to| to < place.earliest));
    let after = increments
        .iter()
        .find(|manifest| end(manifest).is_some_and(|to| to >= place.latest));
    Positions {
        before: states(before),
        after: states(after.or(increments.last())),
    }
}

fn states(manifest: Option<&Manifest>) -> &[SequenceState] {
    let increment = manifest.and_then(|manifest| manifest.increment.as_ref());
    increment.map_or(&[], |increment| &increment.sequences)
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

/// The sequences that were set back or dropped after the moment: where they were at the moment is not known, and their
/// position before it can be behind the rows.
pub(super) fn set_back(positions: Positions<'_>) -> impl Iterator<Item = NotExact> {
    let of_oid = |oid: u32| positions.after.iter().find(move |after| after.oid == oid);
    let was_set_back = move |before: &&SequenceState| of_oid(before.oid).is_none_or(|after| after.is_behind(before));
    positions.before.iter().filter(was_set_back).map(|before| NotExact {
        what: format!("the sequence {}.{}", before.schema, before.name),
        why: format!(
            "it was set back or dropped after the moment, so it is restored with its last position before the moment, {}: set it to \
             the largest number in the rows",
            before.last_value
        ),
        before: None,
        after: None,
    })
}

/// The statement of an entry `SEQUENCE SET` with another position. `None`: the position is behind the entry's, or the
/// entry is not written as pg_dump writes it.
pub(super) fn moved(definition: &[u8], state: &SequenceState) -> Option<Vec<u8>> {
    const BEFORE: &[u8] = b"SELECT pg_catalog.setval(";
    let rest = definition.strip_prefix(BEFORE)?;
    // The name is a literal, which may hold anything but ends with a quote before the last commas.
    let end = rest.windows(3).rposition(|window| window == b"', ")? + 1;
    let (last_value, is_called) = std::str::from_utf8(&rest[end..])
        .ok()?
        .strip_prefix(", ")?
        .strip_suffix(");\n")?
        .split_once(", ")?;
    let before = SequenceState {
        last_value: last_value.parse().ok()?,
        is_called: is_called.parse().ok()?,
        ..state.clone()
    };
    if state.is_behind(&before) {
        return None;
    }
    Some([BEFORE, &rest[..end], b", ", position(state).as_bytes()].concat())
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
