//! Chooses the role that loads rows. Checks, generated columns and index expressions of a table are code of its
//! owner, and run with the rights of the role that loads; so does code that the check of a foreign key evaluates. A
//! superuser does both as the owner.
//!
//! This protects against code that only waits for a superuser, but it is no security boundary: code can return to the
//! session's own role (`RESET ROLE`). So the roles whose code may run are named before.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::error::SqlState;

use crate::error::Result;
use crate::format::archive::leading_names;
use crate::format::script::Sum;
use crate::job::restore::Job;
use crate::job::restore::rows::{self, BackupRows, BlockCopy, Unloaded};
use crate::postgres::quoting::{identifier, literal};
use crate::postgres::{ForeignKey, Names, Refusal, Session, Wire};

type Table = (String, String);

#[derive(Debug, Default)]
pub(super) struct Acting {
    /// For a superuser's restore: the owners who are not superusers.
    owners: BTreeMap<Table, String>,
    /// The same, for all roles whose code may run.
    pub strangers: BTreeSet<String>,
    roots: BTreeSet<Table>,
}

impl Acting {
    pub async fn prepare(session: &Session, names: &Names, keys: &[ForeignKey]) -> Result<Self> {
        let mut acting = Self::default();
        let mut tables = names.to_vec();
        for (table, occupant) in names.iter().zip(session.occupants(names).await?) {
            if occupant.is_some_and(|occupant| occupant.kind == 'p') {
                acting.roots.insert(table.clone());
                tables.extend(session.leaves(&table.0, &table.1).await?);
            }
        }
        if !session.server().is_superuser {
            return Ok(acting);
        }
        tables.extend(keys.iter().flat_map(|key| [key.of.clone(), key.to.clone()]));
        tables.sort();
        tables.dedup();
        for (table, occupant) in tables.iter().zip(session.occupants(&tables).await?) {
            let Some(occupant) = occupant else { continue };
            if occupant.is_strangers {
                acting.strangers.insert(occupant.owner.clone());
            }
            if occupant.owner_loads {
                acting.owners.insert(table.clone(), occupant.owner);
            }
        }
        Ok(acting)
    }

    pub fn is_root(&self, table: &Table) -> bool {
        self.roots.contains(table)
    }

    pub async fn load(
        &self,
        job: &Job<'_>,
        backup: BackupRows<'_>,
        wire: &mut Wire,
        copy: &BlockCopy,
    ) -> std::result::Result<Sum, Unloaded> {
        let Some(owner) = self.owner(backup, copy) else {
            return rows::load(job, backup, wire, copy).await;
        };
        let encoding = literal(&rows::encoding(backup.items));
        let act = format!("SET LOCAL ROLE {}", identifier(owner));
        // One after the other: each is read in the encoding that the session has at that moment.
        for statement in [
            "SET client_encoding = 'UTF8'",
            &act,
            &format!("SET client_encoding = {encoding}"),
        ] {
            rows::execute(wire, statement).await?;
        }
        // After a refusal, rolling back to the savepoint restores the role.
        let sum = rows::load(job, backup, wire, copy).await?;
        rows::execute(wire, "RESET ROLE").await?;
        Ok(sum)
    }

    /// The owner of the table that the statement names.
    fn owner(&self, backup: BackupRows<'_>, copy: &BlockCopy) -> Option<&String> {
        let stored = backup.stored;
        if copy.place.starts_with(b"ONLY ") {
            return self.owners.get(stored.tables[copy.index].as_ref()?);
        }
        let (path, _) = leading_names(&copy.place)?;
        let mut path = path.iter().map(|name| stored.head.text(name));
        self.owners.get(&path.next().zip(path.next())?)
    }

    /// Makes a foreign key, as the owner of its table if that role may.
    pub async fn make(&self, wire: &mut Wire, key: &ForeignKey) -> std::result::Result<(), Refusal> {
        let making = key.making();
        let Some(owner) = self.owners.get(&key.of) else {
            return wire.execute(making.as_bytes()).await;
        };
        let act = format!("SAVEPOINT key; SET LOCAL ROLE {}", identifier(owner));
        wire.execute(act.as_bytes()).await?;
        match wire.execute(making.as_bytes()).await {
            Ok(()) => wire.execute(b"RESET ROLE; RELEASE SAVEPOINT key").await,
            Err(refusal) if refusal.is(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                wire.execute(b"ROLLBACK TO SAVEPOINT key; RELEASE SAVEPOINT key")
                    .await?;
                wire.execute(making.as_bytes()).await
            }
            Err(refusal) => Err(refusal),
        }
    }
}
