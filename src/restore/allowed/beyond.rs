//! Definitions that no role but a superuser may make, wherever they are made: found by their words, and asked of the server.

use crate::archive::Item;
use crate::error::{Code, Error, Result};
use crate::postgres::Deed;
use crate::restore::ready::{Target, some_of};

/// Languages that anybody may write in come with the server, and those of extensions say themselves whether they are safe.
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
            "the role {user} may not make what only a superuser makes: {}",
            some_of(&names, names.len() as u64)
        );
        return Err(Error::new(Code::Permission, what)
            .hint("leave it out, with what needs it, by --exclude KIND:NAME; or restore as a superuser"));
    }
    Ok(())
}

fn deeds(item: &Item) -> Vec<Deed<'_>> {
    let definition = item.details.definition.as_str();
    match item.entry.desc.as_str() {
        "FUNCTION" | "PROCEDURE" => of_function(definition),
        "OPERATOR CLASS" | "OPERATOR FAMILY" => vec![Deed::OperatorClass],
        "SHELL TYPE" => vec![Deed::BaseType],
        "CAST" if definition.contains(" WITHOUT FUNCTION") => vec![Deed::CastAsIs],
        "FOREIGN DATA WRAPPER" => vec![Deed::ForeignDataWrapper],
        "ACCESS METHOD" => vec![Deed::AccessMethod],
        "TEXT SEARCH PARSER" | "TEXT SEARCH TEMPLATE" => vec![Deed::TextSearch],
        _ => Vec::new(),
    }
}

/// What pg_dump writes between a function's result and its body: the language and the options on one line, then each
/// setting on its own.
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
                "CREATE FUNCTION s.f() RETURNS integer\n    LANGUAGE sql IMMUTABLE\n    AS $$SELECT 1$$;",
                vec![],
            ),
        ] {
            assert_eq!(of_function(definition), expected, "{definition}");
        }
    }
}
