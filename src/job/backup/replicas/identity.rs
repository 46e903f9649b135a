//! Whether the backups that a store already holds are of the same database.

use jiff::Timestamp;

use super::Replicas;
use super::replica::{Replica, patience};
use crate::dataflow::pipeline::within;
use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::postgres::ServerInfo;
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::catalog::{self, Before, Listed};
use crate::repository::manifest::Figures;
use crate::settings::StoreCreate;

/// Facts that a run compares with earlier backups.
pub(in crate::job) struct Looking<'a> {
    pub database: &'a str,
    pub server: &'a ServerInfo,
    /// Treat it as the same database, even if the server's identifiers differ.
    pub adopt: bool,
    pub create: StoreCreate,
    /// What the run makes.
    pub kind: BackupKind,
}

#[derive(Default)]
pub(in crate::job) struct Back {
    pub newest: Option<BackupId>,
    pub warnings: Vec<Error>,
}

impl Looking<'_> {
    /// Compares the server's system identifier, which only a standby shares with its primary. If one of the two is
    /// unknown, it compares the database's OID, which proves less.
    fn is_of_the_same(&self, last: &Figures, url: &str) -> Result<()> {
        let then = &last.server;
        let (what, before, now) = match (&then.system_identifier, &self.server.system_identifier) {
            (Some(before), Some(now)) => ("the system identifier", before.clone(), now.clone()),
            _ => match then.database_oid {
                Some(before) => (
                    "the database OID",
                    before.to_string(),
                    self.server.database_oid.to_string(),
                ),
                None => return Ok(()),
            },
        };
        if before == now || self.adopt {
            return Ok(());
        }
        Err(Error::new(
            Code::OtherDatabase,
            format!(
                "{url} holds backups of another database {:?}: {} was made on a server with {what} {before}, and this \
                 one has {now}",
                self.database, last.id
            ),
        )
        .hint(
            "two servers need two prefixes; if this is the same database after a restore, a logical copy or a major \
             upgrade, run one backup with --adopt",
        ))
    }

    /// Warnings for people although the identifiers are the same.
    fn doubts(&self, last: &Figures) -> Vec<Error> {
        let mut doubts = Vec::new();
        let then = &last.server;
        if self.adopt && self.is_known(last) {
            doubts.push(
                Error::new(
                    Code::OtherDatabase,
                    "--adopt (BACKUP_ADOPT) is set, but there is nothing to adopt: the last backup is of this server",
                )
                .hint("give it for one backup only: while it is set, pgstow does not notice another server's database"),
            );
        }
        if let (Some(before), now) = (then.database_oid, self.server.database_oid)
            && before != now
            && !self.adopt
        {
            doubts.push(
                Error::new(
                    Code::OtherDatabase,
                    format!(
                        "{} was made of a database {:?} with the OID {before}, but this one has {now}: it was dropped and \
                         created again, or renamed",
                        last.id, self.database
                    ),
                )
                .hint("if that was not a restore, check whether this is the database that you mean"),
            );
        }
        doubts
    }

    fn is_known(&self, last: &Figures) -> bool {
        let then = &last.server;
        then.system_identifier == self.server.system_identifier && then.database_oid == Some(self.server.database_oid)
    }
}

/// The primary's last backup: its server, and the position in that server's log.
pub(super) struct LastBackup {
    id: BackupId,
    system_identifier: Option<String>,
    lsn: Lsn,
}

impl LastBackup {
    fn of(figures: &Figures) -> Option<Self> {
        Some(Self {
            id: figures.id.clone(),
            system_identifier: figures.server.system_identifier.clone(),
            lsn: figures.snapshot.lsn.as_deref()?.parse().ok()?,
        })
    }
}

impl Replica {
    /// What this store holds of the database. `listed` is the list of the primary, which has the index 0.
    async fn before(&self, index: usize, listed: &[Listed], now: Timestamp, ours: &Looking<'_>) -> Result<Before> {
        let copied;
        let listed = match index {
            0 => listed,
            _ => {
                let listing = catalog::backups(&*self.store, Some(ours.database));
                copied = within(patience(index), listing).await?;
                &copied
            }
        };
        within(patience(index), catalog::before(&*self.store, listed, ours.kind, now)).await
    }
}

impl Replicas {
    /// Looks at the backups of the database that each store already holds. Returns the newest folder of all stores.
    ///
    /// If a store holds backups of another server's database with this name, that store fails: the run if it is the
    /// primary, else only the copy. The same holds for a folder store that should have backups and has none.
    pub(in crate::job) async fn look_back(
        &mut self,
        listed: &[Listed],
        now: Timestamp,
        ours: &Looking<'_>,
    ) -> Result<Back> {
        let mut back = Back::default();
        let mut told: Vec<String> = Vec::new();
        let mut empty = Vec::new();
        for (index, replica) in self.all.iter_mut().enumerate() {
            if !replica.takes_part() {
                continue;
            }
            let mut before = match replica.before(index, listed, now, ours).await {
                Ok(before) => before,
                Err(error) if index == 0 => return Err(error),
                Err(error) => {
                    replica.drop_out(error, &self.stop).await;
                    continue;
                }
            };
            if let Some(error) = before.unread.take() {
                back.warnings.push(error.context("a manifest was skipped"));
            }
            if let Some(last) = &before.last {
                match ours.is_of_the_same(last, replica.store.url()) {
                    Ok(()) => {}
                    Err(error) if index == 0 => return Err(error),
                    Err(error) => {
                        replica.drop_out(error, &self.stop).await;
                        continue;
                    }
                }
                if index == 0 {
                    back.warnings.extend(ours.doubts(last));
                    self.last = LastBackup::of(last);
                }
            }
            match before.last {
                Some(last) => told.extend(last.stores),
                None => empty.push(index),
            }
            back.newest = back.newest.max(before.newest);
            replica.predecessor = before.predecessor;
        }
        self.are_really_empty(&empty, &told, ours).await?;
        Ok(back)
    }

    /// Fails the stores that have no backup, although the manifests in the others say that they `had` some.
    async fn are_really_empty(&mut self, empty: &[usize], had: &[String], ours: &Looking<'_>) -> Result<()> {
        for &index in empty {
            let replica = &mut self.all[index];
            let url = replica.store.url().to_owned();
            let may_be_lost = replica.store.lifecycle().is_none() && ours.create != StoreCreate::Always;
            if !may_be_lost || !had.contains(&url) {
                continue;
            }
            let error = lost(&url, ours.database);
            if index == 0 {
                return Err(error);
            }
            replica.drop_out(error, &self.stop).await;
        }
        Ok(())
    }

    /// A warning if the server's log is behind the position at the last backup. Then it is another server: a copy of
    /// the disk keeps the identifier of its original.
    pub(in crate::job) fn gone_back(&self, server: &ServerInfo, lsn: Option<&str>) -> Option<String> {
        let last = self.last.as_ref()?;
        let lsn = lsn?;
        let now: Lsn = lsn.parse().ok()?;
        let is_of_it = server.system_identifier.is_some() && last.system_identifier == server.system_identifier;
        (is_of_it && now < last.lsn).then(|| {
            format!(
                "the server's log is at {lsn}, but was further when {} was made: this server is a copy of that one's disk, \
                 was restored to an earlier time, or is a standby that lags; if it is a copy, give it a prefix of its own",
                last.id
            )
        })
    }
}

fn lost(url: &str, database: &str) -> Error {
    Error::new(
        Code::Enoent,
        format!("{url} has no backup of {database:?}, but the manifests in the other stores say that it had some"),
    )
    .hint("mount its disk, or find out who emptied it; to start anew there, run one backup with --store-create always")
}
