//! The events that start the function. The function reads them strictly: a misspelt field must not silently back up
//! another database. It accepts no secret in an event.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::command::{
    AskedMoment, BackupRequest, Command, RestoreRequest, VerifyRequest, VerifySelection, check_whose, is_event_id,
    manifest_digest,
};
use crate::error::{Error, Result};
use crate::repository::backup_id::{BackupKind, NoKind};
use crate::repository::trigger::{NoTrigger, Trigger};
use crate::settings::{is_connection_url, nearest};

/// The command that an event asks for. `request_id` is Lambda's, and stays the same when Lambda retries an asynchronous
/// event: it is the event's id if the event has none of its own.
pub fn parse_event(event: &Value, request_id: &str) -> Result<Command> {
    let empty = Map::new();
    let event = match event {
        // `aws lambda invoke` without a payload.
        Value::Null => &empty,
        Value::Object(fields) => fields,
        _ => return Err(refused("the event is not a JSON object")),
    };
    if is_http(event) {
        return Err(refused(
            "the event is an HTTP request: the HTTP API is not in this version",
        ));
    }
    if let Some(field) = secret_in(event) {
        return Err(Error::config(format!(
            "the event's field {field:?} looks like a secret: an event must not hold one"
        ))
        .hint("give credentials in the function's settings: BACKUP_SECRET_ID, or DATABASE_URL"));
    }
    if event.contains_key("source") || event.contains_key("detail-type") {
        return scheduled(event, request_id);
    }
    if event.contains_key("Records") {
        return Err(refused("events of SQS, SNS and S3 (`Records`) are not understood"));
    }
    direct(event, request_id)
}

fn refused(what: &str) -> Error {
    Error::config(what).hint("send {} or {\"action\":\"backup\",\"kind\":\"full\"}, or use an EventBridge schedule")
}

/// From a function URL or API Gateway's HTTP API (version 2), its REST API (version 1), or a load balancer.
fn is_http(event: &Map<String, Value>) -> bool {
    let context = event.get("requestContext");
    event.contains_key("httpMethod")
        || context.is_some_and(|context| {
            ["http", "elb", "httpMethod"]
                .iter()
                .any(|part| context.get(part).is_some())
        })
}

/// The event of an EventBridge rule with a schedule (source `aws.events`), or of an EventBridge Scheduler schedule
/// without an input of its own (source `aws.scheduler`). Both give the event an `id`.
fn scheduled(event: &Map<String, Value>, request_id: &str) -> Result<Command> {
    let source = event.get("source").and_then(Value::as_str).unwrap_or_default();
    let kind = event.get("detail-type").and_then(Value::as_str).unwrap_or_default();
    if !matches!(source, "aws.events" | "aws.scheduler") || kind != "Scheduled Event" {
        return Err(refused(&format!(
            "the event of source {source:?} and type {kind:?} is not one of a schedule"
        )));
    }
    let id = event.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
    Ok(Command::Backup(BackupRequest {
        trigger: Trigger::Schedule,
        event_id: Some(checked_id(id.unwrap_or(request_id))?),
        ..BackupRequest::default()
    }))
}

/// The actions of pgstow's own events, and the fields that each may have beside `action`.
const ACTIONS: &[(&str, &[&str])] = &[
    ("backup", &["kind", "database", "event_id", "trigger"]),
    ("list", &["database"]),
    ("status", &["database"]),
    ("doctor", &[]),
    (
        "verify",
        &[
            "backup",
            "database",
            "drill",
            "chain",
            "to_time",
            "to_lsn",
            "expect_manifest",
        ],
    ),
    (
        "restore",
        &[
            "backup",
            "database",
            "tables",
            "into",
            "data_only",
            "create",
            "clean",
            "force",
            "no_verify",
            "check",
            "no_check",
            "keep_going",
            "single_transaction",
            "globals",
            "no_owner",
            "no_privileges",
            "no_tablespaces",
            "no_comments",
            "no_publications",
            "no_subscriptions",
            "exclude",
            "to_time",
            "to_lsn",
            "allow_partial",
            "dry_run",
            "expect_manifest",
        ],
    ),
];

/// `{}`, or the contract's form, which a person, a script or a schedule with an input sends.
fn direct(event: &Map<String, Value>, request_id: &str) -> Result<Command> {
    let action = text(event, "action")?.unwrap_or("backup");
    let Some((_, fields)) = ACTIONS.iter().find(|(name, _)| *name == action) else {
        return Err(refused(&format!("the action {action:?} is not known")));
    };
    let known = |field: &&String| *field == "action" || fields.contains(&field.as_str());
    if let Some(field) = event.keys().find(|field| !known(field)) {
        let near = nearest(field, fields.iter().copied().chain(["action"]));
        let near = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        return Err(refused(&format!(
            "the event's field {field:?} is not understood beside the action {action:?}{near}"
        )));
    }
    let database = database(event)?;
    if let Some(backup) = which(event)? {
        check_whose(backup, database.as_deref())?;
    }
    Ok(match action {
        "list" => Command::List { database },
        "status" => Command::Status { database },
        "doctor" => Command::Doctor,
        "verify" => Command::Verify(VerifyRequest {
            selection: VerifySelection::One(which(event)?.unwrap_or("latest").to_owned()),
            database,
            drill: switch(event, "drill")?,
            moment: moment(event)?,
            chain: switch(event, "chain")?,
            expect_manifest: digest(event)?,
        }),
        "restore" => Command::Restore(restore(event, database)?),
        _ => Command::Backup(backup(event, request_id, database)?),
    })
}

fn backup(event: &Map<String, Value>, request_id: &str, database: Option<String>) -> Result<BackupRequest> {
    let kind = text(event, "kind")?.unwrap_or(BackupKind::Full.name());
    let kind = match kind.parse() {
        Ok(kind) => kind,
        Err(NoKind) => return Err(refused(&format!("the kind of backup {kind:?} is not known"))),
    };
    let trigger = text(event, "trigger")?.unwrap_or(Trigger::Manual.name());
    let trigger = match trigger.parse() {
        Ok(known @ (Trigger::Manual | Trigger::Schedule)) => known,
        Ok(Trigger::Api | Trigger::Cli) | Err(NoTrigger) => {
            return Err(refused(&format!("the trigger {trigger:?} is not schedule or manual")));
        }
    };
    Ok(BackupRequest {
        kind,
        // A function ends after minutes: its schedule is what repeats it.
        every: None,
        trigger,
        event_id: Some(checked_id(text(event, "event_id")?.unwrap_or(request_id))?),
        database,
        ..BackupRequest::default()
    })
}

/// The settings name the target (`BACKUP_TARGET_SECRET_ID`), because an event holds no credentials.
fn restore(event: &Map<String, Value>, database: Option<String>) -> Result<RestoreRequest> {
    let Some(backup) = which(event)? else {
        return Err(refused(
            "the event names no \"backup\" to restore: an id, or \"latest\"",
        ));
    };
    let tables = names(event, "tables")?;
    Ok(RestoreRequest {
        backup: backup.to_owned(),
        database,
        tables,
        into: text(event, "into")?.map(str::to_owned),
        data_only: switch(event, "data_only")?,
        create: switch(event, "create")?,
        clean: switch(event, "clean")?,
        force: switch(event, "force")?,
        no_verify: switch(event, "no_verify")?,
        check: switch(event, "check")?,
        no_check: switch(event, "no_check")?,
        keep_going: switch(event, "keep_going")?,
        single_transaction: switch(event, "single_transaction")?,
        globals: switch(event, "globals")?,
        // Events come from callers with fewer rights than the user of a command line.
        globals_privileged: false,
        no_owner: switch(event, "no_owner")?,
        no_privileges: switch(event, "no_privileges")?,
        no_tablespaces: switch(event, "no_tablespaces")?,
        no_comments: switch(event, "no_comments")?,
        no_publications: switch(event, "no_publications")?,
        no_subscriptions: switch(event, "no_subscriptions")?,
        exclude: names(event, "exclude")?,
        moment: moment(event)?,
        allow_partial: switch(event, "allow_partial")?,
        dry_run: switch(event, "dry_run")?,
        expect_manifest: digest(event)?,
    })
}

/// The moment to restore. In Lambda the local time is UTC.
fn moment(event: &Map<String, Value>) -> Result<Option<AskedMoment>> {
    match (text(event, "to_time")?, text(event, "to_lsn")?) {
        (Some(_), Some(_)) => Err(refused("the event has \"to_time\" and \"to_lsn\": give one of the two")),
        (Some(time), None) => AskedMoment::at(time, Timestamp::now()).map(Some),
        (None, Some(lsn)) => AskedMoment::after(lsn).map(Some),
        (None, None) => Ok(None),
    }
}

fn names(event: &Map<String, Value>, field: &str) -> Result<Vec<String>> {
    match event.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| refused(&format!("the event's field {field:?} holds a value that is not a name"))),
        Some(_) => Err(refused(&format!("the event's field {field:?} is not a list of names"))),
    }
}

/// An exact id, or `latest`.
fn which(event: &Map<String, Value>) -> Result<Option<&str>> {
    match text(event, "backup")? {
        Some("") => Err(refused("the event's field \"backup\" is empty")),
        named => Ok(named),
    }
}

/// The SHA-256 that the backup's manifest must have.
fn digest(event: &Map<String, Value>) -> Result<Option<[u8; 32]>> {
    let Some(text) = text(event, "expect_manifest")? else {
        return Ok(None);
    };
    let digest = manifest_digest(text);
    let digest = digest.ok_or_else(|| refused("the event's field \"expect_manifest\" is no SHA-256 in hex digits"))?;
    Ok(Some(digest))
}

/// True or false; absent is false. Text is refused, so that `"false"` does not count as true.
fn switch(event: &Map<String, Value>, field: &str) -> Result<bool> {
    match event.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(_) => Err(refused(&format!("the event's field {field:?} is not true or false"))),
    }
}

fn database(event: &Map<String, Value>) -> Result<Option<String>> {
    let name = text(event, "database")?;
    if name.is_some_and(|name| name.is_empty() || name.contains('\0')) {
        return Err(refused("the event's field \"database\" is not a database's name"));
    }
    Ok(name.map(str::to_owned))
}

/// A text field; `null` counts as absent.
fn text<'a>(event: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>> {
    match event.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(refused(&format!("the event's field {field:?} is not a text"))),
    }
}

fn checked_id(id: &str) -> Result<String> {
    if !is_event_id(id) {
        return Err(refused("the event's id is not 1 to 256 printable ASCII characters"));
    }
    Ok(id.to_owned())
}

/// The first field, at any depth, whose name or value is that of a credential.
fn secret_in(fields: &Map<String, Value>) -> Option<&str> {
    fields.iter().find_map(|(name, value)| {
        if is_connection_url(name) {
            // The name is not repeated: it contains the password.
            return Some("a name");
        }
        if sounds_secret(name) {
            return Some(name.as_str());
        }
        secret_of(name, value)
    })
}

fn secret_of<'a>(name: &'a str, value: &'a Value) -> Option<&'a str> {
    match value {
        Value::Object(inner) => secret_in(inner),
        Value::Array(items) => items.iter().find_map(|item| secret_of(name, item)),
        Value::String(text) => looks_secret(text).then_some(name),
        _ => None,
    }
}

fn sounds_secret(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "password",
        "passwd",
        "passphrase",
        "secret",
        "credential",
        "token",
        "accesskey",
        "privatekey",
        "apikey",
        "url",
        "dsn",
        "conninfo",
        "connectionstring",
    ];
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    WORDS.iter().any(|word| plain.contains(word))
}

fn looks_secret(text: &str) -> bool {
    // In a keyword string blanks may stand beside the sign, and a JSON document may be in a text.
    let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let plain = plain.to_ascii_lowercase();
    is_connection_url(text) || ["password=", "password\":"].iter().any(|word| plain.contains(word))
}

#[cfg(test)]
mod tests;
