//! The database as libpq's users name it, beneath our own settings; and secrets in files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::database::Database;
use crate::support::program::pgstow;
use crate::support::role::Role;
use crate::support::wreck::{Site, fail, report};

const PASSWORD: &str = "pass: with\\ things";

/// The variables that name this database apart, as libpq's users do.
fn parts(database: &Database) -> [(&'static str, String); 3] {
    let (host, port) = database.address();
    [
        ("PGHOST", host),
        ("PGPORT", port.to_string()),
        ("PGDATABASE", database.name.clone()),
    ]
}

fn backup(site: &Site, store: &str) -> Command {
    let mut command = site.backup_into("", &site.path().join(store));
    command.env_remove("DATABASE_URL");
    command
}

fn private(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A home folder with a password file.
fn home(site: &Site, role: &str) -> PathBuf {
    let home = site.path().join("home");
    fs::create_dir(&home).unwrap();
    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    private(
        home.join(".pgpass"),
        &format!("# mine\nother:*:*:*:wrong\n*:*:*:{role}:{escaped}\n"),
    );
    home
}

#[test]
fn variables_and_files_of_libpqs_name_the_database() {
    let (site, database) = (Site::new(), Database::fresh(15));
    database.sql("CREATE TABLE public.t AS SELECT 1 AS n");
    let role = Role::reader(&database, PASSWORD);
    let home = home(&site, &role.name);
    let variables = |command: &mut Command| {
        command.envs(parts(&database)).env("PGUSER", &role.name);
    };

    let mut command = backup(&site, "variables");
    variables(&mut command);
    let made = report(command.env("PGPASSWORD", PASSWORD));
    assert_eq!(made["database"], *database.name);
    let mut command = backup(&site, "home");
    variables(&mut command);
    report(command.env("HOME", &home));
    // Of two that say something, ours counts.
    let mut command = backup(&site, "ours");
    variables(&mut command);
    command
        .env("PGPASSWORD", "wrong")
        .env("DB_PASSWORD", PASSWORD)
        .env("PGPORT", "1");
    report(command.env("DB_PORT", database.address().1.to_string()));

    // A file that others may read does not count, as with libpq; whose name is given neither.
    let file = private(
        site.path().join("pass"),
        &fs::read_to_string(home.join(".pgpass")).unwrap(),
    );
    let mut command = backup(&site, "named");
    variables(&mut command);
    command.env("PGPASSFILE", &file);
    report(&mut command);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let failure = fail(&mut command, "AUTH", 11);
    assert!(failure.stderr.contains("chmod 0600"), "{}", failure.stderr);

    // A service: named in a variable or in the URL, in the user's file or in one that is named.
    let (host, port) = database.address();
    let text = format!(
        "[shop]\nhost={host}\nport={port}\nuser={}\n[other]\nhost=nowhere.invalid\n",
        role.name
    );
    let services = private(site.path().join("services"), &text);
    let mut command = backup(&site, "service");
    command
        .env("PGSERVICE", "shop")
        .env("PGSERVICEFILE", &services)
        .env("HOME", &home);
    report(command.env("PGDATABASE", &database.name));
    fs::copy(&services, home.join(".pg_service.conf")).unwrap();
    let mut command = backup(&site, "service in a url");
    command.env("HOME", &home).args([
        "--database-url",
        "postgres:///?service=shop",
        "--database",
        &database.name,
    ]);
    report(&mut command);
    let failure = fail(
        backup(&site, "none").env("PGSERVICE", "nobody's").env("HOME", &home),
        "CONFIG",
        2,
    );
    assert!(
        failure.message.contains("\"nobody's\" is not defined"),
        "{}",
        failure.message
    );

    // A `.env` that the user has not named does not choose such files.
    fs::write(
        site.path().join(".env"),
        format!("PGSERVICE=shop\nPGSERVICEFILE={}\n", services.display()),
    )
    .unwrap();
    let failure = fail(&mut backup(&site, "found"), "CONFIG", 2);
    assert!(failure.message.contains("no database is set"), "{}", failure.message);
    let mut command = backup(&site, "named env");
    command
        .args(["--env-file", ".env"])
        .env("PGDATABASE", &database.name)
        .env("HOME", &home);
    report(&mut command);
    site.assert_nothing_runs();
}

#[test]
fn secrets_may_stand_in_files() {
    let (site, database) = (Site::new(), Database::fresh(18));
    database.sql("CREATE TABLE public.t AS SELECT 1 AS n");
    let role = Role::reader(&database, PASSWORD);
    let file = |name: &str, text: &str| {
        let path = site.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let password = file("password", &format!("{PASSWORD}\n"));
    let url = file("url", &format!("{}\n", database.url_as(Some((&role.name, PASSWORD)))));
    let mut command = backup(&site, "store");
    report(command.env("DATABASE_URL_FILE", &url));
    let mut command = backup(&site, "parts");
    command
        .envs(parts(&database))
        .env("DB_USER", &role.name)
        .env("DB_PASSWORD_FILE", &password);
    report(&mut command);
    // In one layer, once.
    let failure = fail(command.env("DB_PASSWORD", "hunter2"), "CONFIG", 2);
    assert!(failure.message.contains("DB_PASSWORD_FILE"), "{}", failure.message);
    assert!(!failure.stderr.contains("hunter2"));
    let mut command = backup(&site, "missing");
    let failure = fail(command.env("DATABASE_URL_FILE", "/no/such/file"), "CONFIG", 2);
    assert!(
        failure
            .message
            .contains("DATABASE_URL_FILE from the environment: /no/such/file"),
        "{}",
        failure.message
    );
    // In the configuration file, and of what a restore fills.
    let target = Database::fresh(18);
    let owner = Role::fresh(&target, PASSWORD, "SUPERUSER");
    let config = file(
        "pgstow.toml",
        &format!("target_password_file = '{}'\n", password.display()),
    );
    let mut command = pgstow();
    let place = target.url_as(Some((&owner.name, "-"))).replace(":%2D@", "@");
    command
        .args(["restore", "latest", "--json", "--target", &place, "--store"])
        .arg(site.store())
        .arg("--config")
        .arg(config)
        .current_dir(site.path());
    report(&mut command);
    assert_eq!(target.sql("SELECT n FROM public.t"), "1");
    drop(target);
    drop(owner);
}

#[test]
fn a_database_that_nobody_has_named_is_never_the_default_one() {
    let (site, database) = (Site::new(), Database::fresh(18));
    database.sql("CREATE TABLE public.t AS SELECT 1 AS n");
    let whole = database.url();
    let (server, _) = whole.rsplit_once('/').unwrap();
    // `postgres`, the user's name, is a database too.
    for url in [server.to_owned(), format!("{server}/")] {
        let failure = fail(&mut site.backup(&url), "CONFIG", 2);
        assert!(failure.message.contains("no database is named"), "{}", failure.message);
    }
    for url in [server, &format!("{server}/postgres")] {
        let mut command = site.backup(url);
        let made = report(command.args(["--database", &database.name]));
        assert_eq!(made["database"], *database.name);
    }
    let restore = |options: &[&str]| {
        let mut command = pgstow();
        command
            .args(["restore", "latest", "--json", "--target", server, "--store"])
            .arg(site.store())
            .args(options)
            .current_dir(site.path());
        // What stands in libpq's variables is no target.
        let failure = fail(command.envs(parts(&database)), "CONFIG", 2);
        assert!(failure.message.contains("no database is named") || failure.message.contains("names no database"));
    };
    for options in [
        &[][..],
        &["--create"],
        &["--create", "--clean"],
        &["--dry-run", "--create", "--clean"],
    ] {
        restore(options);
    }
    assert!(Path::new(&site.store()).exists());
}

#[test]
fn what_a_restores_target_lacks_is_told_by_the_names_of_its_own_settings() {
    let (site, database) = (Site::new(), Database::fresh(18));
    database.sql("CREATE TABLE public.t AS SELECT 1 AS n");
    let made = report(&mut site.backup(&database.url()));
    let role = Role::fresh(&database, PASSWORD, "");
    let target = Database::fresh(18);
    let refused = |url: &str, code: &str, exit: i32| {
        let mut restore = pgstow();
        restore
            .args(["restore", made["id"].as_str().unwrap(), "--json", "--store"])
            .arg(site.store())
            .env("BACKUP_TARGET_URL", url)
            .env("TMPDIR", site.path().join("tmp"))
            .current_dir(site.path());
        fail(&mut restore, code, exit)
    };
    let url = target.url();
    let (server, name) = url.rsplit_once('/').unwrap();
    let (_, place) = server.rsplit_once('@').unwrap();
    for (url, code, exit, setting) in [
        (
            target.url_as(Some((&role.name, ""))),
            "AUTH",
            11,
            "BACKUP_TARGET_PASSWORD",
        ),
        (server.to_owned(), "CONFIG", 2, "BACKUP_TARGET_NAME"),
        (format!("postgres://{place}/{name}"), "CONFIG", 2, "BACKUP_TARGET_USER"),
        (format!("{server}/nowhere"), "CONN_ERR", 10, "--create"),
    ] {
        let failure = refused(&url, code, exit);
        assert!(failure.hint.contains(setting), "{}", failure.hint);
        assert!(!failure.hint.contains(" DB_"), "{}", failure.hint);
    }
}
