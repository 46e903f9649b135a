//! The two publications of a stream: which tables they list, and the statements that make them list what they should.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_postgres::error::SqlState;

use self::plan::{Step, steps};
use super::quoting::{identifier, literal, qualified};
use super::server::EMPTY_SEARCH_PATH;
use super::{CatalogTable, PublicationKind, Session, SlotName, TableCatalog};
use crate::error::{Code, Error, Result};

pub use self::plan::Listing;

/// How long one statement waits for a table's lock. It is longer than the time (`deadlock_timeout`, 1 s) after which
/// autovacuum makes room.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// The most tables that one statement adds.
const TOGETHER: usize = 100;
const KINDS: [PublicationKind; 2] = [PublicationKind::All, PublicationKind::Inserts];

/// How the changes of each table arrive, by OID. Tables whose changes do not arrive are not in it.
pub type Published = BTreeMap<u32, PublicationKind>;

/// By what each table is published, by OID.
pub type Memberships = BTreeMap<u32, String>;

/// What was done to make the publications list what they should.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublicationChanges {
    pub before: Published,
    pub after: Published,
    /// By what each table is published, before and after: see [`Publications::memberships`].
    pub memberships: (Memberships, Memberships),
    /// Tables in both whose changes were not published for a moment in between.
    pub interrupted: BTreeSet<u32>,
    pub postponed: Vec<Postponed>,
}

/// A statement that could not be carried out now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postponed {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// Whether updates of the application fail until it is done.
    pub breaks_updates: bool,
    pub why: String,
}

impl PublicationChanges {
    /// The tables whose changes arrive only from now on. Before their rows are read for a baseline, wait for older
    /// transactions.
    pub fn joined(&self) -> BTreeSet<u32> {
        let better = self
            .after
            .iter()
            .filter(|(oid, kind)| self.before.get(oid).is_none_or(|before| before > kind));
        better
            .map(|(oid, _)| *oid)
            .chain(self.interrupted.iter().copied())
            .collect()
    }

    /// The tables of which fewer changes arrive than before, or none.
    pub fn left(&self) -> BTreeSet<u32> {
        let worse = self
            .before
            .iter()
            .filter(|(oid, kind)| self.after.get(oid).is_none_or(|after| after > kind));
        worse.map(|(oid, _)| *oid).collect()
    }
}

/// What exists of a stream's publications.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publications {
    /// Those that exist, and whether this role may change them.
    pub existing: BTreeMap<PublicationKind, bool>,
    pub listing: Listing,
    /// The OID of the row of `pg_publication_rel` that lists a table.
    entries: BTreeMap<(PublicationKind, u32), u32>,
}

impl Publications {
    pub fn are_complete(&self) -> bool {
        KINDS.iter().all(|kind| self.existing.contains_key(kind))
    }

    /// By which entry of a publication each table's changes arrive, with the transactions that attached it to what the
    /// entry names. If this is another text than before, the table's changes may not have been published for a while.
    pub fn memberships(&self, catalog: &TableCatalog) -> Memberships {
        let published = self.listing.published(catalog);
        let one = |table: &CatalogTable| {
            let kind = *published.get(&table.oid)?;
            let mut text = String::new();
            for above in std::iter::once(table).chain(catalog.ancestors(table)) {
                if let Some(entry) = self.entries.get(&(kind, above.oid)) {
                    return Some((table.oid, format!("{text}{entry}")));
                }
                let attached_by = above.traces.attached_by.unwrap_or_default();
                text = format!("{text}{attached_by} ");
            }
            None
        };
        catalog.tables.iter().filter_map(one).collect()
    }
}

impl Session {
    /// The streams of this database that have a publication or a slot here, of any store.
    pub async fn streams(&self) -> Result<BTreeSet<SlotName>> {
        let failed = |error| self.error("cannot look at the publications", &error);
        let question = "SELECT p.pubname::pg_catalog.text FROM pg_catalog.pg_publication p
            WHERE pg_catalog.starts_with(p.pubname::pg_catalog.text, 'pgstow_')";
        let rows = self.client.query(question, &[]).await.map_err(failed)?;
        let mut found: BTreeSet<SlotName> = self
            .slots_of_streams()
            .await?
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        for row in rows {
            let name: String = row.try_get(0).map_err(failed)?;
            found.extend(SlotName::of_publication(&name).map(|(name, _)| name));
        }
        Ok(found)
    }

    /// Looks at both publications.
    ///
    /// `SLOT` if a publication with one of these names publishes something else: then it is another program's.
    pub async fn publications(&self, names: &SlotName) -> Result<Publications> {
        let failed = |error| self.error("cannot look at the publications", &error);
        let mut found = Publications::default();
        // A table with a row filter or a list of columns counts as not listed: some of its changes do not arrive.
        let whole = match self.server().major {
            ..15 => "",
            _ => "AND r.prqual IS NULL AND r.prattrs IS NULL",
        };
        for kind in KINDS {
            let name = names.publication(kind);
            let question = format!(
                "SELECT p.puballtables, p.pubinsert, p.pubtruncate, p.pubupdate, p.pubdelete, p.pubviaroot,
                        pg_catalog.pg_has_role(p.pubowner, 'USAGE'),
                        ARRAY(SELECT r.prrelid FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid {whole} ORDER BY r.oid),
                        ARRAY(SELECT r.oid FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid {whole} ORDER BY r.oid)
                 FROM pg_catalog.pg_publication p WHERE p.pubname = {}",
                literal(&name)
            );
            let Some(row) = self.attempt(&question).await.map_err(failed)? else {
                continue;
            };
            let mut flags = [false; 7];
            for (column, flag) in flags.iter_mut().enumerate() {
                *flag = row.try_get(column).map_err(failed)?;
            }
            let [everything, insert, truncate, update, delete, by_root, is_ours] = flags;
            let changes = kind == PublicationKind::All;
            if everything || by_root || !insert || !truncate || update != changes || delete != changes {
                let text = format!("the publication {name} does not publish what pgstow's does");
                return Err(Error::new(Code::Slot, text).hint(format!(
                    "drop it if no program needs it (DROP PUBLICATION {name}), and run `pgstow incremental start` again"
                )));
            }
            let oids: Vec<u32> = row.try_get(7).map_err(failed)?;
            let entries: Vec<u32> = row.try_get(8).map_err(failed)?;
            found.existing.insert(kind, is_ours);
            let entries = oids.iter().zip(entries);
            found.entries.extend(entries.map(|(oid, entry)| ((kind, *oid), entry)));
            found.listing.set(kind, oids.into_iter().collect());
        }
        Ok(found)
    }

    /// Creates those publications that are missing, without tables; returns which. A publication of another role stays
    /// as it is.
    pub async fn create_publications(&self, names: &SlotName) -> Result<Vec<PublicationKind>> {
        let found = self.publications(names).await?;
        let mut created = Vec::new();
        for kind in KINDS {
            if found.existing.contains_key(&kind) {
                continue;
            }
            let statement = create_publication(names, kind);
            let done = self.alter(&statement).await;
            if let Err(error) = done {
                let error = self.error("cannot create a publication", &error);
                let error = if error.code() == Code::Permission {
                    error.hint(self.info().naming_the_role(
                        "the role needs CREATE on the database (GRANT CREATE ON DATABASE … TO <role>); or let the owner of the \
                         tables run what `pgstow incremental start --print-sql` prints",
                    ))
                } else {
                    error
                };
                let mut clean_up = Ok(());
                for kind in created {
                    clean_up = clean_up.and(self.drop_publication(names, kind).await.map(drop));
                }
                return Err(error.with_clean_up(clean_up));
            }
            created.push(kind);
        }
        Ok(created)
    }

    /// Drops one of the publications; returns whether it was there.
    pub async fn drop_publication(&self, names: &SlotName, kind: PublicationKind) -> Result<bool> {
        if !self.publications(names).await?.existing.contains_key(&kind) {
            return Ok(false);
        }
        let name = names.publication(kind);
        let statement = format!("DROP PUBLICATION IF EXISTS {}", identifier(&name));
        let done = self.alter(&statement).await;
        done.map(|()| true).map_err(|error| {
            let error = self.error(&format!("cannot drop the publication {name}"), &error);
            if error.code() == Code::Permission {
                error.hint(format!("let its owner or a superuser run: {statement}"))
            } else {
                error
            }
        })
    }

    /// Makes both publications list what the catalog allows: takes out first what would make updates of the application
    /// fail. Each statement waits at most 2 s for a table's lock, and never makes writers wait. A statement that cannot
    /// be carried out is postponed: call this again later.
    ///
    /// `SLOT` if a publication is missing.
    pub async fn reconcile(&self, names: &SlotName, catalog: &TableCatalog) -> Result<PublicationChanges> {
        let found = self.publications(names).await?;
        if !found.are_complete() {
            return Err(Error::new(
                Code::Slot,
                format!("a publication of the stream {names} is missing"),
            ));
        }
        let memberships = found.memberships(catalog);
        let mut changes = PublicationChanges {
            before: found.listing.published(catalog),
            memberships: (memberships.clone(), memberships),
            ..PublicationChanges::default()
        };
        let steps = steps(&found.listing, catalog);
        if steps.is_empty() {
            changes.after = changes.before.clone();
            return Ok(changes);
        }
        let limit = format!("SET lock_timeout = {}", LOCK_WAIT.as_millis());
        let failed = |error| self.error("cannot limit the wait for a lock", &error);
        self.client.batch_execute(&limit).await.map_err(failed)?;
        let done = self.take_steps(names, catalog, steps, &mut changes).await;
        if let Err(error) = done {
            return Err(error.with_clean_up(self.client.batch_execute("SET lock_timeout = 0").await.map_err(failed)));
        }
        self.client
            .batch_execute("SET lock_timeout = 0")
            .await
            .map_err(failed)?;
        let now = self.publications(names).await?;
        (changes.after, changes.memberships.1) = (now.listing.published(catalog), now.memberships(catalog));
        Ok(changes)
    }

    async fn take_steps(
        &self,
        names: &SlotName,
        catalog: &TableCatalog,
        steps: Vec<Step>,
        changes: &mut PublicationChanges,
    ) -> Result<()> {
        let mut steps = steps.into_iter().peekable();
        while let Some(step) = steps.next() {
            let kind = step.changing.kind;
            let mut single = vec![step];
            while single.len() < TOGETHER
                && single[0].is_addition()
                && let Some(next) = steps.next_if(|next| next.is_addition() && next.changing.kind == kind)
            {
                single.push(next);
            }
            let added = single.iter().filter_map(|step| catalog.table(step.changing.oid));
            let added: Vec<&CatalogTable> = added.collect();
            // A statement for each table takes long if there are thousands. Together they wait for the lock of one while
            // they have those of the others, which no writer waits for; if it cannot be had, each waits for its own.
            if added.len() > 1 && self.try_statement(&add_tables(names, kind, &added)).await?.is_none() {
                continue;
            }
            self.take_each(names, catalog, single, changes).await?;
        }
        Ok(())
    }

    async fn take_each(
        &self,
        names: &SlotName,
        catalog: &TableCatalog,
        steps: Vec<Step>,
        changes: &mut PublicationChanges,
    ) -> Result<()> {
        for step in steps {
            if let Some(together) = step.in_one_transaction(names, catalog)
                && self.try_statement(&together).await?.is_none()
            {
                continue;
            }
            // At once, even if its changes are then not published for a moment.
            let changing = &step.changing;
            if !step.together.is_empty() {
                changes.interrupted.extend(step.together.iter().map(|one| one.oid));
                changes.interrupted.insert(changing.oid);
            }
            for one in std::iter::once(changing).chain(&step.together) {
                let Some(table) = catalog.table(one.oid) else { continue };
                if let Some(why) = self.try_statement(&one.statement(names, table)).await? {
                    let breaks_updates = step.is_urgent && one == changing;
                    changes.postponed.push(postponed(table, breaks_updates, why));
                }
            }
        }
        Ok(())
    }

    /// Runs a statement that may fire event triggers of the database: their functions can set another search path.
    async fn alter(&self, statement: &str) -> std::result::Result<(), tokio_postgres::Error> {
        // A role that only reads may have the default to do only that (`default_transaction_read_only`).
        let writes = "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE";
        self.client.batch_execute(writes).await?;
        let done = self.client.batch_execute(statement).await;
        // In a failed transaction it is refused, and the path stays.
        let emptied = self.client.batch_execute(EMPTY_SEARCH_PATH).await;
        done?;
        emptied
    }

    /// `Some`: why the server refuses it now.
    async fn try_statement(&self, statement: &str) -> Result<Option<String>> {
        match self.alter(statement).await {
            Ok(()) => Ok(None),
            Err(error) if error.is_closed() || error.as_db_error().is_none() => {
                Err(self.error("cannot change a publication", &error))
            }
            Err(error) => {
                let undone = self.client.batch_execute("ROLLBACK").await;
                undone.map_err(|error| self.error("cannot undo a change of a publication", &error))?;
                let emptied = self.client.batch_execute(EMPTY_SEARCH_PATH).await;
                emptied.map_err(|error| self.error("cannot empty the search path", &error))?;
                Ok(Some(match error.code() {
                    Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                        "another session holds the table's lock (VACUUM, CREATE INDEX CONCURRENTLY, ALTER TABLE, …)".into()
                    }
                    Some(&SqlState::DUPLICATE_OBJECT) => {
                        "the publication lists it with a row filter or a list of columns: drop it from the publication, \
                         and the next increment adds the whole table"
                            .into()
                    }
                    _ => self.error("the server refuses it", &error).message(),
                }))
            }
        }
    }
}

fn postponed(table: &CatalogTable, breaks_updates: bool, why: String) -> Postponed {
    Postponed {
        oid: table.oid,
        schema: table.schema.clone(),
        name: table.name.clone(),
        breaks_updates,
        why,
    }
}

pub(crate) fn create_publication(names: &SlotName, kind: PublicationKind) -> String {
    let operations = match kind {
        PublicationKind::All => "insert, update, delete, truncate",
        PublicationKind::Inserts => "insert, truncate",
    };
    format!(
        "CREATE PUBLICATION {} WITH (publish = '{operations}', publish_via_partition_root = false)",
        identifier(&names.publication(kind))
    )
}

/// Without ONLY, the tables that inherit from it would be added too.
pub(crate) fn add_table(names: &SlotName, kind: PublicationKind, table: &CatalogTable) -> String {
    add_tables(names, kind, &[table])
}

fn add_tables(names: &SlotName, kind: PublicationKind, tables: &[&CatalogTable]) -> String {
    let publication = identifier(&names.publication(kind));
    let tables = tables
        .iter()
        .map(|table| format!("ONLY {}", qualified(&table.schema, &table.name)));
    let tables: Vec<String> = tables.collect();
    format!("ALTER PUBLICATION {publication} ADD TABLE {}", tables.join(", "))
}

fn drop_table(names: &SlotName, kind: PublicationKind, table: &CatalogTable) -> String {
    let publication = identifier(&names.publication(kind));
    let table = qualified(&table.schema, &table.name);
    format!("ALTER PUBLICATION {publication} DROP TABLE ONLY {table}")
}
