//! What pg_dump leaves out without an error: pgstow asks for each kind in a question of its own. If the server
//! refuses a question, the result says so, because then something may be missing unseen.

use serde::{Deserialize, Serialize};

use super::Session;
use crate::error::Result;
use crate::format::Format;

/// The most names of one kind that are listed; the rest are counted.
const NAMED: usize = 100;
/// The first OID outside of the catalogs that initdb makes.
const FIRST_OWN_OID: &str = "16384";
const IS_SUPERUSER: &str = "(SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)";

/// Their rows are on another server, so no reader expects them in a backup.
pub const FOREIGN_TABLE: &str = "foreign_table";

/// An object that a restore of the backup will not bring back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omission {
    /// Such as `subscription` or `extension_table`; later versions may have more.
    pub kind: String,
    pub name: String,
    pub why: String,
}

struct Question {
    kind: &'static str,
    why: &'static str,
    /// The query; it gives one name per row.
    text: String,
}

impl Session {
    /// As the snapshot sees it, if one is exported.
    pub async fn left_out(&self, format: Format) -> Result<Vec<Omission>> {
        // Asking for a table's size needs a lock, which another session may hold.
        let failed = |error| self.error("cannot look for what a backup leaves out", &error);
        let limit = |text| self.client.batch_execute(text);
        limit("SET lock_timeout = '1s'").await.map_err(failed)?;
        let mut found = Vec::new();
        let all_mappings = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_user_mapping', 'SELECT')";
        let row = self.attempt(all_mappings).await.ok().flatten();
        let knows_options = row.and_then(|row| row.try_get(0).ok()).unwrap_or(false);
        let of_plain = (format == Format::Plain).then(of_a_plain_dump);
        for question in questions(knows_options).into_iter().chain(of_plain) {
            let Question { kind, why, text } = question;
            let one = |name: String, why: &str| Omission {
                kind: kind.to_owned(),
                name,
                why: why.to_owned(),
            };
            match self.names(&text).await {
                Ok(names) => {
                    let more = names.len().saturating_sub(NAMED);
                    found.extend(names.into_iter().take(NAMED).map(|name| one(name, why)));
                    found.extend((more > 0).then(|| one(format!("{more} more"), why)));
                }
                Err(error) if error.is_closed() => return Err(failed(error)),
                Err(error) => {
                    let why = format!(
                        "pgstow cannot find out whether there are some: {}",
                        failed(error).message()
                    );
                    found.push(one("?".into(), &why));
                }
            }
        }
        limit("SET lock_timeout = 0").await.map_err(failed)?;
        Ok(found)
    }

    /// The names that a question gives, in its order. If the database has no encoding, a name is not text in any
    /// encoding: then its bytes are shown.
    pub(super) async fn names(&self, question: &str) -> Result<Vec<String>, tokio_postgres::Error> {
        let question = format!(
            "SELECT coalesce(pg_catalog.array_agg(
               CASE WHEN pg_catalog.getdatabaseencoding() = 'SQL_ASCII'
                 THEN pg_catalog.encode(pg_catalog.convert_to(x.name, 'SQL_ASCII'), 'escape') ELSE x.name END
               ORDER BY x.name), '{{}}') FROM ({question}) AS x (name)"
        );
        let row = self.attempt(&question).await?;
        row.map_or(Ok(Vec::new()), |row| row.try_get(0))
    }
}

/// An archive contains what belongs to the database itself. A plain script does not, because it can run in any
/// database.
fn of_a_plain_dump() -> Question {
    let this = "pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";
    Question {
        kind: "database",
        why: "a plain dump does not contain it; only a custom dump does",
        text: format!(
            "SELECT pg_catalog.concat('setting ', pg_catalog.split_part(x.setting, '=', 1), ' of role ' || r.rolname)
             FROM pg_catalog.pg_db_role_setting s
             JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase AND d.datname = pg_catalog.current_database()
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
             CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS x (setting)
             UNION ALL SELECT 'privileges' FROM {this} AND d.datacl IS NOT NULL
             UNION ALL SELECT 'comment' FROM {this}
               AND pg_catalog.shobj_description(d.oid, 'pg_database') IS NOT NULL
             UNION ALL SELECT 'security label' FROM {this} AND EXISTS (
               SELECT FROM pg_catalog.pg_shseclabel l
               WHERE l.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass AND l.objoid = d.oid)"
        ),
    }
}

/// Indexes, constraints, triggers, rules, policies, statistics, defaults and columns that were added to tables of an
/// extension. Nothing marks the extension's own. But its script makes each of them in one transaction with a member
/// of the extension, or with its last update, and the rows in pg_depend hold the number (xmin) of that transaction.
///
/// A table's own columns have the number of its system columns, unless privileges, options or a default were changed
/// since. If a configuration table has an added column, its rows do not fit the table that CREATE EXTENSION makes.
///
/// After a pg_upgrade these numbers come from the upgrade, which gives each object its own. Then nothing can be found
/// out, and nothing is reported.
fn additions() -> String {
    let of_kinds =
        "d.classid IN ('pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_trigger'::pg_catalog.regclass,
        'pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass,
        'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass)";
    format!(
        "WITH members AS (
           SELECT e.oid, e.extname, e.xmin AS updated, m.objid, m.classid, m.xmin AS made
           FROM pg_catalog.pg_extension e
           JOIN pg_catalog.pg_depend m ON m.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
             AND m.refobjid = e.oid AND m.deptype = 'e'
         ), known AS (
           SELECT m.oid FROM members m GROUP BY m.oid HAVING pg_catalog.count(*) = 1
             OR pg_catalog.count(*) > pg_catalog.count(DISTINCT m.made::pg_catalog.text)
         )
         SELECT DISTINCT pg_catalog.concat(i.type, ' ', i.identity, ' of ', m.extname)
         FROM members m JOIN known k ON k.oid = m.oid
         JOIN pg_catalog.pg_class c ON m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = m.objid
           AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
         JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid
           AND d.deptype IN ('a', 'i') AND d.xmin <> m.updated
         CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) AS i
         WHERE ({of_kinds} OR d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
             AND EXISTS (SELECT FROM pg_catalog.pg_class x WHERE x.oid = d.objid AND x.relkind IN ('i', 'I')))
           AND NOT EXISTS (SELECT FROM members o WHERE o.oid = m.oid AND o.made = d.xmin)
           AND NOT EXISTS (SELECT FROM members o WHERE o.classid = d.classid AND o.objid = d.objid)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t
             WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = d.objid AND t.tgisinternal)
         UNION ALL
         SELECT pg_catalog.concat('table column ', pg_catalog.format('%I.%I.%I', n.nspname, c.relname, a.attname), ' of ',
                  m.extname)
         FROM members m JOIN known k ON k.oid = m.oid
         JOIN pg_catalog.pg_class c ON m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = m.objid
           AND c.relkind IN ('r', 'p')
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid AND t.attname = 'tableoid'
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           AND a.xmin <> t.xmin AND a.xmin <> m.updated AND a.attacl IS NULL AND a.attoptions IS NULL
           AND coalesce(a.attstattarget, -1) = -1
         WHERE NOT EXISTS (SELECT FROM members o WHERE o.oid = m.oid AND o.made = a.xmin)
           -- What is added stands behind all others; one of the extension's own may have been altered.
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute b
             WHERE b.attrelid = a.attrelid AND b.attnum > a.attnum AND b.xmin = t.xmin)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_attrdef f
             WHERE f.adrelid = c.oid AND f.adnum = a.attnum AND f.xmin = a.xmin)"
    )
}

/// Mappings that were added to one of PostgreSQL's own text search configurations, to dictionaries that are not its
/// own; and operators or functions that were added directly to one of its own operator families. An operator class's
/// are saved with the class; an extension's come with the extension.
fn added_to_the_systems() -> String {
    let of_family = |catalog: &str, family: &str, object: &str, class: &str, word: &str| {
        format!(
            "SELECT pg_catalog.concat('{word} ', m.{object}::pg_catalog.{class}, ' of operator family ',
                      pg_catalog.format('%I.%I', n.nspname, f.opfname))
             FROM pg_catalog.{catalog} m JOIN pg_catalog.pg_opfamily f ON f.oid = m.{family}
             JOIN pg_catalog.pg_namespace n ON n.oid = f.opfnamespace
             WHERE m.oid >= {FIRST_OWN_OID} AND f.oid < {FIRST_OWN_OID}
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                 WHERE d.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass AND d.objid = m.oid
                   AND (d.deptype = 'e' OR d.refclassid = 'pg_catalog.pg_opclass'::pg_catalog.regclass))
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                 WHERE d.objid = m.{object}::pg_catalog.oid AND d.deptype = 'e')"
        )
    };
    let operators = of_family("pg_amop", "amopfamily", "amopopr", "regoperator", "operator");
    let functions = of_family("pg_amproc", "amprocfamily", "amproc", "regprocedure", "function");
    format!(
        "SELECT DISTINCT pg_catalog.concat('mapping of text search configuration ',
                  pg_catalog.format('%I.%I', n.nspname, c.cfgname), ' to ', pg_catalog.format('%I.%I', dn.nspname, t.dictname))
         FROM pg_catalog.pg_ts_config_map m JOIN pg_catalog.pg_ts_config c ON c.oid = m.mapcfg
         JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace
         JOIN pg_catalog.pg_ts_dict t ON t.oid = m.mapdict JOIN pg_catalog.pg_namespace dn ON dn.oid = t.dictnamespace
         WHERE c.oid < {FIRST_OWN_OID} AND t.oid >= {FIRST_OWN_OID}
         UNION ALL {operators} UNION ALL {functions}"
    )
}

/// Objects other than relations and functions in one of PostgreSQL's own schemas. A cast has no schema, and is saved.
fn placed_by_others(of_the_system: &str) -> String {
    let catalogs = [
        ("pg_operator", "oprnamespace", "true"),
        ("pg_collation", "collnamespace", "true"),
        ("pg_conversion", "connamespace", "true"),
        ("pg_opclass", "opcnamespace", "true"),
        ("pg_opfamily", "opfnamespace", "true"),
        ("pg_statistic_ext", "stxnamespace", "true"),
        ("pg_ts_config", "cfgnamespace", "true"),
        ("pg_ts_dict", "dictnamespace", "true"),
        ("pg_ts_parser", "prsnamespace", "true"),
        ("pg_ts_template", "tmplnamespace", "true"),
        // The row types of tables, array types and multiranges come with the object that they belong to.
        (
            "pg_type",
            "typnamespace",
            "o.typtype <> 'm' AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = o.oid)
               AND (o.typrelid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = o.typrelid AND c.relkind = 'c'))",
        ),
    ];
    let one = |(catalog, schema, which): (&str, &str, &str)| {
        format!(
            "SELECT 'pg_catalog.{catalog}'::pg_catalog.regclass::pg_catalog.oid, o.oid, o.{schema}
             FROM pg_catalog.{catalog} o WHERE o.oid >= {FIRST_OWN_OID} AND {which}"
        )
    };
    format!(
        "SELECT pg_catalog.concat(i.type, ' ', i.identity) FROM ({}) AS o (classid, oid, schema)
         JOIN pg_catalog.pg_namespace n ON n.oid = o.schema
         CROSS JOIN LATERAL pg_catalog.pg_identify_object(o.classid, o.oid, 0) AS i
         WHERE {of_the_system} AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
           WHERE d.classid = o.classid AND d.objid = o.oid AND d.deptype = 'e')",
        catalogs.map(one).join(" UNION ALL ")
    )
}

fn questions(knows_options: bool) -> Vec<Question> {
    let known_options = if knows_options {
        "EXISTS (SELECT FROM pg_catalog.pg_user_mapping m WHERE m.oid = u.umid AND m.umoptions IS NOT NULL)"
    } else {
        "true"
    };
    let relation = "pg_catalog.format('%I.%I', n.nspname, c.relname)";
    let relations = "pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";
    let members = "EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')";
    let unlogged = |kinds: &str| {
        format!(
            "SELECT {relation} FROM {relations} WHERE pg_catalog.pg_is_in_recovery() AND c.relpersistence = 'u'
             AND c.relkind IN ({kinds}) AND n.nspname NOT LIKE 'pg\\_%' AND NOT {members}"
        )
    };
    let of_the_system =
        "(n.nspname LIKE 'pg\\_%' AND n.nspname !~ '^pg_(toast|temp)' OR n.nspname = 'information_schema')";
    vec![
        Question {
            kind: "subscription",
            why: "only a superuser can save a subscription",
            text: format!(
                "SELECT s.subname::pg_catalog.text FROM pg_catalog.pg_subscription s
                 JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
                 WHERE d.datname = pg_catalog.current_database() AND NOT {IS_SUPERUSER}"
            ),
        },
        Question {
            kind: "user_mapping",
            why: "its options (user and password at the foreign server) are hidden from the role of the backup, \
                  which saves it without them",
            text: format!(
                "SELECT pg_catalog.concat(u.usename, ' on server ', u.srvname) FROM pg_catalog.pg_user_mappings u
                 JOIN pg_catalog.pg_foreign_server s ON s.oid = u.srvid
                 WHERE u.umoptions IS NULL AND NOT {IS_SUPERUSER}
                   AND NOT (u.umuser <> 0 AND u.usename = current_user
                            AND (pg_catalog.pg_has_role(s.srvowner, 'USAGE')
                                 OR pg_catalog.has_server_privilege(s.oid, 'USAGE')))
                   AND NOT (u.umuser = 0 AND pg_catalog.pg_has_role(s.srvowner, 'USAGE'))
                   AND {known_options}"
            ),
        },
        Question {
            kind: "extension_table",
            why: "it is a table of an extension and not one of its configuration tables: a restore makes it by CREATE \
                  EXTENSION, without the rows that were added later",
            text: format!(
                "SELECT pg_catalog.concat({relation}, ' of ', e.extname) FROM {relations}
                 JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                   AND d.objid = c.oid AND d.deptype = 'e'
                 JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                   AND e.oid = d.refobjid
                 WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND NOT c.oid = ANY (coalesce(e.extconfig, '{{}}'))
                   AND pg_catalog.pg_relation_size(c.oid) > 0"
            ),
        },
        Question {
            kind: "extension_sequence",
            why: "it is a sequence of an extension and not configuration: a restore makes it by CREATE EXTENSION, and it \
                  starts anew",
            text: format!(
                "SELECT pg_catalog.concat({relation}, ' of ', e.extname) FROM {relations}
                 JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                   AND d.objid = c.oid AND d.deptype = 'e'
                 JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                   AND e.oid = d.refobjid
                 WHERE c.relkind = 'S' AND NOT c.oid = ANY (coalesce(e.extconfig, '{{}}'))
                   AND CASE c.relkind WHEN 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
                     AND pg_catalog.pg_sequence_last_value(c.oid) IS NOT NULL END"
            ),
        },
        Question {
            kind: "extension_addition",
            why: "it was made on a table of an extension: pg_dump saves only such tables' grants and the rows of \
                  configuration tables, and CREATE EXTENSION makes them without it",
            text: additions(),
        },
        Question {
            kind: "unlogged_table",
            why: "a standby has no rows of an unlogged table: only a backup of the primary can contain them",
            text: unlogged("'r'"),
        },
        Question {
            kind: "unlogged_sequence",
            why: "a standby does not know the state of an unlogged sequence: only a backup of the primary can \
                  contain it",
            text: unlogged("'S'"),
        },
        Question {
            kind: "sequence",
            why: "the role may not read its state, and some versions of pg_dump then leave the state out",
            text: format!(
                "SELECT {relation} FROM {relations} WHERE c.relkind = 'S' AND c.relpersistence <> 't'
                 AND n.nspname NOT LIKE 'pg\\_%' AND NOT {members}
                   AND CASE c.relkind WHEN 'S' THEN NOT pg_catalog.has_sequence_privilege(c.oid, 'SELECT') END"
            ),
        },
        Question {
            kind: "system_schema",
            why: "pg_dump never saves objects in PostgreSQL's own schemas",
            text: format!(
                "SELECT {relation} FROM {relations} WHERE c.oid >= {FIRST_OWN_OID} AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
                   AND {of_the_system} AND NOT {members}
                 UNION ALL
                 SELECT pg_catalog.concat(pg_catalog.format('%I.%I', n.nspname, p.proname), '()')
                 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                 WHERE p.oid >= {FIRST_OWN_OID} AND {of_the_system} AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                   WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e')
                 UNION ALL {}
                 UNION ALL {}",
                placed_by_others(of_the_system),
                added_to_the_systems()
            ),
        },
        // An index that is still being built is not usable yet, so it is not reported.
        Question {
            kind: "invalid_index",
            why: "it is invalid, as a failed CREATE INDEX CONCURRENTLY leaves it: pg_dump saves no invalid index",
            text: format!(
                "SELECT {relation} FROM {relations} JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
                 JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
                 WHERE NOT ((i.indisvalid OR t.relkind = 'p') AND i.indisready) AND c.relpersistence <> 't'
                   AND n.nspname NOT LIKE 'pg\\_%' AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p
                     WHERE p.index_relid = i.indexrelid)"
            ),
        },
        Question {
            kind: FOREIGN_TABLE,
            why: "its rows are on another server: the backup contains only its definition",
            text: format!("SELECT {relation} FROM {relations} WHERE c.relkind = 'f' AND NOT {members}"),
        },
    ]
}
