//! Which versions of which libraries a server uses to sort text.

mod versions;

use super::Session;
pub use versions::{Collation, sorted_otherwise};

/// The most that a manifest contains; no database uses more.
const MOST: usize = 1_000;
/// The most that a target server is asked about: for each it has to search its own collations.
const ASKED: usize = 100;
/// No name of a locale, and no version, is longer.
const LONGEST: usize = 100;

/// The locale in a row of a catalog, as JSON: its column has had several names.
const LOCALE: &str = "coalesce(j->>'colllocale', j->>'colliculocale', j->>'collcollate')";

impl Session {
    /// The versioned collations that the database uses, its own first; `None` if the server does not report them.
    pub async fn collations(&self) -> Option<Vec<Collation>> {
        let question = format!(
            "WITH used AS (
               SELECT a.attcollation AS oid FROM pg_catalog.pg_attribute a WHERE a.attrelid >= 16384
               UNION SELECT pg_catalog.unnest(i.indcollation::pg_catalog.oid[])
                       FROM pg_catalog.pg_index i WHERE i.indexrelid >= 16384
               UNION SELECT pg_catalog.unnest(p.partcollation::pg_catalog.oid[])
                       FROM pg_catalog.pg_partitioned_table p
               UNION SELECT t.typcollation FROM pg_catalog.pg_type t WHERE t.oid >= 16384),
             known AS (
               SELECT NULL::pg_catalog.text AS name, j->>'datlocprovider' AS provider,
                      coalesce(j->>'datlocale', j->>'daticulocale', j->>'datcollate') AS locale,
                      j->>'datcollversion' AS version
                 FROM (SELECT pg_catalog.to_jsonb(d) FROM pg_catalog.pg_database d
                        WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) AS database (j)
               UNION ALL
               SELECT pg_catalog.concat(pg_catalog.quote_ident(n.nspname), '.', pg_catalog.quote_ident(c.collname)),
                      j->>'collprovider', {LOCALE}, j->>'collversion'
                 FROM used u JOIN pg_catalog.pg_collation c ON c.oid OPERATOR(pg_catalog.=) u.oid
                 JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.collnamespace
                CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(c)) AS one (j)),
             first AS (SELECT k.* FROM known k WHERE k.version IS NOT NULL AND k.locale IS NOT NULL
                        ORDER BY k.name NULLS FIRST LIMIT {MOST})
             SELECT coalesce(pg_catalog.array_agg(coalesce(f.name, '') ORDER BY f.name NULLS FIRST), '{{}}'),
                    coalesce(pg_catalog.array_agg(f.provider ORDER BY f.name NULLS FIRST), '{{}}'),
                    coalesce(pg_catalog.array_agg(f.locale ORDER BY f.name NULLS FIRST), '{{}}'),
                    coalesce(pg_catalog.array_agg(f.version ORDER BY f.name NULLS FIRST), '{{}}')
               FROM first f"
        );
        let row = self.attempt(&question).await.ok()??;
        let column = |index: usize| row.try_get::<_, Vec<String>>(index).ok();
        let (names, providers) = (column(0)?, column(1)?);
        let (locales, versions) = (column(2)?, column(3)?);
        let whats = names.into_iter().zip(providers);
        let whose = locales.into_iter().zip(versions);
        let collation = |((name, provider), (locale, version)): ((String, String), (String, String))| Collation {
            name: Some(name).filter(|name| !name.is_empty()),
            provider: match provider.as_str() {
                "c" => "libc".to_owned(),
                "i" => "icu".to_owned(),
                "b" => "builtin".to_owned(),
                _ => provider,
            },
            locale,
            version,
        };
        Some(whats.zip(whose).map(collation).collect())
    }

    /// Why this server may sort text differently from these collations; `None` if it sorts the same, or if that is
    /// unknown.
    pub async fn sorts_otherwise(&self, source: &[Collation]) -> Option<String> {
        let mut asked: Vec<Collation> = Vec::new();
        for one in source
            .iter()
            .filter(|one| one.locale.len().max(one.version.len()) <= LONGEST)
        {
            let same = |other: &Collation| (&other.provider, &other.locale) == (&one.provider, &one.locale);
            if asked.len() < ASKED && !asked.iter().any(same) {
                asked.push(one.clone());
            }
        }
        if asked.is_empty() {
            return None;
        }
        let source = &asked;
        let providers: Vec<&str> = source.iter().map(|one| one.provider.as_str()).collect();
        let locales: Vec<&str> = source.iter().map(|one| one.locale.as_str()).collect();
        // The system's library has one version for all its locales; ICU has one for each.
        let question = format!(
            "SELECT (SELECT v.version
                       FROM (SELECT pg_catalog.pg_collation_actual_version(c.oid)
                               FROM pg_catalog.pg_collation c
                              CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(c)) AS one (j)
                              WHERE CASE j->>'collprovider' WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu'
                                         WHEN 'b' THEN 'builtin' END OPERATOR(pg_catalog.=) w.provider
                                AND (w.provider OPERATOR(pg_catalog.=) 'libc'
                                     OR {LOCALE} OPERATOR(pg_catalog.=) w.locale)) AS v (version)
                      WHERE v.version IS NOT NULL LIMIT 1)
               FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]))
                    WITH ORDINALITY AS w (provider, locale, place)
              ORDER BY w.place"
        );
        let rows = self
            .client
            .query(question.as_str(), &[&providers, &locales])
            .await
            .ok()?;
        let here: Vec<Option<String>> = rows.iter().map(|row| row.try_get(0).ok().flatten()).collect();
        sorted_otherwise(source, &here)
    }
}
