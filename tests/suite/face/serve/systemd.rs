//! systemd: what it is told, and the socket that it hands over.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::shop;
use crate::support::http::request;
use crate::support::program::{pgstow, program};

/// A process that listens with a socket of ours, as one that systemd has started.
fn started(socket: TcpListener, set: impl FnOnce(&mut std::process::Command)) -> Child {
    let pgstow = pgstow();
    // The descriptor must be 3, and the process that named in LISTEN_PID.
    let order = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" serve";
    let mut command = program("sh");
    command.args(["-c", order]).arg(pgstow.get_program());
    for (name, value) in pgstow.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.stdin(OwnedFd::from(socket)).stderr(Stdio::null());
    set(&mut command);
    command.spawn().unwrap()
}

#[test]
fn it_serves_on_the_socket_of_systemd_and_tells_that_it_is_ready_lives_and_ends() {
    let database = shop();
    let place = tempfile::tempdir().unwrap();
    let notify = place.path().join("notify");
    let hears = UnixDatagram::bind(&notify).unwrap();
    hears.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let heard = || {
        let mut bytes = [0; 100];
        let read = hears.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    };
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", socket.local_addr().unwrap());
    let mut child = started(socket, |command| {
        command
            .env("DATABASE_URL", database.url())
            .env("BACKUP_STORE", place.path().join("store"))
            .env("BACKUP_STATE_DIR", place.path().join("state"))
            .env("NOTIFY_SOCKET", &notify)
            .env("WATCHDOG_USEC", "100000");
    });
    assert_eq!(heard(), "READY=1");
    assert_eq!(heard(), "WATCHDOG=1");
    assert_eq!(heard(), "WATCHDOG=1");
    assert_eq!(request("GET", &endpoint, "/readyz", &[], "").body, "ok\n");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    while heard() != "STOPPING=1" {}
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
