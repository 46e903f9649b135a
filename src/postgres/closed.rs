//! PostgreSQL's own functions that an administrator has revoked from a role, found by the words of a refusal.

use tokio_postgres::Client;

use super::quoting::identifier;

/// The names in a refusal that could be functions. It leaves out the query, which names other functions.
pub(super) fn names_in(words: &str) -> Vec<&str> {
    let said = ["Query was:", "query was:"]
        .iter()
        .filter_map(|start| words.find(start))
        .min()
        .map_or(words, |end| &words[..end]);
    said.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .collect()
}

/// Returns the statement that grants again those of PostgreSQL's own functions that are in these words, that PUBLIC
/// may call by default, and that were revoked from this role. It also runs where pgstow has not set the search path
/// yet, so the query names each operator in full.
pub(super) async fn closed_by_somebody(client: &Client, words: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let named = names_in(words);
    let rows = client
        .query(
            "SELECT pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)),
                    current_user::pg_catalog.text, p.proname::pg_catalog.text
             FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
             WHERE n.nspname OPERATOR(pg_catalog.=) 'pg_catalog' AND p.proacl IS NOT NULL
               AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
               AND NOT EXISTS (
                 SELECT FROM pg_catalog.pg_init_privs i
                 WHERE i.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                   AND i.objoid OPERATOR(pg_catalog.=) p.oid)
             ORDER BY n.nspname, p.proname",
            &[],
        )
        .await?;
    let mut grants = Vec::new();
    for row in rows {
        let (function, role): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let name: String = row.try_get(2)?;
        if named.contains(&name.as_str()) {
            grants.push(format!("GRANT EXECUTE ON FUNCTION {function} TO {}", identifier(&role)));
        }
    }
    let grants = grants.join("; ");
    Ok((!grants.is_empty()).then(|| format!("this role lacks a privilege that every role has by default: {grants}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_any_language_name_the_function_and_the_query_does_not() {
        let german = "query failed: FEHLER:  keine Berechtigung für Funktion lo_open | pg_dump: detail: Query was: SELECT \
                      pg_catalog.pg_get_viewdef('1')";
        assert!(names_in(german).contains(&"lo_open"));
        assert!(!names_in(german).contains(&"pg_get_viewdef"));
        assert!(names_in("関数lo_openへのアクセスが拒否されました").contains(&"lo_open"));
        assert!(!names_in("permission denied for function lo_open_all").contains(&"lo_open"));
    }
}
