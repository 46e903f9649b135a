//! Schemas of the backup that contain objects of the target which are not replaced: the schemas stay, with everything
//! in them.

use std::collections::HashSet;

use super::plan::{LeftOut, Plan};
use super::ready::{Target, some_of};
use crate::error::Result;
use crate::format::archive::Item;
use crate::postgres::Inhabitant;

/// Kind, schema and name of an object, as in [`Inhabitant`].
type Known<'a> = (&'static str, &'a str, &'a str);

/// Takes them out of the plan and reports them.
pub(super) async fn stay(target: &Target, items: &[Item], plan: &mut Plan) -> Result<()> {
    let dropped: HashSet<&str> = plan.drops.iter().map(String::as_str).collect();
    let going: Vec<&Item> = items
        .iter()
        .filter(|item| !plan.kept.contains(&item.entry.dump_id) && dropped.contains(item.details.drop_statement.trim()))
        .collect();
    let schemas: Vec<&Item> = going
        .iter()
        .copied()
        .filter(|item| item.entry.desc == "SCHEMA")
        .collect();
    if schemas.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = schemas.iter().map(|item| item.entry.tag.as_str()).collect();
    let found = target.session.inhabitants(&names).await?;
    let known: HashSet<Known<'_>> = going.iter().map(|item| known(item)).collect();
    for schema in schemas {
        let stays = |one: &&Inhabitant| {
            one.lodging == schema.entry.tag && !known.contains(&(class(&one.class), &one.schema, &one.name))
        };
        let stay: Vec<String> = found.iter().filter(stays).map(|one| one.what.clone()).collect();
        if stay.is_empty() {
            continue;
        }
        let about = |item: &&Item| {
            let is_about = matches!(item.entry.desc.as_str(), "ACL" | "COMMENT" | "SECURITY LABEL");
            is_about && item.details.dependencies.contains(&schema.entry.dump_id)
        };
        let mut left: HashSet<i64> = items.iter().filter(about).map(|item| item.entry.dump_id).collect();
        left.insert(schema.entry.dump_id);
        for list in [&mut plan.ground, &mut plan.before, &mut plan.after] {
            list.retain(|id| !left.contains(id));
        }
        let drop = schema.details.drop_statement.trim();
        plan.drops.retain(|statement| statement != drop);
        plan.kept.extend(left);
        plan.left_out.push(LeftOut {
            what: schema.entry.to_string(),
            why: format!(
                "it stays as it is, with its owner, grants and comment, since it contains objects that are not replaced: {}",
                some_of(&stay, stay.len() as u64)
            ),
        });
    }
    Ok(())
}

fn known(item: &Item) -> Known<'_> {
    let (schema, name) = (
        item.entry.namespace.as_deref().unwrap_or_default(),
        item.entry.tag.as_str(),
    );
    match item.entry.desc.as_str() {
        "TABLE" | "FOREIGN TABLE" | "VIEW" | "MATERIALIZED VIEW" | "SEQUENCE" => ("relation", schema, name),
        "FUNCTION" | "PROCEDURE" | "AGGREGATE" => ("routine", schema, name),
        "TYPE" | "SHELL TYPE" | "DOMAIN" => ("type", schema, name),
        "EXTENSION" => ("extension", "", name),
        _ => ("other", schema, name),
    }
}

fn class(word: &str) -> &'static str {
    match word {
        "relation" => "relation",
        "routine" => "routine",
        "type" => "type",
        "extension" => "extension",
        _ => "other",
    }
}
