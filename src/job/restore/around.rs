//! Objects outside that point at replaced tables. They are detached before the removal and attached to the new tables
//! afterwards. What cannot be attached again is reported.

mod lost;
mod members;

use std::collections::HashSet;
use std::time::Duration;

use lost::{ANOTHER_VALUE, Brought, IN_A_SCHEMA, Lost, ON_A_TABLE};

use super::plan::{self, LeftOut, Plan, is_relation};
use super::ready::{Target, some_of};
use super::rows::execute;
use super::tables::named;
use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::postgres::{Around, Named, Names, Refusal, Session, Wire, is_presence};

/// How many objects an error lists.
const NAMED: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// Schema and name of the replaced tables.
    pub tables: Vec<(String, String)>,
    /// Schema and name of the tables that refer to them, and of those that they refer to.
    pub beside: Vec<(String, String)>,
    /// Statements that run before the removal, in its transaction.
    pub loosen: Vec<String>,
    /// Objects that are made again at the end.
    pub ties: Vec<Tie>,
    /// Parts of the old tables that are lost, because the backup does not have them.
    pub left_out: Vec<LeftOut>,
    /// Those of them that only other roles can make again, in words.
    pub of_others: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Tie {
    pub what: String,
    pub statement: String,
    /// For a partition or child table: itself and the table above it.
    pub joined: Option<(String, String)>,
}

impl Tie {
    fn new(what: String, statement: String) -> Tie {
        let joined = None;
        Tie {
            what,
            statement,
            joined,
        }
    }
}

impl Tie {
    fn lost(&self, why: &str) -> LeftOut {
        LeftOut {
            what: self.what.clone(),
            why: format!("it could not be made again ({why}): {}", self.statement),
        }
    }

    /// Returns the reason if it cannot be made again; the transaction continues without it.
    async fn again(&self, wire: &mut Wire) -> Result<Option<String>> {
        execute(wire, "SAVEPOINT tie").await?;
        let (state, error) = match wire.execute(self.statement.as_bytes()).await {
            Ok(()) => {
                execute(wire, "RELEASE SAVEPOINT tie").await?;
                return Ok(None);
            }
            Err(Refusal::Server { state, error, .. }) => (state, error),
            Err(Refusal::Broken(error)) => return Err(error),
        };
        execute(wire, "ROLLBACK TO SAVEPOINT tie; RELEASE SAVEPOINT tie").await?;
        let is_there = is_presence(&state)
            || match &self.joined {
                // The server reports the same error for a partition that is attached already and for a table that
                // takes none.
                Some(pair) => wire.is_joined(pair).await.map_err(Refusal::into_error)?,
                None => false,
            };
        Ok((!is_there).then(|| error.message()))
    }
}

/// Objects whose owners, grants and comments are lost with them, besides relations.
const WITH_GRANTS: [&str; 9] = [
    "SCHEMA",
    "FUNCTION",
    "PROCEDURE",
    "AGGREGATE",
    "TYPE",
    "DOMAIN",
    "PROCEDURAL LANGUAGE",
    "FOREIGN DATA WRAPPER",
    "SERVER",
];

/// Looks at the relations that the target has and that are made anew. An object that needs a table named by the user
/// is not replaced, so it prevents the removal.
pub(super) async fn survey(
    target: &Target,
    items: &[Item],
    plan: &Plan,
    request: &RestoreRequest,
) -> Result<Surroundings> {
    let replaced = Replaced::of(target, items, plan, request);
    let (session, tables) = (replaced.session, &replaced.tables[..]);
    if replaced.is_part {
        check_dependents(session, tables).await?;
    }
    check_relatives(session, tables).await?;
    let mut found = Surroundings::default();
    let keys = found.take_keys(session, tables, &replaced.entries).await?;
    for around in session.around(tables).await? {
        found.take(around, &replaced.entries);
    }
    let (schemas, publications) = (replaced.dropped("SCHEMA"), replaced.dropped("PUBLICATION"));
    let others = session.around_others(&schemas, &publications, tables);
    let (others, defaults) = others.await?;
    for around in others {
        found.take(around, &replaced.entries);
    }
    let mut lost = Lost::around_the_tables(std::mem::take(&mut found.left_out));
    let brought = Brought::new(items, &plan.kept);
    on_tables(session, tables, &brought, &mut lost).await?;
    for one in defaults.into_iter().filter(|one| !brought.brings(one)) {
        lost.add(&one.kind, one.what, IN_A_SCHEMA, one.statement);
    }
    replaced.on_objects(&brought, &mut lost).await?;
    found.left_out = lost.told();
    // They are detached first and attached last, since they contain partitions that are detached too.
    found.ties.extend(keys);
    found.tables = replaced.tables;
    Ok(found)
}

/// What the restore replaces in the target.
struct Replaced<'a> {
    session: &'a Session,
    items: &'a [Item],
    plan: &'a Plan,
    /// The entries whose objects are made anew.
    entries: Vec<&'a Item>,
    /// Schema and name of the relations among them.
    tables: Vec<(String, String)>,
    drops: HashSet<&'a str>,
    /// Whether the user has named tables.
    is_part: bool,
    /// The owner of what is made, unless it gets the backup's owner.
    owner: Option<&'a str>,
}

impl<'a> Replaced<'a> {
    fn of(target: &'a Target, items: &'a [Item], plan: &'a Plan, request: &RestoreRequest) -> Self {
        let session = &target.session;
        let is_part = !request.tables.is_empty();
        let entries: Vec<&Item> = items.iter().filter(|item| replaces(plan, is_part, item)).collect();
        let path = |item: &&Item| (item.entry.namespace.clone().unwrap_or_default(), item.entry.tag.clone());
        Self {
            session,
            items,
            plan,
            tables: entries.iter().filter(|item| has_place(item)).map(path).collect(),
            entries,
            drops: plan.drops.iter().map(String::as_str).collect(),
            is_part,
            owner: request.no_owner.then(|| session.server().user.as_str()),
        }
    }

    /// Whether a statement removes the entry's object.
    fn goes(&self, item: &Item) -> bool {
        self.drops.contains(item.details.drop_statement.trim())
    }

    /// The names of the objects of this kind that go.
    fn dropped(&self, kind: &str) -> Vec<String> {
        let of_kind = self.items.iter().filter(|item| item.entry.desc == kind);
        let gone = of_kind.filter(|item| self.goes(item));
        gone.map(|item| item.entry.tag.clone()).collect()
    }

    /// Owners, grants, comments and settings of the objects that the backup does not bring.
    async fn on_objects(&self, brought: &Brought<'_>, lost: &mut Lost) -> Result<()> {
        let Self {
            session, plan, owner, ..
        } = *self;
        let with_grants = |item: &&Item| self.goes(item) && WITH_GRANTS.contains(&item.entry.desc.as_str());
        let relations = self.entries.iter().copied().filter(|item| has_place(item));
        let objects: Vec<&Item> = self.items.iter().filter(with_grants).chain(relations).collect();
        let asked: Vec<Named<'_>> = objects.iter().map(|item| named(item)).collect();
        brought.without(session.traits(&asked).await?, &objects, owner, lost);
        if !plan.large_objects.is_empty() {
            let granted = session.granted_large_objects(&plan.large_objects).await?;
            brought.without_grants(&granted, lost);
        }
        for feature in session.features_of_tables(&self.tables).await? {
            brought.without_feature(feature, |_| true, owner, lost);
        }
        if !self.is_part {
            let is_made = |item: &Item| self.goes(item) || !plan::objects_of(item).is_empty();
            for feature in session.features_of_others(&plan.large_objects).await? {
                brought.without_feature(feature, is_made, owner, lost);
            }
        }
        for grant in session.member_grants(&self.dropped("EXTENSION")).await? {
            brought.without_grant_on_member(grant, lost);
        }
        Ok(())
    }
}

/// Whether the entry's object stands among the tables.
fn has_place(item: &Item) -> bool {
    is_relation(item) || item.entry.desc == "SEQUENCE"
}

async fn check_dependents(session: &Session, tables: &Names) -> Result<()> {
    let dependents = session.dependents(tables).await?;
    match dependents.is_empty() {
        true => Ok(()),
        false => Err(needed(&dependents)),
    }
}

/// Only its owner can detach a child table, and attach a partition or child table again.
async fn check_relatives(session: &Session, tables: &Names) -> Result<()> {
    let relatives = session.relatives_of_others(tables).await?;
    let Some((_, owner)) = relatives.first() else {
        return Ok(());
    };
    let names = relatives.iter().map(|(table, owner)| format!("{table} of {owner}"));
    let names: Vec<String> = names.collect();
    let user = &session.server().user;
    let what = format!(
        "the role {user} may not attach tables of other roles again to those that are replaced: {}",
        some_of(&names, names.len() as u64)
    );
    Err(Error::new(Code::Permission, what).hint(format!(
        "put back only the rows with --data-only --clean; or restore as {owner}, or as a member of that role"
    )))
}

/// What the tables of the target have, and the backup's do not bring.
async fn on_tables(session: &Session, tables: &Names, brought: &Brought<'_>, lost: &mut Lost) -> Result<()> {
    for one in session.belongings(tables).await? {
        if !brought.brings(&one) {
            lost.add(&one.kind, one.what, ON_A_TABLE, one.statement);
        }
    }
    for table in session.inside(tables).await? {
        brought.lacking(&table, lost);
    }
    for mark in session.marks(tables).await? {
        if !brought.marks(&mark) {
            lost.add("SETTING", mark.what, ON_A_TABLE, Some(mark.statement));
        } else if !brought.values(&mark) {
            lost.add("VALUE", mark.what, ANOTHER_VALUE, Some(mark.statement));
        }
    }
    for (heir, parent, columns) in session.inherited_columns(tables).await? {
        let what = format!("that {heir} has these columns from {parent} alone: {columns}");
        let why = "PostgreSQL makes them the child table's own when it is detached from its parent and attached again: \
                   if the parent loses one, the child table keeps it until it is dropped there too";
        lost.add("HEIR", what, why, None);
    }
    Ok(())
}

/// Whether an entry's object is made anew: in a whole restore everything that is not left out, otherwise the entries
/// of the plan.
fn replaces(plan: &Plan, single: bool, item: &Item) -> bool {
    let id = &item.entry.dump_id;
    if plan.kept.contains(id) {
        return false;
    }
    !single || plan.before.contains(id) || plan.after.contains(id) || plan.joins.contains(id)
}

/// Whether the backup has an entry of this kind.
fn comes(replaced: &[&Item], kind: &str, schema: &str, tag: &str) -> bool {
    let same = |item: &&Item| {
        item.entry.desc == kind && item.entry.namespace.as_deref() == Some(schema) && item.entry.tag == tag
    };
    replaced.iter().any(same)
}

/// Whether the archive adds the same table to the same publication with all columns and rows.
fn is_narrower(statement: &str, item: &Item) -> bool {
    let definition = item.details.definition.trim().trim_end_matches(';');
    let rest = statement.strip_prefix(definition);
    item.entry.desc == "PUBLICATION TABLE"
        && rest.is_some_and(|rest| rest.starts_with(" (") || rest.starts_with(" WHERE"))
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
            "objects of the target need these tables as they are: {}",
            shown.join(", ")
        ),
    )
    .hint(
        "put back only the rows with --data-only --clean; or name views of the backup with --table too; or remove \
         the others first, and make them again afterwards",
    )
}

impl Surroundings {
    /// Takes the foreign keys of these tables, and those that refer to them. Returns the keys that are made again at
    /// the end.
    async fn take_keys(&mut self, session: &Session, tables: &Names, replaced: &[&Item]) -> Result<Vec<Tie>> {
        let mut keys = Vec::new();
        for key in session.foreign_keys(tables).await? {
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
            self.loosen.push(key.dropping());
            self.beside.extend([key.of.clone(), key.to.clone()]);
            let what = format!("the foreign key {} of {}", key.name, key.table);
            let tag = format!("{} {}", key.of.1, key.name);
            let comes = comes(replaced, "FK CONSTRAINT", &key.of.0, &tag);
            if !key.is_own {
                keys.push(Tie::new(what, key.making()));
                continue;
            }
            // The archive makes the key of the root. A partition that stays gets its own key before it is attached;
            // one that is made anew has the name of the root's key, whatever it had before.
            for copy in &key.copies {
                let (schema, table) = &copy.of;
                let what = format!("the foreign key {} of the partition {schema}.{table}", copy.name);
                if !tables.contains(&copy.of) {
                    self.ties.push(Tie::new(what, copy.making()));
                } else if comes {
                    keys.push(Tie::new(what, copy.renaming(&key.name)));
                }
            }
            if !comes {
                let why = format!("{ON_A_TABLE}: {}", key.making());
                self.left_out.push(LeftOut { what, why });
            }
        }
        Ok(keys)
    }

    fn take(&mut self, around: Around, replaced: &[&Item]) {
        self.loosen.extend(around.loosen);
        if let Some(other) = around.tied_by {
            self.of_others.push(around.what.clone());
            let why = match around.what.starts_with("the schema ") {
                true => "it is replaced, and only a superuser can put it back".to_owned(),
                false => format!("its table is replaced, and only {other} or a superuser can put it back"),
            };
            self.left_out.push(LeftOut {
                what: around.what,
                why: around
                    .tie
                    .map_or(why.clone(), |statement| format!("{why}: {statement}")),
            });
            return;
        }
        match (around.tie, around.policy) {
            (Some(statement), _) => {
                // The archive's own runs first, and then the table is a member already.
                if replaced.iter().any(|item| is_narrower(&statement, item)) {
                    self.left_out.push(LeftOut {
                        what: format!("the columns or rows of the {}", around.what),
                        why: format!("{ON_A_TABLE}: {statement}"),
                    });
                }
                self.ties.push(Tie {
                    what: around.what,
                    statement,
                    joined: around.joined,
                });
            }
            (None, Some((schema, tag))) if comes(replaced, "POLICY", &schema, &tag) => {}
            (None, _) => self.left_out.push(LeftOut {
                what: around.what,
                why: ON_A_TABLE.to_owned(),
            }),
        }
    }

    /// Makes the ties again, and returns those that could not be made. The data is committed, so failures are only
    /// reported. Waits for a lock for at most `wait`.
    pub async fn tie(&self, target: &Target, wait: Duration) -> Vec<LeftOut> {
        let session = &target.session;
        let mut open: Vec<&Tie> = self.ties.iter().collect();
        if open.is_empty() {
            return Vec::new();
        }
        let limit = format!("SET lock_timeout = {}", wait.as_millis());
        drop(session.execute(&limit).await);
        loop {
            let (tried, mut lost, mut refused) = (open.len(), Vec::new(), Vec::new());
            for tie in open {
                match session.again(&tie.statement, tie.joined.as_ref()).await {
                    Ok(()) => {}
                    Err(error) => {
                        lost.push(tie.lost(&error.message()));
                        refused.push(tie);
                    }
                }
            }
            // One may need another.
            if refused.is_empty() || refused.len() == tried {
                return lost;
            }
            open = refused;
        }
    }

    /// The same in an open transaction: the ties are committed with the new tables, or not at all.
    pub async fn tie_within(&self, wire: &mut Wire) -> Result<Vec<LeftOut>> {
        let mut open: Vec<&Tie> = self.ties.iter().collect();
        loop {
            let (tried, mut lost, mut refused) = (open.len(), Vec::new(), Vec::new());
            for tie in open {
                if let Some(why) = tie.again(wire).await? {
                    lost.push(tie.lost(&why));
                    refused.push(tie);
                }
            }
            if refused.is_empty() || refused.len() == tried {
                return Ok(lost);
            }
            open = refused;
        }
    }

    /// The warning before anything is removed.
    pub fn warning(&self) -> Option<String> {
        let count = self.of_others.len() as u64;
        (count > 0).then(|| {
            format!(
                "the restore ends what only other roles can put back afterwards: {}; the report has the statement for \
                 each, under what is left out",
                some_of(&self.of_others, count)
            )
        })
    }

    /// For an error after the removal: what the user must make again after the tables exist.
    pub fn reminder(&self) -> Option<String> {
        let statements: Vec<&str> = self.ties.iter().map(|tie| tie.statement.as_str()).collect();
        (!statements.is_empty()).then(|| {
            format!(
                "objects that pointed at the tables were detached; after the tables exist, run: {}",
                statements.join("; ")
            )
        })
    }
}
