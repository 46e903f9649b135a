//! Our own SQL names everything in full. With an empty search path PostgreSQL's own names come first
//! anyway; but a statement must not depend on one that came before it. Operators do, in sessions that run nothing but
//! statements of ours: there the path stays as the first one has left it.

use std::fs;
use std::path::{Path, PathBuf};

/// What the grammar knows: these are no functions, or such that no other can be meant.
const GRAMMAR: [&str; 36] = [
    "all", "and", "any", "array", "as", "by", "case", "coalesce", "nullif", "exists", "extract", "filter", "from",
    "in", "join", "not", "on", "only", "operator", "or", "over", "select", "then", "values", "when", "where", "with",
    "rows", "else", "lateral", "copy", "table", "public", "stdin", "stdout", "options",
];
/// In our own temporary schema, which goes with its transaction.
const OURS: &str = "pg_temp.pgstow_asks";
/// How a statement begins, with what follows the word.
const VERBS: [&str; 31] = [
    "WITH ",
    "INSERT INTO ",
    "DELETE FROM ",
    "UPDATE ",
    "MERGE ",
    "VALUES ",
    "CALL ",
    "DO ",
    "EXECUTE ",
    "PREPARE ",
    "EXPLAIN ",
    "COPY ",
    "CREATE ",
    "ALTER ",
    "DROP ",
    "LOCK ",
    "TRUNCATE ",
    "GRANT ",
    "REVOKE ",
    "COMMENT ON ",
    "SET ",
    "RESET ",
    "SHOW ",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT ",
    "RELEASE ",
    "ANALYZE ",
    "REFRESH ",
    "SECURITY LABEL ",
];
/// How the rest of one begins, where it is put together.
const PARTS: [&str; 20] = [
    "FROM ",
    "WHERE ",
    "AND ",
    "OR ",
    "JOIN ",
    "LEFT JOIN ",
    "CROSS JOIN ",
    "ORDER BY ",
    "GROUP BY ",
    "HAVING ",
    "UNION ",
    "CASE ",
    "EXISTS ",
    "NOT EXISTS ",
    "LATERAL ",
    "USING ",
    "|| ",
    "OPERATOR",
    "coalesce(",
    "pg_catalog.",
];
/// What asks for nothing: an equals sign gives a value there.
const ORDERS: [&str; 14] = [
    "SET",
    "RESET",
    "CREATE",
    "ALTER",
    "DROP",
    "GRANT",
    "REVOKE",
    "COMMENT",
    "LOCK",
    "COPY",
    "BEGIN",
    "TRUNCATE",
    "SAVEPOINT",
    "ROLLBACK",
];
/// Operators by another name.
const WORDS_FOR_OPERATORS: [&str; 5] = ["LIKE", "ILIKE", "BETWEEN", "SIMILAR", "NULLIF"];
/// Whose operators are PostgreSQL's by the empty path: what is asked in sessions in which no function of the database's
/// runs, so that the path stays empty. Wherever rows are loaded and definitions made, a function may have set another.
const ON_THE_EMPTY_PATH: [(&str, &str); 2] = [
    ("postgres/", "what a session is asked about server and catalogs"),
    (
        "dataflow/parallel/",
        "what a backup holds and reads: a superuser's runs no expression of the tables, another's none but PostgreSQL's own",
    ),
];
/// What is no name, or no SQL.
const EXCEPTIONS: [(&str, &str); 4] = [
    (
        "CREATE CAST (pg_catalog.int4 AS pg_catalog.xml)",
        "the command itself, not an expression",
    ),
    (
        "CREATE TRANSFORM FOR pg_catalog.int4 LANGUAGE sql",
        "its FROM SQL names no relation",
    ),
    ("WITH TEMPLATE = template0", "a part of CREATE DATABASE"),
    ("GRANT rds_iam to the role", "a hint"),
];
/// Names that the statement around these texts defines by WITH: nothing in the database can replace them.
const DEFINED_AROUND: [&str; 1] = ["lasting"];
/// What follows one of these is a relation.
const BEFORE_A_RELATION: [&str; 7] = ["FROM", "JOIN", "INTO", "UPDATE", "TABLE", "ONLY", "TRUNCATE"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found
}

/// The string literals of a source, without those of its tests, each with its line.
fn literals(source: &str) -> Vec<(usize, String)> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let bytes = source.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => at += source[at..].find('\n').unwrap_or(bytes.len() - at),
            b'\'' if bytes.get(at + 1) == Some(&b'\\') => at += 2 + source[at + 3..].find('\'').unwrap() + 2,
            b'\'' if bytes.get(at + 2) == Some(&b'\'') => at += 3,
            b'r' if bytes[at..].starts_with(b"r#\"") => {
                let length = source[at + 3..].find("\"#").unwrap();
                found.push((source[..at].lines().count(), source[at + 3..at + 3 + length].to_owned()));
                at += length + 5;
            }
            b'"' => {
                let mut text = String::new();
                let begun = at;
                at += 1;
                while bytes[at] != b'"' {
                    let character = source[at..].chars().next().unwrap();
                    if character == '\\' {
                        // A line that goes on, or an escaped character: none matters here.
                        at += 1;
                        text.push(' ');
                        at += source[at..].chars().next().unwrap().len_utf8();
                        continue;
                    }
                    text.push(character);
                    at += character.len_utf8();
                }
                at += 1;
                found.push((source[..begun].lines().count(), text));
            }
            _ => at += 1,
        }
    }
    found
}

/// Whether it is a statement of ours, or a part of one, and not a hint that speaks of a privilege.
fn is_sql(text: &str) -> bool {
    let begins = text.trim_start();
    let queries = begins.match_indices("SELECT").any(|(at, _)| {
        let after = &begins[at + "SELECT".len()..];
        let before = begins[..at].trim_end();
        after.starts_with([' ', '\n', ')']) && !after.trim_start().starts_with("ON ") && !before.ends_with("GRANT")
    });
    let begun = VERBS.iter().chain(&PARTS).any(|start| begins.starts_with(start));
    queries || begun || text.contains("pg_catalog.")
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// Names with their points: `pg_catalog.pg_class`.
    Name(String),
    /// A literal, a number, a parameter: what cannot be shadowed.
    Value,
    Sign(char),
}

fn tokens(sql: &str) -> Vec<Token> {
    let characters: Vec<char> = sql.chars().collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < characters.len() {
        let one = characters[at];
        let from = at;
        at += 1;
        if one == '\'' {
            while at < characters.len() && characters[at] != '\'' {
                at += 1;
            }
            at += 1;
            found.push(Token::Value);
        } else if one == '{' {
            while at < characters.len() && characters[at] != '}' {
                at += 1;
            }
            at += 1;
            found.push(Token::Value);
        } else if one.is_alphabetic() || one == '_' || one == '$' {
            while at < characters.len() && (characters[at].is_alphanumeric() || "_.".contains(characters[at])) {
                at += 1;
            }
            let name: String = characters[from..at].iter().collect();
            found.push(if one == '$' { Token::Value } else { Token::Name(name) });
        } else if one.is_numeric() {
            found.push(Token::Value);
        } else if !one.is_whitespace() {
            found.push(Token::Sign(one));
        }
    }
    found
}

/// The operators that are found by the path.
fn bare_operators(sql: &str) -> Vec<String> {
    let tokens = tokens(sql);
    let name = |at: usize| match tokens.get(at) {
        Some(Token::Name(name)) => Some(name.as_str()),
        _ => None,
    };
    let sign = |at: usize, wanted: char| tokens.get(at) == Some(&Token::Sign(wanted));
    let (mut found, mut first, mut at) = (Vec::new(), None, 0);
    while at < tokens.len() {
        if sign(at, ';') {
            first = None;
            at += 1;
            continue;
        }
        let verb = *first.get_or_insert(name(at).unwrap_or_default());
        let word = name(at).unwrap_or_default().to_uppercase();
        if word == "OPERATOR" && sign(at + 1, '(') {
            while at < tokens.len() && !sign(at, ')') {
                at += 1;
            }
        } else if !ORDERS.contains(&verb) {
            let next = name(at + 1).unwrap_or_default();
            match tokens[at] {
                // `UPDATE … SET one = two` gives a value.
                Token::Sign('=') if at >= 2 && name(at - 2) == Some("SET") => {}
                Token::Sign(one) if "+-/<>=~!@#%^&|".contains(one) => found.push(one.to_string()),
                _ => {}
            }
            let hidden = match word.as_str() {
                "IN" | "USING" => sign(at + 1, '('),
                "DISTINCT" => next == "FROM",
                // `CASE one WHEN two` compares.
                "CASE" => next != "WHEN",
                _ => WORDS_FOR_OPERATORS.contains(&word.as_str()),
            };
            if hidden {
                found.push(word);
            }
        }
        at += 1;
    }
    found
}

/// What is not named in full.
fn complaints(sql: &str) -> Vec<String> {
    let tokens = tokens(sql);
    let name = |at: usize| match tokens.get(at) {
        Some(Token::Name(name)) => Some(name.as_str()),
        _ => None,
    };
    let sign = |at: usize, wanted: char| tokens.get(at) == Some(&Token::Sign(wanted));
    let in_full = |name: &str| name.starts_with("pg_catalog.") || name == OURS;
    // `WITH one AS (…), two AS (…)`: names of the statement's own.
    let own: Vec<&str> = (0..tokens.len())
        .filter(|at| sign(at + 2, '(') && name(at + 1).is_some_and(|word| word == "AS"))
        .filter_map(name)
        .collect();
    let mut found = Vec::new();
    let mut extracting = Vec::new();
    for at in 0..tokens.len() {
        if sign(at, '(') {
            let before = at.checked_sub(1).and_then(name).unwrap_or_default();
            extracting.push(before.eq_ignore_ascii_case("extract"));
            let alias = at >= 2 && name(at - 2).is_some_and(|word| word == "AS");
            let known = GRAMMAR.contains(&before.to_lowercase().as_str());
            if !before.is_empty() && !known && !alias && !in_full(before) {
                found.push(format!("the function {before}"));
            }
        } else if sign(at, ')') {
            extracting.pop();
        }
        if sign(at, ':') && sign(at + 1, ':') && !name(at + 2).is_some_and(in_full) {
            found.push(format!("the type {:?}", tokens.get(at + 2)));
        }
        let Some(word) = name(at) else { continue };
        if word.eq_ignore_ascii_case("cast") {
            found.push("CAST, which this test does not read: write ::".into());
        }
        let distinct = at >= 1 && name(at - 1) == Some("DISTINCT");
        if BEFORE_A_RELATION.contains(&word) && !distinct && extracting.last() != Some(&true) {
            let relation = name(at + 1).unwrap_or("(");
            let grammar = GRAMMAR.contains(&relation.to_lowercase().as_str()) || relation == "(";
            if !grammar && !own.contains(&relation) && !DEFINED_AROUND.contains(&relation) && !in_full(relation) {
                found.push(format!("the relation {relation}"));
            }
            // `FROM one, two` would hide the second from this test.
            let end = match name(at + 2) {
                Some("AS") => at + 4,
                Some(_) => at + 3,
                None => at + 2,
            };
            if word == "FROM" && in_full(relation) && sign(end, ',') {
                found.push(format!("what follows {relation} and a comma: write JOIN"));
            }
        }
    }
    found
}

#[test]
fn every_statement_of_ours_names_all_in_full() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut statements, mut found) = (0, Vec::new());
    let (mut unused, mut on_the_path) = (EXCEPTIONS.map(|(text, _)| text).to_vec(), [0; ON_THE_EMPTY_PATH.len()]);
    for path in sources(&root) {
        let source = fs::read_to_string(&path).unwrap();
        let place = path.strip_prefix(&root).unwrap().display().to_string();
        let folder = ON_THE_EMPTY_PATH
            .iter()
            .position(|(folder, _)| place.starts_with(folder));
        for (line, text) in literals(&source) {
            if !is_sql(&text) {
                continue;
            }
            if let Some((exception, _)) = EXCEPTIONS
                .iter()
                .find(|(start, _)| text.trim_start().starts_with(start))
            {
                unused.retain(|one| one != exception);
                continue;
            }
            // The end of a literal that another piece has begun.
            let sql = text.strip_prefix('\'').unwrap_or(&text);
            statements += 1;
            let operators = bare_operators(sql);
            let mut wrong = complaints(sql);
            match folder {
                Some(folder) => on_the_path[folder] += operators.len(),
                None => wrong.extend(operators.iter().map(|one| format!("the operator {one}"))),
            }
            found.extend(wrong.into_iter().map(|what| format!("{place}:{line}: {what}")));
        }
    }
    assert!(
        statements > 300,
        "{statements} statements are far too few: they are not found any more"
    );
    assert!(found.is_empty(), "not named in full:\n{}", found.join("\n"));
    assert!(unused.is_empty(), "no exception any more: {unused:?}");
    assert!(
        !on_the_path.contains(&0),
        "needs no empty path any more: {ON_THE_EMPTY_PATH:?}"
    );
}

#[test]
fn the_search_finds_what_is_not_named_in_full() {
    for (sql, complaint) in [
        ("SELECT version()", "the function version"),
        (
            "SELECT (SELECT count(*) FROM pg_catalog.pg_class)",
            "the function count",
        ),
        (
            "SELECT x::text FROM pg_catalog.pg_class",
            "the type Some(Name(\"text\"))",
        ),
        ("SELECT x FROM pg_class c", "the relation pg_class"),
        (
            "SELECT x FROM pg_catalog.pg_class c LEFT JOIN pg_am a ON true",
            "the relation pg_am",
        ),
        (
            "SELECT x FROM pg_catalog.pg_class c, pg_am a",
            "what follows pg_catalog.pg_class and a comma: write JOIN",
        ),
        (
            "SELECT CAST(x AS text)",
            "CAST, which this test does not read: write ::",
        ),
        ("SELECT x FROM unnest($1) AS y (x)", "the relation unnest"),
        ("LOCK TABLE orders", "the relation orders"),
        ("ALTER TABLE ONLY orders ADD CHECK (now() > at)", "the relation orders"),
        ("ALTER TABLE ONLY {} ADD CHECK (now() > at)", "the function now"),
        ("TRUNCATE orders", "the relation orders"),
    ] {
        assert!(
            complaints(sql).contains(&complaint.to_owned()),
            "{sql}: {:?}",
            complaints(sql)
        );
    }
    for sql in [
        "WITH own AS (SELECT a FROM pg_catalog.pg_class AS c (a)) SELECT a FROM own",
        "SELECT extract(epoch FROM pg_catalog.now()) IS DISTINCT FROM 1, coalesce(a, b)",
        "SELECT 'version()'::pg_catalog.text, x IN (1, 2), x = ANY ($1) FROM ROWS FROM (pg_catalog.unnest($1)) AS x (a)",
        "SELECT FROM ONLY {table}",
    ] {
        assert_eq!(complaints(sql), [""; 0], "{sql}");
    }
    for (sql, operators) in [
        ("SELECT a = 1 AND b LIKE 'x' OR c IN (1, 2)", &["=", "LIKE", "IN"][..]),
        (
            "SELECT a IS NOT DISTINCT FROM b, CASE a WHEN 1 THEN 2 END",
            &["DISTINCT", "CASE"],
        ),
        (
            "SELECT a ~ 'x' FROM pg_catalog.pg_class JOIN {b} USING (c)",
            &["~", "USING"],
        ),
        ("AND d.deptype <> 'e' AND x BETWEEN 1 AND 2", &["<", ">", "BETWEEN"]),
        ("SELECT 'a' || b; SET x = 1", &["|", "|"]),
        ("UPDATE pg_catalog.{} SET {} = 1 WHERE {} = 2", &["="]),
        (
            "SELECT a OPERATOR(pg_catalog.=) ANY ($1), count(*), b.*, CASE WHEN c THEN 'a = b' END, -{}",
            &["-"],
        ),
        ("SELECT DISTINCT a FROM pg_catalog.pg_class", &[]),
        ("SET a = 1; BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", &[]),
        ("CREATE SUBSCRIPTION pgstow WITH (connect = false)", &[]),
    ] {
        assert_eq!(bare_operators(sql), operators, "{sql}");
    }
    for sql in [
        "ALTER TABLE x",
        "LOCK TABLE {}",
        "TRUNCATE {all}",
        "'::pg_catalog.regclass AND x",
        "WHERE a",
        "CREATE ROLE {}",
    ] {
        assert!(is_sql(sql), "{sql}");
    }
    assert!(!is_sql("let it SELECT ON {table}") && is_sql("COPY (SELECT ") && is_sql("SELECT 1"));
    let source = "let a = 'x'; // \"no\"\nlet b = \"SELECT \\\n    1\"; let c = '\\'';\nlet d = r#\"SELECT \"2\"\"#;";
    let texts: Vec<String> = literals(source).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["SELECT      1", "SELECT \"2\""]);
}
