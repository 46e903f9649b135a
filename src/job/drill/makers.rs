//! Who makes an entry of the archive in the throwaway server. Everything that can call a function of the
//! backup's (a check, an index, a view, a row) is made by a role that is no superuser. The superuser makes what
//! only it can, where making that calls none. What needs it and would call one is not made at all.

use std::collections::{HashMap, HashSet};

use super::outline::{Token, is_clear, name, tokens};
use crate::format::archive::Item;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    Loader,
    Superuser,
    /// With the reason.
    None(&'static str),
}

/// What the throwaway server says of itself, and what is known of the walls around it.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Languages that everybody may write functions in.
    pub languages: HashSet<String>,
    /// Languages whose own code alone runs when a function is made in them.
    pub inert_languages: HashSet<String>,
    /// Settings that only a superuser may set.
    pub guarded_settings: HashSet<String>,
    /// Functions in C that extensions have made, by schema and name.
    pub native_functions: HashSet<(String, String)>,
    /// Whether the walls hold against code that is the machine's own.
    pub keeps_files: bool,
}

/// Kinds that are a superuser's, or need to own what is the system's. To make one evaluates nothing, whoever
/// has changed the things that it speaks of meanwhile.
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

/// Where the name has two words, both of PostgreSQL's.
const TEXT_SEARCH: [&str; 2] = ["TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE"];

const EXPRESSION: &str =
    "only a superuser can make it, and to make it evaluates what others wrote, which a drill does as none";
const NATIVE: &str = "it is code of the machine's own, and nothing here would keep that from this machine's files \
                      (Landlock, or a user of its own)";
const FOREIGN: &str = "only a superuser can make it, and it says more than that kind of thing does";

/// As pg_dump writes it into every archive.
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
        // A comment is made by who made what it is about, as it must own that.
        for item in items.iter().filter(|item| item.entry.desc == "COMMENT") {
            let about = item.details.dependencies.iter().filter_map(|id| makers.get(id));
            let superuser = about.into_iter().any(|maker| *maker == Maker::Superuser);
            if superuser {
                makers.insert(item.entry.dump_id, archive.formal(item, Maker::Superuser));
            }
        }
        Makers(makers)
    }

    /// Those that nobody makes, and why.
    pub fn unmade(&self, ids: &[i64]) -> Vec<(i64, &'static str)> {
        let unmade = ids.iter().filter_map(|id| match self.0.get(id) {
            Some(Maker::None(why)) => Some((*id, *why)),
            _ => None,
        });
        unmade.collect()
    }

    /// Neighbours of one maker together, in the order that they have.
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

/// Whether it must be there before everything else: schemas, and what is in none of the backup's hands.
pub(super) fn is_ground(item: &Item) -> bool {
    matches!(item.entry.desc.as_str(), "SCHEMA" | "EXTENSION")
}

/// Whether a backslash is a letter like others, as pg_restore reads the archive. One that does not say so has old strings.
pub(super) fn has_standard_strings(items: &[Item]) -> bool {
    let mut said = items.iter().filter(|item| item.entry.desc == "STDSTRINGS").peekable();
    said.peek().is_some() && said.all(|item| item.details.definition.trim() == STANDARD_STRINGS)
}

/// An event trigger, or what is said of one. They run at every change of a definition, as whoever makes it: they come
/// last, and nothing is made after them. Nothing else is, however it names one as what it needs.
pub(super) fn is_of_events(item: &Item) -> bool {
    match item.entry.desc.as_str() {
        "EVENT TRIGGER" => true,
        "COMMENT" | "SECURITY LABEL" => item.entry.tag.starts_with("EVENT TRIGGER "),
        _ => false,
    }
}

/// What one entry cannot say of itself.
struct Archive<'a> {
    /// What pg_restore says first in every session comes from the archive as well.
    sets_nothing_odd: bool,
    /// Whether a backslash is a letter like others.
    standard_strings: bool,
    known: &'a Known,
    /// Types that begin as a mere name, by schema and name.
    shells: HashSet<(Option<&'a str>, &'a str)>,
    /// The foreign data wrapper's name, by the server's.
    servers: HashMap<&'a str, String>,
    /// Wrappers that are not an extension's: whether one is checked by a function that is none either.
    wrappers: HashMap<&'a str, bool>,
}

impl<'a> Archive<'a> {
    fn of(items: &'a [Item], known: &'a Known) -> Archive<'a> {
        let kind = |kind: &'static str| items.iter().filter(move |item| item.entry.desc == kind);
        // By what the throwaway server has, not by what the archive says of itself.
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
        // Of two with one name nobody knows which is meant.
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
            // What it says of single tables are entries of their own.
            "PUBLICATION" | "PUBLICATION TABLES IN SCHEMA" if has(&tokens(definition), &["WHERE"]) => Maker::Loader,
            "AGGREGATE" => aggregate(definition),
            "OPERATOR" if estimates_itself(definition) => Maker::Superuser,
            // A range with functions of its own begins as a shell too, and only its owner completes that.
            "TYPE" if self.shells.contains(&full_name(item)) || base_type(definition) => Maker::Superuser,
            "FOREIGN DATA WRAPPER" if self.is_checked(&item.entry.tag) => Maker::None(EXPRESSION),
            "FOREIGN DATA WRAPPER" => Maker::Superuser,
            // Their options are checked by the wrapper's function.
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

    /// A superuser says nothing but what pg_dump says of such a thing: a definition is a text that somebody wrote
    /// into the store.
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

    /// Its defaults and generated columns are computed as it is made. Only file_fdw's options are more than
    /// the loader may say; it has no rows here.
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

/// Whether one of these keywords is among them, however it is written.
fn has(tokens: &[Token<'_>], keywords: &[&str]) -> bool {
    let mut keywords = keywords.iter();
    keywords.any(|keyword| tokens.iter().any(|(_, token)| token.eq_ignore_ascii_case(keyword)))
}

fn full_name(item: &Item) -> (Option<&str>, &str) {
    (item.entry.namespace.as_deref(), &item.entry.tag)
}

/// What stands first in every statement of a kind's, besides what changes an owner or the like of the same.
fn beginnings(desc: &str) -> Vec<String> {
    match desc {
        // Who gave a right may not be the owner.
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

/// Whether it reads as pg_dump writes that kind of thing. pg_restore takes from the statement that would remove a
/// thing whom it gives to another owner.
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

/// Whether nothing is in a statement of the right beginning that such a statement may go on with, and pg_dump's
/// does not: elements within a schema, roles instead of rights.
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

/// Whether it may give a right to a function of PostgreSQL's own, which nothing of the backup's is to have while
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

/// In an untrusted language, or with a property that the planner or the session must be able to trust.
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
    // The body is a text, which nobody reads before it is called.
    let has_text = outside.clone().nth(header.len()) == Some("AS");
    if has_text && known.inert_languages.contains(&language) && !computes(arguments) {
        Maker::Superuser
    } else {
        Maker::None(EXPRESSION)
    }
}

/// Whether the defaults of arguments have more in them than PostgreSQL's own words, signs and numbers.
fn computes(arguments: &[Token<'_>]) -> bool {
    let mut inside = arguments.iter().filter(|(depth, _)| *depth > 0);
    inside
        .clone()
        .any(|(_, token)| *token == "=" || token.eq_ignore_ascii_case("DEFAULT"))
        && inside.any(|(depth, token)| *depth > 1 || *token == "." || token.starts_with('"'))
}

/// Its state is one of the server's own structures. What it begins with is read as its type is read.
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

/// With an estimator that is not PostgreSQL's own, which newer minor releases let a superuser name alone.
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

/// The name after this word, and after a sign of equality.
fn after(tokens: &[Token<'_>], word: &str) -> Option<String> {
    let at = tokens.iter().position(|(_, token)| *token == word)?;
    let mut rest = tokens[at + 1..].iter().map(|(_, token)| *token);
    rest.find(|token| *token != "=").map(name)
}

/// Its values are read by functions in C, or it is a mere name for ever. (Ranges, enums and rows have `AS`
/// after their name.)
fn base_type(definition: &str) -> bool {
    let tokens = tokens(definition);
    let has = |token| tokens.contains(&token);
    !has((0, "AS")) && (has((1, "INTERNALLENGTH")) || !has((1, "(")))
}

#[cfg(test)]
mod tests;
