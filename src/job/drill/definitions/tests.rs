use super::*;
use crate::job::drill::exclusion::Reasons;

fn item(id: i64, desc: &str, tag: &str, definition: &str, owner: &str) -> Item {
    let mut item = Item::sample(id, desc, tag).defined(definition);
    item.details.owner = owner.into();
    item
}

fn compare(ours: &[Item], theirs: &[Item], twin: Option<&Twin>) -> Comparison {
    let exclusion = DrillExclusion::before(&[], &BTreeMap::new(), Reasons::default());
    // Objects that are no entries of their own any more.
    let present = ours.iter().map(|item| (item.entry.dump_id, true));
    let contents = Definitions {
        ours,
        exclusion: &exclusion,
        present: present.collect(),
        theirs,
        superuser: "pgstow_1",
        same_major: true,
    };
    contents.compare(twin)
}

fn names(comparison: &Comparison) -> Vec<(&str, &str)> {
    let differences = comparison.differences.iter();
    differences.map(|(name, what)| (name.as_str(), *what)).collect()
}

#[test]
fn only_what_is_said_of_an_extensions_things_may_have_another_owner() {
    let differences = |desc: &str, owner: &str| {
        let (ours, theirs) = ([item(1, desc, "x", "", "postgres")], [item(1, desc, "x", "", owner)]);
        compare(&ours, &theirs, None).differences.len()
    };
    assert_eq!(differences("ACL", "pgstow_1"), 0);
    assert_eq!(differences("ACL", "another"), 1);
    assert_eq!(differences("TABLE", "pgstow_1"), 1);
    assert_eq!(differences("TABLE", "postgres"), 0);
}

#[test]
fn a_text_that_differs_is_the_same_if_the_twin_prints_it_too() {
    let ours = [item(1, "TABLE", "a", "one", "o"), item(2, "TABLE", "b", "same", "o")];
    let theirs = [item(7, "TABLE", "a", "two", "o"), item(8, "TABLE", "b", "same", "o")];
    let open = compare(&ours, &theirs, None);
    assert!(open.needs_twin && open.differences.is_empty() && open.equal == 1);
    let twin = |text: &str| Twin {
        items: vec![
            item(1, "TABLE", "a", text, "whoever"),
            item(2, "TABLE", "b", "same", "whoever"),
        ],
        refused: HashMap::new(),
    };
    let told = compare(&ours, &theirs, Some(&twin("two")));
    assert_eq!((told.equal, names(&told)), (2, vec![]));
    let told = compare(&ours, &theirs, Some(&twin("three")));
    assert_eq!(names(&told), [("TABLE a", "is defined otherwise")]);
    // The same text, but owned by another role.
    let theirs = [item(7, "TABLE", "a", "two", "p"), item(8, "TABLE", "b", "same", "o")];
    let told = compare(&ours, &theirs, Some(&twin("two")));
    assert_eq!(names(&told), [("TABLE a", "belongs to another role")]);
}

#[test]
fn what_another_dump_writes_elsewhere_is_no_loss_and_what_is_lost_is() {
    let twin = |items: Vec<Item>| Twin {
        items,
        refused: HashMap::new(),
    };
    // A check that was an entry of its own, and is now part of the table's entry.
    let ours = [
        item(1, "TABLE", "a", "a", "o"),
        item(2, "CHECK CONSTRAINT", "a c", "c", "o"),
    ];
    let theirs = [item(1, "TABLE", "a", "a with c", "o")];
    let told = compare(&ours, &theirs, Some(&twin(theirs.to_vec())));
    assert_eq!((told.equal, names(&told)), (2, vec![]));
    let lost = [item(1, "TABLE", "a", "a", "o")];
    let told = compare(&ours, &lost, Some(&twin(theirs.to_vec())));
    assert_eq!(names(&told), [("TABLE a", "is defined otherwise")]);
    let told = compare(&lost, &ours, Some(&twin(lost.to_vec())));
    assert_eq!(
        names(&told),
        [("CHECK CONSTRAINT a c", "is there and not in the backup")]
    );
}

#[test]
fn that_restore_and_twin_both_lack_it_says_nothing() {
    let exclusion = DrillExclusion::before(&[], &BTreeMap::new(), Reasons::default());
    let ours = [
        item(1, "TABLE", "a", "a", "o"),
        item(2, "CHECK CONSTRAINT", "a c", "c", "o"),
    ];
    let theirs = [item(1, "TABLE", "a", "a", "o")];
    let told = |present: Option<bool>, refused: &[(i64, String)]| {
        let contents = Definitions {
            ours: &ours,
            exclusion: &exclusion,
            present: present.map(|present| (2, present)).into_iter().collect(),
            theirs: &theirs,
            superuser: "pgstow_1",
            same_major: true,
        };
        assert_eq!(contents.without_a_trace().len(), 1);
        let twin = Twin {
            items: theirs.to_vec(),
            refused: refused.iter().cloned().collect(),
        };
        let told = contents.compare(Some(&twin));
        (told.equal, told.differences.len(), told.not_proved.len())
    };
    let refused = [(2, "so".to_owned())];
    assert_eq!(told(Some(true), &[]), (2, 0, 0));
    assert_eq!(told(Some(false), &[]), (1, 1, 0));
    assert_eq!(told(Some(false), &refused), (1, 0, 1));
    assert_eq!(told(None, &[]), (1, 1, 0));
}

#[test]
fn what_the_twin_refused_is_not_proved_and_nothing_else() {
    let mut ours = vec![
        item(1, "TABLE", "a", "a", "o"),
        item(2, "INDEX", "i", "i", "o"),
        item(3, "COMMENT", "INDEX i", "c", "o"),
        item(4, "VIEW", "v", "v", "o"),
    ];
    ours[1].details.dependencies = vec![1];
    ours[2].details.dependencies = vec![2];
    let theirs: Vec<Item> = ours
        .iter()
        .map(|ours| {
            let mut item = ours.clone();
            item.details.definition += "'";
            item
        })
        .collect();
    let twin = Twin {
        items: vec![item(1, "TABLE", "a", "a", "o"), item(4, "VIEW", "v", "other", "o")],
        refused: HashMap::from([(2, "so".to_owned())]),
    };
    let told = compare(&ours, &theirs, Some(&twin));
    assert_eq!(names(&told), [("VIEW v", "is defined otherwise")]);
    let not_proved: Vec<&str> = told.not_proved.iter().map(|left| left.what.as_str()).collect();
    assert_eq!(not_proved, ["COMMENT INDEX i", "INDEX i", "TABLE a"]);
}

#[test]
fn rights_are_compared_with_the_backups_and_with_nothing_else() {
    let acl = |text: &str| [item(1, "ACL", "TABLE t", text, "o")];
    let twin = Twin {
        items: acl("GRANT ALL ON TABLE t TO b;\n").into(),
        refused: HashMap::new(),
    };
    let one = acl("GRANT SELECT ON TABLE t TO a;\nGRANT SELECT ON TABLE t TO b;\n");
    let other = acl("GRANT SELECT ON TABLE t TO b;\nGRANT SELECT ON TABLE t TO a;\n");
    assert_eq!(compare(&one, &other, None).equal, 1);
    let less = acl("GRANT SELECT ON TABLE t TO b;\n");
    for twin in [None, Some(&twin)] {
        assert_eq!(
            names(&compare(&one, &less, twin)),
            [("ACL TABLE t", "is defined otherwise")]
        );
        assert_eq!(names(&compare(&one, &[], twin)), [("ACL TABLE t", "is not there")]);
    }
}

#[test]
fn large_objects_have_the_owners_and_rights_that_they_had_however_they_are_grouped() {
    let ours = [
        item(1, "BLOB METADATA", "1..2", "1\n2\n", "a"),
        item(2, "BLOB METADATA", "3", "3\n", "b"),
        item(
            3,
            "ACL",
            "LARGE OBJECTS 1..2",
            "GRANT SELECT ON LARGE OBJECT 1 TO c;\nGRANT SELECT ON LARGE OBJECT 2 TO c;\n",
            "a",
        ),
    ];
    let mut theirs = vec![
        item(1, "BLOB METADATA", "1", "1\n", "a"),
        item(2, "BLOB METADATA", "2..3", "2\n3\n", "b"),
        item(
            3,
            "ACL",
            "LARGE OBJECT 2",
            "GRANT SELECT ON LARGE OBJECT 2 TO c;\n",
            "a",
        ),
        item(
            4,
            "ACL",
            "LARGE OBJECT 1",
            "GRANT SELECT ON LARGE OBJECT 1 TO c;\n",
            "a",
        ),
    ];
    let told = compare(&ours, &theirs, None);
    assert_eq!(names(&told), [("LARGE OBJECT 2", "belongs to another role")]);
    theirs.truncate(3);
    assert!(names(&compare(&ours, &theirs, None)).contains(&("ACL LARGE OBJECTS", "is defined otherwise")));
}
