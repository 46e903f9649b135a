//! Downloads: whole, in part, by the older systems' names; and names that are no file's.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine;
use sha2::{Digest, Sha256};

use super::{ADMIN, OPERATOR, Serving, VIEWER, shop, walk};
use crate::support::database::Database;
use crate::support::http::{Answer, request};
use crate::support::program::{stock, succeed};

fn made(serving: &Serving) -> String {
    let run = serving.run(r#"{"action":"backup"}"#);
    assert_eq!(run["state"], "succeeded", "{run}");
    run["backup"].as_str().unwrap().to_owned()
}

fn get(serving: &Serving, path: &str, headers: &[(&str, &str)]) -> Answer {
    let bearer = format!("Bearer {OPERATOR}");
    let mut all = vec![("Authorization", bearer.as_str())];
    all.extend_from_slice(headers);
    request("GET", &serving.endpoint, path, &all, "")
}

#[test]
fn stock_pg_restore_reads_a_download_which_comes_whole_or_in_part() {
    let database = shop();
    let serving = Serving::of(&database);
    let id = made(&serving);
    let path = format!("/api/v1/backups/{id}/download");
    assert_eq!(serving.ask(VIEWER, "GET", &path, "").status, 403);
    let whole = get(&serving, &path, &[]);
    assert_eq!(whole.status, 200, "{}", whole.body);
    assert_eq!(whole.header("content-length").unwrap(), whole.bytes.len().to_string());
    let disposition = whole.header("content-disposition").unwrap();
    assert!(
        disposition.starts_with(&format!("attachment; filename=\"{}.dump\"", database.name)),
        "{disposition}"
    );
    let file = serving.place.path().join("downloaded.dump");
    fs::write(&file, &whole.bytes).unwrap();
    let target = Database::fresh(17);
    let mut restore = stock(17, "pg_restore");
    succeed(
        restore
            .args(["-j", "2", "--no-owner", "-d"])
            .arg(target.url())
            .arg(&file),
    );
    assert_eq!(target.sql("SELECT count(*), sum(id) FROM orders").trim(), "1000|500500");

    let bytes = whole.bytes.len();
    let ranges = [
        ("0-99".to_owned(), 0..100),
        ("50-4999".to_owned(), 50..5000.min(bytes)),
        ("-10".to_owned(), bytes - 10..bytes),
        (format!("{}-", bytes / 2), bytes / 2..bytes),
        ("0-999999999999999999999".to_owned(), 0..bytes),
    ];
    for (asked, expected) in ranges {
        let part = get(&serving, &path, &[("Range", &format!("bytes={asked}"))]);
        assert_eq!(part.status, 206, "{asked}");
        let place = format!("bytes {}-{}/{bytes}", expected.start, expected.end - 1);
        assert_eq!(part.header("content-range"), Some(place.as_str()));
        assert!(part.bytes == whole.bytes[expected], "{asked}");
    }
    let behind = get(&serving, &path, &[("Range", "bytes=999999999-")]);
    assert_eq!((behind.status, behind.json()["status"].as_u64()), (416, Some(416)));
    let tag = whole.header("etag").unwrap();
    assert_eq!(get(&serving, &path, &[("If-None-Match", tag)]).status, 304);
    let other = [("Range", "bytes=0-9"), ("If-Range", "\"another\"")];
    assert_eq!(get(&serving, &path, &other).status, 200);
}

#[test]
fn every_file_of_a_backup_can_be_had_as_it_is_stored_and_by_its_older_name() {
    let database = shop();
    let serving = Serving::of(&database);
    let id = made(&serving);
    let listed = serving.get(&format!("/api/v1/backups/{id}/files"));
    let listed = listed["files"].as_object().unwrap();
    assert!(
        listed.contains_key("dump") && listed.contains_key("globals"),
        "{listed:?}"
    );
    for record in listed.values() {
        let name = record["name"].as_str().unwrap();
        let sent = get(&serving, &format!("/api/v1/backups/{id}/files/{name}"), &[]);
        assert_eq!(sent.status, 200, "{name}");
        let path = walk(&serving.store())
            .into_iter()
            .find(|path| path.ends_with(name))
            .unwrap();
        assert!(sent.bytes == fs::read(path).unwrap(), "{name}");
        let digest = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(&sent.bytes));
        assert_eq!(sent.header("repr-digest").unwrap(), format!("sha-256=:{digest}:"));
        assert_eq!(
            record["sha256"].as_str().unwrap(),
            hex::encode(Sha256::digest(&sent.bytes))
        );
    }
    let older = serving.get("/api/backup/list");
    let name = older[0]["filename"].as_str().unwrap().to_owned();
    let older = get(&serving, &format!("/api/backup/download/{name}"), &[]);
    assert_eq!(older.status, 200, "{}", older.body);
    assert!(older.bytes == get(&serving, &format!("/api/v1/backups/{id}/download"), &[]).bytes);
    let audit = serving.ask(ADMIN, "GET", "/api/v1/audit", "").body;
    assert!(audit.contains("\"action\":\"download\""), "{audit}");
}

#[test]
fn a_download_of_damaged_bytes_breaks_off() {
    let database = shop();
    let serving = Serving::of(&database);
    let id = made(&serving);
    let dump = walk(&serving.store())
        .into_iter()
        .find(|path| path.extension().is_some_and(|end| end == "dump"))
        .unwrap();
    let mut bytes = fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&dump, &bytes).unwrap();
    let address = serving.endpoint.strip_prefix("http://").unwrap();
    for form in ["seekable", "stored"] {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!(
            "GET /api/v1/backups/{id}/download?form={form} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {OPERATOR}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // The server closes the connection, which it keeps after an answer that is whole.
        let mut sent = Vec::new();
        let _ = stream.read_to_end(&mut sent);
        assert!(sent.len() < bytes.len(), "{form}: {} of {}", sent.len(), bytes.len());
        assert!(!String::from_utf8_lossy(&sent).contains("HTTP/1.1 4"), "{form}");
    }
    assert_eq!(get(&serving, "/api/v1/me", &[]).status, 200);
}

#[test]
fn a_name_that_is_no_file_of_a_backup_is_not_found_however_it_is_spelled() {
    let database = shop();
    let serving = Serving::of(&database);
    let id = made(&serving);
    let long = "a".repeat(3000);
    let names = [
        "x",
        "..",
        "%2e%2e",
        "..%2F..%2F..%2Fetc%2Fpasswd",
        "%2Fetc%2Fpasswd",
        "..%5C..%5Cboot.ini",
        ".lease",
        "manifest.json%00.dump",
        "%ff%fe",
        "%",
        "test%0d%0aSet-Cookie:%20a=b",
        "test_2026-01-31_04-05-00.dump",
        &long,
    ];
    for name in names {
        for path in [
            format!("/api/backup/download/{name}"),
            format!("/api/v1/backups/{id}/files/{name}"),
            format!("/api/v1/backups/{}/{name}/download", database.name),
        ] {
            let answer = get(&serving, &path, &[]);
            assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
            assert!(answer.header("set-cookie").is_none() && !answer.body.contains("root:"));
        }
    }
}

#[test]
fn two_backups_are_compared_table_by_table() {
    let database = shop();
    database.sql("CREATE TABLE stays AS SELECT 1 AS id; CREATE TABLE goes AS SELECT 1 AS id");
    let serving = Serving::of(&database);
    let first = made(&serving);
    assert_eq!(
        serving
            .ask(VIEWER, "GET", &format!("/api/v1/backups/{first}/compare"), "")
            .status,
        404
    );
    database.sql("INSERT INTO orders VALUES (1001); DROP TABLE goes; CREATE TABLE comes AS SELECT 1 AS id");
    // The ids of two backups of a database are a second apart.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let second = made(&serving);
    let compared = serving.get(&format!("/api/v1/backups/{second}/compare"));
    assert_eq!(compared["with"], first.as_str());
    let of = |name: &str| {
        let tables = compared["tables"].as_array().unwrap();
        tables.iter().find(|table| table["name"] == name).unwrap().clone()
    };
    assert_eq!(of("orders")["difference"], "differs");
    assert_eq!(
        (
            of("orders")["now"]["rows"].as_u64(),
            of("orders")["before"]["rows"].as_u64()
        ),
        (Some(1001), Some(1000))
    );
    assert_eq!(
        (of("stays")["difference"].as_str(), of("goes")["difference"].as_str()),
        (Some("same"), Some("gone"))
    );
    assert_eq!(
        (of("comes")["difference"].as_str(), compared["new"].as_u64()),
        (Some("new"), Some(1))
    );
    let stamp = second.rsplit('/').next().unwrap();
    let same = serving.get(&format!("/api/v1/backups/{second}/compare?with={stamp}"));
    assert_eq!((same["same"].as_u64(), same["differs"].as_u64()), (Some(3), Some(0)));
    assert_eq!(
        serving
            .ask(
                VIEWER,
                "GET",
                &format!("/api/v1/backups/{second}/compare?with=..%2F.."),
                ""
            )
            .status,
        404
    );
}
