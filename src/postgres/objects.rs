//! What objects of the target lose when they are replaced: owners, grants, comments.

use tokio_postgres::Row;

use super::Session;
use super::target::Named;
use crate::error::Result;

/// A property of one of the objects that were asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trait {
    /// The object's index in the list that was asked about.
    pub object: usize,
    pub kind: TraitKind,
    /// The owner, or the grantee.
    pub role: String,
    /// Kind and name of the object, as in a statement.
    pub whole: String,
    pub statement: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TraitKind {
    Owner,
    Grant,
    /// A revoke of privileges that PUBLIC has on such an object by default.
    Revoke,
    Comment,
}

impl Session {
    /// Of the objects that exist. Of relations only the owner.
    pub(crate) async fn traits(&self, objects: &[Named<'_>]) -> Result<Vec<Trait>> {
        let failed = |error| self.error("cannot look at owners and grants", &error);
        let column = |of: fn(&Named<'_>) -> String| objects.iter().map(of).collect::<Vec<_>>();
        let kinds = column(|named| named.kind.to_owned());
        let schemas = column(|named| named.schema.to_owned());
        let names = column(|named| named.name.to_owned());
        let question = "WITH asked AS (
               SELECT x.kind, x.schema, x.name, x.turn
                 FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]),
                                 pg_catalog.unnest($3::pg_catalog.text[])) WITH ORDINALITY AS x (kind, schema, name, turn)),
             routine AS (
               SELECT p.oid, n.nspname::pg_catalog.text AS schema, p.proowner, p.proacl,
                      p.proname || '(' || CASE WHEN p.prokind = 'a' AND p.pronargs = 0 THEN '*' ELSE
                        pg_catalog.array_to_string(ARRAY(
                          SELECT pg_catalog.format_type(u.t, NULL) FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS u (t, at)
                           ORDER BY u.at), ', ') END || ')' AS tag
                 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                WHERE n.nspname::pg_catalog.text IN (SELECT a.schema FROM asked a
                                                      WHERE a.kind IN ('FUNCTION', 'PROCEDURE', 'AGGREGATE'))),
             object AS (
               SELECT a.turn, 'SCHEMA ' || pg_catalog.quote_ident(n.nspname) AS whole, n.nspowner AS owner, n.nspacl AS acl,
                      pg_catalog.acldefault('n', n.nspowner) AS given, pg_catalog.obj_description(n.oid, 'pg_namespace') AS comment
                 FROM asked a JOIN pg_catalog.pg_namespace n ON n.nspname::pg_catalog.text = a.name WHERE a.kind = 'SCHEMA'
               UNION ALL
               SELECT a.turn, 'ROUTINE ' || r.oid::pg_catalog.regprocedure::pg_catalog.text, r.proowner, r.proacl,
                      pg_catalog.acldefault('f', r.proowner), pg_catalog.obj_description(r.oid, 'pg_proc')
                 FROM asked a JOIN routine r ON r.schema = a.schema AND r.tag = a.name
                WHERE a.kind IN ('FUNCTION', 'PROCEDURE', 'AGGREGATE')
               UNION ALL
               SELECT a.turn, 'TYPE ' || pg_catalog.format('%I.%I', n.nspname, t.typname), t.typowner, t.typacl,
                      pg_catalog.acldefault('T', t.typowner), pg_catalog.obj_description(t.oid, 'pg_type')
                 FROM asked a JOIN pg_catalog.pg_namespace n ON n.nspname::pg_catalog.text = a.schema
                 JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname::pg_catalog.text = a.name
                WHERE a.kind IN ('TYPE', 'DOMAIN')
               UNION ALL
               SELECT a.turn, 'LANGUAGE ' || pg_catalog.quote_ident(l.lanname), l.lanowner, l.lanacl,
                      pg_catalog.acldefault('l', l.lanowner), pg_catalog.obj_description(l.oid, 'pg_language')
                 FROM asked a JOIN pg_catalog.pg_language l ON l.lanname::pg_catalog.text = a.name
                WHERE a.kind = 'PROCEDURAL LANGUAGE'
               UNION ALL
               SELECT a.turn, 'FOREIGN DATA WRAPPER ' || pg_catalog.quote_ident(w.fdwname), w.fdwowner, w.fdwacl,
                      pg_catalog.acldefault('F', w.fdwowner), pg_catalog.obj_description(w.oid, 'pg_foreign_data_wrapper')
                 FROM asked a JOIN pg_catalog.pg_foreign_data_wrapper w ON w.fdwname::pg_catalog.text = a.name
                WHERE a.kind = 'FOREIGN DATA WRAPPER'
               UNION ALL
               SELECT a.turn, 'FOREIGN SERVER ' || pg_catalog.quote_ident(s.srvname), s.srvowner, s.srvacl,
                      pg_catalog.acldefault('S', s.srvowner), pg_catalog.obj_description(s.oid, 'pg_foreign_server')
                 FROM asked a JOIN pg_catalog.pg_foreign_server s ON s.srvname::pg_catalog.text = a.name
                WHERE a.kind = 'SERVER'
               UNION ALL
               SELECT a.turn, CASE c.relkind WHEN 'v' THEN 'VIEW ' WHEN 'm' THEN 'MATERIALIZED VIEW ' WHEN 'S' THEN 'SEQUENCE '
                                ELSE 'TABLE ' END || pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner, NULL, NULL, NULL
                 FROM asked a JOIN pg_catalog.pg_namespace n ON n.nspname::pg_catalog.text = a.schema
                 JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname::pg_catalog.text = a.name
                WHERE a.kind IN ('TABLE', 'FOREIGN TABLE', 'VIEW', 'MATERIALIZED VIEW', 'SEQUENCE'))
             SELECT o.turn, 'owner', pg_catalog.pg_get_userbyid(o.owner)::pg_catalog.text AS role, o.whole,
                    'ALTER ' || CASE WHEN o.whole LIKE 'FOREIGN SERVER %' THEN pg_catalog.substr(o.whole, 9) ELSE o.whole END
                      || ' OWNER TO ' || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(o.owner))
               FROM object o
             UNION ALL
             SELECT g.turn, 'grant', g.role, g.whole, 'GRANT ' || pg_catalog.string_agg(DISTINCT g.privilege_type, ', ') || ' ON '
                      || g.whole || ' TO ' || CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(g.role) END
               FROM (SELECT o.turn, o.whole, x.grantee, x.privilege_type, CASE x.grantee WHEN 0 THEN 'PUBLIC'
                              ELSE pg_catalog.pg_get_userbyid(x.grantee)::pg_catalog.text END AS role
                       FROM object o, pg_catalog.aclexplode(o.acl) x
                      WHERE x.grantee <> o.owner
                        AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(o.given) d
                                         WHERE d.grantee = x.grantee AND d.privilege_type = x.privilege_type)) AS g
              GROUP BY g.turn, g.role, g.whole, g.grantee
             UNION ALL
             SELECT o.turn, 'revoke', 'PUBLIC', o.whole, 'REVOKE ' || d.privilege_type || ' ON ' || o.whole || ' FROM PUBLIC'
               FROM object o, pg_catalog.aclexplode(o.given) d
              WHERE o.acl IS NOT NULL AND d.grantee = 0
                AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(o.acl) x
                                 WHERE x.grantee = 0 AND x.privilege_type = d.privilege_type)
             UNION ALL
             SELECT o.turn, 'comment', '', o.whole,
                    'COMMENT ON ' || CASE WHEN o.whole LIKE 'FOREIGN SERVER %' THEN pg_catalog.substr(o.whole, 9) ELSE o.whole END
                      || ' IS ' || pg_catalog.quote_literal(o.comment)
               FROM object o WHERE o.comment IS NOT NULL
             ORDER BY 1, 2, 3";
        let rows = self.client.query(question, &[&kinds, &schemas, &names]).await;
        let rows = rows.map_err(failed)?;
        let read: std::result::Result<Vec<Trait>, _> = rows.iter().map(one).collect();
        read.map_err(failed)
    }

    /// The event triggers of this database that fire when this role changes definitions, by name.
    pub(crate) async fn watching(&self) -> Result<Vec<String>> {
        let failed = |error| self.error("cannot look at the event triggers", &error);
        // From 17 on, superuser sessions such as this one fire none.
        let question = "SELECT e.evtname::pg_catalog.text FROM pg_catalog.pg_event_trigger e
             WHERE e.evtenabled OPERATOR(pg_catalog.=) ANY (ARRAY['O', 'A']::pg_catalog.\"char\"[])
               AND e.evtevent OPERATOR(pg_catalog.<>) 'login'
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_settings s
                                WHERE s.name OPERATOR(pg_catalog.=) 'event_triggers' AND s.setting OPERATOR(pg_catalog.=) 'off')
             ORDER BY 1";
        let rows = self.client.query(question, &[]).await.map_err(failed)?;
        let read = rows.iter().map(|row| row.try_get(0));
        read.collect::<std::result::Result<_, _>>().map_err(failed)
    }

    /// What this role's default privileges grant to others on new objects, or revoke from PUBLIC, in words.
    pub(crate) async fn given_of_new(&self) -> Result<Vec<String>> {
        let failed = |error| self.error("cannot look at default privileges", &error);
        let question = "WITH own AS (
               SELECT d.defaclacl AS acl, d.defaclrole AS owner, d.defaclnamespace OPERATOR(pg_catalog.=) 0 AS is_whole,
                      CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions'
                        WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' ELSE 'large objects' END
                        || coalesce(' in ' || pg_catalog.quote_ident(n.nspname), '') AS what,
                      pg_catalog.acldefault((CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END)::pg_catalog.\"char\",
                                            d.defaclrole) AS given
                 FROM pg_catalog.pg_default_acl d
                 JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) d.defaclrole
                 LEFT JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) d.defaclnamespace
                WHERE r.rolname OPERATOR(pg_catalog.=) current_user)
             SELECT o.what || ' to ' || pg_catalog.string_agg(DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC'
                      ELSE pg_catalog.pg_get_userbyid(x.grantee)::pg_catalog.text END, ', ')
               FROM own o, pg_catalog.aclexplode(o.acl) x
              WHERE x.grantee OPERATOR(pg_catalog.<>) o.owner
                AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(o.given) g
                                 WHERE g.grantee OPERATOR(pg_catalog.=) x.grantee
                                   AND g.privilege_type OPERATOR(pg_catalog.=) x.privilege_type)
              GROUP BY o.what
             UNION ALL
             SELECT DISTINCT o.what || ' not to PUBLIC' FROM own o, pg_catalog.aclexplode(o.given) g
              WHERE o.is_whole AND g.grantee OPERATOR(pg_catalog.=) 0
                AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(o.acl) x
                                 WHERE x.grantee OPERATOR(pg_catalog.=) 0
                                   AND x.privilege_type OPERATOR(pg_catalog.=) g.privilege_type)
             ORDER BY 1";
        let rows = self.client.query(question, &[]).await.map_err(failed)?;
        let read = rows.iter().map(|row| row.try_get(0));
        read.collect::<std::result::Result<_, _>>().map_err(failed)
    }

    /// The grantees on these large objects, other than their owners.
    pub(crate) async fn granted_large_objects(&self, large_objects: &[u32]) -> Result<Vec<(u32, String)>> {
        let failed = |error| self.error("cannot look at grants on large objects", &error);
        let question = "SELECT DISTINCT m.oid, CASE x.grantee WHEN 0 THEN 'PUBLIC'
                    ELSE pg_catalog.pg_get_userbyid(x.grantee)::pg_catalog.text END
               FROM pg_catalog.pg_largeobject_metadata m JOIN LATERAL pg_catalog.aclexplode(m.lomacl) AS x ON true
              WHERE m.oid = ANY ($1) AND x.grantee <> m.lomowner ORDER BY 1, 2";
        let rows = self.client.query(question, &[&large_objects]).await.map_err(failed)?;
        let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        read.collect::<std::result::Result<_, _>>().map_err(failed)
    }
}

fn one(row: &Row) -> std::result::Result<Trait, tokio_postgres::Error> {
    let turn: i64 = row.try_get(0)?;
    let kind: &str = row.try_get(1)?;
    Ok(Trait {
        object: usize::try_from(turn - 1).unwrap_or_default(),
        kind: match kind {
            "owner" => TraitKind::Owner,
            "grant" => TraitKind::Grant,
            "revoke" => TraitKind::Revoke,
            _ => TraitKind::Comment,
        },
        role: row.try_get(2)?,
        whole: row.try_get(3)?,
        statement: row.try_get(4)?,
    })
}
