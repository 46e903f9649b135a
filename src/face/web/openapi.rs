//! The description of the API for programs (OpenAPI 3.1). `tests/suite/face/serve/openapi.rs` compares it with the
//! routes and asks each of them.

use axum::Json;
use serde_json::{Map, Value, json};

use super::access::Viewer;
use super::identity::Role;
use super::is_older_path;

/// What a path answers to a method.
#[derive(Clone, Copy)]
struct Operation {
    method: &'static str,
    path: &'static str,
    /// `None`: for everybody.
    role: Option<Role>,
    summary: &'static str,
    query: &'static [&'static str],
    /// The fields of the body, with those that must be there first, up to `|`.
    body: &'static [&'static str],
    /// The status of success, and the media type of its body.
    answer: (&'static str, &'static str),
}

const JSON: (&str, &str) = ("200", "application/json");
const ACCEPTED: (&str, &str) = ("202", "application/json");
const BYTES: (&str, &str) = ("200", "application/octet-stream");
const TEXT: (&str, &str) = ("200", "text/plain");

const fn get(path: &'static str, role: Role, summary: &'static str) -> Operation {
    Operation {
        method: "get",
        path,
        role: Some(role),
        summary,
        query: &[],
        body: &[],
        answer: JSON,
    }
}

const fn post(path: &'static str, role: Role, summary: &'static str) -> Operation {
    Operation {
        method: "post",
        answer: ACCEPTED,
        ..get(path, role, summary)
    }
}

const fn public(path: &'static str, summary: &'static str) -> Operation {
    Operation {
        role: None,
        answer: TEXT,
        ..get(path, Role::Viewer, summary)
    }
}

const fn with_query(query: &'static [&'static str], operation: Operation) -> Operation {
    Operation { query, ..operation }
}

const fn with_body(body: &'static [&'static str], operation: Operation) -> Operation {
    Operation { body, ..operation }
}

const fn answering(answer: (&'static str, &'static str), operation: Operation) -> Operation {
    Operation { answer, ..operation }
}

use Role::{Admin as A, Operator as O, Viewer as V};

const OPERATIONS: &[Operation] = &[
    get("/api/v1/status", V, "The report of `pgstow status`, and the pauses"),
    get(
        "/api/v1/databases",
        V,
        "Each database: last good backup, proofs, increments",
    ),
    get("/api/v1/databases/{database}", V, "One database"),
    get("/api/v1/me", V, "The name and the role of whoever asks"),
    with_query(
        &["database", "kind", "tier", "proved", "before", "limit"],
        get("/api/v1/backups", V, "The backups, newest first"),
    ),
    get("/api/v1/backups/{database}/{stamp}", V, "One backup"),
    get("/api/v1/backups/{database}/{stamp}/manifest", V, "Its manifest"),
    get(
        "/api/v1/backups/{database}/{stamp}/tables",
        V,
        "Its tables, with rows, bytes and digests",
    ),
    with_query(
        &["with"],
        get(
            "/api/v1/backups/{database}/{stamp}/compare",
            V,
            "What differs from another backup, table by table",
        ),
    ),
    get(
        "/api/v1/backups/{database}/{stamp}/files",
        V,
        "Its files, by their roles",
    ),
    answering(
        BYTES,
        get(
            "/api/v1/backups/{database}/{stamp}/files/{name}",
            O,
            "A file as it is stored, whole or in part",
        ),
    ),
    answering(
        BYTES,
        with_query(
            &["form"],
            get(
                "/api/v1/backups/{database}/{stamp}/download",
                O,
                "The archive, whole or in part",
            ),
        ),
    ),
    with_query(
        &["database", "action", "state", "before", "limit"],
        get("/api/v1/runs", V, "The runs, newest first"),
    ),
    with_body(
        &[
            "action", "|", "database", "kind", "backup", "dry_run", "plan", "confirm",
        ],
        post("/api/v1/runs", O, "Asks for a run; a restore needs the role admin"),
    ),
    get("/api/v1/runs/{id}", V, "One run"),
    get("/api/v1/runs/{id}/log", V, "The last lines of its log"),
    post("/api/v1/runs/{id}/cancel", O, "Asks the run to end"),
    get("/api/v1/targets", V, "The databases that may be restored into"),
    with_body(
        &[
            "backup",
            "|",
            "database",
            "tables",
            "into",
            "data_only",
            "create",
            "clean",
            "check",
            "globals",
            "no_owner",
            "no_privileges",
            "to_time",
            "to_lsn",
        ],
        answering(
            ("201", "application/json"),
            post(
                "/api/v1/restore-plans",
                A,
                "What a restore would do, and how it is confirmed",
            ),
        ),
    ),
    get(
        "/api/v1/schedules",
        V,
        "The schedules: when they are due next, and which rest",
    ),
    with_body(
        &["reason", "until", "|"],
        answering(JSON, post("/api/v1/schedules/{name}/pause", O, "Lets a schedule rest")),
    ),
    answering(("204", ""), post("/api/v1/schedules/{name}/resume", O, "Lets it go on")),
    answering(
        ("200", "text/event-stream"),
        get("/api/v1/events", V, "What happens, as it happens"),
    ),
    with_query(
        &["from", "to", "format"],
        get(
            "/api/v1/audit",
            A,
            "Who asked for what, and whether the journal is whole",
        ),
    ),
    with_body(
        &["|", "type", "database"],
        post("/api/backup/trigger", O, "Older systems: asks for a backup"),
    ),
    get("/api/backup/status", V, "Older systems: settings and backups"),
    get("/api/backup/list", V, "Older systems: the backups"),
    answering(
        BYTES,
        get(
            "/api/backup/download/{filename}",
            O,
            "Older systems: a backup's file, whole or in part",
        ),
    ),
    get("/api/admin/system/backups", V, "Older systems: the backups"),
    get(
        "/api/admin/system/backups/status",
        V,
        "Older systems: settings, schedules and backups",
    ),
    with_body(
        &["|", "type", "database"],
        post(
            "/api/admin/system/backups/create",
            O,
            "Older systems: asks for a backup",
        ),
    ),
    with_body(
        &["backupPath", "|", "includeLogs", "confirm"],
        post(
            "/api/admin/system/backups/restore",
            A,
            "Older systems: restores into the database of the settings",
        ),
    ),
    answering(
        ("101", ""),
        get(
            "/ws",
            V,
            "Older systems: a WebSocket that tells of backups; `/` is the same",
        ),
    ),
    answering(
        ("101", ""),
        get("/", V, "Older systems: a WebSocket that tells of backups"),
    ),
    answering(
        TEXT,
        get(
            "/metrics",
            V,
            "For Prometheus; programs of the same machine need no token",
        ),
    ),
    public("/healthz", "Whether the process answers"),
    public("/readyz", "Whether it begins runs"),
    get("/openapi.json", V, "This description"),
];

pub(super) async fn description(_: Viewer) -> Json<Value> {
    Json(document())
}

fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "pgstow",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Backups of PostgreSQL: docs/serve.md describes the API for people.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
            "schemas": {"Problem": problem(), "OlderProblem": older_problem()},
        },
    })
}

fn described(operation: &Operation) -> Value {
    let (status, media) = operation.answer;
    let mut success = json!({"description": operation.summary});
    if !media.is_empty() {
        success["content"] = json!({media: {}});
    }
    let (schema, kind) = match is_older_path(operation.path) {
        true => ("#/components/schemas/OlderProblem", "application/json"),
        false => ("#/components/schemas/Problem", "application/problem+json"),
    };
    let refused = json!({"description": "Why not", "content": {kind: {"schema": {"$ref": schema}}}});
    let mut described = json!({
        "summary": operation.summary,
        "parameters": parameters(operation),
        "responses": {status: success, "default": refused},
        "security": [],
    });
    if let Some(role) = operation.role {
        described["security"] = json!([{"bearer": []}, {"key": []}]);
        described["x-role"] = json!(role.name());
    }
    if !operation.body.is_empty() {
        described["requestBody"] = body(operation.body);
    }
    described
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let parameter = |place: &str, name: &str| json!({"in": place, "name": name, "required": place == "path", "schema": {"type": "string"}});
    let in_path = operation.path.split(['{', '}']).skip(1).step_by(2);
    let in_path = in_path.map(|name| parameter("path", name));
    let in_query = operation.query.iter().map(|name| parameter("query", name));
    let key = (operation.path == "/api/v1/runs" && operation.method == "post")
        .then(|| parameter("header", "Idempotency-Key"));
    in_path.chain(in_query).chain(key).collect()
}

fn body(fields: &[&str]) -> Value {
    let names = || fields.iter().filter(|field| **field != "|");
    let needed: Vec<&&str> = fields.iter().take_while(|field| **field != "|").collect();
    let properties: Map<String, Value> = names().map(|name| ((*name).to_owned(), json!({}))).collect();
    let schema = json!({"type": "object", "required": needed, "properties": properties});
    json!({"required": !needed.is_empty(), "content": {"application/json": {"schema": schema}}})
}

fn problem() -> Value {
    let text = || json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "hint"],
        "properties": {
            "type": text(), "title": text(), "status": {"type": "integer"}, "detail": text(), "code": text(),
            "hint": text(),
        },
    })
}

fn older_problem() -> Value {
    json!({
        "type": "object",
        "required": ["success", "message", "error"],
        "properties": {
            "success": {"const": false},
            "message": {"type": "string"},
            "error": {"type": "object", "required": ["code", "message", "hint"]},
        },
    })
}
