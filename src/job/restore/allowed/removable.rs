//! Finds what `--clean` cannot remove, because it belongs to another role.

use std::collections::HashSet;

use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::plan::Plan;
use crate::job::restore::ready::{Target, some_of};
use crate::job::restore::tables::named;
use crate::postgres::Named;

pub(super) async fn check(target: &Target, items: &[Item], plan: &Plan) -> Result<()> {
    let statements: HashSet<&str> = plan.drops.iter().map(String::as_str).collect();
    let goes = |item: &&Item| statements.contains(item.details.drop_statement.trim());
    let going: Vec<&Item> = items.iter().filter(goes).collect();
    if going.is_empty() {
        return Ok(());
    }
    let asked: Vec<Named<'_>> = going.iter().map(|item| named(item)).collect();
    let found = target.session.irremovable(&asked).await?;
    let stay: Vec<(&Item, &str)> = found
        .iter()
        .filter_map(|(at, owner)| Some((*going.get(*at)?, owner.as_str())))
        .collect();
    let Some((first, owner)) = stay.first() else {
        return Ok(());
    };
    let names: Vec<String> = stay
        .iter()
        .map(|(item, owner)| format!("{} of {owner}", item.entry))
        .collect();
    let user = &target.session.server().user;
    let what = format!(
        "the role {user} may not replace objects of other roles: {}",
        some_of(&names, names.len() as u64)
    );
    let kind = first.entry.desc.replace(' ', "-");
    Err(Error::new(Code::Permission, what).hint(format!(
        "keep them as they are, with what belongs to them: --exclude '{kind}:{}'; or restore as {owner}, or as a member \
         of that role",
        first.entry.name()
    )))
}
