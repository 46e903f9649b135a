//! Decides which role makes an entry of the archive in the throwaway server. A role that is no superuser makes
//! everything that can call a function of the backup (a check, an index, a view, a row). The superuser makes objects
//! that only it can make, if that calls no such function. An object that needs the superuser and would call one is not
//! made at all.

use std::collections::{HashMap, HashSet};

use super::outline::{Token, is_clear, name, tokens};
use crate::format::archive::Item;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    Loader,
    Superuser,
    /// Neither role makes it, with the reason.
    None(&'static str),
}

/// Facts about the throwaway server and the walls around it.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Languages in which every role may write functions.
    pub languages: HashSet<String>,
    /// Languages that run only their own code when a function is made in them.
    pub inert_languages: HashSet<String>,
    /// Settings that only a superuser may set.
    pub guarded_settings: HashSet<String>,
    /// Functions in C that extensions made, by schema and name.
    pub native_functions: HashSet<(String, String)>,
    /// Whether the walls also keep native code from this machine's files.
    pub keeps_files: bool,
}

/// Kinds that need a superuser, or the ownership of system objects. Making one evaluates nothing, even if another role
/// has changed the objects that it names.
const KINDS: [&str; 16] = [
    "ACCESS METHOD",
    "ACL",
    "ACL LANGUAGE",
    "CAST",
    "DEFAULT ACL",
    "EVENT TRIGGER",
    "EXTENSION",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "PUBLICATION",
    "PUBLICATION TABLES IN SCHEMA",
    "SCHEMA",
    "SHELL TYPE",
    "SUBSCRIPTION",
    "TRANSFORM",
];

/// Kinds of text search that need a superuser.
const TEXT_SEARCH: [&str; 2] = ["TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE"];

const EXPRESSION: &str =
    "only a superuser can make it, and making it evaluates code of other roles, which a drill never does as superuser";
const NATIVE: &str = "it is native code, and this machine has no wall that keeps such code from its files (Landlock, or \
                      a user of its own)";
const FOREIGN: &str = "only a superuser can make it, but its statement does more than pg_dump writes for this kind";

/// pg_dump writes these into every archive.
const SEARCH_PATH: &str = "SELECT pg_catalog.set_config('search_path', '', false);";
const STANDARD_STRINGS: &str = "SET standard_conforming_strings = 'on';";

pub(super) struct Makers(HashMap<i64, Maker>);

impl Makers {
    pub fn of(items: &[Item], known: &Known) -> Makers {
        let archive = Archive::of(items, known);
        let mut makers: HashMap<i64, Maker> = HashMap::new();
        for item in items {
            makers.insert(item.entry.dump_id, archive.maker(item));
        }
        // The role that made an object also makes its comment, because it must own the object.
        for item in items.iter().filter(|item| item.entry.desc == "COMMENT") {
            let about = item.details.dependencies.iter().filter_map(|id| makers.get(id));
            let superuser = about.into_iter().any(|maker| *maker == Maker::Superuser);
            if superuser {
                makers.insert(item.entry.dump_id, archive.formal(item, Maker::Superuser));
            }
        }
        Makers(makers)
    }

    /// The entries that neither role makes, with the reason.
    pub fn unmade(&self, ids: &[i64]) -> Vec<(i64, &'static str)> {
        let unmade = ids.iter().filter_map(|id| match self.0.get(id) {
            Some(Maker::None(why)) => Some((*id, *why)),
            _ => None,
        });
        unmade.collect()
    }

    /// Groups neighbouring entries of the same maker, and keeps their order.
    pub fn runs(&self, ids: &[i64]) -> Vec<(Maker, Vec<i64>)> {
        let mut runs: Vec<(Maker, Vec<i64>)> = Vec::new();
        for id in ids {
            let maker = self.0.get(id).copied().unwrap_or(Maker::Loader);
            match runs.last_mut() {
                Some((last, run)) if *last == maker => run.push(*id),
                _ => runs.push((maker, vec![*id])),
            }
        }
        runs
    }
}

/// Whether it must exist before everything else: schemas and extensions.
pub(super) fn is_ground(item: &Item) -> bool {
    matches!(item.entry.desc.as_str(), "SCHEMA" | "EXTENSION")
}

/// Whether a backslash is an ordinary letter, as pg_restore reads the archive. If the archive does not say so, it is
/// not.
pub(super) fn has_standard_strings(items: &[Item]) -> bool {
    let mut said = items.iter().filter(|item| item.entry.desc == "STDSTRINGS").peekable();
    said.peek().is_some() && said.all(|item| item.details.definition.trim() == STANDARD_STRINGS)
}

/// An event trigger, or an entry about one. Event triggers run at every change of a definition, as the role that makes
/// it, so they come last, and nothing is made after them. No other entry counts here, even if it depends on one.
pub(super) fn is_of_events(item: &Item) -> bool {
    match item.entry.desc.as_str() {
        "EVENT TRIGGER" => true,
        "COMMENT" | "SECURITY LABEL" => item.entry.tag.starts_with("EVENT TRIGGER "),
        _ => false,
    }
}

/// Facts about the whole archive.
struct Archive<'a> {
    /// The statements with which pg_restore starts every session come from the archive too, so they must be the usual
    /// ones.
    sets_nothing_odd: bool,
    /// Whether a backslash is an ordinary letter.
    standard_strings: bool,
    known: &'a Known,
    /// Types that begin as a shell, by schema and name.
    shells: HashSet<(Option<&'a str>, &'a str)>,
    /// The name of the foreign data wrapper, by the name of the server.
    servers: HashMap<&'a str, String>,
    /// Wrappers outside of extensions: whether the validator is a function outside of extensions too.
    wrappers: HashMap<&'a str, bool>,
}

impl<'a> Archive<'a> {
    fn of(items: &'a [Item], known: &'a Known) -> Archive<'a> {
        let kind = |kind: &'static str| items.iter().filter(move |item| item.entry.desc == kind);
        // Judged by the functions in the throwaway server, not by the archive's own words.
        let checked = |item: &Item| {
            let tokens = tokens(&item.details.definition);
            let mut validators = tokens
                .iter()
                .enumerate()
                .filter(|(_, (_, token))| token.eq_ignore_ascii_case("VALIDATOR"));
            validators.any(|(at, _)| match &tokens[at + 1..] {
                [(_, schema), (_, "."), (_, function), ..] => {
                    !known.native_functions.contains(&(name(schema), name(function)))
                }
                _ => true,
            })
        };
        let mut wrappers: HashMap<&str, bool> = HashMap::new();
        for item in kind("FOREIGN DATA WRAPPER") {
            *wrappers.entry(&item.entry.tag).or_default() |= checked(item);
        }
        // If two have the same name, it is unclear which one is meant.
        let mut servers: HashMap<&str, Option<String>> = HashMap::new();
        for item in kind("SERVER") {
            let wrapper = after(&tokens(&item.details.definition), "WRAPPER");
            let named = servers.entry(&item.entry.tag);
            named.and_modify(|named| *named = None).or_insert(wrapper);
        }
        let path = |item: &Item| item.details.definition.trim() == SEARCH_PATH;
        Archive {
            sets_nothing_odd: kind("SEARCHPATH").all(path),
            standard_strings: has_standard_strings(items),
            known,
            shells: kind("SHELL TYPE").map(full_name).collect(),
            servers: servers
                .into_iter()
                .filter_map(|(server, wrapper)| Some((server, wrapper?)))
                .collect(),
            wrappers,
        }
    }

    fn maker(&self, item: &Item) -> Maker {
        let desc = item.entry.desc.as_str();
        let definition = item.details.definition.as_str();
        let maker = match desc {
            "FUNCTION" | "PROCEDURE" => function(definition, self.known),
            // Its single tables have entries of their own.
            "PUBLICATION" | "PUBLICATION TABLES IN SCHEMA" if has(&tokens(definition), &["WHERE"]) => Maker::Loader,
            "AGGREGATE" => aggregate(definition),
            "OPERATOR" if estimates_itself(definition) => Maker::Superuser,
            // A range with functions of its own also begins as a shell, and only its owner can complete it.
            "TYPE" if self.shells.contains(&full_name(item)) || base_type(definition) => Maker::Superuser,
            "FOREIGN DATA WRAPPER" if self.is_checked(&item.entry.tag) => Maker::None(EXPRESSION),
            "FOREIGN DATA WRAPPER" => Maker::Superuser,
            // The wrapper's function checks their options.
            "SERVER" => self.of_wrapper(after(&tokens(definition), "WRAPPER")),
            "USER MAPPING" => {
                let server = after(&tokens(definition), "SERVER");
                self.of_wrapper(server.and_then(|server| self.servers.get(server.as_str()).cloned()))
            }
            "FOREIGN TABLE" => self.foreign_table(definition),
            _ if KINDS.contains(&desc) || TEXT_SEARCH.contains(&desc) => Maker::Superuser,
            _ => Maker::Loader,
        };
        self.formal(item, maker)
    }

    /// A superuser runs only statements that look like pg_dump's: a definition is a text from the store, and another
    /// person may have written it there.
    fn formal(&self, item: &Item, maker: Maker) -> Maker {
        let clear = |text: &str| is_clear(text, self.standard_strings);
        let usual = || {
            self.sets_nothing_odd
                && clear(&item.details.definition)
                && clear(&item.details.drop_statement)
                && is_usual(item)
        };
        match maker {
            Maker::Superuser if !usual() => Maker::None(FOREIGN),
            _ => maker,
        }
    }

    fn is_checked(&self, wrapper: &str) -> bool {
        self.wrappers.get(wrapper).copied().unwrap_or(false)
    }

    fn of_wrapper(&self, wrapper: Option<String>) -> Maker {
        match wrapper {
            Some(wrapper) if !self.is_checked(&wrapper) => Maker::Superuser,
            _ => Maker::Loader,
        }
    }

    /// Making a foreign table computes its defaults and generated columns, so the loader makes it. Only the options of
    /// file_fdw need the superuser. The table has no rows here.
    fn foreign_table(&self, definition: &str) -> Maker {
        const EVALUATED: [&str; 5] = ["DEFAULT", "CHECK", "GENERATED", "INHERITS", "PARTITION"];
        let tokens = tokens(definition);
        let wrapper = after(&tokens, "SERVER").and_then(|server| self.servers.get(server.as_str()));
        let names_a_file =
            wrapper.is_some_and(|wrapper| wrapper == "file_fdw" && !self.wrappers.contains_key("file_fdw"));
        if !names_a_file {
            Maker::Loader
        } else if has(&tokens, &EVALUATED) {
            Maker::None(EXPRESSION)
        } else {
            Maker::Superuser
        }
    }
}

/// Whether one of these keywords is among the tokens, in any case of letters.
fn has(tokens: &[Token<'_>], keywords: &[&str]) -> bool {
    let mut keywords = keywords.iter();
    keywords.any(|keyword| tokens.iter().any(|(_, token)| token.eq_ignore_ascii_case(keyword)))
}

fn full_name(item: &Item) -> (Option<&str>, &str) {
    (item.entry.namespace.as_deref(), &item.entry.tag)
}

/// The first words of every statement of a kind, including those that change an owner and the like.
fn beginnings(desc: &str) -> Vec<String> {
    match desc {
        // The role that gave a right may not be the owner.
        "ACL" | "ACL LANGUAGE" => [
            "GRANT",
            "REVOKE",
            "SET SESSION AUTHORIZATION",
            "RESET SESSION AUTHORIZATION",
        ]
        .map(str::to_owned)
        .into(),
        "DEFAULT ACL" => [
            "ALTER DEFAULT PRIVILEGES",
            "SET SESSION AUTHORIZATION",
            "RESET SESSION AUTHORIZATION",
        ]
        .map(str::to_owned)
        .into(),
        "COMMENT" => vec!["COMMENT ON".into()],
        "PUBLICATION TABLES IN SCHEMA" => vec!["ALTER PUBLICATION".into()],
        "SHELL TYPE" => vec!["CREATE TYPE".into()],
        "PROCEDURAL LANGUAGE" => [
            "CREATE",
            "CREATE TRUSTED",
            "CREATE OR REPLACE",
            "CREATE OR REPLACE TRUSTED",
        ]
        .into_iter()
        .flat_map(|create| [format!("{create} PROCEDURAL LANGUAGE"), format!("{create} LANGUAGE")])
        .chain(["ALTER LANGUAGE".into(), "ALTER PROCEDURAL LANGUAGE".into()])
        .collect(),
        _ => vec![format!("CREATE {desc}"), format!("ALTER {desc}")],
    }
}

/// Whether the definition looks like pg_dump's for that kind. pg_restore reads from the DROP statement which object
/// gets another owner.
fn is_usual(item: &Item) -> bool {
    let (definition, removal) = (&item.details.definition, &item.details.drop_statement);
    let (tokens, removing) = (tokens(definition), tokens(removal));
    let begins = |statement: &[Token<'_>], beginning: &str| {
        let mut words = statement.iter().map(|(_, token)| *token);
        beginning.split(' ').all(|word| words.next() == Some(word))
    };
    let beginnings = beginnings(&item.entry.desc);
    let mut made = statements(&tokens);
    let removed: Vec<_> = statements(&removing).collect();
    made.all(|statement| {
        beginnings.iter().any(|beginning| begins(statement, beginning)) && is_whole(&item.entry.desc, statement)
    }) && removed.len() <= 1
        && removed.iter().all(|one| begins(one, "DROP") || begins(one, "ALTER"))
}

/// Whether a statement with the right first words has no further clauses that SQL allows but pg_dump does not write:
/// elements within a schema, roles instead of rights.
fn is_whole(desc: &str, statement: &[Token<'_>]) -> bool {
    let words: Vec<&str> = statement.iter().map(|(_, token)| *token).collect();
    match (desc, &words[..]) {
        ("SCHEMA", ["CREATE", "SCHEMA", rest @ ..]) => matches!(rest, [_] | [_, "AUTHORIZATION", _]),
        ("SUBSCRIPTION", ["CREATE", ..]) => words.windows(3).any(|three| three == ["connect", "=", "false"]),
        ("SUBSCRIPTION", _) => false,
        ("ACL" | "ACL LANGUAGE", ["GRANT" | "REVOKE", ..]) => {
            let on = statement.iter().position(|token| *token == (0, "ON"));
            on.is_some_and(|on| {
                words
                    .get(on + 1)
                    .is_some_and(|kind| !kind.eq_ignore_ascii_case("PARAMETER"))
            })
        }
        _ => true,
    }
}

/// Whether it may grant a right on a function of PostgreSQL's own. Code of the backup must not have such a right while
/// it can still run.
pub(super) fn gives_the_systems(item: &Item) -> bool {
    const KINDS: [&str; 6] = [
        "FUNCTION",
        "PROCEDURE",
        "ROUTINE",
        "FUNCTIONS",
        "PROCEDURES",
        "ROUTINES",
    ];
    let tokens = tokens(&item.details.definition);
    item.is_grant()
        && tokens.iter().enumerate().any(|(at, (depth, token))| {
            let of_a_schema = matches!(&tokens[at + 1..], [(_, schema), (_, "."), ..] if !is_systems(&name(schema)));
            *depth == 0 && KINDS.iter().any(|kind| kind.eq_ignore_ascii_case(token)) && !of_a_schema
        })
}

fn is_systems(schema: &str) -> bool {
    schema.starts_with("pg_") || schema == "information_schema"
}

fn statements<'a, 'b>(tokens: &'b [Token<'a>]) -> impl Iterator<Item = &'b [Token<'a>]> {
    tokens.split(|token| *token == (0, ";")).filter(|one| !one.is_empty())
}

/// The loader makes functions in trusted languages, unless they have a property that the planner or the session must
/// trust.
fn function(definition: &str, known: &Known) -> Maker {
    let tokens = tokens(definition);
    let at = tokens.iter().position(|token| *token == (0, "LANGUAGE"));
    let (arguments, rest) = tokens.split_at(at.unwrap_or(tokens.len()));
    let outside = rest.iter().filter(|(depth, _)| *depth == 0).map(|(_, word)| *word);
    let header: Vec<&str> = outside
        .clone()
        .take_while(|word| !matches!(*word, "AS" | "BEGIN" | "RETURN"))
        .collect();
    let language = header.get(1).map(|language| name(language)).unwrap_or_default();
    let trusted = known.languages.contains(&language);
    let setting = |pair: &[&str]| pair[0] == "SET" && known.guarded_settings.contains(&name(pair[1]));
    let powerful = header.iter().any(|word| matches!(*word, "LEAKPROOF" | "SUPPORT")) || header.windows(2).any(setting);
    if trusted && !powerful {
        return Maker::Loader;
    }
    if !trusted && !known.keeps_files {
        return Maker::None(NATIVE);
    }
    // The body is a text that is not read before a call.
    let has_text = outside.clone().nth(header.len()) == Some("AS");
    if has_text && known.inert_languages.contains(&language) && !computes(arguments) {
        Maker::Superuser
    } else {
        Maker::None(EXPRESSION)
    }
}

/// Whether the defaults of arguments hold more than PostgreSQL's own words, signs and numbers.
fn computes(arguments: &[Token<'_>]) -> bool {
    let mut inside = arguments.iter().filter(|(depth, _)| *depth > 0);
    inside
        .clone()
        .any(|(_, token)| *token == "=" || token.eq_ignore_ascii_case("DEFAULT"))
        && inside.any(|(depth, token)| *depth > 1 || *token == "." || token.starts_with('"'))
}

/// An aggregate with one of the server's own structures as state. The input function of its type reads its start value.
fn aggregate(definition: &str) -> Maker {
    let tokens = tokens(definition);
    let value = |labels: [&str; 2]| {
        let at = tokens.windows(2).position(|pair| {
            let label = name(pair[0].1).to_lowercase();
            pair[1].1 == "=" && labels.contains(&label.as_str())
        });
        at.map(|at| {
            tokens[at + 2..]
                .split(|(_, token)| *token == ",")
                .next()
                .unwrap_or_default()
        })
    };
    let states = [value(["stype", "stype1"]), value(["mstype", "mstype"])];
    if !states.iter().flatten().any(|state| has(state, &["internal"])) {
        return Maker::Loader;
    }
    let begins = [value(["initcond", "initcond1"]), value(["minitcond", "minitcond"])];
    let foreign = |state: &[Token<'_>]| state.iter().any(|(_, token)| *token == "." || token.starts_with('"'));
    let computed = states
        .iter()
        .zip(begins)
        .any(|(state, begin)| begin.is_some() && state.is_none_or(foreign));
    if computed {
        Maker::None(EXPRESSION)
    } else {
        Maker::Superuser
    }
}

/// Whether it has an estimator that is not PostgreSQL's own. In newer minor releases only a superuser may name one.
fn estimates_itself(definition: &str) -> bool {
    let tokens = tokens(definition);
    ["RESTRICT", "JOIN"].iter().any(|word| {
        let at = tokens.iter().position(|(_, token)| token == word);
        at.is_some_and(|at| {
            let value = tokens[at + 1..].iter().take_while(|(_, token)| *token != ",");
            value.into_iter().any(|(_, token)| *token == ".")
        })
    })
}

/// The name after this word and an equals sign.
fn after(tokens: &[Token<'_>], word: &str) -> Option<String> {
    let at = tokens.iter().position(|(_, token)| *token == word)?;
    let mut rest = tokens[at + 1..].iter().map(|(_, token)| *token);
    rest.find(|token| *token != "=").map(name)
}

/// Whether functions in C read its values, or it stays a shell. (Ranges, enums and rows have `AS` after their name.)
fn base_type(definition: &str) -> bool {
    let tokens = tokens(definition);
    let has = |token| tokens.contains(&token);
    !has((0, "AS")) && (has((1, "INTERNALLENGTH")) || !has((1, "(")))
}

#[cfg(test)]
mod tests;
