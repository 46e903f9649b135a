//! The program from outside: exit codes, and what goes to which stream.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn pgstow(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgstow"));
    command.env_clear().current_dir(folder).stdin(Stdio::null());
    command
}

fn run(folder: &Path, args: &[&str]) -> (Output, String, String) {
    let output = pgstow(folder).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

#[test]
fn a_wrong_setting_is_one_line_and_a_hint_on_stderr_and_exit_2() {
    let folder = tempfile::tempdir().unwrap();
    let (output, out, err) = run(folder.path(), &["backup", "--retention", "soon"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(out, "");
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 2, "{err}");
    assert!(
        lines[0].starts_with("error[CONFIG]: --retention: ") && lines[1].starts_with("hint: "),
        "{err}"
    );
}

#[test]
fn what_a_command_does_not_use_is_a_warning_to_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("s")).unwrap();
    let list = ["list", "--store", "s"];
    let (without, out, _) = run(folder.path(), &list);
    for (variable, text) in [
        ("DB_PASSWORD_FILE", "/nonexistent"),
        ("PGPASSWORD_FILE", "/nonexistent"),
        ("BACKUP_TARGET_PASSWORD_FILE", "/nonexistent"),
        ("AWS_REGION", "no region"),
        ("RUST_LOG", "zz:://"),
        ("LOG_FORMAT", "xml"),
        ("BACKUP_SIGN_KEY", "arn:odd"),
        ("BACKUP_MAX_AGE", "soon"),
    ] {
        let output = pgstow(folder.path()).args(list).env(variable, text).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), without.status.code(), "{variable}: {told}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), out, "{variable}");
        assert!(told.contains(variable) && told.contains("WARN"), "{variable}: {told}");
    }
    let keys = ["keygen", "key"];
    let output = pgstow(folder.path()).args(keys).env("BACKUP_STORE", "s3://").output();
    assert_eq!(output.unwrap().status.code(), Some(0));
    let output = pgstow(folder.path()).args(["--env-file", "none", "scheduler"]).output();
    let told = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(told.contains("`pgstow serve` begins runs"), "{told}");
}

#[test]
fn with_json_a_failure_is_a_document_on_stdout_even_of_arguments() {
    let folder = tempfile::tempdir().unwrap();
    for args in [&["frobnicate", "--json"][..], &["backup", "--json", "--jobs", "none"]] {
        let (output, out, err) = run(folder.path(), args);
        assert_eq!(output.status.code(), Some(2));
        let document: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(document["status"], "failed");
        assert_eq!(document["error"]["code"], "CONFIG");
        assert!(document["error"]["message"].is_string() && document["error"]["hint"].is_string());
        assert!(err.starts_with("error[CONFIG]: "), "{err}");
    }
}

#[test]
fn the_env_file_of_the_working_directory_is_read_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let secret = "DATABASE_URL=postgres://ada:hunter2@h/db\nBACKUP_FORMAT=tar\nBACKUP_SECRET_ID=prod\n";
    std::fs::write(folder.path().join(".env"), secret).unwrap();
    let (output, _, err) = run(folder.path(), &["backup"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err.contains("BACKUP_FORMAT from .env"), "{err}");
    assert!(
        err.contains("DATABASE_URL from .env and BACKUP_SECRET_ID from .env are in conflict"),
        "{err}"
    );
    assert!(!err.contains("hunter2"), "{err}");
}

#[test]
fn a_reader_that_leaves_and_a_full_disk_are_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = pgstow(folder.path()).arg("--help").stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = pgstow(folder.path()).arg("frobnicate").stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(2));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = pgstow(folder.path()).arg("--help").stdout(full).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("warning: stdout"));
}

#[test]
fn half_a_lambda_environment_is_said_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = pgstow(folder.path())
        .env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("AWS_LAMBDA_FUNCTION_NAME"));
}

#[test]
fn a_file_that_is_named_is_neither_waited_for_nor_read_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let fifo = fifo.to_str().unwrap();
    for file in [fifo, "/dev/zero"] {
        let url = format!("postgresql://a:b@127.0.0.1:1/c?sslmode=verify-full&sslrootcert={file}");
        for args in [
            &["status", "--store", "s", "--env-file", file][..],
            &["status", "--store", "s", "--config", file],
            &["backup", "--store", "s", "--database-url", &url],
        ] {
            let (output, _, err) = run(folder.path(), args);
            assert_eq!(output.status.code(), Some(2), "{args:?}: {err}");
            assert!(err.contains(file), "{args:?}: {err}");
        }
    }
}
