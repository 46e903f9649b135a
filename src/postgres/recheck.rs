//! Checks the objects around tables once more in the session that has locked them: any other session would wait for
//! it.

use std::collections::BTreeSet;

use super::quoting::literal;
use super::refusal::Refusal;
use super::surroundings::{ForeignKey, TableTrigger, keys_question, state, triggers_question};
use super::tables::Names;
use super::wire::Wire;

impl Wire {
    /// A foreign key or trigger of these tables that was added, dropped or changed since they were listed. The
    /// session's encoding is UTF-8.
    pub(crate) async fn changed_around(
        &mut self,
        tables: &Names,
        keys: &[ForeignKey],
        triggers: &[TableTrigger],
        (major, emptied): (u32, bool),
    ) -> Result<Option<String>, Refusal> {
        let listed = keys.iter().map(|key| {
            let what = format!("the foreign key {} of {}", key.name, key.table);
            (what, key.definition.clone())
        });
        let listed = listed.chain(triggers.iter().map(|trigger| {
            let what = format!("the trigger {} on {}", trigger.name, trigger.table);
            (what, trigger.state.to_owned())
        }));
        let listed: BTreeSet<(String, String)> = listed.collect();
        let mut now = BTreeSet::new();
        for row in self.query(with_names(&keys_question(), tables).as_bytes()).await? {
            let text = |column| row.text(column).unwrap_or_default();
            now.insert((
                format!("the foreign key {} of {}", text(2), text(3)),
                text(6).to_owned(),
            ));
        }
        let question = triggers_question(major, emptied);
        for row in self.query(with_names(&question, tables).as_bytes()).await? {
            let text = |column| row.text(column).unwrap_or_default();
            now.insert((
                format!("the trigger {} on {}", text(1), text(0)),
                state(text(2)).to_owned(),
            ));
        }
        let changed = now.symmetric_difference(&listed).next();
        Ok(changed.map(|(what, _)| what.clone()))
    }

    /// Whether this table has triggers that fire when rows are inserted, and none of them fires in a session with the
    /// role `replica`. The session's encoding is UTF-8.
    pub(crate) async fn falls_silent(&mut self, (schema, name): &(String, String)) -> Result<bool, Refusal> {
        // pg_trigger.h: 4 is for INSERT.
        let question = format!(
            "SELECT coalesce(pg_catalog.bool_and(g.tgenabled OPERATOR(pg_catalog.=) 'O'), false)
               FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
               JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
              WHERE n.nspname OPERATOR(pg_catalog.=) {} AND c.relname OPERATOR(pg_catalog.=) {}
                AND NOT g.tgisinternal AND g.tgenabled OPERATOR(pg_catalog.<>) 'D'
                AND (g.tgtype OPERATOR(pg_catalog.&) 4::pg_catalog.int2) OPERATOR(pg_catalog.<>) 0",
            literal(schema),
            literal(name)
        );
        let rows = self.query(question.as_bytes()).await?;
        Ok(rows.first().and_then(|row| row.text(0)) == Some("t"))
    }
}

/// A query with the names in its text: a simple query has no parameters.
fn with_names(question: &str, tables: &Names) -> String {
    let list = |of: fn(&(String, String)) -> &String| {
        let texts: Vec<String> = tables.iter().map(|table| literal(of(table))).collect();
        format!("ARRAY[{}]", texts.join(", "))
    };
    let (schemas, names) = (list(|table| &table.0), list(|table| &table.1));
    // Each parameter occurs once; replace both at once, because a name may contain the text of either.
    let (before, rest) = question.split_once("$1").unwrap_or((question, ""));
    let (between, after) = rest.split_once("$2").unwrap_or((rest, ""));
    format!("{before}{schemas}{between}{names}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_the_places_of_the_parameters_whatever_they_are() {
        let tables = [("$2".to_owned(), "it's".to_owned()), ("a".to_owned(), "$1".to_owned())];
        let question = with_names("SELECT $1::x, $2::x", &tables);
        assert_eq!(question, "SELECT ARRAY['$2', 'a']::x, ARRAY['it''s', '$1']::x");
    }
}
