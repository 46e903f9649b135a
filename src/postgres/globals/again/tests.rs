use super::super::plan::{Present, plan};
use super::super::wanted::wanted;
use super::super::{Powers, statements};
use super::*;

const SQL: &str = "CREATE ROLE owner; ALTER ROLE owner WITH SUPERUSER;
    CREATE ROLE app; ALTER ROLE app WITH LOGIN CREATEROLE NOINHERIT CONNECTION LIMIT 07 VALID UNTIL '2030-01-01';
    ALTER ROLE app SET search_path TO 'a b', 'c'; ALTER ROLE app SET log_statement TO 'all';
    COMMENT ON ROLE app IS 'said'; CREATE ROLE team; ALTER ROLE team WITH CONNECTION LIMIT -1;
    GRANT team TO app WITH ADMIN OPTION, INHERIT FALSE GRANTED BY owner";

fn planned() -> (GlobalsPlan, AppliedGlobals) {
    let asked = statements(SQL.as_bytes()).into_iter().map(|statement| {
        let wanted = wanted(std::str::from_utf8(statement.bytes()).unwrap());
        (statement, wanted)
    });
    let present = Present {
        major: 17,
        ..Present::default()
    };
    let applied = AppliedGlobals {
        made: ["owner", "app", "team"].map(str::to_owned).into(),
        ..AppliedGlobals::default()
    };
    (plan(asked.collect(), &present, Powers::Throwaway), applied)
}

fn there() -> There {
    let role = |words: &[&str]| Role {
        words: words.iter().map(|&word| word.to_owned()).collect(),
        ..Role::default()
    };
    let time = "2030-01-01 00:00:00+00".to_owned();
    let app = Role {
        until: Some(time.clone()),
        ..role(&["LOGIN", "CREATEROLE", "NOINHERIT", "CONNECTION LIMIT 7"])
    };
    There {
        roles: [("owner", role(&["SUPERUSER"])), ("app", app), ("team", role(&[]))]
            .map(|(name, role)| (name.to_owned(), role))
            .into(),
        settings: [(("app".into(), None, "search_path".into()), "\"a b\", c".into())].into(),
        comments: [("app".into(), "said".into())].into(),
        memberships: vec![Granted {
            granted: "team".into(),
            member: "app".into(),
            grantor: Some("owner".into()),
            admin: true,
            inherit: Some(false),
            set: Some(true),
        }],
        times: [("2030-01-01".to_owned(), time)].into(),
        major: 17,
        user: "ours".into(),
    }
}

/// The differences after this change to the server's roles.
fn found(injure: impl FnOnce(&mut There)) -> Vec<String> {
    let (plan, applied) = planned();
    let mut there = there();
    injure(&mut there);
    let compared = compare(&plan, &applied, &there);
    assert!(compared.not_proved.is_empty(), "{compared:?}");
    let differences = compared.differences.into_iter();
    differences.map(|(what, how)| format!("{what} {how}")).collect()
}

#[test]
fn what_the_file_says_is_found_again() {
    let (plan, applied) = planned();
    let compared = compare(&plan, &applied, &there());
    assert_eq!((compared.equal, compared.differences), (3, Vec::new()));
    // A setting with power over sessions was not set, and is reported elsewhere.
    assert_eq!(plan.kept.len(), 1);
}

#[test]
fn whatever_is_otherwise_is_named() {
    let app = |there: &mut There, word: &str, is: bool| {
        let words = &mut there.roles.get_mut("app").unwrap().words;
        match is {
            true => words.insert(word.to_owned()),
            false => words.remove(word),
        };
    };
    assert_eq!(found(|there| app(there, "LOGIN", false)), ["ROLE \"app\" is not LOGIN"]);
    let more = ["ROLE \"app\" is BYPASSRLS, and not so in the backup"];
    assert_eq!(found(|there| app(there, "BYPASSRLS", true)), more);
    let gone = found(|there| drop(there.roles.remove("team")));
    assert_eq!(gone, ["ROLE \"team\" is not there"]);
    let injuries: [fn(&mut There); 14] = [
        |there| there.roles.get_mut("app").unwrap().until = None,
        |there| there.roles.get_mut("team").unwrap().until = Some("x".into()),
        |there| there.roles.get_mut("team").unwrap().has_password = true,
        |there| there.settings.clear(),
        |there| there.settings.values_mut().for_each(|value| value.push('x')),
        |there| drop(there.settings.insert(("team".into(), None, "a".into()), "b".into())),
        |there| there.comments.clear(),
        |there| drop(there.comments.insert("team".into(), "more".into())),
        |there| there.memberships.clear(),
        |there| there.memberships[0].admin = false,
        |there| there.memberships[0].inherit = Some(true),
        |there| there.memberships[0].set = Some(false),
        |there| there.memberships[0].grantor = Some("team".into()),
        |there| {
            let (granted, member) = ("owner".into(), "team".into());
            there.memberships.push(Granted {
                granted,
                member,
                grantor: None,
                admin: false,
                inherit: None,
                set: None,
            });
        },
    ];
    for injure in injuries {
        let told = found(injure);
        assert_eq!(told.len(), 1, "{told:?}");
    }
}

#[test]
fn what_was_not_done_is_no_difference() {
    let (plan, mut applied) = planned();
    // The server refused to let another role grant it, so this session's role did.
    let membership = plan.asked.last().unwrap().steps.clone();
    applied.otherwise.extend(membership.clone());
    let mut by_us = there();
    by_us.memberships[0].grantor = Some("ours".into());
    assert!(compare(&plan, &applied, &by_us).differences.is_empty());
    applied.undone.extend(membership);
    by_us.memberships.clear();
    assert!(compare(&plan, &applied, &by_us).differences.is_empty());
}
