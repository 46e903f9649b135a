//! Every way to log in, on servers of the oldest and the newest major, judged by the server's log.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use pgstow::error::Code;
use pgstow::format::Lsn;
use pgstow::postgres::{ConnectionInfo, Hold, ReplicationSession, Session, Streamed, Taken};

use crate::postgres::place::{settings, with};
use crate::support::database::psql;
use crate::support::program::succeed;
use crate::support::server::{OwnServer, postgres_user};

/// A CA, a server's certificate and a client's, as the server may read them.
fn certificates(folder: &Path) {
    let script = r#"
        set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=a CA" -keyout ca.key -out ca.crt
        for name in localhost certified; do
            openssl req -new -newkey rsa:2048 -nodes -subj "/CN=$name" -keyout $name.key -out $name.csr
            openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out $name.crt
        done
        chmod 600 *.key
    "#;
    succeed(Command::new("sh").args(["-c", script]).current_dir(folder));
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    if let Some((uid, gid)) = postgres_user() {
        chown(folder.join("localhost.key"), Some(uid), Some(gid)).unwrap();
    }
}

const RULES: &str = "local all all scram-sha-256
host all digested 127.0.0.1/32 md5
host all clear 127.0.0.1/32 password
hostssl all certified 127.0.0.1/32 cert
host all all 127.0.0.1/32 scram-sha-256
";

struct Place {
    server: OwnServer,
    folder: tempfile::TempDir,
}

impl Place {
    fn start(major: u32) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("pgstow-logins-")
            .tempdir_in("/tmp")
            .unwrap();
        certificates(folder.path());
        let at = folder.path().display();
        std::fs::write(folder.path().join("rules"), RULES).unwrap();
        let server = OwnServer::start_with(
            major,
            &[
                &format!("hba_file={at}/rules"),
                "ssl=on",
                &format!("ssl_cert_file={at}/localhost.crt"),
                &format!("ssl_key_file={at}/localhost.key"),
                &format!("ssl_ca_file={at}/ca.crt"),
                "log_connections=on",
            ],
        );
        psql(
            major,
            &server.url(),
            "CREATE ROLE scram LOGIN PASSWORD 'pw'; CREATE ROLE clear LOGIN PASSWORD 'pw'; CREATE ROLE certified LOGIN;
             CREATE ROLE follower LOGIN REPLICATION PASSWORD 'pw';
             SET password_encryption = 'md5'; CREATE ROLE digested LOGIN PASSWORD 'pw'",
        );
        Self { server, folder }
    }

    fn info(&self, parameters: &str) -> ConnectionInfo {
        let base = format!(
            "host=localhost hostaddr=127.0.0.1 port={} user=scram password=pw dbname=postgres",
            self.server.port
        );
        with(&ConnectionInfo::parse_url(&base).unwrap(), parameters)
    }

    /// Those who logged in by this method, as often as they did.
    fn logins(&self, method: &str) -> usize {
        let log = std::fs::read_to_string(self.server.data().with_file_name("log")).unwrap();
        log.lines()
            .filter(|line| line.contains("connection authenticated") && line.contains(&format!("method={method} ")))
            .count()
    }
}

async fn every_way_to_log_in_leads_to_a_session_that_works(major: u32) {
    let place = Place::start(major);
    let at = place.folder.path().display().to_string();
    let full = format!("sslmode=verify-full sslrootcert={at}/ca.crt");
    let socket = place.server.data().parent().unwrap().display().to_string();
    let mut cases = vec![
        ("user=digested sslmode=disable".to_owned(), "md5", false),
        ("user=digested sslmode=require".to_owned(), "md5", true),
        ("user=clear sslmode=disable".to_owned(), "password", false),
        (format!("user=clear {full}"), "password", true),
        ("sslmode=disable".to_owned(), "scram-sha-256", false),
        (
            "sslmode=prefer channel_binding=disable".to_owned(),
            "scram-sha-256",
            true,
        ),
        // The client ends a login that is not bound to the line.
        (format!("{full} channel_binding=require"), "scram-sha-256", true),
        (
            format!("{full} channel_binding=require ssl_max_protocol_version=TLSv1.2"),
            "scram-sha-256",
            true,
        ),
        (
            format!("user=certified {full} sslcert={at}/certified.crt sslkey={at}/certified.key"),
            "cert",
            true,
        ),
        (format!("host={socket}"), "scram-sha-256", false),
    ];
    if major >= 17 {
        let direct = format!("{full} sslnegotiation=direct channel_binding=require");
        cases.push((direct, "scram-sha-256", true));
    }
    for (parameters, method, encrypted) in cases {
        let mut info = place.info(&parameters);
        if parameters.starts_with("host=/") {
            info.params.remove("hostaddr");
        }
        let before = place.logins(method);
        let session = Session::connect(&info, &settings(major)).await;
        let session = session.unwrap_or_else(|error| panic!("{parameters}: {error}"));
        assert!(place.logins(method) > before, "{parameters}: not by {method}");
        let line = session.info().params.get("sslmode").cloned().unwrap_or_default();
        assert_eq!(
            encrypted,
            !info.is_socket() && line != "disable",
            "{parameters}: sslmode={line}"
        );
        // The client library, and the rows' own session.
        session.size().await.unwrap();
        let taken = Hold::take(&session, Duration::from_secs(5)).await.unwrap();
        let Taken::Held(hold, _) = taken else {
            panic!("{parameters}: no second session");
        };
        hold.release().await.unwrap();
        session.close().await;
    }
}

on_majors! { async every_way_to_log_in_leads_to_a_session_that_works: 15 18 }

async fn what_may_not_be_is_refused_before_it_is_answered(major: u32) {
    let place = Place::start(major);
    let at = place.folder.path().display().to_string();
    for (parameters, words) in [
        ("sslmode=disable channel_binding=require", "channel binding"),
        (
            "user=digested sslmode=require channel_binding=require",
            "channel binding",
        ),
        ("user=digested require_auth=scram-sha-256", "MD5"),
        ("user=clear require_auth=!password", "in clear text"),
        ("user=scram require_auth=none", "scram-sha-256"),
        ("password=wrong", "the server says"),
        ("user=certified sslmode=require", "the server says"),
    ] {
        let error = Session::connect(&place.info(parameters), &settings(major)).await.err();
        let error = error.unwrap_or_else(|| panic!("{parameters}: connected"));
        assert_eq!(error.code(), Code::Auth, "{parameters}: {error}");
        assert!(error.message().contains(words), "{parameters}: {error}");
    }
    let another = format!("sslmode=verify-ca sslrootcert={at}/certified.crt");
    let error = Session::connect(&place.info(&another), &settings(major)).await.err();
    assert_eq!(error.map(|error| error.code()), Some(Code::ConnErr));
}

on_majors! { async what_may_not_be_is_refused_before_it_is_answered: 15 18 }

async fn a_session_for_replication_says_which_server_it_is_and_streams_changes(major: u32) {
    let place = Place::start(major);
    let database = place.server.database("follow");
    database.sql("CREATE TABLE t (a int PRIMARY KEY, b text); CREATE PUBLICATION p FOR TABLE t");
    database.sql("SELECT pg_create_logical_replication_slot('follow', 'pgoutput')");
    database.sql("INSERT INTO t SELECT i, repeat('row ', 200) FROM generate_series(1, 2000) i");
    let name = ConnectionInfo::parse_url(&database.url()).unwrap().dbname.unwrap();
    let full = format!(
        "sslmode=verify-full sslrootcert={}/ca.crt",
        place.folder.path().display()
    );
    for line in ["sslmode=disable", &full] {
        let info = place.info(&format!("user=follower dbname={name} {line}"));
        let session = Session::connect(&info, &settings(major)).await.unwrap();
        let mut stream = session.open_replication().await.unwrap();
        let source = stream.identify().await.unwrap();
        assert_eq!(source.database.as_deref(), Some(name.as_str()));
        assert_eq!(source.timeline, 1);
        let known = session.server().system_identifier.clone();
        assert!(known.is_none_or(|known| known == source.system_identifier));
        assert!(
            stream
                .parameter("server_version")
                .unwrap()
                .starts_with(&major.to_string())
        );
        assert!(stream.process().is_some());

        let options = [("proto_version", "1"), ("publication_names", "p")];
        stream.start("follow", Lsn::default(), &options).await.unwrap();
        let (kinds, end) = transaction(&mut stream).await;
        assert_eq!(kinds.first(), Some(&b'B'), "{}", kinds.len());
        assert_eq!(kinds.iter().filter(|kind| **kind == b'I').count(), 2000);
        stream.finish().await.unwrap();
        // Nothing was confirmed: it all comes again. And the session takes commands again.
        assert_eq!(
            stream.identify().await.unwrap().system_identifier,
            source.system_identifier
        );
        let again = stream.start("follow", Lsn::default(), &options).await;
        assert_eq!(again.unwrap_err().code(), Code::Internal);
        stream.close().await;
        let mut stream = session.open_replication().await.unwrap();
        stream.start("follow", Lsn::default(), &options).await.unwrap();
        assert_eq!(transaction(&mut stream).await.0.len(), kinds.len());
        if line == full {
            stream.confirm(end, SystemTime::now()).await.unwrap();
            stream.finish().await.unwrap();
            let kept = database.sql("SELECT confirmed_flush_lsn FROM pg_replication_slots");
            assert!(kept.trim().parse::<Lsn>().unwrap() >= end, "{kept} {end}");
        }
        stream.close().await;
        session.close().await;
    }
    // A role that may not.
    let session = Session::connect(&place.info("sslmode=disable"), &settings(major))
        .await
        .unwrap();
    let error = session.open_replication().await.err().unwrap();
    assert_eq!(error.code(), Code::Permission, "{error}");
}

/// The kinds of the messages of the next transaction, and where it ends. The wait for each is given up now and then.
async fn transaction(stream: &mut ReplicationSession) -> (Vec<u8>, Lsn) {
    let mut kinds = Vec::new();
    let limit = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        assert!(
            std::time::Instant::now() < limit,
            "no end after {} messages",
            kinds.len()
        );
        let Ok(heard) = tokio::time::timeout(Duration::from_micros(200), stream.next()).await else {
            continue;
        };
        match heard.unwrap() {
            Streamed::Change { bytes, .. } => {
                kinds.push(bytes[0]);
                if bytes[0] == b'C' {
                    // Flags, where the commit is, and where it ends.
                    let end: [u8; 8] = bytes[10..18].try_into().unwrap();
                    return (kinds, Lsn(u64::from_be_bytes(end)));
                }
            }
            Streamed::Alive { .. } => {}
            Streamed::End => panic!("the server ended the stream"),
        }
    }
}

on_majors! { async a_session_for_replication_says_which_server_it_is_and_streams_changes: 15 18 }
