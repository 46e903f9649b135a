//! Finds definitions that only a superuser may make, in any schema: by their words, and by asking the server.

use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::ready::{Target, some_of};
use crate::postgres::Deed;

/// Languages that every role may use come with the server. Those of extensions have a flag that says whether they are
/// safe.
const SAFE: [&str; 2] = ["sql", "plpgsql"];

pub(super) async fn check(target: &Target, planned: &[&Item]) -> Result<()> {
    let mut asked: Vec<(Deed<'_>, Vec<String>)> = Vec::new();
    for item in planned {
        for deed in deeds(item) {
            match asked.iter_mut().find(|(known, _)| *known == deed) {
                Some((_, names)) => names.push(item.entry.to_string()),
                None => asked.push((deed, vec![item.entry.to_string()])),
            }
        }
    }
    let user = &target.session.server().user;
    for (deed, names) in asked {
        if target.session.may(deed).await? {
            continue;
        }
        let what = format!(
            "the role {user} may not make objects that only a superuser may make: {}",
            some_of(&names, names.len() as u64)
        );
        return Err(Error::new(Code::Permission, what).hint(
            "leave them out, with everything that needs them, by --exclude KIND:NAME; or restore as a superuser",
        ));
    }
    Ok(())
}

fn deeds(item: &Item) -> Vec<Deed<'_>> {
    let definition = item.details.definition.as_str();
    match item.entry.desc.as_str() {
        "FUNCTION" | "PROCEDURE" => of_function(definition),
        "OPERATOR CLASS" | "OPERATOR FAMILY" => vec![Deed::OperatorClass],
        "SHELL TYPE" => vec![Deed::BaseType],
        // Also a type of which only the name was ever made.
        "TYPE" if !COMPOSED.iter().any(|composed| definition.contains(composed)) => vec![Deed::BaseType],
        "CAST" => of_cast(definition),
        "TRANSFORM" if between(definition, " FOR ", " LANGUAGE ").is_some_and(is_own) => vec![Deed::TransformOfOwn],
        "AGGREGATE" if STATES.iter().any(|state| definition.contains(state)) => vec![Deed::AggregateInternal],
        "PROCEDURAL LANGUAGE" if definition.contains(" HANDLER ") => vec![Deed::Language],
        "FOREIGN DATA WRAPPER" => vec![Deed::ForeignDataWrapper],
        "ACCESS METHOD" => vec![Deed::AccessMethod],
        "TEXT SEARCH PARSER" | "TEXT SEARCH TEMPLATE" => vec![Deed::TextSearch],
        _ => Vec::new(),
    }
}

/// What anybody may make a type of.
const COMPOSED: [&str; 3] = [" AS ENUM (", " AS (", " AS RANGE ("];
/// A pointer, which can read any memory.
const STATES: [&str; 2] = ["\n    STYPE = internal", "\n    MSTYPE = internal"];

fn of_cast(definition: &str) -> Vec<Deed<'_>> {
    let mut deeds = Vec::new();
    if definition.contains(" WITHOUT FUNCTION") {
        deeds.push(Deed::CastAsIs);
    }
    // One of the two types must belong to the role.
    if between(definition, " CAST (", ") WITH").is_some_and(is_own) {
        deeds.push(Deed::CastOfOwn);
    }
    deeds
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(between, _)| between)
}

/// pg_dump names the schema of every type except PostgreSQL's own.
fn is_own(types: &str) -> bool {
    !types.contains('.')
}

/// What pg_dump writes between a function's result and its body: the language and the options on one line, then each
/// setting on a line of its own.
fn of_function(definition: &str) -> Vec<Deed<'_>> {
    let mut deeds = Vec::new();
    let Some(at) = definition.find("\n    LANGUAGE ") else {
        return deeds;
    };
    let mut lines = definition[at + 1..].lines();
    let Some(options) = lines.next() else { return deeds };
    let mut words = options.split_whitespace().skip(1);
    if let Some(language) = words.next()
        && !SAFE.contains(&language)
        && !language.starts_with('"')
    {
        deeds.push(Deed::Program(language));
    }
    if options.split_whitespace().any(|word| word == "SUPPORT") {
        deeds.push(Deed::Support);
    }
    if words.any(|word| word == "LEAKPROOF") && !options.contains("NOT LEAKPROOF") {
        deeds.push(Deed::Leakproof);
    }
    let settings = lines.map_while(|line| line.strip_prefix("    SET "));
    for setting in settings {
        let name = setting.split(' ').next().unwrap_or_default().trim_matches('"');
        if !name.is_empty() {
            deeds.push(Deed::SetParameter(name));
        }
    }
    deeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_says_what_it_takes_to_make_it() {
        for (desc, definition, expected) in [
            ("TYPE", "CREATE TYPE s.sh;", vec![Deed::BaseType]),
            (
                "TYPE",
                "CREATE TYPE s.b (\n    INTERNALLENGTH = 4\n);",
                vec![Deed::BaseType],
            ),
            ("TYPE", "CREATE TYPE s.e AS ENUM (\n    'a'\n);", vec![]),
            ("TYPE", "CREATE TYPE s.c AS (\n\ta integer\n);", vec![]),
            ("TYPE", "CREATE TYPE s.r AS RANGE (\n    subtype = integer\n);", vec![]),
            ("CAST", "CREATE CAST (point AS text) WITH INOUT;", vec![Deed::CastOfOwn]),
            ("CAST", "CREATE CAST (s.e AS integer) WITH FUNCTION s.f(s.e);", vec![]),
            (
                "CAST",
                "CREATE CAST (integer AS xml) WITHOUT FUNCTION;",
                vec![Deed::CastAsIs, Deed::CastOfOwn],
            ),
            (
                "TRANSFORM",
                "CREATE TRANSFORM FOR integer LANGUAGE sql (FROM SQL WITH FUNCTION pg_catalog.prsd_lextype(internal));",
                vec![Deed::TransformOfOwn],
            ),
            ("TRANSFORM", "CREATE TRANSFORM FOR s.e LANGUAGE sql ();", vec![]),
            (
                "AGGREGATE",
                "CREATE AGGREGATE s.a(bigint) (\n    SFUNC = int8_avg_accum,\n    STYPE = internal\n);",
                vec![Deed::AggregateInternal],
            ),
            (
                "AGGREGATE",
                "CREATE AGGREGATE s.a(integer) (\n    SFUNC = int4pl,\n    STYPE = integer\n);",
                vec![],
            ),
        ] {
            let item = Item::sample(0, desc, "").defined(definition);
            assert_eq!(deeds(&item), expected, "{definition}");
        }
    }

    #[test]
    fn a_function_says_what_it_takes_to_make_it() {
        for (definition, expected) in [
            (
                "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql LEAKPROOF\n    AS $$LANGUAGE c$$;",
                vec![Deed::Leakproof],
            ),
            (
                "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE plpgsql\n    SET log_min_messages TO 'fatal'\n    AS $$\n    SET x TO 1$$;",
                vec![Deed::SetParameter("log_min_messages")],
            ),
            (
                "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE c STRICT\n    AS 'x', 'y';",
                vec![Deed::Program("c")],
            ),
            (
                "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql SUPPORT generate_series_int4_support\n    AS $$SELECT 1$$;",
                vec![Deed::Support],
            ),
            (
                "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql IMMUTABLE\n    AS $$SELECT 1$$;",
                vec![],
            ),
        ] {
            assert_eq!(of_function(definition), expected, "{definition}");
        }
    }
}
