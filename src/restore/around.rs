//! What points from outside at tables that are replaced: loosened before they are removed, and tied to the new ones
//! when those are there. What cannot be tied again is told.

use super::plan::{LeftOut, is_relation};
use super::ready::Target;
use crate::archive::Item;
use crate::error::{Code, Error, Result};
use crate::postgres::{Around, ForeignKey};

/// Objects that an error names.
const NAMED: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// Schema and name of what is replaced, and of what refers to it.
    pub tables: Vec<(String, String)>,
    /// Statements that come before the removal, in its transaction.
    pub loosen: Vec<String>,
    /// What is made again at the end.
    pub ties: Vec<Tie>,
    /// What goes with the old tables, and the backup does not have.
    pub left_out: Vec<LeftOut>,
}

#[derive(Debug)]
pub(super) struct Tie {
    pub what: String,
    pub statement: String,
}

/// Of the relations among these entries that the target has. `single` are tables that were named: whatever needs
/// one of them stays, and so stands in its way.
pub(super) async fn survey(target: &Target, replaced: &[&Item], single: bool) -> Result<Surroundings> {
    let path = |item: &Item| (item.entry.namespace.clone().unwrap_or_default(), item.entry.tag.clone());
    let of_kind = |item: &&&Item| is_relation(item) || item.entry.desc == "SEQUENCE";
    let mut tables: Vec<_> = replaced.iter().filter(of_kind).map(|item| path(item)).collect();
    let session = &target.session;
    if single {
        let dependents = session.dependents(&tables).await?;
        if !dependents.is_empty() {
            return Err(needed(&dependents));
        }
    }
    let mut found = Surroundings::default();
    for key in session.foreign_keys(&tables).await? {
        if !key.is_ours {
            let user = &session.server().user;
            let what = format!(
                "the role {user} may not drop and make again the foreign key {} of {}",
                key.name, key.table
            );
            return Err(Error::new(Code::Permission, what).hint(format!(
                "restore as the owner of {}, or as a member of that role",
                key.table
            )));
        }
        found.loosen.push(key.dropping());
        found.tables.push(key.of.clone());
        let what = format!("the foreign key {} of {}", key.name, key.table);
        if !key.is_own {
            found.ties.push(Tie {
                what,
                statement: key.making(),
            });
        } else if !comes_back(&key, replaced) {
            found.left_out.push(LeftOut {
                what,
                why: "the target had it on a table that was replaced, and the backup does not have it".to_owned(),
            });
        }
    }
    for Around { what, loosen, tie } in session.around(&tables).await? {
        found.loosen.push(loosen);
        found.ties.push(Tie { what, statement: tie });
    }
    found.tables.append(&mut tables);
    Ok(found)
}

fn comes_back(key: &ForeignKey, replaced: &[&Item]) -> bool {
    let (schema, table) = &key.of;
    let tag = format!("{table} {}", key.name);
    replaced.iter().any(|item| {
        item.entry.desc == "FK CONSTRAINT" && item.entry.namespace.as_ref() == Some(schema) && item.entry.tag == tag
    })
}

fn needed(dependents: &[String]) -> Error {
    let mut shown: Vec<&str> = dependents.iter().take(NAMED).map(String::as_str).collect();
    let more = format!("{} more", dependents.len().saturating_sub(NAMED));
    if dependents.len() > NAMED {
        shown.push(&more);
    }
    Error::new(
        Code::RestoreErr,
        format!(
            "the target has what needs these tables as they are: {}",
            shown.join(", ")
        ),
    )
    .hint(
        "put back the rows alone with --data-only --clean; or name views of the backup with --table too; or remove \
         the others first, and make them again afterwards",
    )
}

impl Surroundings {
    /// Says what could not be tied again. The data is there: that is told, and no more.
    pub async fn tie(&self, target: &Target) -> Vec<LeftOut> {
        let mut lost = Vec::new();
        for tie in &self.ties {
            if let Err(error) = target.session.execute(&tie.statement).await {
                lost.push(LeftOut {
                    what: tie.what.clone(),
                    why: format!("it could not be put back ({}): {}", error.message(), tie.statement),
                });
            }
        }
        lost
    }
}
