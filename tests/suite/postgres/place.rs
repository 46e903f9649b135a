//! Databases of our own on the test servers.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use pgstow::error::Result;
use pgstow::postgres::{ConnectionInfo, Contents, Dump, DumpOrder, Passfile, Programs, Session};
use pgstow::settings::{Format, Postgres};
use tokio_postgres::{Client, NoTls};

pub const MAJORS: [u32; 2] = [15, 17];

pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests through `make test`"))
}

pub fn bin(major: u32) -> PathBuf {
    variable(&format!("PGSTOW_TEST_PG_BIN_{major}")).into()
}

/// The superuser's connection to a major's server.
pub fn superuser(major: u32) -> ConnectionInfo {
    ConnectionInfo::parse_url(&variable(&format!("PGSTOW_TEST_PG{major}_URL"))).unwrap()
}

pub fn with(info: &ConnectionInfo, over: &str) -> ConnectionInfo {
    info.clone().merge(&ConnectionInfo::parse_url(over).unwrap())
}

pub fn with_name(info: &ConnectionInfo, database: &str) -> ConnectionInfo {
    let mut info = info.clone();
    info.dbname = Some(database.into());
    info
}

/// A plain client, which knows nothing of the code under test.
pub async fn client(info: &ConnectionInfo) -> Client {
    use secrecy::ExposeSecret;
    let mut config = tokio_postgres::Config::new();
    config
        .host(info.host.as_deref().unwrap())
        .port(info.port.unwrap())
        .user(info.user.as_deref().unwrap())
        .password(info.password.as_ref().unwrap().expose_secret())
        .dbname(info.dbname.as_deref().unwrap())
        .application_name("the test");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A fresh database, filled by `sql`. Names are the test's own, so that tests may run at once.
pub async fn database(major: u32, name: &str, sql: &str) -> ConnectionInfo {
    let boss = superuser(major);
    let server = client(&boss).await;
    let quoted = quoted(name);
    server
        .batch_execute(&format!("DROP DATABASE IF EXISTS {quoted} WITH (FORCE)"))
        .await
        .unwrap();
    server
        .batch_execute(&format!("CREATE DATABASE {quoted} TEMPLATE template0"))
        .await
        .unwrap();
    let info = with_name(&boss, name);
    client(&info).await.batch_execute(sql).await.unwrap();
    info
}

/// A role that may log in, and its connection to the same database.
pub async fn role(info: &ConnectionInfo, name: &str, attributes: &str) -> ConnectionInfo {
    let server = client(info).await;
    let exists = server
        .query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&name])
        .await
        .unwrap();
    if exists.is_none() {
        server.batch_execute(&format!("CREATE ROLE {name}")).await.unwrap();
    }
    server
        .batch_execute(&format!("ALTER ROLE {name} LOGIN PASSWORD 'pw of {name}' {attributes}"))
        .await
        .unwrap();
    with(info, &format!("user={name} password='pw of {name}'"))
}

pub fn settings(major: u32) -> Postgres {
    Postgres {
        bin: Some(vec![bin(major)]),
        path: Vec::new(),
        dump_major: None,
        lock_wait: Duration::from_secs(30),
        stall: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(10),
        temp: std::env::temp_dir(),
        child_env: vec![("PATH".into(), std::env::var("PATH").unwrap())],
        client_walls: None,
    }
}

pub async fn connect(info: &ConnectionInfo, major: u32) -> Result<Session> {
    Session::connect(info, &settings(major)).await
}

/// A dump as a backup runs it, by the given programs: what came out, and the verdict.
pub async fn dump_with(programs: &Programs, info: &ConnectionInfo, settings: &Postgres) -> (Vec<u8>, Result<()>) {
    let session = Session::connect(info, settings).await.unwrap();
    let snapshot = session.export_snapshot().await.unwrap();
    let passfile = Passfile::create(&settings.temp, session.info()).unwrap();
    let format = Format::Custom;
    let mut dump = Dump::start(&DumpOrder {
        programs,
        info: session.info(),
        passfile: passfile.as_ref(),
        snapshot: &snapshot.id,
        contents: Contents::Whole(format),
        lock_wait: settings.lock_wait,
        settings,
    })
    .await
    .unwrap();
    let mut stdout = dump.take_stdout().unwrap();
    let bytes = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).unwrap();
        bytes
    });
    (bytes.await.unwrap(), dump.wait().await)
}

pub async fn dump(info: &ConnectionInfo, major: u32) -> (Vec<u8>, Result<()>) {
    let settings = settings(major);
    let programs = Programs::find(major, &settings).await.unwrap();
    dump_with(&programs, info, &settings).await
}

/// What an archive would restore, as SQL, by the stock pg_restore.
pub fn restored(archive: &[u8], major: u32) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("archive");
    std::fs::write(&file, archive).unwrap();
    let output = std::process::Command::new(bin(major).join("pg_restore"))
        .args(["-f", "-"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An executable script in place of pg_dump; `$REAL` is the real one.
pub fn scripted(folder: &std::path::Path, major: u32, body: &str) -> Programs {
    use std::os::unix::fs::PermissionsExt;
    let real = bin(major).join("pg_dump");
    let script = format!(
        "#!/bin/sh\nREAL={}\nif [ \"$1\" = --version ]; then exec $REAL --version; fi\n{body}\n",
        real.display()
    );
    let path = folder.join("pg_dump");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    Programs {
        pg_dump: path,
        pg_dumpall: None,
        version: format!("{major}"),
        major,
    }
}
