//! The paths and messages of the older systems.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::{OPERATOR, Serving, VIEWER, shop};

#[test]
fn their_clients_find_the_documents_that_they_know() {
    let database = shop();
    let serving = Serving::of(&database);
    let answer = serving.ask(OPERATOR, "POST", "/api/backup/trigger", "");
    assert_eq!(answer.status, 202);
    let begun = answer.json();
    assert_eq!(begun["success"], true);
    assert!(begun["message"].is_string());
    let run = serving.ended(begun["runId"].as_str().unwrap());
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(
        begun["statusUrl"],
        format!("/api/v1/runs/{}", run["id"].as_str().unwrap())
    );
    let list = serving.get("/api/backup/list");
    let one = &list[0];
    let size = one["size"].as_u64().unwrap();
    assert_eq!(one["sizeMB"], format!("{:.2}", size as f64 / 1_048_576.0));
    let name = one["filename"].as_str().unwrap();
    assert!(name.ends_with(".dump") && name.starts_with(&database.name), "{name}");
    assert!(one["created"].is_string() && one["age"].is_string());
    let status = serving.get("/api/backup/status");
    assert_eq!(
        (status["success"].as_bool(), status["backups"]["total"].as_u64()),
        (Some(true), Some(1))
    );
    assert!(status["backups"]["totalSizeMB"].is_number() && status["latestLog"].is_string());
    assert_eq!(status["backups"]["latest"], *one);
    assert_eq!(status["backups"]["list"], json!([one]));
    let admin = serving.get("/api/admin/system/backups");
    assert_eq!(admin, json!({"success": true, "backups": [one], "total": 1}));
    let admin = serving.get("/api/admin/system/backups/status");
    for field in ["config", "schedule", "recent", "disk"] {
        assert!(!admin[field].is_null(), "{field}");
    }
    let refused = serving.ask(VIEWER, "POST", "/api/backup/trigger", "");
    let document = refused.json();
    assert_eq!((refused.status, document["success"].as_bool()), (403, Some(false)));
    assert_eq!(document["error"]["code"], "PERMISSION");
    assert!(document["message"].is_string());
    let wrong = serving.ask(
        OPERATOR,
        "POST",
        "/api/admin/system/backups/create",
        r#"{"type":"half"}"#,
    );
    assert_eq!(
        (wrong.status, wrong.json()["error"]["code"].clone()),
        (400, json!("CONFIG"))
    );
}

/// The text frames of a WebSocket, without a client library: what stands on the wire.
struct Socket(TcpStream);

impl Socket {
    fn open(serving: &Serving, path: &str) -> Socket {
        let address = serving.endpoint.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: \
             13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Socket(stream)
    }

    fn next(&mut self) -> Value {
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).unwrap();
            let length = match head[1] {
                126 => {
                    let mut length = [0; 2];
                    self.0.read_exact(&mut length).unwrap();
                    usize::from(u16::from_be_bytes(length))
                }
                short => usize::from(short),
            };
            let mut text = vec![0; length];
            self.0.read_exact(&mut text).unwrap();
            if head[0] == 0x81 {
                return serde_json::from_slice(&text).unwrap();
            }
        }
    }
}

#[test]
fn their_socket_hears_exactly_the_three_messages() {
    let database = shop();
    let serving = Serving::of(&database);
    let mut sockets = ["/ws", "/"].map(|path| Socket::open(&serving, &format!("{path}?token={VIEWER}")));
    let run = serving.run(r#"{"action":"backup"}"#);
    for socket in &mut sockets {
        let started = socket.next();
        assert_eq!(
            started,
            json!({"type": "backup_started", "backupType": "full", "timestamp": started["timestamp"]})
        );
        let completed = socket.next();
        let expected = json!({
            "type": "backup_completed",
            "backupType": "full",
            "backupPath": run["backup"],
            "duration": completed["duration"],
            "size": run["result"]["bytes_stored"],
        });
        assert_eq!(completed, expected);
        assert!(completed["duration"].is_u64() && started["timestamp"].is_string());
    }
    std::fs::remove_dir_all(serving.store()).unwrap();
    std::fs::write(serving.store(), "no folder").unwrap();
    let failed = serving.run(r#"{"action":"backup"}"#);
    assert_eq!(failed["state"], "failed", "{failed}");
    assert_eq!(sockets[0].next()["type"], "backup_started");
    let told = sockets[0].next();
    let expected = json!({
        "type": "backup_failed",
        "backupType": "full",
        "error": failed["error"]["message"],
        "timestamp": told["timestamp"],
    });
    assert_eq!(told, expected);
}
