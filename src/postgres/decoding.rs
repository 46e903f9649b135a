//! What the server and the role have for logical decoding: facts, without a judgement.

use std::time::Duration;

use super::Session;
use crate::error::Result;

/// Facts that decide whether increments can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoding {
    pub service: Service,
    pub wal_level: String,
    pub slots: u32,
    pub most_slots: u32,
    pub senders: u32,
    pub most_senders: u32,
    /// How much log a slot may keep. `None`: without limit.
    pub most_kept_bytes: Option<u64>,
    pub idle_timeout: IdleTimeout,
    /// The attribute REPLICATION, or a role of a managed service that stands for it.
    pub may_replicate: bool,
    /// CREATE on the database, which a publication needs.
    pub may_create: bool,
}

/// After which time the server gives up a slot that no session reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleTimeout {
    /// Never, or a server before 18.
    Never,
    After(Duration),
}

/// Who runs the server: each has its own way to set what decoding needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Plain,
    Rds,
    Aurora,
    CloudSql,
    Azure,
}

impl Session {
    pub async fn decoding(&self) -> Result<Decoding> {
        let failed = |error| self.error("cannot look at what logical decoding needs", &error);
        let row = self
            .client
            .query_one(
                "SELECT pg_catalog.current_setting('wal_level'),
                        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots),
                        pg_catalog.current_setting('max_replication_slots')::pg_catalog.int8,
                        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication),
                        pg_catalog.current_setting('max_wal_senders')::pg_catalog.int8,
                        (SELECT s.setting::pg_catalog.int8 FROM pg_catalog.pg_settings s WHERE s.name = 'max_slot_wal_keep_size'),
                        (SELECT CASE s.unit WHEN 'min' THEN 60 WHEN 'ms' THEN 0 ELSE 1 END * s.setting::pg_catalog.int8
                         FROM pg_catalog.pg_settings s WHERE s.name = 'idle_replication_slot_timeout'),
                        (SELECT r.rolsuper OR r.rolreplication FROM pg_catalog.pg_roles r WHERE r.rolname = current_user),
                        pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
                        ARRAY(SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles r WHERE r.rolname IN
                          ('rds_superuser', 'rds_replication', 'cloudsqlsuperuser', 'azure_pg_admin')),
                        ARRAY(SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles r WHERE r.rolname IN
                          ('rds_superuser', 'rds_replication', 'cloudsqlsuperuser', 'azure_pg_admin')
                          AND pg_catalog.pg_has_role(r.oid, 'USAGE')),
                        EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.proname = 'aurora_version'
                          AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace)",
                &[],
            )
            .await
            .map_err(failed)?;
        let number = |column: usize| -> Result<u32> {
            let number: i64 = row.try_get(column).map_err(failed)?;
            Ok(u32::try_from(number).unwrap_or(0))
        };
        let megabytes: Option<i64> = row.try_get(5).map_err(failed)?;
        let idle: Option<i64> = row.try_get(6).map_err(failed)?;
        let has_attribute: bool = row.try_get(7).map_err(failed)?;
        let roles: Vec<String> = row.try_get(9).map_err(failed)?;
        let member_of: Vec<String> = row.try_get(10).map_err(failed)?;
        let has = |name: &str| roles.iter().any(|role| role == name);
        let service = if row.try_get(11).map_err(failed)? {
            Service::Aurora
        } else if has("rds_superuser") {
            Service::Rds
        } else if has("cloudsqlsuperuser") {
            Service::CloudSql
        } else if has("azure_pg_admin") {
            Service::Azure
        } else {
            Service::Plain
        };
        Ok(Decoding {
            service,
            wal_level: row.try_get(0).map_err(failed)?,
            slots: number(1)?,
            most_slots: number(2)?,
            senders: number(3)?,
            most_senders: number(4)?,
            most_kept_bytes: megabytes
                .and_then(|megabytes| u64::try_from(megabytes).ok())
                .map(|megabytes| megabytes.saturating_mul(1 << 20)),
            idle_timeout: match idle.and_then(|seconds| u64::try_from(seconds).ok()) {
                None | Some(0) => IdleTimeout::Never,
                Some(seconds) => IdleTimeout::After(Duration::from_secs(seconds)),
            },
            may_replicate: has_attribute || !member_of.is_empty(),
            may_create: row.try_get(8).map_err(failed)?,
        })
    }
}

impl Service {
    /// How to turn logical decoding on.
    pub fn mend_wal_level(self) -> &'static str {
        match self {
            Self::Plain => "set wal_level = logical (ALTER SYSTEM SET wal_level = 'logical'), and restart the server",
            Self::Rds => "set rds.logical_replication = 1 in the instance's parameter group, and reboot the instance",
            Self::Aurora => {
                "set rds.logical_replication = 1 in the cluster's parameter group, and reboot the writer instance"
            }
            Self::CloudSql => {
                "set the flag cloudsql.logical_decoding = on (gcloud sql instances patch … --database-flags), which \
                 restarts the instance"
            }
            Self::Azure => {
                "set the server parameter wal_level = logical (az postgres flexible-server parameter set), and restart \
                 the server"
            }
        }
    }

    /// How to let the role replicate. `<role>` stands for its name.
    pub fn mend_privilege(self) -> &'static str {
        match self {
            Self::Plain => "as a superuser: ALTER ROLE <role> REPLICATION",
            Self::Rds | Self::Aurora => "as the master user: GRANT rds_replication TO <role>",
            Self::CloudSql => "as a member of cloudsqlsuperuser: ALTER USER <role> WITH REPLICATION",
            Self::Azure => "as a member of azure_pg_admin: ALTER ROLE <role> WITH REPLICATION",
        }
    }

    /// How to change a server's setting, in words that follow "with".
    pub fn ways_to_set(self) -> &'static str {
        match self {
            Self::Plain => "ALTER SYSTEM",
            Self::Rds => "the instance's parameter group",
            Self::Aurora => "the cluster's parameter group",
            Self::CloudSql => "the instance's database flags",
            Self::Azure => "the server's parameters",
        }
    }
}
