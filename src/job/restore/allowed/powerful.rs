//! Finds objects whose owner in the target would be no superuser, although the server lets only superusers own such
//! objects. A superuser may make them, and is refused when it gives them away, after the rows are loaded.

use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::job::restore::ready::{Target, some_of};

/// Up to this version the owner of a subscription must be a superuser.
const SUBSCRIPTIONS_UNTIL: u32 = 15;

pub(super) async fn check(target: &Target, planned: &[&Item], request: &RestoreRequest) -> Result<()> {
    // With `--keep-going` these objects stay with the restoring role, and the report says so.
    if request.no_owner || request.keep_going {
        return Ok(());
    }
    let major = target.session.server().major;
    let owned: Vec<&Item> = planned
        .iter()
        .copied()
        .filter(|item| is_of_superusers(item, major) && !item.details.owner.is_empty())
        .collect();
    if owned.is_empty() {
        return Ok(());
    }
    let owners: Vec<&str> = owned.iter().map(|item| item.details.owner.as_str()).collect();
    let superusers = target.session.superusers(&owners).await?;
    let lacks_power = |item: &Item| {
        let owner = &item.details.owner;
        // Roles that the restore makes get this right only then.
        let gets_it = request.globals && request.globals_privileged && !target.found.roles.contains_key(owner);
        !superusers.contains(owner) && !gets_it
    };
    let names: Vec<String> = owned
        .iter()
        .filter(|item| lacks_power(item))
        .map(|item| format!("{} of {}", item.entry, item.details.owner))
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let what = format!(
        "only a superuser can own these objects, and their owners are none in the target: {}",
        some_of(&names, names.len() as u64)
    );
    Err(Error::new(Code::Permission, what).hint(
        "leave them out with --exclude KIND:NAME; or make their owners superusers (--globals-privileged for a role that \
         the restore makes, ALTER ROLE … SUPERUSER for one that exists); or give all objects to the restoring role with \
         --no-owner",
    ))
}

fn is_of_superusers(item: &Item, major: u32) -> bool {
    match item.entry.desc.as_str() {
        "EVENT TRIGGER" | "FOREIGN DATA WRAPPER" => true,
        "PUBLICATION" => item.details.definition.contains(" FOR ALL TABLES"),
        "SUBSCRIPTION" => major <= SUBSCRIPTIONS_UNTIL,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_which_objects_need_a_powerful_owner() {
        for (desc, definition, expected) in [
            ("EVENT TRIGGER", "CREATE EVENT TRIGGER e ON sql_drop;", true),
            (
                "PUBLICATION",
                "CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert');",
                true,
            ),
            ("PUBLICATION", "CREATE PUBLICATION p WITH (publish = 'insert');", false),
            (
                "SUBSCRIPTION",
                "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p;",
                false,
            ),
            ("TABLE", "CREATE TABLE t ();", false),
        ] {
            let item = Item::sample(0, desc, "").defined(definition);
            assert_eq!(is_of_superusers(&item, 16), expected, "{definition}");
        }
        assert!(is_of_superusers(&Item::sample(0, "SUBSCRIPTION", "s"), 15));
    }
}
