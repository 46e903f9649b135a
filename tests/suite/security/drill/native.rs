//! The walls around the throwaway server, tried by one who has come further than he should: as its superuser,
//! and with code of his own in one of its processes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pgstow::postgres::{Lacking, ScratchServer, ServerPrograms, Session};
use pgstow::run::confinement::Walls;
use tokio_postgres::Client;

use super::{Listener, assert_no_process_knows, entries, open_folder};
use crate::support::database::unique_word;
use crate::support::program::{program, succeed};
use crate::support::services::postgres_settings;
use crate::support::throwaway;
use crate::support::wreck::processes;

async fn start(major: u32, temp: &Path, walls: Walls) -> (ScratchServer, Client) {
    let settings = postgres_settings(major);
    let programs = ServerPrograms::find(major, &settings).await.unwrap();
    let server = ScratchServer::start_behind(walls, &programs, temp, &settings, Lacking::Tolerated)
        .await
        .unwrap();
    Session::connect(server.info(), &settings).await.unwrap();
    let client = throwaway::client(&server).await;
    (server, client)
}

/// How PostgreSQL says that the kernel said no.
const WALLS: [&str; 6] = [
    "Read-only file system",
    "Permission denied",
    "Operation not permitted",
    "Address family not supported",
    "could not establish connection",
    "could not execute command",
];

async fn the_servers_own_superuser_starts_no_program_and_reaches_no_file_and_no_network(major: u32) {
    let (temp, marks, listener) = (
        open_folder("pgstow-walls-"),
        open_folder("pgstow-marks-"),
        Listener::start(),
    );
    let secret = marks.path().join("secret");
    fs::write(&secret, "everybody's to read").unwrap();
    let (server, client) = start(major, temp.path(), Walls::here()).await;
    let (place, us) = (marks.path().display(), std::process::id());
    client
        .batch_execute("CREATE EXTENSION dblink; CREATE EXTENSION file_fdw; SELECT lo_from_bytea(815, 'x')")
        .await
        .unwrap();
    let port = listener.port;
    for attack in [
        format!("COPY (SELECT 1) TO PROGRAM 'touch {place}/program'"),
        "COPY (SELECT 1) TO PROGRAM 'true'".to_owned(),
        format!("COPY (SELECT 1) TO '{place}/copy'"),
        format!("SELECT lo_export(815, '{place}/export')"),
        format!("SELECT pg_read_file('{}')", secret.display()),
        format!("SELECT pg_read_binary_file('/proc/{us}/environ')"),
        "SELECT pg_read_binary_file('/proc/self/environ')".to_owned(),
        "SELECT pg_read_file('/etc/shadow')".to_owned(),
        "SELECT pg_ls_dir('/root')".to_owned(),
        "SELECT pg_ls_dir('/tmp')".to_owned(),
        format!(
            "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; CREATE FOREIGN TABLE f (l text) SERVER files
               OPTIONS (filename '{}'); SELECT * FROM f",
            secret.display()
        ),
        format!("SELECT dblink_connect('host=127.0.0.1 port={port} user=u dbname=d connect_timeout=2')"),
        format!(
            "SELECT dblink_connect('host={} user=postgres dbname=d')",
            server.info().host.as_deref().unwrap()
        ),
        format!("CREATE TABLESPACE t LOCATION '{place}'"),
    ] {
        let error = client.batch_execute(&attack).await.expect_err(&attack);
        let message = error.as_db_error().unwrap().to_string();
        // Each by the wall, and not because it was asked for in the wrong way.
        // It has a /proc of its own where the kernel allows that, without us.
        let unseen = attack.contains(&format!("/proc/{us}/")) && message.contains("No such file or directory");
        assert!(
            unseen || WALLS.iter().any(|wall| message.contains(wall)),
            "{attack}: {message}"
        );
    }
    assert_eq!(entries(marks.path()), [secret]);
    assert_eq!(listener.calls(), 0);
    server.stop().await.unwrap();
    assert_eq!(entries(temp.path()).len(), 0);
}

on_majors! { async the_servers_own_superuser_starts_no_program_and_reaches_no_file_and_no_network: 15 18 }

/// Runs when the server loads it, before it is looked at. It leaves a daemon, and writes what it could do.
const CODE: &str = r#"
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <utime.h>
#include <unistd.h>

static FILE *report;
static void tell(const char *what, int worked) { if (worked) fprintf(report, "%s\n", what); fflush(report); }

static void try_all(void) {
    char path[256];
    char *arguments[] = {"/bin/true", NULL}, *none[] = {NULL};
    tell("write", open(MARKS "/native", O_CREAT | O_WRONLY, 0666) >= 0);
    tell("read", open(MARKS "/secret", O_RDONLY) >= 0);
    tell("link", symlink("/etc/passwd", MARKS "/link") == 0);
    snprintf(path, sizeof path, "/proc/%d/environ", OWNER);
    tell("environment", open(path, O_RDONLY) >= 0);
    snprintf(path, sizeof path, "/proc/%d/mem", OWNER);
    tell("memory", open(path, O_RDONLY) >= 0);
    tell("cut", truncate(MARKS "/open", 0) == 0);
    tell("owner", kill(OWNER, 0) == 0);
    int keepers[] = {KEEPERS};
    for (int keeper = 0; keeper < sizeof keepers / sizeof *keepers; keeper++)
        if (kill(keepers[keeper], 0) == 0) { tell("keeper", 1); break; }
    tell("everybody", kill(-1, 0) == 0);
    tell("mode", chmod(REPORT, 0644) == 0);
    tell("mode of open", fchmod(fileno(report), 0644) == 0);
    tell("mode at", fchmodat(AT_FDCWD, REPORT, 0644, 0) == 0);
    tell("mode at 2", syscall(452, AT_FDCWD, REPORT, 0644, 0) == 0);
    tell("chown", chown(REPORT, -1, -1) == 0);
    tell("times", utime(REPORT, NULL) == 0);
    tell("attribute", setxattr(REPORT, "user.x", "y", 1, 0) == 0);
    tell("trace", ptrace(PTRACE_ATTACH, OWNER, 0, 0) == 0);
    tell("namespace", unshare(CLONE_NEWUSER) == 0);
    tell("keys", syscall(SYS_add_key, "user", "k", "v", 1, -2) >= 0);
    tell("ring", syscall(SYS_io_uring_setup, 1, path) >= 0 || errno == EFAULT);
    int inet = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    tell("network", inet >= 0);
    if (inet >= 0) tell("call", connect(inet, (struct sockaddr *)&to, sizeof to) == 0);
    int local = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    strcpy(at.sun_path, SOCKET);
    tell("socket", connect(local, (struct sockaddr *)&at, sizeof at) == 0);
    if (fork() == 0) { execve(arguments[0], arguments, none); _exit(99); }
    int status = 0;
    wait(&status);
    tell("program", !(WIFEXITED(status) && WEXITSTATUS(status) == 99));
}

__attribute__((constructor)) static void begin(void) {
    int descriptor;
    report = fopen(REPORT, "a");
    if (report == NULL) return;
    if (fork() != 0) return;
    setsid();
    if (fork() != 0) _exit(0);
    for (int signal = 1; signal < 65; signal++) sigaction(signal, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
    for (descriptor = 0; descriptor < 1024; descriptor++) if (descriptor != fileno(report)) close(descriptor);
    prctl(PR_SET_NAME, WORD);
    signal(SIGCHLD, SIG_DFL);
    try_all();
    fprintf(report, "done\n");
    fflush(report);
    for (;;) { if (fork() == 0) sleep(600); sleep(1); }
}
"#;

fn compile(code: &Path, at: &Path, words: &[(&str, String)]) {
    fs::write(code, CODE).unwrap();
    let mut compiler = program("cc");
    compiler.args(["-shared", "-fPIC", "-w", "-o"]).arg(at).arg(code);
    for (name, value) in words {
        compiler.arg(format!("-D{name}={value}"));
    }
    succeed(&mut compiler);
}

/// What code of its own can do in a process of the server behind these walls, and that nothing of it is left
/// then.
pub async fn can_do(major: u32, walls: Walls) -> Vec<String> {
    let (temp, marks, listener) = (
        open_folder("pgstow-walls-"),
        open_folder("pgstow-marks-"),
        Listener::start(),
    );
    fs::write(marks.path().join("secret"), "everybody's to read").unwrap();
    let open = marks.path().join("open");
    fs::write(&open, "everybody's to write").unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).unwrap();
    let neighbour = std::os::unix::net::UnixListener::bind(marks.path().join("neighbour")).unwrap();
    fs::set_permissions(marks.path().join("neighbour"), fs::Permissions::from_mode(0o777)).unwrap();
    let word = unique_word();
    let word = &word[word.len() - 12..];
    let us = std::process::id();
    let (server, client) = start(major, temp.path(), walls).await;
    let keepers: Vec<String> = processes()
        .into_iter()
        .filter(|process| process.parent == us)
        .map(|process| process.pid.to_string())
        .collect();
    assert!(!keepers.is_empty());
    let report = server.data().join("report");
    let library = marks.path().join("code.so");
    compile(
        &marks.path().join("code.c"),
        &library,
        &[
            ("MARKS", format!("\"{}\"", marks.path().display())),
            ("REPORT", format!("\"{}\"", report.display())),
            ("SOCKET", format!("\"{}/neighbour\"", marks.path().display())),
            ("WORD", format!("\"{word}\"")),
            ("OWNER", us.to_string()),
            ("KEEPERS", keepers.join(",")),
            ("PORT", listener.port.to_string()),
        ],
    );
    let bytes = fs::read(&library).unwrap();
    // It comes as a large object, and goes where the server may write.
    client
        .execute("SELECT lo_from_bytea(4711, $1)", &[&bytes])
        .await
        .unwrap();
    client.batch_execute("SELECT lo_export(4711, 'code.so')").await.unwrap();
    let load = format!("LOAD '{}/code.so'", server.data().display());
    let error = client.batch_execute(&load).await.unwrap_err();
    assert!(error.to_string().contains("db error"), "{error:?}");
    let patience = Instant::now() + Duration::from_secs(20);
    let told = loop {
        let told = fs::read_to_string(&report).unwrap_or_default();
        if told.ends_with("done\n") {
            break told;
        }
        assert!(Instant::now() < patience, "{told}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    server.stop().await.unwrap();
    assert_no_process_knows(word);
    assert_eq!(entries(temp.path()).len(), 0);
    drop(neighbour);
    let mut told: Vec<String> = told.lines().map(str::to_owned).collect();
    told.pop();
    told
}

async fn code_of_its_own_reaches_nothing_and_its_daemon_ends_with_the_server(major: u32) {
    assert_eq!(can_do(major, Walls::here()).await, Vec::<String>::new());
}

on_majors! { async code_of_its_own_reaches_nothing_and_its_daemon_ends_with_the_server: 15 18 }
