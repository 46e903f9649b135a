use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::database::{Database, quoted, unique_word};
use crate::support::wreck::{Site, fail};

/// The database's URL with another host and port.
fn at(database: &Database, place: &str) -> String {
    let url = database.url();
    let (before, after) = url.rsplit_once('@').unwrap();
    format!("{before}@{place}/{}", after.split_once('/').unwrap().1)
}

#[test]
fn a_host_that_nobody_knows_is_conn_err() {
    let (site, database) = (Site::new(), Database::fresh(15));
    let mut command = site.backup(&at(&database, "no-such-host.invalid:5432"));
    command.env("BACKUP_CONNECT_TIMEOUT_SECONDS", "5");
    let failure = fail(&mut command, "CONN_ERR", 10);
    assert!(failure.message.contains("no-such-host.invalid"), "{}", failure.message);
    site.assert_nothing_is_left();
    assert!(!site.store().exists());
}

#[test]
fn a_port_where_nobody_listens_is_conn_err() {
    let (site, database) = (Site::new(), Database::fresh(15));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let failure = fail(
        &mut site.backup(&at(&database, &format!("127.0.0.1:{port}"))),
        "CONN_ERR",
        10,
    );
    assert!(
        failure.message.contains("refused") && failure.message.contains(&port.to_string()),
        "{failure:?}"
    );
    site.assert_nothing_is_left();
}

#[test]
fn a_black_hole_is_conn_err_after_the_connect_timeout() {
    let (site, database) = (Site::new(), Database::fresh(15));
    // One takes the connection and says nothing; the other, whose queue is full, not even that.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let address = full.local_addr().unwrap();
    let queued: Vec<_> = (0..4)
        .map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok())
        .collect();
    assert!(queued.len() < 4, "the queue takes everybody");
    for (listener, hint) in [(&silent, "its host and port"), (&full, "security group")] {
        let place = listener.local_addr().unwrap().to_string();
        let mut command = site.backup(&at(&database, &place));
        command.env("BACKUP_CONNECT_TIMEOUT_SECONDS", "1");
        let failure = fail(&mut command, "CONN_ERR", 10);
        assert!(failure.message.contains("no answer within 1 s"), "{}", failure.message);
        assert!(failure.hint.contains(hint), "{}", failure.hint);
        site.assert_nothing_is_left();
    }
}

#[test]
fn something_that_is_not_postgresql_is_conn_err() {
    let (site, database) = (Site::new(), Database::fresh(15));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            use std::io::{Read, Write};
            let (mut reader, mut writer) = (&stream, &stream);
            drop(reader.read(&mut [0; 64]));
            drop(writer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
    });
    let mut command = site.backup(&at(&database, &place));
    command.env("BACKUP_CONNECT_TIMEOUT_SECONDS", "5");
    fail(&mut command, "CONN_ERR", 10);
    site.assert_nothing_is_left();
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_auth() {
    let (site, database) = (Site::new(), Database::fresh(15));
    for role in [("postgres", "not the password"), ("no such role", "whatever it is")] {
        let failure = fail(&mut site.backup(&database.url_as(Some(role))), "AUTH", 11);
        assert!(failure.message.contains(role.0), "{}", failure.message);
        site.assert_nothing_is_left_of(&database);
    }
    assert!(!site.store().exists());
}

#[test]
fn a_role_without_login_is_auth_and_one_without_connect_is_permission() {
    let (site, database) = (Site::new(), Database::fresh(15));
    let role = Role::new(&database, "NOLOGIN");
    fail(&mut site.backup(&role.url()), "AUTH", 11);
    database.sql(&format!("ALTER ROLE {} LOGIN", role.name));
    database.sql(&format!(
        "REVOKE CONNECT ON DATABASE {} FROM public",
        quoted(&database.name)
    ));
    let failure = fail(&mut site.backup(&role.url()), "PERMISSION", 13);
    assert!(failure.message.contains(&database.name), "{}", failure.message);
    site.assert_nothing_is_left_of(&database);
}

#[test]
fn a_database_that_is_not_there_is_conn_err() {
    let (site, database) = (Site::new(), Database::fresh(15));
    let url = database
        .url()
        .replace(database.url().rsplit('/').next().unwrap(), "no%20such%20database");
    let failure = fail(&mut site.backup(&url), "CONN_ERR", 10);
    assert!(failure.message.contains("no such database"), "{}", failure.message);
    assert!(failure.hint.contains("name"), "{}", failure.hint);
    site.assert_nothing_is_left_of(&database);
}

/// A role of a test's own.
pub struct Role<'a> {
    database: &'a Database,
    pub name: String,
}

impl<'a> Role<'a> {
    pub fn new(database: &'a Database, attributes: &str) -> Self {
        let name = format!("role_{}", unique_word());
        database.sql(&format!("CREATE ROLE {name} LOGIN PASSWORD 'pw of {name}'"));
        if !attributes.is_empty() {
            database.sql(&format!("ALTER ROLE {name} {attributes}"));
        }
        Self { database, name }
    }

    pub fn url(&self) -> String {
        self.database
            .url_as(Some((&self.name, &format!("pw of {}", self.name))))
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        let script = format!("DROP OWNED BY {0}; DROP ROLE {0}", self.name);
        drop(crate::support::database::try_psql(
            self.database.major,
            &self.database.url(),
            &script,
        ));
    }
}
