//! What a role that is no superuser may not do, found before anything is changed. Managed services let their master users
//! do some of it all the same, so what can be tried without a trace is tried.

use std::collections::{BTreeSet, HashSet};

use super::plan::{LeftOut, Plan, is_given_away};
use super::ready::{Target, some_of};
use crate::archive::Item;
use crate::command::RestoreRequest;
use crate::error::{Code, Error, Result};
use crate::postgres::{Deed, quoting};

/// Takes out of the plan what only another may do and nothing else needs, and says so; what the role may not do beside is
/// an error.
pub(super) async fn settle(
    target: &Target,
    items: &[Item],
    plan: &mut Plan,
    request: &RestoreRequest,
) -> Result<Vec<String>> {
    if target.found.is_superuser || request.data_only {
        return Ok(Vec::new());
    }
    let user = &target.session.server().user;
    if !request.no_owner && plan.owners.iter().any(|owner| owner != user) {
        plan.part_ground(items);
    }
    let planned: HashSet<i64> = plan
        .ground
        .iter()
        .chain(&plan.before)
        .chain(&plan.after)
        .chain(&plan.events)
        .copied()
        .collect();
    let planned: Vec<&Item> = items
        .iter()
        .filter(|item| planned.contains(&item.entry.dump_id))
        .collect();
    refuse(target, &planned, request).await?;
    // A new database has nothing of others'.
    if request.create {
        return Ok(Vec::new());
    }
    let foreign = target.session.foreign().await?;
    let is_foreign = |item: &Item| match item.entry.tag.split_once(' ') {
        Some(("EXTENSION", name)) => foreign.extensions.contains(quoting::unquoted(name).as_str()),
        Some(("SCHEMA", "public")) => foreign.public,
        _ => false,
    };
    let mut warnings = Vec::new();
    for item in planned
        .iter()
        .filter(|item| item.entry.desc == "COMMENT" && is_foreign(item))
    {
        plan.before.retain(|id| *id != item.entry.dump_id);
        plan.after.retain(|id| *id != item.entry.dump_id);
        warnings.push(format!(
            "the comment on {} was left out: only its owner may set it",
            item.entry.tag
        ));
    }
    let kept = planned
        .iter()
        .filter(|item| item.entry.desc == "EXTENSION" && foreign.extensions.contains(&item.entry.tag));
    for item in kept {
        let drop = item.details.drop_statement.trim();
        if plan.drops.iter().any(|statement| statement == drop) {
            plan.drops.retain(|statement| statement != drop);
            plan.left_out.push(LeftOut {
                what: format!("DROP EXTENSION {}", item.entry.tag),
                why: "it is another role's, and stays as it is".into(),
            });
        }
    }
    Ok(warnings)
}

async fn refuse(target: &Target, planned: &[&Item], request: &RestoreRequest) -> Result<()> {
    let user = &target.session.server().user;
    let of_kind = |kind: &'static str| planned.iter().copied().filter(move |item| item.entry.desc == kind);
    let refused = |items: &[&Item], why: &str, hint: &str| {
        let names: Vec<String> = items.iter().map(|item| item.entry.to_string()).collect();
        let what = format!("the role {user} {why}: {}", some_of(&names, names.len() as u64));
        Err(Error::new(Code::Permission, what).hint(hint.to_owned()))
    };

    let whole = planned.iter().copied().filter(|item| {
        item.entry.desc == "PUBLICATION TABLES IN SCHEMA"
            || (item.entry.desc == "PUBLICATION" && item.details.definition.contains(" FOR ALL TABLES"))
    });
    let whole: Vec<&Item> = whole.collect();
    if !whole.is_empty() && !target.session.may(Deed::PublishAll).await? {
        return refused(
            &whole,
            "may not make publications of all tables or of a schema's",
            "leave them out with --no-publications, or single ones with --exclude PUBLICATION:NAME",
        );
    }
    let subscriptions: Vec<&Item> = of_kind("SUBSCRIPTION").collect();
    if !subscriptions.is_empty() && !target.session.may(Deed::Subscribe).await? {
        return refused(
            &subscriptions,
            "may not make subscriptions",
            "leave them out with --no-subscriptions, or GRANT pg_create_subscription to it (PostgreSQL 16 and newer)",
        );
    }
    let events: Vec<&Item> = of_kind("EVENT TRIGGER").collect();
    if !events.is_empty() && !target.session.may(Deed::WatchEvents).await? {
        return refused(
            &events,
            "may not make event triggers",
            "leave them out with --exclude EVENT-TRIGGER, or restore as a superuser",
        );
    }
    let defaults = of_kind("DEFAULT ACL").filter(|item| {
        let owner = &item.details.owner;
        target.found.roles.get(owner) == Some(&false)
    });
    let defaults: Vec<&Item> = defaults.collect();
    if !defaults.is_empty() {
        return refused(
            &defaults,
            "may not set default privileges of other roles",
            "leave them out with --exclude DEFAULT-ACL or --no-privileges, or GRANT it those roles",
        );
    }
    let by_others = planned
        .iter()
        .copied()
        .filter(|item| item.is_grant() && item.details.definition.contains("SET SESSION AUTHORIZATION "));
    let by_others: Vec<&Item> = by_others.collect();
    if !by_others.is_empty() {
        return refused(
            &by_others,
            "may not grant in the name of others",
            "leave these grants out with --exclude ACL:NAME, or all with --no-privileges",
        );
    }
    if request.create {
        return Ok(());
    }
    if !request.no_owner {
        owners_may_create(target, planned, user).await?;
    }
    for item in of_kind("EXTENSION") {
        let name = &item.entry.tag;
        let is_there = target.found.extensions.get(name).copied().unwrap_or_default();
        if !is_there && !target.session.may(Deed::Extend(name)).await? {
            return refused(
                &[item],
                "may not make an extension",
                "let a superuser make it in the target first, or leave it out, with what needs it: --exclude EXTENSION:NAME",
            );
        }
    }
    Ok(())
}

/// Where no superuser gives something away, the new owner needs the right to make such a thing there. Schemas that the
/// restore itself makes get their grants before.
async fn owners_may_create(target: &Target, planned: &[&Item], user: &str) -> Result<()> {
    let made: HashSet<&str> = planned
        .iter()
        .filter(|item| item.entry.desc == "SCHEMA")
        .map(|item| item.entry.tag.as_str())
        .collect();
    let granted: HashSet<&str> = planned
        .iter()
        .filter(|item| item.entry.desc == "ACL")
        .filter_map(|item| item.entry.tag.strip_prefix("SCHEMA "))
        .collect();
    let mut asked: BTreeSet<(&str, Option<&str>)> = BTreeSet::new();
    for item in planned.iter().filter(|item| is_given_away(item)) {
        let owner = item.details.owner.as_str();
        // A role that is yet to be made has what PUBLIC has.
        if owner == user || !target.found.roles.contains_key(owner) {
            continue;
        }
        match item.entry.namespace.as_deref().filter(|schema| !schema.is_empty()) {
            Some(schema) if made.contains(schema) || granted.contains(schema) => {}
            Some(schema) => drop(asked.insert((owner, Some(schema)))),
            None if item.entry.desc == "PUBLICATION" => drop(asked.insert((owner, None))),
            None => {}
        }
    }
    for (owner, schema) in asked {
        if target.session.may_create(owner, schema).await? {
            continue;
        }
        let place = match schema {
            Some(schema) => format!("SCHEMA {}", quoting::identifier(schema)),
            None => format!("DATABASE {}", quoting::identifier(target.name())),
        };
        return Err(Error::new(
            Code::Permission,
            format!(
                "{owner}, who owned things of the backup, may not create any in {}",
                place.to_lowercase()
            ),
        )
        .hint(format!(
            "GRANT CREATE ON {place} TO {}, or use --no-owner",
            quoting::identifier(owner)
        )));
    }
    Ok(())
}
