//! What is around tables of the target that are replaced: references to them from other objects, and triggers and
//! policies that would change their rows while they are loaded.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::Session;
use super::tables::{CHOSEN, Names};
use crate::error::{Code, Error, Result};

/// A foreign key in its form at the drop, so that it can be made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignKey {
    /// Schema and name of its table, and its own name.
    pub of: (String, String),
    pub name: String,
    /// Schema and name of the referenced table.
    pub to: (String, String),
    /// Quoted, with its schema.
    pub table: String,
    pub definition: String,
    pub comment: Option<String>,
    /// Its copies on partitions that have a name or comment of their own; the deepest partition comes first.
    pub copies: Vec<ForeignKeyCopy>,
    /// It belongs to one of the tables that were asked about.
    pub is_own: bool,
    /// This role may drop it, and may lock the referenced table.
    pub is_ours: bool,
    pub to_is_ours: bool,
    /// Its triggers are disabled, so its rows need not satisfy it.
    pub is_disabled: bool,
}

/// A partition's copy of its root's foreign key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignKeyCopy {
    /// Schema and name of the partition.
    pub of: (String, String),
    /// Quoted, with its schema.
    table: String,
    pub name: String,
    definition: String,
    comment: Option<String>,
}

impl ForeignKeyCopy {
    /// The root's foreign key takes the copy over when it is made, or when the partition is attached.
    pub fn making(&self) -> String {
        making(&self.table, &self.name, &self.definition, self.comment.as_deref())
    }

    /// For a partition that was made anew: its copy then has the root's name.
    pub fn renaming(&self, root: &str) -> String {
        let (table, name) = (&self.table, quoted(&self.name));
        let renamed = format!("ALTER TABLE {table} RENAME CONSTRAINT {} TO {name}", quoted(root));
        let renamed = (self.name != root).then_some(renamed);
        let comment = self.comment.as_deref().map(super::quoting::literal);
        let comment = comment.map(|text| format!("COMMENT ON CONSTRAINT {name} ON {table} IS {text}"));
        renamed.into_iter().chain(comment).collect::<Vec<_>>().join("; ")
    }
}

fn making(table: &str, name: &str, definition: &str, comment: Option<&str>) -> String {
    let name = quoted(name);
    let made = format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}");
    match comment {
        None => made,
        Some(comment) => format!(
            "{made}; COMMENT ON CONSTRAINT {name} ON {table} IS {}",
            super::quoting::literal(comment)
        ),
    }
}

impl ForeignKey {
    pub fn dropping(&self) -> String {
        format!("ALTER TABLE {} DROP CONSTRAINT {}", self.table, quoted(&self.name))
    }

    pub fn making(&self) -> String {
        let copies = self.copies.iter().map(ForeignKeyCopy::making);
        let root = making(&self.table, &self.name, &self.definition, self.comment.as_deref());
        copies.chain([root]).collect::<Vec<_>>().join("; ")
    }
}

fn quoted(name: &str) -> String {
    super::quoting::identifier(name)
}

/// A trigger that fires when rows are loaded, or when the table is emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableTrigger {
    /// Quoted, with its schema.
    pub table: String,
    pub name: String,
    /// `ENABLE`, `ENABLE ALWAYS` or `ENABLE REPLICA`.
    pub state: &'static str,
    pub is_ours: bool,
}

impl TableTrigger {
    pub fn disabling(&self) -> String {
        format!("ALTER TABLE ONLY {} DISABLE TRIGGER {}", self.table, quoted(&self.name))
    }

    pub fn enabling(&self) -> String {
        format!(
            "ALTER TABLE ONLY {} {} TRIGGER {}",
            self.table,
            self.state,
            quoted(&self.name)
        )
    }
}

/// An object that dropping a table would remove too, or leave without its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Around {
    pub what: String,
    /// Runs before the tables are removed, if removing them would not remove it.
    pub loosen: Option<String>,
    /// Runs when the tables exist again; `None` if the archive or the user has to make it.
    pub tie: Option<String>,
    /// For a policy: the schema, and table and name as in an archive's tag.
    pub policy: Option<(String, String)>,
    /// For a partition or an inheritance child: it and its parent table, both quoted with their schemas.
    pub joined: Option<(String, String)>,
    /// Who can put it back, if this role cannot.
    pub tied_by: Option<String>,
}

/// For the tables `$1` and `$2`.
pub(super) fn keys_question() -> String {
    format!(
        "WITH RECURSIVE chosen AS ({CHOSEN}), touching AS (
           SELECT c.oid, c.conparentid FROM pg_catalog.pg_constraint c
            WHERE c.contype = 'f' AND (c.conrelid IN (SELECT oid FROM chosen) OR c.confrelid IN (SELECT oid FROM chosen))
           UNION SELECT p.oid, p.conparentid FROM touching t JOIN pg_catalog.pg_constraint p ON p.oid = t.conparentid)
         SELECT n.nspname::pg_catalog.text, r.relname::pg_catalog.text, c.conname::pg_catalog.text,
                pg_catalog.format('%I.%I', n.nspname, r.relname), fn.nspname::pg_catalog.text, f.relname::pg_catalog.text,
                pg_catalog.pg_get_constraintdef(c.oid), pg_catalog.obj_description(c.oid, 'pg_constraint'),
                c.conrelid IN (SELECT oid FROM chosen), pg_catalog.pg_has_role(r.relowner, 'USAGE'),
                pg_catalog.pg_has_role(f.relowner, 'USAGE'),
                EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgconstraint = c.oid AND g.tgenabled = 'D')
           FROM touching t JOIN pg_catalog.pg_constraint c ON c.oid = t.oid
           JOIN pg_catalog.pg_class r ON r.oid = c.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
           JOIN pg_catalog.pg_class f ON f.oid = c.confrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
          WHERE c.conparentid = 0 ORDER BY 4, 3"
    )
}

pub(super) fn triggers_question(major: u32, emptied: bool) -> String {
    // pg_trigger.h: 4 is for INSERT, 32 for TRUNCATE.
    let events = if emptied { 4 | 32 } else { 4 };
    // Before 15, a partition's copy of its root's trigger counts as internal.
    let copies = if (13..15).contains(&major) {
        "OR (g.tgparentid <> 0 AND g.tgconstraint = 0)"
    } else {
        ""
    };
    format!(
        "WITH chosen AS ({CHOSEN}), filled AS (
           SELECT oid FROM chosen UNION
           SELECT t.relid FROM chosen, pg_catalog.pg_partition_tree(chosen.oid) t)
         SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), g.tgname::pg_catalog.text, g.tgenabled::pg_catalog.text,
                pg_catalog.pg_has_role(c.relowner, 'USAGE')
           FROM filled JOIN pg_catalog.pg_trigger g ON g.tgrelid = filled.oid
           JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE (NOT g.tgisinternal {copies}) AND g.tgenabled <> 'D' AND g.tgtype & {events} <> 0 ORDER BY 1, 2"
    )
}

/// `tgenabled` in the words of ALTER TABLE.
pub(super) fn state(enabled: &str) -> &'static str {
    match enabled {
        "A" => "ENABLE ALWAYS",
        "R" => "ENABLE REPLICA",
        _ => "ENABLE",
    }
}

impl Session {
    pub(super) async fn about(&self, tables: &Names, question: &str) -> Result<Vec<Row>> {
        let (schemas, names): (Vec<&str>, Vec<&str>) = tables
            .iter()
            .map(|(schema, name)| (schema.as_str(), name.as_str()))
            .unzip();
        match self.client.query(question, &[&schemas, &names]).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                let holders = self.holders(tables).await;
                Err(held("the tables could not be looked at", &holders))
            }
            rows => rows.map_err(|error| self.error("cannot look at the objects around the tables", &error)),
        }
    }

    pub(super) fn read<T>(&self, read: std::result::Result<T, tokio_postgres::Error>) -> Result<T> {
        read.map_err(|error| self.error("cannot look at the objects around the tables", &error))
    }

    /// Foreign keys from and to these tables. Those of partitions belong to their roots' keys.
    pub(crate) async fn foreign_keys(&self, tables: &Names) -> Result<Vec<ForeignKey>> {
        let question = keys_question();
        let key = |row: &Row| {
            Ok(ForeignKey {
                of: (row.try_get(0)?, row.try_get(1)?),
                name: row.try_get(2)?,
                table: row.try_get(3)?,
                to: (row.try_get(4)?, row.try_get(5)?),
                definition: row.try_get(6)?,
                comment: row.try_get(7)?,
                copies: Vec::new(),
                is_own: row.try_get(8)?,
                is_ours: row.try_get(9)?,
                to_is_ours: row.try_get(10)?,
                is_disabled: row.try_get(11)?,
            })
        };
        let rows = self.about(tables, &question).await?;
        let mut keys: Vec<ForeignKey> = self.read(rows.iter().map(key).collect())?;
        // A copy has its root's name, unless it was renamed or existed before the root's.
        let question = format!(
            "WITH RECURSIVE chosen AS ({CHOSEN}), touching AS (
               SELECT c.oid, c.conparentid FROM pg_catalog.pg_constraint c
                WHERE c.contype = 'f' AND (c.conrelid IN (SELECT oid FROM chosen) OR c.confrelid IN (SELECT oid FROM chosen))
               UNION SELECT p.oid, p.conparentid FROM touching t JOIN pg_catalog.pg_constraint p ON p.oid = t.conparentid), below AS (
               SELECT t.oid AS root, t.oid AS oid, 0 AS depth FROM touching t WHERE t.conparentid = 0
               UNION ALL SELECT b.root, c.oid, b.depth + 1 FROM below b JOIN pg_catalog.pg_constraint c ON c.conparentid = b.oid
                  JOIN pg_catalog.pg_constraint r ON r.oid = b.root WHERE c.confrelid = r.confrelid)
             SELECT pg_catalog.format('%I.%I', rn.nspname, rr.relname), r.conname::pg_catalog.text, n.nspname::pg_catalog.text,
                    t.relname::pg_catalog.text, pg_catalog.format('%I.%I', n.nspname, t.relname), c.conname::pg_catalog.text,
                    pg_catalog.pg_get_constraintdef(c.oid), pg_catalog.obj_description(c.oid, 'pg_constraint')
               FROM below b JOIN pg_catalog.pg_constraint c ON c.oid = b.oid JOIN pg_catalog.pg_constraint r ON r.oid = b.root
               JOIN pg_catalog.pg_class t ON t.oid = c.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
               JOIN pg_catalog.pg_class rr ON rr.oid = r.conrelid JOIN pg_catalog.pg_namespace rn ON rn.oid = rr.relnamespace
              WHERE b.depth > 0 AND pg_catalog.pg_has_role(t.relowner, 'USAGE')
                AND (c.conname <> r.conname OR pg_catalog.obj_description(c.oid, 'pg_constraint') IS NOT NULL)
              ORDER BY b.depth DESC, 5, 6"
        );
        let copy = |row: &Row| {
            let root: (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let copy = ForeignKeyCopy {
                of: (row.try_get(2)?, row.try_get(3)?),
                table: row.try_get(4)?,
                name: row.try_get(5)?,
                definition: row.try_get(6)?,
                comment: row.try_get(7)?,
            };
            Ok((root, copy))
        };
        let rows = self.about(tables, &question).await?;
        let copies: Vec<((String, String), ForeignKeyCopy)> = self.read(rows.iter().map(copy).collect())?;
        for ((table, name), copy) in copies {
            let key = keys.iter_mut().find(|key| key.table == table && key.name == name);
            if let Some(key) = key {
                key.copies.push(copy);
            }
        }
        Ok(keys)
    }

    /// Triggers of these tables and their partitions that fire when rows are inserted and, if the tables are emptied,
    /// when they are truncated.
    pub(crate) async fn triggers(&self, tables: &Names, emptied: bool) -> Result<Vec<TableTrigger>> {
        let question = triggers_question(self.server.major, emptied);
        let trigger = |row: &Row| {
            Ok(TableTrigger {
                table: row.try_get(0)?,
                name: row.try_get(1)?,
                state: state(row.try_get(2)?),
                is_ours: row.try_get(3)?,
            })
        };
        let rows = self.about(tables, &question).await?;
        self.read(rows.iter().map(trigger).collect())
    }

    /// Whether this role may switch off ordinary triggers in its session.
    pub(crate) async fn may_replicate(&self) -> bool {
        self.attempt("SELECT pg_catalog.set_config('session_replication_role', 'origin', true)")
            .await
            .is_ok()
    }

    /// What a drop of these tables would remove too, without a message.
    pub(crate) async fn around(&self, tables: &Names) -> Result<Vec<Around>> {
        // Older servers publish all columns and rows of a table.
        let publication = if self.server.major < 15 {
            ""
        } else {
            "|| coalesce(' (' || (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum)
                                    FROM pg_catalog.pg_attribute a
                                   WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)) || ')', '')
             || coalesce(' WHERE (' || pg_catalog.pg_get_expr(r.prqual, r.prrelid) || ')', '')"
        };
        let question = format!(
            "WITH chosen AS ({CHOSEN}), named AS (
               SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.relispartition, c.relkind
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace),
             related AS (
               SELECT child.name AS child, parent.name AS parent, child.relispartition, child.relkind, child.oid,
                      i.inhparent IN (SELECT oid FROM chosen) AS parent_goes, i.inhrelid IN (SELECT oid FROM chosen) AS child_goes
                 FROM pg_catalog.pg_inherits i JOIN named child ON child.oid = i.inhrelid JOIN named parent ON parent.oid = i.inhparent
                WHERE child.relkind IN ('r', 'p', 'f'))
             SELECT 1 AS turn, 'partition ' || child AS what,
                    CASE WHEN parent_goes THEN 'ALTER TABLE ' || parent || ' DETACH PARTITION ' || child END,
                    'ALTER TABLE ' || parent || ' ATTACH PARTITION ' || child || ' '
                      || (SELECT pg_catalog.pg_get_expr(c.relpartbound, c.oid) FROM pg_catalog.pg_class c WHERE c.oid = related.oid),
                    NULL::pg_catalog.text, NULL::pg_catalog.text, child, parent, NULL::pg_catalog.text
               FROM related WHERE relispartition AND parent_goes <> child_goes
             UNION ALL
             SELECT 2, 'heir ' || child, CASE WHEN parent_goes THEN 'ALTER TABLE ' || child || ' NO INHERIT ' || parent END,
                    'ALTER TABLE ' || child || ' INHERIT ' || parent, NULL, NULL, child, parent, NULL
               FROM related WHERE NOT relispartition AND parent_goes <> child_goes
             UNION ALL
             SELECT 3, 'sequence ' || s.name, 'ALTER SEQUENCE ' || s.name || ' OWNED BY NONE',
                    'ALTER SEQUENCE ' || s.name || ' OWNED BY ' || t.name || '.' || pg_catalog.quote_ident(a.attname),
                    NULL, NULL, NULL, NULL, NULL
               FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S'
               JOIN named s ON s.oid = d.objid JOIN named t ON t.oid = d.refobjid
               JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
              WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'a'
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                AND d.refobjid IN (SELECT oid FROM chosen) AND d.objid NOT IN (SELECT oid FROM chosen)
             UNION ALL
             SELECT 4, 'membership of ' || t.name || ' in the publication ' || p.pubname, NULL,
                    'ALTER PUBLICATION ' || pg_catalog.quote_ident(p.pubname) || ' ADD TABLE ONLY ' || t.name {publication},
                    NULL, NULL, NULL, NULL,
                    CASE WHEN NOT pg_catalog.pg_has_role(p.pubowner, 'USAGE')
                         THEN pg_catalog.pg_get_userbyid(p.pubowner)::pg_catalog.text END
               FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
               JOIN named t ON t.oid = r.prrelid
              WHERE r.prrelid IN (SELECT oid FROM chosen)
             UNION ALL
             SELECT 5, 'the subscription ' || u.subname || ' to ' || t.name || ' (afterwards: ALTER SUBSCRIPTION '
                      || pg_catalog.quote_ident(u.subname) || ' REFRESH PUBLICATION)', NULL, NULL, NULL, NULL, NULL, NULL,
                    CASE WHEN NOT pg_catalog.pg_has_role(u.subowner, 'USAGE')
                         THEN pg_catalog.pg_get_userbyid(u.subowner)::pg_catalog.text END
               FROM pg_catalog.pg_subscription_rel r JOIN pg_catalog.pg_subscription u ON u.oid = r.srsubid
               JOIN named t ON t.oid = r.srrelid
              WHERE r.srrelid IN (SELECT oid FROM chosen)
             UNION ALL
             SELECT 6, 'the policy ' || o.polname || ' on ' || t.name,
                    'DROP POLICY ' || pg_catalog.quote_ident(o.polname) || ' ON ' || t.name, NULL,
                    n.nspname::pg_catalog.text, c.relname || ' ' || o.polname, NULL, NULL, NULL
               FROM pg_catalog.pg_policy o JOIN pg_catalog.pg_class c ON c.oid = o.polrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN named t ON t.oid = o.polrelid
              WHERE o.polrelid IN (SELECT oid FROM chosen)
             UNION ALL
             SELECT 7, 'the constraint trigger ' || g.tgname || ' on ' || t.name, NULL,
                    pg_catalog.pg_get_triggerdef(g.oid)
                      || CASE g.tgenabled WHEN 'O' THEN '' ELSE '; ALTER TABLE ' || t.name
                         || CASE g.tgenabled WHEN 'D' THEN ' DISABLE' WHEN 'A' THEN ' ENABLE ALWAYS' ELSE ' ENABLE REPLICA' END
                         || ' TRIGGER ' || pg_catalog.quote_ident(g.tgname) END,
                    NULL, NULL, NULL, NULL, NULL
               FROM pg_catalog.pg_trigger g JOIN named t ON t.oid = g.tgrelid
              WHERE NOT g.tgisinternal AND g.tgconstrrelid IN (SELECT oid FROM chosen)
                AND g.tgrelid NOT IN (SELECT oid FROM chosen)
             ORDER BY 1, 2"
        );
        let around = |row: &Row| {
            Ok(Around {
                what: row.try_get(1)?,
                loosen: row.try_get(2)?,
                tie: row.try_get(3)?,
                policy: row.try_get::<_, Option<String>>(4)?.zip(row.try_get(5)?),
                joined: row.try_get::<_, Option<String>>(6)?.zip(row.try_get(7)?),
                tied_by: row.try_get(8)?,
            })
        };
        let rows = self.about(tables, &question).await?;
        self.read(rows.iter().map(around).collect())
    }

    /// Whether a table is a child of another; both named as in [`Around::joined`].
    pub(crate) async fn is_joined(&self, (child, parent): &(String, String)) -> Result<bool> {
        let question = "SELECT EXISTS (SELECT FROM pg_catalog.pg_inherits
            WHERE inhrelid = pg_catalog.to_regclass($1::pg_catalog.text) AND inhparent = pg_catalog.to_regclass($2::pg_catalog.text))";
        let row = self.client.query_one(question, &[child, parent]).await;
        self.read(row.and_then(|row| row.try_get(0)))
    }

    /// The columns of a table that store written values.
    pub(crate) async fn stored_columns(&self, schema: &str, name: &str) -> Result<Vec<String>> {
        let question = format!(
            "WITH chosen AS ({CHOSEN})
             SELECT a.attname::pg_catalog.text FROM chosen JOIN pg_catalog.pg_attribute a ON a.attrelid = chosen.oid
              WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum"
        );
        let rows = self.about(&[(schema.to_owned(), name.to_owned())], &question).await?;
        self.read(rows.iter().map(|row| row.try_get(0)).collect())
    }

    /// The statements that detach objects from these tables before they are removed, for the current state.
    pub(crate) async fn loosening(&self, tables: &Names) -> Result<Vec<String>> {
        let keys = self.foreign_keys(tables).await?;
        let around = self.around(tables).await?;
        let keys = keys.iter().map(ForeignKey::dropping);
        Ok(keys.chain(around.into_iter().filter_map(|one| one.loosen)).collect())
    }

    /// Locks those of these tables that exist.
    pub(crate) async fn lock(&self, tables: &Names) -> std::result::Result<(), tokio_postgres::Error> {
        let (schemas, names): (Vec<&str>, Vec<&str>) = tables
            .iter()
            .map(|(schema, name)| (schema.as_str(), name.as_str()))
            .unzip();
        let question = format!(
            "WITH chosen AS ({CHOSEN})
             SELECT pg_catalog.string_agg('ONLY ' || pg_catalog.format('%I.%I', n.nspname, c.relname), ', '
                                          ORDER BY n.nspname, c.relname)
               FROM chosen JOIN pg_catalog.pg_class c ON c.oid = chosen.oid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'p') AND pg_catalog.pg_has_role(c.relowner, 'USAGE')"
        );
        let row = self.client.query_one(&question, &[&schemas, &names]).await?;
        match row.try_get::<_, Option<String>>(0)? {
            Some(all) => {
                self.client
                    .batch_execute(&format!("LOCK TABLE {all} IN ACCESS EXCLUSIVE MODE"))
                    .await
            }
            None => Ok(()),
        }
    }

    /// Other objects that need these tables and would have to be removed with them: views, functions, policies, in
    /// words.
    pub(crate) async fn dependents(&self, tables: &Names) -> Result<Vec<String>> {
        let question = format!(
            "WITH chosen AS ({CHOSEN}), touched AS (
               SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS class, oid FROM chosen
               UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid FROM pg_catalog.pg_type t
                 WHERE t.typrelid IN (SELECT oid FROM chosen)
               UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.typarray FROM pg_catalog.pg_type t
                 WHERE t.typrelid IN (SELECT oid FROM chosen) AND t.typarray <> 0
               UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid FROM pg_catalog.pg_constraint c
                 WHERE c.conrelid IN (SELECT oid FROM chosen))
             SELECT DISTINCT CASE WHEN rule.ev_class IS NULL
                      THEN pg_catalog.pg_describe_object(d.classid, d.objid, 0)
                      ELSE pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, rule.ev_class, 0) END
               FROM touched JOIN pg_catalog.pg_depend d ON d.refclassid = touched.class AND d.refobjid = touched.oid
               LEFT JOIN pg_catalog.pg_rewrite rule
                 ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND rule.oid = d.objid
               LEFT JOIN pg_catalog.pg_policy policy
                 ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND policy.oid = d.objid
               LEFT JOIN pg_catalog.pg_attrdef def
                 ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND def.oid = d.objid
               LEFT JOIN pg_catalog.pg_trigger trigger
                 ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND trigger.oid = d.objid
              WHERE d.deptype = 'n' AND d.classid NOT IN ('pg_catalog.pg_constraint'::pg_catalog.regclass,
                      'pg_catalog.pg_publication_rel'::pg_catalog.regclass)
                AND NOT (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                         AND (d.objid IN (SELECT oid FROM chosen)
                              OR EXISTS (SELECT FROM pg_catalog.pg_inherits i
                                          WHERE i.inhrelid = d.objid AND i.inhparent = d.refobjid)
                              OR EXISTS (SELECT FROM pg_catalog.pg_index x WHERE x.indexrelid = d.objid)))
                AND coalesce(rule.ev_class, policy.polrelid, def.adrelid, trigger.tgrelid, 0)
                    NOT IN (SELECT oid FROM chosen)
              ORDER BY 1"
        );
        let rows = self.about(tables, &question).await?;
        self.read(rows.iter().map(|row| row.try_get(0)).collect())
    }
}

/// The error for a lock that was not granted in this time; names its holders.
pub(crate) fn not_locked(wait: Duration, what: &str, holders: &[String]) -> Error {
    held(
        &format!("{what} could not be locked within {} s", wait.as_secs()),
        holders,
    )
}

fn held(what: &str, holders: &[String]) -> Error {
    let by = if holders.is_empty() {
        String::new()
    } else {
        format!("; held by {}", holders.join(", "))
    };
    Error::new(Code::RestoreErr, format!("{what}{by}")).hint(
        "let that session end its transaction (or ROLLBACK PREPARED it), or wait longer: BACKUP_LOCK_WAIT_SECONDS",
    )
}
