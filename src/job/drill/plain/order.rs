//! A script restores only in its own order: its rows come table by table, so a check that calls a function may look for
//! rows that are not there yet.

use crate::format::script::Contents;
use crate::job::drill::evidence::{Fault, LOOKING};

/// A refusal of rows, with the right advice.
pub(super) fn weigh(fault: Fault, script: &Contents) -> Fault {
    let looks = broken_check(&fault.what).is_some_and(|check| calls_a_function(check, script));
    match fault.of_source && looks {
        true => Fault {
            advice: LOOKING,
            ..fault
        },
        false => fault,
    }
}

/// The name of the check that rows break, from the server's message.
fn broken_check(words: &str) -> Option<&str> {
    let (_, rest) = words.split_once("violates check constraint \"")?;
    Some(rest.split_once('"')?.0)
}

/// Whether a check with this name, on a table or domain, calls a function that the script makes.
fn calls_a_function(check: &str, script: &Contents) -> bool {
    let begins = [check.to_owned(), format!("\"{check}\"")].map(|name| format!("CONSTRAINT {name} CHECK ("));
    let functions: Vec<String> = script
        .definitions
        .iter()
        .filter(|one| one.header.kind() == "FUNCTION")
        .filter_map(|one| Some(format!("{}(", one.header.name().split_once('(')?.0)))
        .collect();
    let statements = script
        .definitions
        .iter()
        .flat_map(|one| one.statements.iter().flatten());
    statements
        .map(|statement| String::from_utf8_lossy(statement))
        .flat_map(|statement| {
            let checks = begins
                .iter()
                .filter_map(|begin| Some(statement.split_once(begin)?.1.to_owned()));
            checks.collect::<Vec<String>>()
        })
        .map(|rest| rest.replace('"', ""))
        .any(|rest| {
            let expression = rest.split("\n    CONSTRAINT ").next().unwrap_or_default();
            expression.contains("OPERATOR(") || functions.iter().any(|call| expression.contains(call.as_str()))
        })
}
