//! Finds what a role that is not a superuser may not do, before anything is changed. Managed services allow their
//! master users some of it all the same, so rights that can be tried without leaving a trace are tried.

mod beyond;
mod extensions;
mod foreign;
mod hidden;
mod owners;
mod powerful;
mod removable;

use std::collections::{BTreeSet, HashSet};

use super::grants;
use super::plan::{LeftOut, Plan};
use super::ready::{Target, granting, some_of};
use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::postgres::{ConnectionInfo, Deed, Foreign, quoting, settings};

pub(super) use extensions::schema_of_extension;

/// Takes out of the plan what only another role may do and nothing else needs, and warns of it. Anything else that
/// the role may not do is an error.
pub(super) async fn settle(
    target: &Target,
    items: &[Item],
    plan: &mut Plan,
    (request, postgres): (&RestoreRequest, &settings::Postgres),
) -> Result<Vec<String>> {
    if request.clean && !request.create && !request.data_only {
        subscriptions_can_go(target, items, plan).await?;
    }
    if request.data_only {
        return Ok(Vec::new());
    }
    extensions::check_server(target, &planned(items, plan), request).await?;
    if target.found.is_superuser {
        powerful::check(target, &planned(items, plan), request).await?;
        return Ok(Vec::new());
    }
    let user = &target.session.server().user;
    if !request.no_owner && plan.owners.keys().any(|owner| owner != user) {
        plan.part_ground(items);
    }
    let mut warnings = without_grants_on_the_servers_own(items, plan);
    let planned = planned(items, plan);
    refuse(target, items, &planned, request).await?;
    extensions::check(target, &planned, request, postgres).await?;
    if !request.create {
        removable::check(target, items, plan).await?;
    }
    // A new database has no objects of other roles.
    if request.create {
        return Ok(warnings);
    }
    let foreign = target.session.foreign().await?;
    warnings.extend(without_what_others_own(&planned, plan, &foreign));
    // A member of an extension has no entry of its own, so no entry makes the object that the grants are on.
    let known: HashSet<i64> = items.iter().map(|item| item.entry.dump_id).collect();
    let of_member = |item: &Item| {
        let needs = &item.details.dependencies;
        !item.entry.tag.starts_with("SCHEMA ") && !needs.iter().any(|id| known.contains(id))
    };
    for item in planned.iter().filter(|item| item.entry.desc == "ACL") {
        if is_foreign(item, &foreign) || (of_member(item) && !foreign.extensions.is_empty()) {
            warnings.push(format!(
                "the grants on {} are made as far as {user} may: if it belongs to another role, only what {user} holds \
                 with the right to grant it is given, and nothing is revoked",
                item.entry.tag
            ));
        }
    }
    Ok(warnings)
}

/// The entries of definitions, in the archive's order.
fn planned<'a>(items: &'a [Item], plan: &Plan) -> Vec<&'a Item> {
    let lists = [&plan.ground, &plan.before, &plan.after, &plan.events];
    let planned: HashSet<i64> = lists.into_iter().flatten().copied().collect();
    let planned = items.iter().filter(|item| planned.contains(&item.entry.dump_id));
    planned.collect()
}

/// Whether a comment or a grant is on an object of another role.
fn is_foreign(item: &Item, foreign: &Foreign) -> bool {
    match item.entry.tag.split_once(' ') {
        Some(("EXTENSION", name)) => foreign.extensions.contains(quoting::unquoted(name).as_str()),
        Some(("SCHEMA", "public")) => foreign.public,
        _ => false,
    }
}

/// Takes out of the plan the comments on objects of other roles, and the owner of the schema `public`.
fn without_what_others_own(planned: &[&Item], plan: &mut Plan, foreign: &Foreign) -> Vec<String> {
    let mut warnings = Vec::new();
    for item in planned
        .iter()
        .filter(|item| item.entry.desc == "COMMENT" && is_foreign(item, foreign))
    {
        plan.before.retain(|id| *id != item.entry.dump_id);
        plan.after.retain(|id| *id != item.entry.dump_id);
        warnings.push(format!(
            "the comment on {} was left out: only its owner may set it",
            item.entry.tag
        ));
    }
    let is_public = |item: &&&Item| item.entry.desc == "SCHEMA" && item.entry.tag == "public" && foreign.public;
    for item in planned.iter().filter(is_public) {
        let id = item.entry.dump_id;
        for list in [&mut plan.ground, &mut plan.before] {
            list.retain(|other| *other != id);
        }
        warnings.push("the owner of the schema public was left as it is: it belongs to another role".to_owned());
    }
    warnings
}

/// Extensions of other roles stay. This is decided before empty schemas are looked for.
pub(super) async fn keep_extensions(target: &Target, items: &[Item], plan: &mut Plan) -> Result<()> {
    if target.found.is_superuser || plan.drops.is_empty() {
        return Ok(());
    }
    let foreign = target.session.foreign().await?;
    let kept = items
        .iter()
        .filter(|item| item.entry.desc == "EXTENSION" && foreign.extensions.contains(&item.entry.tag));
    for item in kept {
        let drop = item.details.drop_statement.trim();
        if plan.drops.iter().any(|statement| statement == drop) {
            plan.drops.retain(|statement| statement != drop);
            plan.left_out.push(LeftOut {
                what: format!("DROP EXTENSION {}", item.entry.tag),
                why: "it belongs to another role, and stays as it is".into(),
            });
        }
    }
    Ok(())
}

/// For a restore that keeps the target's default privileges for new objects: a warning.
pub(super) async fn given_of_new(target: &Target, request: &RestoreRequest) -> Result<Option<String>> {
    let is_exact = request.clean || request.create || request.no_privileges || request.data_only;
    if is_exact || !request.tables.is_empty() {
        return Ok(None);
    }
    let given = target.session.given_of_new().await?;
    Ok((!given.is_empty()).then(|| {
        format!(
            "the target's default privileges apply to the new objects, besides the backup's grants ({}); with --clean \
             they have the backup's grants only",
            given.join("; ")
        )
    }))
}

/// The error for entries that the role may not make.
fn refused<T>(target: &Target, items: &[&Item], why: &str, hint: &str) -> Result<T> {
    let user = &target.session.server().user;
    let names: Vec<String> = items.iter().map(|item| item.entry.to_string()).collect();
    let what = format!("the role {user} {why}: {}", some_of(&names, names.len() as u64));
    Err(Error::new(Code::Permission, what).hint(hint.to_owned()))
}

fn of_kind<'a>(planned: &[&'a Item], kind: &str) -> Vec<&'a Item> {
    let of_kind = planned.iter().copied().filter(|item| item.entry.desc == kind);
    of_kind.collect()
}

async fn refuse(target: &Target, items: &[Item], planned: &[&Item], request: &RestoreRequest) -> Result<()> {
    if !request.create {
        may_make_all(target, planned).await?;
    }
    check_publications(target, planned).await?;
    check_subscriptions(target, planned, request).await?;
    let events = of_kind(planned, "EVENT TRIGGER");
    if !events.is_empty() && !target.session.may(Deed::WatchEvents).await? {
        return refused(
            target,
            &events,
            "may not make event triggers",
            "leave them out with --exclude EVENT-TRIGGER, or restore as a superuser",
        );
    }
    beyond::check(target, planned).await?;
    foreign::check(target, planned, request).await?;
    // With `--keep-going` the restore makes them and reports those that could not be filled.
    if !request.keep_going {
        hidden::check(target, planned).await?;
    }
    check_grants(target, planned)?;
    if !request.no_owner {
        owners::check(target, items, planned, request).await?;
    }
    Ok(())
}

async fn check_publications(target: &Target, planned: &[&Item]) -> Result<()> {
    let whole = planned.iter().copied().filter(|item| {
        item.entry.desc == "PUBLICATION TABLES IN SCHEMA"
            || (item.entry.desc == "PUBLICATION" && item.details.definition.contains(" FOR ALL TABLES"))
    });
    let whole: Vec<&Item> = whole.collect();
    if whole.is_empty() || target.session.may(Deed::PublishAll).await? {
        return Ok(());
    }
    refused(
        target,
        &whole,
        "may not make publications of all tables or of a schema's",
        "leave them out with --no-publications, or single ones with --exclude PUBLICATION:NAME",
    )
}

async fn check_subscriptions(target: &Target, planned: &[&Item], request: &RestoreRequest) -> Result<()> {
    let subscriptions = of_kind(planned, "SUBSCRIPTION");
    if subscriptions.is_empty() {
        return Ok(());
    }
    let asks = target.session.may(SUBSCRIBE).await?;
    // In a database that it makes, the role has the other right that it needs.
    let user = &target.session.server().user;
    let may = asks || (request.create && target.session.has_rights_of(user, SUBSCRIBERS).await?);
    if !may {
        return refused(
            target,
            &subscriptions,
            "may not make subscriptions",
            "leave them out with --no-subscriptions, or GRANT pg_create_subscription to it (PostgreSQL 16 and newer)",
        );
    }
    for item in subscriptions {
        if !may_subscribe(target, item, asks).await? {
            return refused(
                target,
                &[item],
                "may not make a subscription without a password in its connection",
                "leave it out with --exclude SUBSCRIPTION:NAME, or all with --no-subscriptions, and make it by hand \
                 with a password; or restore as a superuser",
            );
        }
    }
    Ok(())
}

/// Grants for new objects of other roles, and grants in the name of other roles.
fn check_grants(target: &Target, planned: &[&Item]) -> Result<()> {
    let mut defaults = of_kind(planned, "DEFAULT ACL");
    defaults.retain(|item| target.found.roles.get(&item.details.owner) == Some(&false));
    if let Some(first) = defaults.first() {
        let owner = &first.details.owner;
        let hint = format!(
            "leave them out with --exclude 'DEFAULT-ACL:{owner}', or all with --exclude DEFAULT-ACL or --no-privileges; or \
             GRANT {} to it",
            quoting::identifier(owner)
        );
        return refused(
            target,
            &defaults,
            "may not set default privileges of other roles",
            &hint,
        );
    }
    let by_others = planned
        .iter()
        .copied()
        .filter(|item| item.is_grant() && item.details.definition.contains("SET SESSION AUTHORIZATION "));
    let by_others: Vec<&Item> = by_others.collect();
    if !by_others.is_empty() {
        return refused(
            target,
            &by_others,
            "may not grant in the name of others",
            "leave these grants out with --exclude ACL:NAME, or all with --no-privileges",
        );
    }
    Ok(())
}

const SUBSCRIBE: Deed<'static> = Deed::Subscribe {
    connection: "dbname=pgstow password=x",
    password_required: true,
};

/// Members of this role may make subscriptions, since PostgreSQL 16.
const SUBSCRIBERS: &str = "pg_create_subscription";

/// It depends on the connection: a role that is not a superuser needs one with a password. `asks`: the server can say
/// it here.
async fn may_subscribe(target: &Target, item: &Item, asks: bool) -> Result<bool> {
    let Some(subscription) = grants::of_subscription(&item.details.definition) else {
        return Ok(true);
    };
    if !asks {
        let lacks = ConnectionInfo::parse_url(&subscription.connection).is_ok_and(|info| info.password.is_none());
        return Ok(subscription.password_required && !lacks);
    }
    let deed = Deed::Subscribe {
        connection: &subscription.connection,
        password_required: subscription.password_required,
    };
    target.session.may(deed).await
}

/// Objects that come with the server belong to a superuser, also if the database belongs to another role.
fn without_grants_on_the_servers_own(items: &[Item], plan: &mut Plan) -> Vec<String> {
    const OWN: [&str; 2] = ["pg_catalog", "information_schema"];
    let is_own = |item: &Item| {
        let of_schema = item.entry.tag.strip_prefix("SCHEMA ");
        let schema = of_schema.or(item.entry.namespace.as_deref()).unwrap_or_default();
        item.entry.desc == "ACL" && OWN.contains(&schema)
    };
    let mut names = Vec::new();
    for item in items.iter().filter(|item| is_own(item)) {
        let id = item.entry.dump_id;
        let lists = [&mut plan.ground, &mut plan.before, &mut plan.after];
        let mut was_planned = false;
        for list in lists {
            let length = list.len();
            list.retain(|other| *other != id);
            was_planned |= list.len() < length;
        }
        if was_planned {
            names.push(item.entry.tag.clone());
        }
    }
    match names.is_empty() {
        true => Vec::new(),
        false => vec![format!(
            "the grants on objects that come with the server were left out, since only a superuser can make them: {}",
            some_of(&names, names.len() as u64)
        )],
    }
}

/// A transaction cannot drop a subscription with a slot, because the slot is on another server.
async fn subscriptions_can_go(target: &Target, items: &[Item], plan: &Plan) -> Result<()> {
    let goes = |item: &&Item| {
        item.entry.desc == "SUBSCRIPTION" && plan.drops.iter().any(|drop| drop == item.details.drop_statement.trim())
    };
    let names: Vec<&str> = items.iter().filter(goes).map(|item| item.entry.tag.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let bound = target.session.with_slots(&names).await?;
    let Some(first) = bound.first() else { return Ok(()) };
    let what = format!(
        "the target's subscriptions have slots on their publishers, and cannot be replaced in the same transaction: {}",
        some_of(&bound, bound.len() as u64)
    );
    let name = quoting::identifier(first);
    Err(Error::new(Code::RestoreErr, what).hint(format!(
        "keep them as they are with --no-subscriptions; or part each from its slot first: ALTER SUBSCRIPTION {name} \
         DISABLE; ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"
    )))
}

/// To make objects in existing schemas, the role needs rights only on these.
async fn may_make_all(target: &Target, planned: &[&Item]) -> Result<()> {
    const OF_DATABASE: [&str; 2] = ["SCHEMA", "PUBLICATION"];
    let user = &target.session.server().user;
    let makes = |item: &&&Item| item.details.definition.contains("CREATE ");
    let of_database = planned.iter().filter(makes);
    let mut of_database = of_database.filter(|item| OF_DATABASE.contains(&item.entry.desc.as_str()));
    if !target.found.may_create && of_database.next().is_some() {
        return Err(target.may_not_create());
    }
    let made: HashSet<&str> = planned
        .iter()
        .filter(|item| item.entry.desc == "SCHEMA" && makes(item))
        .map(|item| item.entry.tag.as_str())
        .collect();
    let schemas: BTreeSet<&str> = planned
        .iter()
        .filter(makes)
        .filter_map(|item| item.entry.namespace.as_deref())
        .filter(|schema| !schema.is_empty() && !made.contains(schema))
        .collect();
    for schema in schemas {
        if !target.session.may_create(user, Some(schema)).await? {
            let owner = target.session.owner_of_schema(schema).await?;
            let schema = quoting::identifier(schema);
            let what = format!("the role {user} may not create anything in the schema {schema}");
            let hint = granting(&format!("CREATE ON SCHEMA {schema}"), owner.as_deref(), user);
            return Err(Error::new(Code::Permission, what).hint(hint));
        }
    }
    Ok(())
}
