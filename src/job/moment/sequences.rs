//! The positions of sequences, as statements of an archive.

use super::spelling::{literal, qualified};
use crate::format::Lsn;
use crate::format::archive::{Addition, Item};
use crate::repository::manifest::{Manifest, SequenceState};

/// The section of the rows.
const DATA: i64 = 3;

/// The positions that were read first after the moment: none is smaller than at the moment, so no number is given
/// twice. After the last increment, those at its end.
pub(super) fn positions(increments: &[Manifest], position: Lsn) -> &[SequenceState] {
    let of = |manifest: &Manifest| manifest.increment.as_ref().is_some_and(|one| one.stream.to >= position);
    let after = increments.iter().find(|manifest| of(manifest)).or(increments.last());
    after.and_then(|manifest| manifest.increment.as_ref()).map_or(&[], |increment| &increment.sequences)
}

pub(super) fn find<'a>(states: &'a [SequenceState], item: &Item) -> Option<&'a SequenceState> {
    let schema = item.entry.namespace.as_deref().unwrap_or_default();
    states.iter().find(|state| state.name == item.entry.tag && state.schema == schema)
}

/// The statement of an entry `SEQUENCE SET` with another position. `None`: it is not written as pg_dump writes it.
pub(super) fn moved(definition: &[u8], state: &SequenceState) -> Option<Vec<u8>> {
    const BEFORE: &[u8] = b"SELECT pg_catalog.setval(";
    let rest = definition.strip_prefix(BEFORE)?;
    // The name is a literal, which may hold anything but ends with a quote before the last commas.
    let end = rest.windows(3).rposition(|window| window == b"', ")? + 1;
    Some([BEFORE, &rest[..end], b", ", position(state).as_bytes()].concat())
}

fn position(state: &SequenceState) -> String {
    format!("{}, {});\n", state.last_value, state.is_called)
}

/// The entry that pg_dump writes for the position of a sequence.
pub(super) fn addition(dump_id: i64, sequence: &Item, state: &SequenceState) -> Addition {
    let [namespace, tag] = sequence.entry.path();
    let name = qualified(&namespace, &tag);
    let definition = [b"SELECT pg_catalog.setval(", &*literal(&name), b", ", position(state).as_bytes()].concat();
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
        };
        let before = b"SELECT pg_catalog.setval('public.\"it''s, \"', 5, true);\n";
        let after = b"SELECT pg_catalog.setval('public.\"it''s, \"', -7, false);\n";
        assert_eq!(moved(before, &state).as_deref(), Some(&after[..]));
        assert_eq!(moved(b"SELECT 1;\n", &state), None);
    }
}
