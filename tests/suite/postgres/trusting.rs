//! TLS as libpq does it, judged by the server's own view of the session, and by psql beside us.

use std::path::{Path, PathBuf};
use std::process::Command;

use pgstow::error::Code;
use pgstow::postgres::{ConnectionInfo, Session};

use crate::postgres::place::{bin, client, settings, superuser, variable, with};

async fn is_encrypted(session: &Session, major: u32, name: &str) -> bool {
    let _alive = session.server();
    let row = client(&superuser(major))
        .await
        .query_one(
            "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.application_name = $1",
            &[&name],
        )
        .await
        .unwrap();
    row.get(0)
}

#[tokio::test]
async fn each_sslmode_does_what_libpq_does() {
    let ca = variable("PGSTOW_TEST_PG_CA");
    for major in [15, 17] {
        let boss = superuser(major);
        for (parameters, encrypted) in [
            ("sslmode=disable".to_owned(), false),
            ("sslmode=allow".to_owned(), false),
            ("sslmode=prefer".to_owned(), true),
            (String::new(), true),
            ("sslmode=require".to_owned(), true),
            ("ssl=true".to_owned(), true),
            (format!("sslmode=require sslrootcert={ca}"), true),
            (format!("sslmode=verify-ca sslrootcert={ca}"), true),
            (format!("sslmode=verify-full sslrootcert={ca}"), true),
            (format!("sslmode=verify-full sslrootcert={ca} host=localhost"), true),
            (
                format!("sslmode=verify-full sslrootcert={ca} ssl_max_protocol_version=TLSv1.2"),
                true,
            ),
            (
                format!("sslmode=verify-full sslrootcert={ca} ssl_min_protocol_version=TLSv1.3"),
                true,
            ),
            (
                format!("sslmode=verify-full sslrootcert={ca} channel_binding=require"),
                true,
            ),
            ("sslmode=require sslsni=0".to_owned(), true),
            ("sslrootcert=/no/such/file sslcert=/no/such/file".to_owned(), true),
            ("sslmode=allow sslrootcert=/no/such/file".to_owned(), false),
        ] {
            let name = format!("modes {major}");
            let info = with(&boss, &format!("application_name='{name}' {parameters}"));
            let session = Session::connect(&info, &settings(major)).await;
            let session = session.unwrap_or_else(|error| panic!("{parameters}: {error}"));
            assert_eq!(is_encrypted(&session, major, &name).await, encrypted, "{parameters}");
            drop(session);
            gone(major, &name).await;
        }
    }
    // Only servers from 17 on know it.
    let info = with(&superuser(17), "sslmode=require sslnegotiation=direct");
    Session::connect(&info, &settings(17)).await.unwrap();
}

async fn gone(major: u32, name: &str) {
    let admin = client(&superuser(major)).await;
    for _ in 0..100 {
        let rows = admin
            .query("SELECT FROM pg_stat_activity WHERE application_name = $1", &[&name])
            .await
            .unwrap();
        if rows.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the session outlived its owner");
}

#[tokio::test]
async fn a_root_certificate_in_the_home_folder_counts_as_in_libpq() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".postgresql")).unwrap();
    let root = home.path().join(".postgresql/root.crt");
    let mut settings = settings(15);
    settings
        .child_env
        .push(("HOME".into(), home.path().display().to_string()));
    let full = with(&superuser(15), "sslmode=verify-full");
    let error = Session::connect(&full, &settings).await.err().unwrap();
    assert_eq!(error.code(), Code::Config, "{error}");
    std::fs::copy(variable("PGSTOW_TEST_PG_CA"), &root).unwrap();
    Session::connect(&full, &settings).await.unwrap();
    // Another root: `require` then checks, `prefer` goes on without TLS.
    let stranger = Certificates::make(home.path());
    std::fs::copy(stranger.folder.join("ca.crt"), &root).unwrap();
    let error = Session::connect(&with(&superuser(15), "sslmode=require"), &settings)
        .await
        .err()
        .unwrap();
    assert_eq!(error.code(), Code::ConnErr, "{error}");
    assert!(error.hint_text().contains("sslrootcert"), "{}", error.hint_text());
    let session = Session::connect(&with(&superuser(15), "application_name=fallback"), &settings)
        .await
        .unwrap();
    assert!(!is_encrypted(&session, 15, "fallback").await);
}

#[tokio::test]
async fn a_certificate_file_that_is_named_must_be_there_and_make_sense() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "nothing").unwrap();
    for parameters in [
        "sslmode=require sslrootcert=/no/such/file".to_owned(),
        format!("sslmode=require sslrootcert={}", empty.display()),
        "sslmode=require sslcert=/no/such/file".to_owned(),
        "sslmode=require sslrootcert=system".to_owned(),
        "sslmode=prefer sslnegotiation=direct".to_owned(),
        format!("sslmode=require sslcert={}", empty.display()),
    ] {
        let result = Session::connect(&with(&superuser(15), &parameters), &settings(15)).await;
        assert_eq!(result.err().unwrap().code(), Code::Config, "{parameters}");
    }
}

/// Certificates as people make them, by openssl.
struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    fn make(parent: &Path) -> Self {
        let folder = parent.join("certificates");
        std::fs::create_dir(&folder).unwrap();
        let script = r#"
            set -e
            key() { openssl req -new -newkey rsa:2048 -nodes -subj "/CN=$2" -keyout $1.key -out $1.csr; }
            openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=a CA" -keyout ca.key -out ca.crt
            openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=a CA" -keyout twin.key -out twin.crt
            # The manual's way: no extensions, so X.509 version 1, the name in the subject.
            key plain localhost; openssl x509 -req -in plain.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out plain.crt
            key elsewhere elsewhere; openssl x509 -req -in elsewhere.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out elsewhere.crt
            openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=localhost" -keyout selfsigned.key -out selfsigned.crt
            # By the CA's name, but not by its key.
            key forged localhost; openssl x509 -req -in forged.csr -CA twin.crt -CAkey twin.key -CAcreateserial -days 30 -out forged.crt
            openssl ecparam -name prime256v1 -genkey -noout -out curve.key
            openssl req -new -key curve.key -subj "/CN=ignored" -out curve.csr
            printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > names
            openssl x509 -req -in curve.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile names -out curve.crt
            printf 'subjectAltName=DNS:elsewhere\nbasicConstraints=CA:FALSE\n' > others
            openssl x509 -req -in plain.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile others -out othername.crt
            cp plain.key othername.key
            openssl x509 -req -in plain.csr -CA twin.crt -CAkey twin.key -CAcreateserial -days 30 -extfile others -out stranger.crt
            cp plain.key stranger.key
            key client postgres; openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out client.crt
            chmod 600 *.key
        "#;
        let output = Command::new("sh")
            .args(["-c", script])
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { folder }
    }
}

/// A server of our own, whose certificate we change.
struct Server {
    data: PathBuf,
    port: u16,
    programs: PathBuf,
    certificates: Certificates,
    folder: tempfile::TempDir,
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Server {
    fn start() -> Self {
        let programs = bin(15);
        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates::make(folder.path());
        let server = Self {
            data: folder.path().join("data"),
            port: std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port(),
            programs,
            certificates,
            folder,
        };
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").args(["-R", "postgres"]).arg(server.folder.path()));
        }
        run(as_postgres(&server.programs.join("initdb"))
            .args(["-A", "trust", "-U", "postgres", "-D"])
            .arg(&server.data));
        server.configure("plain", "host all all all trust");
        let log = server.data.join("log");
        run(as_postgres(&server.programs.join("pg_ctl"))
            .arg("-D")
            .arg(&server.data)
            .arg("-l")
            .arg(log)
            .args(["-w", "start"]));
        server
    }

    fn configure(&self, certificate: &str, hba: &str) {
        let at = self.certificates.folder.display();
        let text = format!(
            "port={}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='{}'\nfsync=off\nssl=on\n\
             ssl_cert_file='{at}/{certificate}.crt'\nssl_key_file='{at}/{certificate}.key'\nssl_ca_file='{at}/ca.crt'\n",
            self.port,
            self.folder.path().display()
        );
        std::fs::write(self.data.join("postgresql.auto.conf"), text).unwrap();
        std::fs::write(self.data.join("pg_hba.conf"), format!("local all all trust\n{hba}\n")).unwrap();
    }

    async fn use_certificate(&self, certificate: &str, hba: &str) {
        self.configure(certificate, hba);
        run(as_postgres(&self.programs.join("pg_ctl"))
            .arg("-D")
            .arg(&self.data)
            .arg("reload"));
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    }

    fn info(&self, parameters: &str) -> ConnectionInfo {
        let base = format!(
            "host=localhost hostaddr=127.0.0.1 port={} user=postgres dbname=postgres {parameters}",
            self.port
        );
        ConnectionInfo::parse_url(&base).unwrap()
    }

    fn root(&self, name: &str) -> String {
        format!("sslrootcert={}", self.certificates.folder.join(name).display())
    }

    /// What libpq makes of the same connection.
    fn psql(&self, info: &ConnectionInfo) -> bool {
        let mut command = Command::new(self.programs.join("psql"));
        command
            .env_clear()
            .args(["-w", "-Atc", "SELECT 1", "-d"])
            .arg(info.to_conninfo());
        command.output().unwrap().status.success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = as_postgres(&self.programs.join("pg_ctl"))
            .arg("-D")
            .arg(&self.data)
            .args(["-m", "immediate", "stop"])
            .output();
    }
}

#[tokio::test]
async fn certificates_as_the_manual_teaches_to_make_them_are_judged_as_libpq_judges_them() {
    let server = Server::start();
    let open = "host all all all trust";
    let cases: &[(&str, &str, &str, bool)] = &[
        ("plain", "ca.crt", "require", true),
        ("plain", "ca.crt", "verify-ca", true),
        ("plain", "ca.crt", "verify-full", true),
        ("plain", "twin.crt", "verify-ca", false),
        ("elsewhere", "ca.crt", "verify-ca", true),
        ("elsewhere", "ca.crt", "verify-full", false),
        ("selfsigned", "selfsigned.crt", "verify-full", true),
        ("selfsigned", "ca.crt", "verify-ca", false),
        ("forged", "ca.crt", "verify-ca", false),
        ("forged", "ca.crt", "require", false),
        ("curve", "ca.crt", "verify-full", true),
        ("curve", "twin.crt", "verify-full", false),
        // The alternative names win over the subject's, which says localhost.
        ("othername", "ca.crt", "verify-ca", true),
        ("othername", "ca.crt", "verify-full", false),
        // A wrong name must not hide a wrong signature.
        ("stranger", "ca.crt", "verify-ca", false),
    ];
    let mut current = "";
    for (certificate, root, mode, accepted) in cases {
        if current != *certificate {
            server.use_certificate(certificate, open).await;
            current = certificate;
        }
        for version in ["TLSv1.2", "TLSv1.3"] {
            let info = server.info(&format!(
                "sslmode={mode} {} ssl_min_protocol_version={version} ssl_max_protocol_version={version}",
                server.root(root)
            ));
            let ours = Session::connect(&info, &settings(15)).await;
            assert_eq!(
                server.psql(&info),
                *accepted,
                "libpq: {certificate} {root} {mode} {version}"
            );
            assert_eq!(
                ours.is_ok(),
                *accepted,
                "{certificate} {root} {mode} {version}: {:?}",
                ours.err()
            );
            if let Err(error) = ours {
                assert_eq!(error.code(), Code::ConnErr);
            }
        }
    }
}

#[tokio::test]
async fn client_certificates_sockets_and_demands_of_pg_hba_work_as_in_libpq() {
    let server = Server::start();
    let at = server.certificates.folder.display().to_string();
    server.use_certificate("curve", "hostssl all all all cert").await;
    let with_certificate = format!("sslmode=require sslcert={at}/client.crt sslkey={at}/client.key");
    for (parameters, code) in [
        (with_certificate, None),
        ("sslmode=require".to_owned(), Some(Code::Auth)),
        ("sslmode=disable".to_owned(), Some(Code::Auth)),
    ] {
        let result = Session::connect(&server.info(&parameters), &settings(15)).await;
        assert_eq!(
            result.as_ref().err().map(pgstow::error::Error::code),
            code,
            "{parameters}: {:?}",
            result.err()
        );
    }
    // `prefer` goes on without TLS where the server wants none, `allow` with it where it wants it.
    server.use_certificate("curve", "hostnossl all all all trust").await;
    Session::connect(&server.info("sslmode=prefer"), &settings(15))
        .await
        .unwrap();
    server.use_certificate("curve", "hostssl all all all trust").await;
    Session::connect(&server.info("sslmode=allow"), &settings(15))
        .await
        .unwrap();
    // Never TLS over a socket, whatever the mode.
    let socket = ConnectionInfo::parse_url(&format!(
        "host={} port={} dbname=postgres user=postgres sslmode=require",
        server.folder.path().display(),
        server.port
    ))
    .unwrap();
    let session = Session::connect(&socket, &settings(15)).await.unwrap();
    assert!(!session.info().params.contains_key("hostaddr"));
}
