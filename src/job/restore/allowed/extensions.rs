//! Extensions: whether the target's server can make them, and whether the role may.

use super::{of_kind, refused};
use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::job::restore::ready::{TEMPLATES, Target, granting, some_of};
use crate::postgres::{Deed, ExtensionNeeds, Session, quoting, settings};

/// Extensions that come with PostgreSQL and are for superusers. Making them changes nothing outside of the
/// transaction, and they show whether the server lets the role make what PostgreSQL lets only superusers make.
const HARMLESS: [&str; 7] = [
    "pg_freespacemap",
    "pgrowlocks",
    "pgstattuple",
    "pg_visibility",
    "pageinspect",
    "amcheck",
    "bloom",
];

/// The schema that the archive's extension was made in.
pub(in crate::job::restore) fn schema_of_extension(item: &Item) -> String {
    let definition = item.details.definition.trim_end().trim_end_matches(';');
    let schema = definition.rsplit_once(" WITH SCHEMA ");
    schema.map_or_else(|| "public".to_owned(), |(_, schema)| quoting::unquoted(schema))
}

/// What the server itself lacks for them, whatever the role is. With `--keep-going` the restore continues without them.
pub(super) async fn check_server(target: &Target, planned: &[&Item], request: &RestoreRequest) -> Result<()> {
    // Under `--clean` an extension of another role stays.
    let stay = match request.clean && !request.create && !target.found.is_superuser {
        true => target.session.foreign().await?.extensions,
        false => Default::default(),
    };
    let is_made =
        |item: &&Item| request.create || !is_there(target, item) || request.clean && !stay.contains(&item.entry.tag);
    let made: Vec<&Item> = of_kind(planned, "EXTENSION").into_iter().filter(is_made).collect();
    if made.is_empty() || request.keep_going {
        return Ok(());
    }
    let names: Vec<&str> = made.iter().map(|item| item.entry.tag.as_str()).collect();
    let found = target.session.needs_of_extensions(&names).await?;
    let known = |name: &str| found.iter().find(|one| one.name == name);
    // Those that the target lacks altogether are found with the rest of the plan.
    let is_without_files = |name: &&str| known(name).is_none() && target.found.extensions.contains_key(*name);
    let mut broken: Vec<String> = names
        .iter()
        .copied()
        .filter(is_without_files)
        .map(str::to_owned)
        .collect();
    broken.extend(found.iter().filter(|one| !one.is_whole).map(ToString::to_string));
    if !broken.is_empty() {
        let what = format!(
            "the target's server lacks files of extensions that the backup needs, and cannot make them: {}",
            some_of(&broken, broken.len() as u64)
        );
        return Err(Error::new(Code::RestoreErr, what).hint(
            "install their packages on the server again; or leave them out, with what needs them: --exclude EXTENSION:NAME",
        ));
    }
    let comes = |name: &String| {
        // Every new database has it, and pg_dump writes no entry for it.
        let is_in_all = request.create && name == "plpgsql";
        let stays = !request.create && target.found.extensions.get(name).copied().unwrap_or_default();
        is_in_all || stays || names.contains(&name.as_str())
    };
    let lacking = |one: &ExtensionNeeds| one.requires.iter().find(|name| !comes(name)).cloned();
    let needs: Vec<(&str, String)> = found
        .iter()
        .filter_map(|one| Some((one.name.as_str(), lacking(one)?)))
        .collect();
    let Some((_, first)) = needs.first() else { return Ok(()) };
    let told: Vec<String> = needs
        .iter()
        .map(|(name, other)| format!("{name} needs {other}"))
        .collect();
    let what = format!(
        "extensions need others on this server, which the backup does not have: {}",
        some_of(&told, told.len() as u64)
    );
    let making = format!("CREATE EXTENSION {}", quoting::identifier(first));
    let first = match request.create {
        true => format!("make the database yourself, run {making} in it, and restore without --create"),
        false => format!("run {making} in the target first"),
    };
    Err(Error::new(Code::RestoreErr, what).hint(format!(
        "{first}; or leave the extension out, with what needs it: --exclude EXTENSION:NAME"
    )))
}

fn is_there(target: &Target, item: &Item) -> bool {
    let found = target.found.extensions.get(&item.entry.tag);
    found.copied().unwrap_or_default()
}

/// What the role may not do.
pub(super) async fn check(
    target: &Target,
    planned: &[&Item],
    request: &RestoreRequest,
    postgres: &settings::Postgres,
) -> Result<()> {
    const WHY: &str = "may not make an extension";
    for item in of_kind(planned, "EXTENSION") {
        if request.create {
            if !may_in_new(target, item, postgres).await? {
                let hint = "make the database yourself, let a superuser make the extension in it, and restore without \
                            --create; or leave it out, with what needs it: --exclude EXTENSION:NAME";
                return refused(target, &[item], WHY, hint);
            }
            continue;
        }
        if is_there(target, item) || may(&target.session, item).await? {
            continue;
        }
        let superuser = "let a superuser make it in the target first, or leave it out, with what needs it: \
                         --exclude EXTENSION:NAME";
        let hint = match right_for(target, item).await? {
            Some(right) => format!("{right}; or {superuser}"),
            None => superuser.to_owned(),
        };
        return refused(target, &[item], WHY, &hint);
    }
    Ok(())
}

/// The statement that lets the role make it, if it is not for superusers alone.
async fn right_for(target: &Target, item: &Item) -> Result<Option<String>> {
    if target.session.is_for_superusers(&item.entry.tag).await? {
        return Ok(None);
    }
    let user = &target.session.server().user;
    if !target.found.may_create {
        let right = format!("CREATE ON DATABASE {}", quoting::identifier(target.name()));
        return Ok(Some(granting(&right, target.found.owner.as_deref(), user)));
    }
    let schema = schema_of_extension(item);
    if target.session.may_create(user, Some(&schema)).await? {
        return Ok(None);
    }
    let owner = target.session.owner_of_schema(&schema).await?;
    let right = format!("CREATE ON SCHEMA {}", quoting::identifier(&schema));
    Ok(Some(granting(&right, owner.as_deref(), user)))
}

async fn may(session: &Session, item: &Item) -> Result<bool> {
    let schema = schema_of_extension(item);
    let name = item.entry.tag.as_str();
    session.may(Deed::Extend { name, schema: &schema }).await
}

/// Whether the role may make it in a database that this run makes, where it has the rights of an owner. A database that
/// has the extension shows nothing: the server only says that it is there.
async fn may_in_new(target: &Target, item: &Item, postgres: &settings::Postgres) -> Result<bool> {
    let name = item.entry.tag.as_str();
    if !target.session.is_for_superusers(name).await? {
        return Ok(true);
    }
    if !is_there(target, item) {
        return may(&target.session, item).await;
    }
    let mut elsewhere = vec![TEMPLATES[1]];
    elsewhere.extend(target.exists.then(|| target.name()));
    for database in elsewhere {
        let mut info = target.info.clone();
        info.dbname = Some(database.to_owned());
        // A database that the role may not enter shows nothing either.
        let Ok(session) = Session::connect(&info, postgres).await else {
            continue;
        };
        let asked = async {
            let there = session.has_extension(name).await?;
            Ok(if there { None } else { Some(may(&session, item).await?) })
        };
        let asked: Result<Option<bool>> = asked.await;
        session.close().await;
        if let Some(may) = asked? {
            return Ok(may);
        }
    }
    may_as_superusers(target).await
}

/// Whether this server lets the role make any extension that is for superusers, as managed services do.
async fn may_as_superusers(target: &Target) -> Result<bool> {
    let session = &target.session;
    for name in HARMLESS {
        if target.found.extensions.get(name) == Some(&false) && session.is_for_superusers(name).await? {
            return session.may(Deed::Extend { name, schema: "public" }).await;
        }
    }
    // Nothing shows it. The server will say it.
    Ok(true)
}
