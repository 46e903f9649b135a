//! Servers that ask for a password as they should not, and somebody on the network who makes a good
//! one look like that.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::support::program::{pgstow, run, stock, succeed};
use crate::support::server::OwnServer;
use crate::support::wreck::{Site, fail, report};

const PASSWORD: &str = "hunter2-and-more";
const TLS_REQUEST: u32 = 80_877_103;
const CLEAR_TEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05salt";

/// An address of this machine that is not its own loop: what goes there goes as it would to another.
fn outward() -> IpAddr {
    // Nothing is sent: the kernel says from where it would be.
    let routed = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("203.0.113.1:9")?;
        socket.local_addr()
    });
    let by_name = || {
        let all = run(Command::new("hostname").arg("-I")).text();
        all.split_whitespace().find_map(|one| one.parse().ok())
    };
    let address = routed.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback());
    address
        .or_else(by_name)
        .expect("this machine has no address but its loop: these tests need one")
}

/// What those who connected said after they were asked for a proof.
type Given = Arc<Mutex<Vec<Vec<u8>>>>;

/// Declines TLS, asks this question, and keeps what it is told.
fn asking(address: IpAddr, question: &'static [u8]) -> (SocketAddr, Given) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let place = listener.local_addr().unwrap();
    let given = Given::default();
    let kept = Arc::clone(&given);
    spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            if startup(&mut client).is_some() {
                ask(&mut client, question, &kept);
            }
        }
    });
    (place, given)
}

/// The first message that is no wish for TLS.
fn startup(client: &mut TcpStream) -> Option<Vec<u8>> {
    loop {
        let mut length = [0; 4];
        client.read_exact(&mut length).ok()?;
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        client.read_exact(&mut rest).ok()?;
        if rest[..4] != TLS_REQUEST.to_be_bytes() {
            return Some([&length[..], &rest].concat());
        }
        client.write_all(b"N").ok()?;
    }
}

fn ask(client: &mut TcpStream, question: &[u8], given: &Given) {
    client.write_all(question).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = vec![0; 1000];
    let count = client.read(&mut answer).unwrap_or(0);
    given.lock().unwrap().push(answer[..count].to_vec());
    drop(client.write_all(b"E\0\0\0\x1aSFATAL\0C28P01\0Mwrong\0\0\0"));
    drop(client.shutdown(Shutdown::Both));
}

fn url(place: SocketAddr, more: &str) -> String {
    format!("postgresql://ada:{PASSWORD}@{place}/shop{more}")
}

fn holds_password(given: &Given) -> bool {
    let given = given.lock().unwrap();
    given
        .iter()
        .any(|answer| answer.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes()))
}

fn is_silent(given: &Given) -> bool {
    given.lock().unwrap().iter().all(Vec::is_empty)
}

#[test]
fn a_password_is_given_neither_in_clear_nor_as_md5_on_an_open_line() {
    let here = outward();
    for (question, words) in [(CLEAR_TEXT, "in clear text"), (MD5, "MD5")] {
        for mode in ["", "?sslmode=prefer", "?sslmode=allow", "?sslmode=disable"] {
            let (site, (place, given)) = (Site::new(), asking(here, question));
            let failure = fail(&mut site.backup(&url(place, mode)), "AUTH", 11);
            assert!(failure.message.contains(words), "{mode}: {}", failure.message);
            assert!(failure.message.contains("not encrypted"), "{mode}: {}", failure.message);
            assert!(
                failure.hint.contains("sslmode=require") && failure.hint.contains("require_auth="),
                "{}",
                failure.hint
            );
            // The thread that asked may be slower than the program.
            while given.lock().unwrap().is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            assert!(is_silent(&given), "{mode}: {given:?}");
        }
        // Nor with TLS asked for and declined: then the question does not come.
        let (site, (place, given)) = (Site::new(), asking(here, question));
        fail(&mut site.backup(&url(place, "?sslmode=require")), "CONN_ERR", 10);
        assert!(given.lock().unwrap().is_empty());
    }
}

#[test]
fn doctor_and_restore_keep_the_password_too() {
    let (site, (place, given)) = (Site::new(), asking(outward(), CLEAR_TEXT));
    let mut doctor = pgstow();
    doctor.args(["doctor", "--json", "--store"]).arg(site.store());
    let told = run(doctor.env("DATABASE_URL", url(place, ""))).text();
    assert!(told.contains("in clear text"), "{told}");
    let mut site_restore = pgstow();
    site_restore
        .args(["restore", "latest", "--json", "--store"])
        .arg(site.store());
    run(site_restore.env("BACKUP_TARGET_URL", url(place, "")));
    assert!(!given.lock().unwrap().is_empty() && is_silent(&given), "{given:?}");
}

#[test]
fn who_asks_for_it_gets_what_libpq_would_do() {
    let (here, home) = (outward(), "127.0.0.1".parse().unwrap());
    let tried = |address: IpAddr, question: &'static [u8], more: &str| {
        let (site, (place, given)) = (Site::new(), asking(address, question));
        let failure = fail(&mut site.backup(&url(place, more)), "AUTH", 11);
        let told = given.lock().unwrap().iter().any(|answer| !answer.is_empty());
        (told, holds_password(&given), failure.message)
    };
    assert!(tried(here, CLEAR_TEXT, "?require_auth=password").1);
    assert!(tried(here, CLEAR_TEXT, "?require_auth=scram-sha-256,password").1);
    assert!(tried(here, CLEAR_TEXT, "?require_auth=!md5").1);
    assert!(tried(here, MD5, "?require_auth=md5").0);
    assert!(!tried(here, MD5, "?require_auth=password").0);
    assert!(!tried(here, CLEAR_TEXT, "?require_auth=!password").0);
    // No other machine reads what does not leave this one.
    assert!(tried(home, CLEAR_TEXT, "").1);
    assert!(tried(home, MD5, "").0);
    // But what was asked for holds there as well, also against a server that wants no proof.
    for (question, words) in [
        (CLEAR_TEXT, "in clear text"),
        (MD5, "MD5"),
        (b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I", "without any proof"),
    ] {
        let (told, _, message) = tried(home, question, "?require_auth=scram-sha-256");
        assert!(!told || words.contains("proof"), "{message}");
        assert!(message.contains(words), "{message}");
    }
    // libpq itself refuses lists that make no sense.
    for list in ["scram", "md5,!password", "md5,md5"] {
        let site = Site::new();
        let failure = fail(
            &mut site.backup(&url(SocketAddr::new(home, 1), &format!("?require_auth={list}"))),
            "CONFIG",
            2,
        );
        assert!(failure.message.contains("require_auth"), "{}", failure.message);
    }
}

/// Passes on what our own session says and hears, and asks PostgreSQL's programs for the password.
/// They are known by the time zone that they are given.
fn in_the_middle(server: SocketAddr) -> (SocketAddr, Given, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind((outward(), 0)).unwrap();
    let place = listener.local_addr().unwrap();
    let (given, attacked) = (Given::default(), Arc::new(Mutex::new(0)));
    let (kept, count) = (Arc::clone(&given), Arc::clone(&attacked));
    spawn(move || {
        for client in listener.incoming() {
            let (mut client, kept, count) = (client.unwrap(), Arc::clone(&kept), Arc::clone(&count));
            spawn(move || {
                let Some(begun) = startup(&mut client) else { return };
                let text = String::from_utf8_lossy(&begun).to_lowercase();
                if text.contains("timezone") {
                    *count.lock().unwrap() += 1;
                    ask(&mut client, CLEAR_TEXT, &kept);
                    return;
                }
                let mut server = TcpStream::connect(server).unwrap();
                server.write_all(&begun).unwrap();
                let (mut there, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                spawn(move || {
                    drop(std::io::copy(&mut back, &mut there));
                    drop(there.shutdown(Shutdown::Both));
                });
                drop(std::io::copy(&mut client, &mut server));
                drop(server.shutdown(Shutdown::Both));
            });
        }
    });
    (place, given, attacked)
}

/// Our own session has logged in by SCRAM. Then an attacker takes the next login, which is pg_dump's.
fn a_later_login_gives_the_password_away_no_more_than_the_first(major: u32) {
    let server = OwnServer::start(major);
    let (place, given, attacked) = in_the_middle(SocketAddr::from(([127, 0, 0, 1], server.port)));
    let login = server
        .url()
        .split_once("://")
        .unwrap()
        .1
        .split_once('@')
        .unwrap()
        .0
        .to_owned();
    let through = format!("postgresql://{login}@{place}/postgres");
    let site = Site::new();
    // Programs of that major and no other.
    let mut command = site.backup(&through);
    command.env("BACKUP_PG_DUMP_MAJOR", major.to_string());
    let failure = fail(&mut command, "AUTH", 11);
    assert!(*attacked.lock().unwrap() > 0, "{failure:?}");
    assert!(is_silent(&given), "{given:?}");
    site.assert_nothing_is_left();
    // Stock pg_dump falls for it.
    let stolen = run(stock(major, "pg_dump").env("PGTZ", "UTC").args(["-d", &through]));
    assert!(!stolen.status.success() && !is_silent(&given));
}

on_majors! { a_later_login_gives_the_password_away_no_more_than_the_first: 15 16 18 }

/// Over an unencrypted line, without an attacker in between: all works that worked.
fn an_open_line_serves_every_command_all_the_same(major: u32) {
    let server = OwnServer::start_with(major, &["listen_addresses=*"]);
    let (here, database) = (outward(), server.database("open"));
    let rule = format!("host all all {here}/32 scram-sha-256\n");
    let hba = server.data().join("pg_hba.conf");
    let rules = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, rules + &rule).unwrap();
    database.sql("SELECT pg_reload_conf()");
    database.sql("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 4) AS a FROM generate_series(1, 150000) i");
    let outside = database.url().replace("127.0.0.1", &here.to_string());
    let reachable = Instant::now() + Duration::from_secs(5);
    while !run(stock(major, "psql").args(["-X", "-d", &outside, "-c", "SELECT 1"]))
        .status
        .success()
    {
        assert!(Instant::now() < reachable);
        sleep(Duration::from_millis(50));
    }
    let site = Site::new();
    for jobs in ["1", "3"] {
        let mut command = site.backup(&outside);
        command.env("BACKUP_PG_DUMP_MAJOR", major.to_string());
        let told = report(command.args(["--jobs", jobs]));
        assert!(told["warnings"].is_null(), "{told}");
    }
    for options in [["--clean"].as_slice(), &["--clean", "--jobs", "3"]] {
        let mut restore = pgstow();
        restore
            .args(["restore", "latest", "--json", "--store"])
            .arg(site.store())
            .args(options)
            .env("BACKUP_TARGET_URL", &outside)
            .env("TMPDIR", site.path().join("tmp"));
        succeed(restore.current_dir(site.path()));
    }
    assert_eq!(database.sql("SELECT count(*) FROM t"), "150000");
    site.assert_nothing_runs();
    let mut doctor = pgstow();
    doctor.args(["doctor", "--json", "--store"]).arg(site.store());
    let told = run(doctor.env("DATABASE_URL", &outside)).text();
    assert!(told.contains("the connection is not encrypted"), "{told}");
}

on_majors! { an_open_line_serves_every_command_all_the_same: 15 17 }

/// Any other server with a certificate of the same name would do, were it not asked what it speaks.
#[test]
fn a_server_that_does_not_say_that_it_speaks_postgresqls_protocol_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let make = "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -keyout key -out crt \
                -addext subjectAltName=DNS:localhost 2>/dev/null";
    succeed(Command::new("sh").args(["-c", make]).current_dir(folder.path()));
    for (protocol, agrees) in [(None, false), (Some("http/1.1"), false), (Some("postgresql"), true)] {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Command::new("openssl");
        server.args([
            "s_server",
            "-quiet",
            "-cert",
            "crt",
            "-key",
            "key",
            "-accept",
            &format!("127.0.0.1:{port}"),
        ]);
        server.args(protocol.iter().flat_map(|name| ["-alpn", name]));
        let mut server = server
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "openssl does not listen");
            sleep(Duration::from_millis(50));
        }
        let site = Site::new();
        let root = folder.path().join("crt");
        let target = format!(
            "postgresql://ada:{PASSWORD}@localhost:{port}/shop?hostaddr=127.0.0.1&sslmode=verify-full\
             &sslnegotiation=direct&sslrootcert={}&connect_timeout=3",
            root.display()
        );
        let failure = fail(&mut site.backup(&target), "CONN_ERR", 10);
        // Where it agrees, it is openssl, which says nothing.
        assert_eq!(
            failure.message.contains("ALPN"),
            protocol.is_none(),
            "{protocol:?}: {failure:?}"
        );
        if agrees {
            assert!(failure.message.contains("no answer within 3 s"), "{failure:?}");
        }
        server.kill().unwrap();
        let heard = server.wait_with_output().unwrap().stdout;
        // The startup message, with the user's name, came only to one that agrees.
        let named = heard.windows(3).any(|part| part == b"ada");
        assert_eq!(named, agrees, "{protocol:?}: {:?}", String::from_utf8_lossy(&heard));
    }
}
