//! The publications that pgstow makes for increments.

use std::collections::HashSet;

use super::{Exclusion, names_it};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::job::restore::plan::LeftOut;
use crate::postgres::SlotName;

const WHY: &str = "pgstow made it for increments of the source; `pgstow incremental start` makes new ones where they are \
                   wanted";

/// Leaves them out, with what belongs to them. A restore of single tables has no use for them, and does not tell.
pub(super) fn leave_out(request: &RestoreRequest, items: &[Item], exclusion: &mut Exclusion) {
    let is_ours = |item: &&Item| {
        item.entry.desc == "PUBLICATION" && SlotName::of_publication(&item.entry.tag).is_some()
    };
    let ours: Vec<&Item> = items.iter().filter(is_ours).collect();
    let ids: HashSet<i64> = ours.iter().map(|item| item.entry.dump_id).collect();
    let belongs = |item: &&Item| {
        item.details.dependencies.iter().any(|id| ids.contains(id)) || ours.iter().any(|one| names_it(item, one))
    };
    let tells = request.tables.is_empty() && !request.data_only;
    for item in ours.iter().filter(|item| !exclusion.entries.contains(&item.entry.dump_id)) {
        exclusion.left_out.extend(tells.then(|| LeftOut {
            what: item.entry.to_string(),
            why: WHY.into(),
        }));
    }
    if !ids.is_empty() {
        exclusion.entries.extend(items.iter().filter(belongs).map(|item| item.entry.dump_id));
        exclusion.entries.extend(ids);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::item;
    use super::*;

    #[test]
    fn only_publications_with_names_of_pgstows_form_are_left_out_with_their_tables() {
        let name = "pgstow_0123456789abcdef_all";
        let items = [
            item(1, "TABLE", "t", &[]),
            item(2, "PUBLICATION", name, &[]),
            item(3, "PUBLICATION TABLE", &format!("{name} t"), &[2, 1]),
            item(4, "PUBLICATION", "pgstow_reports", &[]),
            item(5, "PUBLICATION TABLE", "pgstow_reports t", &[4, 1]),
            item(6, "COMMENT", &format!("PUBLICATION {name}"), &[2]),
        ];
        let mut exclusion = Exclusion::default();
        leave_out(&RestoreRequest::default(), &items, &mut exclusion);
        let mut entries: Vec<i64> = exclusion.entries.into_iter().collect();
        entries.sort_unstable();
        assert_eq!(entries, [2, 3, 6]);
        assert_eq!(exclusion.left_out.len(), 1);
    }
}
