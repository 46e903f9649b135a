//! A second, empty database, made from the archive's own statements over pgstow's session: the result of a restore when
//! nothing else happens meanwhile. It has no rows and no rights, and the role that makes an object owns it. The same
//! roles make the objects as in the restore ([`Makers`]).

use std::collections::HashMap;

use super::Job;
use super::cluster::{Cluster, Ground};
use super::makers::{Known, Maker, Makers, has_standard_strings, is_ground, is_of_events};
use super::outline::tokens;
use crate::error::Result;
use crate::format::archive::Item;
use crate::job::restore::Plan;
use crate::postgres::quoting::{identifier, literal, qualified};
use crate::postgres::{Refusal, Session, Wire};
use crate::repository::manifest::Manifest;

/// The settings with which pg_restore starts its session.
const SETTINGS: &str = "SELECT pg_catalog.set_config(wanted.name, wanted.value, false)
    FROM (VALUES ('check_function_bodies', 'off'), ('xmloption', 'content'), ('client_min_messages', 'warning'),
                 ('row_security', 'off'), ('default_tablespace', ''), ('restrict_nonsystem_relation_kind', ''))
         AS wanted (name, value)
    JOIN pg_catalog.pg_settings AS known ON known.name OPERATOR(pg_catalog.=) wanted.name";

/// The first major in which a partitioned table has an access method of its own.
const METHODS_OF_PARTITIONED_TABLES: u32 = 17;

/// Catalogs with owners. The loader becomes the owner of the superuser's objects, because it must add to them.
const OWNERS: [(&str, &str); 8] = [
    ("pg_class", "relowner"),
    ("pg_foreign_data_wrapper", "fdwowner"),
    ("pg_foreign_server", "srvowner"),
    ("pg_language", "lanowner"),
    ("pg_operator", "oprowner"),
    ("pg_proc", "proowner"),
    ("pg_publication", "pubowner"),
    ("pg_type", "typowner"),
];

/// The entries of the twin's dump, and the archive's entries that could not be made, with the reason.
#[derive(Debug)]
pub(super) struct Twin {
    pub items: Vec<Item>,
    pub refused: HashMap<i64, String>,
}

/// Whether a twin has this entry too: it has no rights, which are compared without it, and no rows.
pub(super) fn has_twin(item: &Item) -> bool {
    !item.is_grant()
        && !is_of_large_objects(item)
        && !matches!(item.entry.desc.as_str(), "SEQUENCE SET" | "MATERIALIZED VIEW DATA")
}

pub(super) fn is_of_large_objects(item: &Item) -> bool {
    item.entry.tag.starts_with("LARGE OBJECT")
        && matches!(item.entry.desc.as_str(), "ACL" | "COMMENT" | "SECURITY LABEL")
}

/// Makes the twin, as `plan` made `first`.
pub(super) async fn make(
    job: &Job<'_>,
    (cluster, first): (&Cluster<'_>, &Ground),
    items: &[Item],
    plan: &Plan,
    manifest: &Manifest,
) -> Result<Twin> {
    let ground = cluster.second_ground(first, items, manifest).await?;
    let mut making = Making {
        job,
        cluster,
        ground: &ground,
        by_id: items.iter().map(|item| (item.entry.dump_id, item)).collect(),
        standard_strings: has_standard_strings(items),
        refused: HashMap::new(),
    };
    making.all(items, plan).await?;
    let refused = making.refused;
    ground.session.end_others().await?;
    let again = super::dump(job, cluster.reader(&ground, items), &super::Wanted::default()).await?;
    Ok(Twin {
        items: again.items,
        refused,
    })
}

struct Making<'a> {
    job: &'a Job<'a>,
    cluster: &'a Cluster<'a>,
    ground: &'a Ground,
    by_id: HashMap<i64, &'a Item>,
    /// Whether a backslash is an ordinary letter.
    standard_strings: bool,
    refused: HashMap<i64, String>,
}

impl Making<'_> {
    async fn all(&mut self, items: &[Item], plan: &Plan) -> Result<()> {
        let divide = |list: &[i64], holds: &dyn Fn(&Item) -> bool| -> (Vec<i64>, Vec<i64>) {
            let has_twin = |id: &&i64| self.by_id.get(id).is_some_and(|item| has_twin(item));
            let held = |id: &i64| self.by_id.get(id).is_some_and(|item| holds(item));
            list.iter().filter(has_twin).partition(|id| held(id))
        };
        let (first, before) = divide(&plan.before, &is_ground);
        let (events, before): (Vec<i64>, Vec<i64>) = before
            .iter()
            .partition(|id| self.by_id.get(id).is_some_and(|item| is_of_events(item)));
        let (later_events, after) = divide(&plan.after, &is_of_events);
        let events = [events, later_events].concat();
        let session = &self.ground.session;
        let makers = Makers::of(items, &Known::default());
        for (maker, run) in makers.runs(&first) {
            self.run(maker, &run).await?;
        }
        let makers = Makers::of(
            items,
            &Known {
                languages: session.trusted_languages().await?,
                inert_languages: session.inert_languages().await?,
                guarded_settings: session.guarded_settings().await?,
                native_functions: session.native_functions().await?,
                keeps_files: self.cluster.keeps_files(),
            },
        );
        self.cluster.open_schemas(self.ground).await?;
        for list in [before, after, events] {
            for (maker, run) in makers.runs(&list) {
                self.run(maker, &run).await?;
            }
        }
        Ok(())
    }

    /// Runs the entries in order, in a new session. While the superuser works, no other session is open.
    async fn run(&mut self, maker: Maker, list: &[i64]) -> Result<()> {
        if list.is_empty() {
            return Ok(());
        }
        let settings = &self.job.settings.postgres;
        let way = match maker {
            Maker::Loader => self.cluster.loader(self.ground),
            Maker::Superuser => {
                self.ground.session.end_others().await?;
                self.cluster.superuser(self.ground)
            }
            Maker::None(why) => {
                let refused = list.iter().map(|id| (*id, why.to_owned()));
                self.refused.extend(refused);
                return Ok(());
            }
        };
        let session = Session::connect_to_our_own(&way.info, settings).await?;
        let mut wire = session.open_loading_wire().await?;
        session.close().await;
        let strings = if self.standard_strings { "on" } else { "off" };
        let standard = format!("SET standard_conforming_strings = {strings}");
        for statement in [SETTINGS, &standard] {
            wire.execute(statement.as_bytes()).await.map_err(Refusal::into_error)?;
        }
        let mut method = None;
        for id in list {
            let item = self.by_id[id];
            if let Err(why) = one(&mut wire, item, &mut method, self.ground.session.server().major).await? {
                self.refused
                    .insert(*id, format!("the server refused to make it once more: {why}"));
            }
        }
        wire.close().await;
        if maker == Maker::Superuser {
            self.hand_over().await?;
        }
        Ok(())
    }

    /// Changes the owners in the catalogs themselves, with fixed statements that hold no text of the backup.
    async fn hand_over(&self) -> Result<()> {
        let loader = self.cluster.loader(self.ground).info.user.unwrap_or_default();
        let role = format!(
            "(SELECT oid FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) {})",
            literal(&loader)
        );
        for (catalog, owner) in OWNERS {
            let statement = format!(
                "UPDATE pg_catalog.{catalog} SET {owner} = {role}
                 WHERE {owner} OPERATOR(pg_catalog.=)
                       (SELECT oid FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user)
                   AND oid OPERATOR(pg_catalog.>=) 16384
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                   WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.{catalog}'::pg_catalog.regclass
                                     AND d.objid OPERATOR(pg_catalog.=) {catalog}.oid
                                     AND d.deptype OPERATOR(pg_catalog.=) 'e')"
            );
            self.ground.session.execute(&statement).await?;
        }
        Ok(())
    }
}

/// Makes the object of an entry. The inner error is the server's refusal.
async fn one(
    wire: &mut Wire,
    item: &Item,
    method: &mut Option<String>,
    major: u32,
) -> Result<std::result::Result<(), String>> {
    let wanted = item.details.access_method.as_ref().filter(|name| !name.is_empty());
    let mut statements: Vec<Vec<u8>> = Vec::new();
    if let Some(wanted) = wanted {
        let words = tokens(&item.details.definition);
        let partitioned = words.windows(2).any(|pair| pair == [(0, "PARTITION"), (0, "BY")]);
        if !partitioned && method.as_ref() != Some(wanted) {
            statements.push(format!("SET default_table_access_method = {}", identifier(wanted)).into());
            *method = Some(wanted.clone());
        }
        statements.push(item.definition().to_vec());
        if partitioned && major >= METHODS_OF_PARTITIONED_TABLES {
            let table = qualified(item.entry.namespace.as_deref().unwrap_or_default(), &item.entry.tag);
            statements.push(format!("ALTER TABLE {table} SET ACCESS METHOD {}", identifier(wanted)).into());
        }
    } else {
        statements.push(item.definition().to_vec());
    }
    for statement in statements {
        match wire.execute(&statement).await {
            Ok(()) => {}
            Err(Refusal::Server { state, error, .. }) if !is_of_the_server(state.code()) => {
                return Ok(Err(error.message()));
            }
            Err(refusal) => return Err(refusal.into_error()),
        }
    }
    Ok(Ok(()))
}

/// Whether the error is about the server, not the statement: no room, the server's end, an error of the system.
fn is_of_the_server(state: &str) -> bool {
    ["08", "53", "57P", "58"].iter().any(|class| state.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::is_of_the_server;

    #[test]
    fn what_the_machine_lacks_is_no_refusal() {
        assert!(is_of_the_server("53100") && is_of_the_server("57P01"));
        assert!(!is_of_the_server("42P01") && !is_of_the_server("57014") && !is_of_the_server("22012"));
    }
}
