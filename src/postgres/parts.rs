//! Parts of tables, views and domains that a dump writes either as separate entries or within another entry. Only the
//! catalogs show whether they exist.

use super::{Named, Session};
use crate::error::Result;

/// The kinds that can be looked up. Their entries' names begin with the table's name.
const KINDS: [&str; 7] = [
    "CHECK CONSTRAINT",
    "CONSTRAINT",
    "DEFAULT",
    "FK CONSTRAINT",
    "POLICY",
    "RULE",
    "TRIGGER",
];

impl Session {
    /// Whether each of them exists; `None` for any other kind.
    pub async fn has_parts(&self, asked: &[Named<'_>]) -> Result<Vec<Option<bool>>> {
        let known: Vec<bool> = asked.iter().map(|named| KINDS.contains(&named.kind)).collect();
        let column = |of: fn(&Named<'_>) -> String| asked.iter().map(of).collect::<Vec<_>>();
        let (kinds, schemas, names) = (
            column(|named| named.kind.to_owned()),
            column(|named| named.schema.to_owned()),
            column(|named| named.name.to_owned()),
        );
        let failed = |error| self.error("cannot look for parts of tables", &error);
        let of_relation = "JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.oid =";
        let rows = self
            .client
            .query(
                &format!(
                    "SELECT CASE asked.kind
                       WHEN 'DEFAULT' THEN EXISTS (
                         SELECT FROM pg_catalog.pg_attrdef d {of_relation} d.adrelid
                         JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
                         WHERE pg_catalog.concat(r.relname, ' ', a.attname) = asked.name)
                       WHEN 'POLICY' THEN EXISTS (
                         SELECT FROM pg_catalog.pg_policy p {of_relation} p.polrelid
                         WHERE pg_catalog.concat(r.relname, ' ', p.polname) = asked.name)
                       WHEN 'RULE' THEN EXISTS (
                         SELECT FROM pg_catalog.pg_rewrite w {of_relation} w.ev_class
                         WHERE pg_catalog.concat(r.relname, ' ', w.rulename) = asked.name)
                       WHEN 'TRIGGER' THEN EXISTS (
                         SELECT FROM pg_catalog.pg_trigger t {of_relation} t.tgrelid
                         WHERE pg_catalog.concat(r.relname, ' ', t.tgname) = asked.name)
                       ELSE EXISTS (
                         SELECT FROM pg_catalog.pg_constraint c {of_relation} c.conrelid
                         WHERE pg_catalog.concat(r.relname, ' ', c.conname) = asked.name)
                       OR EXISTS (
                         SELECT FROM pg_catalog.pg_constraint c
                         JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.oid = c.contypid
                         WHERE pg_catalog.concat(t.typname, ' ', c.conname) = asked.name)
                     END
                     FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]),
                                     pg_catalog.unnest($3::pg_catalog.text[]))
                          WITH ORDINALITY AS asked (kind, schema, name, at)
                     LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = asked.schema
                     ORDER BY asked.at"
                ),
                &[&kinds, &schemas, &names],
            )
            .await
            .map_err(failed)?;
        let answer = |(row, known): (&tokio_postgres::Row, bool)| Ok(known.then_some(row.try_get(0)?));
        rows.iter()
            .zip(known)
            .map(answer)
            .collect::<std::result::Result<_, tokio_postgres::Error>>()
            .map_err(failed)
    }
}
