//! Checks whether objects can be given to their owners: if the restoring role is not a superuser, the new owner needs
//! the right to create such an object in its schema.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::job::restore::database;
use crate::job::restore::plan::is_given_away;
use crate::job::restore::ready::{Target, some_of};
use crate::postgres::quoting::identifier;

/// In a new database this schema belongs to the database's owner; before this version every role may create objects
/// in it.
const GUARDED_SINCE: u32 = 15;

pub(super) async fn check(target: &Target, items: &[Item], planned: &[&Item], request: &RestoreRequest) -> Result<()> {
    let user = target.session.server().user.as_str();
    let made: HashMap<&str, &Item> = planned
        .iter()
        .filter(|item| item.entry.desc == "SCHEMA")
        .map(|item| (item.entry.tag.as_str(), *item))
        .collect();
    let asked = owners_in_schemas(planned, user);
    // The owner of a schema that this restore makes, and the roles that cannot own anything in it.
    let mut strangers: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    for &(schema, owner) in &asked {
        let holder = match schema {
            Some(schema) => match made.get(schema) {
                Some(item) if makes(item, request) => Some(holder_of(item, user).to_owned()),
                None if schema == "public" && request.create => owner_of_new(target, items, request).await?,
                _ if request.create => None,
                Some(_) => None,
                None => {
                    may_create(target, owner, Some(schema)).await?;
                    None
                }
            },
            None => {
                if !request.create {
                    may_create(target, owner, None).await?;
                }
                None
            }
        };
        let (Some(schema), Some(holder)) = (schema, holder) else {
            continue;
        };
        if !owns(target, owner, &holder, request).await? {
            let place = strangers.entry((schema, holder)).or_default();
            place.push(owner.to_owned());
        }
    }
    match strangers.into_iter().next() {
        // With `--keep-going` these objects belong to the restoring role, and the report says so.
        Some(((schema, holder), owners)) if !request.keep_going => {
            let all = asked.iter().filter(|(place, _)| *place == Some(schema));
            let all: Vec<String> = all.map(|(_, owner)| identifier(owner)).collect();
            Err(refused(target, (schema, &holder), &owners, &all))
        }
        _ => Ok(()),
    }
}

/// The other roles that get objects, each with the schema of the object; publications have none.
fn owners_in_schemas<'a>(planned: &[&'a Item], user: &str) -> BTreeSet<(Option<&'a str>, &'a str)> {
    // Schemas that the restore itself makes get their grants first.
    let granted: HashSet<&str> = planned
        .iter()
        .filter(|item| item.entry.desc == "ACL")
        .filter_map(|item| item.entry.tag.strip_prefix("SCHEMA "))
        .collect();
    let mut asked = BTreeSet::new();
    for item in planned.iter().filter(|item| is_given_away(item)) {
        let owner = item.details.owner.as_str();
        if owner == user {
            continue;
        }
        match item.entry.namespace.as_deref().filter(|schema| !schema.is_empty()) {
            Some(schema) if granted.contains(schema) => {}
            Some(schema) => drop(asked.insert((Some(schema), owner))),
            None if item.entry.desc == "PUBLICATION" => drop(asked.insert((None, owner))),
            None => {}
        }
    }
    asked
}

/// Whether the restore sets the owner of the schema.
fn makes(schema: &Item, request: &RestoreRequest) -> bool {
    request.create || schema.details.definition.contains("CREATE ")
}

fn holder_of<'a>(schema: &'a Item, user: &'a str) -> &'a str {
    match schema.details.owner.as_str() {
        "" => user,
        owner => owner,
    }
}

/// The owner of a new database, and so of its `public`, while its objects are made. `None` if every role may create
/// there.
async fn owner_of_new(target: &Target, items: &[Item], request: &RestoreRequest) -> Result<Option<String>> {
    let server = target.session.server();
    if server.major < GUARDED_SINCE {
        return Ok(None);
    }
    let given = match database::owner(items) {
        Some(owner) if target.found.roles.contains_key(owner) => {
            let gets_it = target.session.stands_for(owner).await?;
            gets_it.then_some(owner)
        }
        // The role that restores becomes a member of it.
        Some(owner) if request.globals => Some(owner),
        _ => None,
    };
    Ok(Some(given.unwrap_or(&server.user).to_owned()))
}

/// As far as it can be known: roles that are made later may become members of others.
async fn owns(target: &Target, owner: &str, holder: &str, request: &RestoreRequest) -> Result<bool> {
    if owner == holder {
        return Ok(true);
    }
    match target.found.roles.get(owner).copied() {
        // It is a member of no existing role, unless the user asks for that.
        None => Ok(!request.globals || request.globals_privileged || holder != target.session.server().user),
        // Another error reports that nothing can be given to this role.
        Some(false) => Ok(true),
        Some(true) if !target.found.roles.contains_key(holder) => Ok(true),
        Some(true) => target.session.has_rights_of(owner, holder).await,
    }
}

/// `all`: everyone who owned anything in that schema, quoted.
fn refused(target: &Target, (schema, holder): (&str, &str), owners: &[String], all: &[String]) -> Error {
    let told = some_of(owners, owners.len() as u64);
    let what = format!(
        "{told}, who owned things of the backup, may not create any in the schema {}, which will be {holder}'s",
        identifier(schema)
    );
    let database = identifier(target.name());
    let hint = match (schema, all) {
        ("public", [owner]) => format!(
            "make the database yourself, CREATE DATABASE {database} OWNER {owner}, and restore without --create; or \
             use --no-owner"
        ),
        ("public", all) => format!(
            "make the database yourself, CREATE DATABASE {database}; in it GRANT CREATE ON SCHEMA public TO {}; and \
             restore without --create; or use --no-owner",
            all.join(", ")
        ),
        _ => "use --no-owner; or --keep-going, which leaves these objects to the role that restores".to_owned(),
    };
    Error::new(Code::Permission, what).hint(hint)
}

/// For existing schemas. A role that is made later has the rights of PUBLIC.
async fn may_create(target: &Target, owner: &str, schema: Option<&str>) -> Result<()> {
    if !target.found.roles.contains_key(owner) || target.session.may_create(owner, schema).await? {
        return Ok(());
    }
    let place = match schema {
        Some(schema) => format!("SCHEMA {}", identifier(schema)),
        None => format!("DATABASE {}", identifier(target.name())),
    };
    Err(Error::new(
        Code::Permission,
        format!(
            "{owner}, who owned things of the backup, may not create any in {}",
            place.to_lowercase()
        ),
    )
    .hint(format!(
        "GRANT CREATE ON {place} TO {}, or use --no-owner",
        identifier(owner)
    )))
}
