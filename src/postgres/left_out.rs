//! What pg_dump leaves out and does not say, or says in passing: found by our own questions, each by
//! itself. One that the server refuses is told as such: what is not known to be there may be missing.

use super::Session;
use crate::error::Result;
use crate::manifest::LeftOut;
use crate::settings::Format;

/// Of one kind. What is more is counted.
const NAMED: usize = 100;
/// Not in the catalogs that initdb makes.
const FIRST_OWN_OID: &str = "16384";
const IS_SUPERUSER: &str = "(SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)";

/// Where rows are elsewhere, and nobody would look for them in a backup.
pub const FOREIGN_TABLE: &str = "foreign_table";

struct Question {
    kind: &'static str,
    why: &'static str,
    /// One name a row.
    text: String,
}

impl Session {
    /// In the view of the snapshot, where one is exported.
    pub async fn left_out(&self, format: Format) -> Result<Vec<LeftOut>> {
        // The size of a table asks for its lock, which somebody may hold.
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
            let one = |name: String, why: &str| LeftOut {
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
                    let why = format!("whether there are some is not known: {}", failed(error).message());
                    found.push(one("?".into(), &why));
                }
            }
        }
        limit("SET lock_timeout = 0").await.map_err(failed)?;
        Ok(found)
    }

    /// The names that a question gives, in their order. Where the database has no encoding, a name is
    /// no text in any: then its bytes are told.
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

/// An archive says of the database itself what a script does not, which is run in any.
fn of_a_plain_dump() -> Question {
    let this = "pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";
    Question {
        kind: "database",
        why: "a plain dump says nothing of the database itself, only a custom one does",
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
                  EXTENSION, without the rows that have come since",
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
                  begins anew",
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
            kind: "unlogged_table",
            why: "a standby has no rows of an unlogged table: only a backup of the primary can hold them",
            text: unlogged("'r'"),
        },
        Question {
            kind: "unlogged_sequence",
            why: "a standby does not know the state of an unlogged sequence: only a backup of the primary can hold it",
            text: unlogged("'S'"),
        },
        Question {
            kind: "sequence",
            why: "the role may not read its state, which some versions of pg_dump leave out then",
            text: format!(
                "SELECT {relation} FROM {relations} WHERE c.relkind = 'S' AND c.relpersistence <> 't'
                 AND n.nspname NOT LIKE 'pg\\_%' AND NOT {members}
                   AND CASE c.relkind WHEN 'S' THEN NOT pg_catalog.has_sequence_privilege(c.oid, 'SELECT') END"
            ),
        },
        Question {
            kind: "system_schema",
            why: "what is in a schema of PostgreSQL's own is never saved",
            text: format!(
                "SELECT {relation} FROM {relations} WHERE c.oid >= {FIRST_OWN_OID} AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
                   AND {of_the_system} AND NOT {members}
                 UNION ALL
                 SELECT pg_catalog.concat(pg_catalog.format('%I.%I', n.nspname, p.proname), '()')
                 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                 WHERE p.oid >= {FIRST_OWN_OID} AND {of_the_system} AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                   WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e')"
            ),
        },
        Question {
            kind: FOREIGN_TABLE,
            why: "its rows are on another server: the backup holds its definition alone",
            text: format!("SELECT {relation} FROM {relations} WHERE c.relkind = 'f' AND NOT {members}"),
        },
    ]
}
