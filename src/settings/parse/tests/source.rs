//! Which database a backup reads.

use super::*;

#[test]
fn single_variables_make_a_source() {
    let settings = env(&[
        ("DB_HOST", "db"),
        ("DB_PORT", "5433"),
        ("DB_NAME", "shop "),
        ("DB_USER", "ada"),
        ("DB_PASSWORD", " p@ss "),
        ("PGSSLMODE", "require"),
    ])
    .load();
    let info = direct(&settings);
    assert_eq!(
        (info.host.as_deref(), info.port, info.dbname.as_deref()),
        (Some("db"), Some(5433), Some("shop "))
    );
    assert_eq!(password(&settings), Some(" p@ss "));
    assert_eq!(info.params["sslmode"], "require");
    assert!(!format!("{settings:?}").contains("p@ss"));
    env(&[("DB_HOST", "db"), ("DB_PORT", "x")]).refused(&["DB_PORT from the environment"]);
}

#[test]
fn no_variable_of_libpqs_that_guards_a_connection_is_passed_over() {
    let database = [("PGHOST", "h"), ("PGUSER", "u"), ("PGDATABASE", "d")];
    let with = |name, value| env(&[&database[..], &[(name, value)]].concat());
    for (name, value, part, expected) in [
        ("PGREQUIRESSL", "1", "sslmode", Some("require")),
        ("PGREQUIRESSL", "0", "sslmode", None),
        (
            "PGTARGETSESSIONATTRS",
            "standby",
            "target_session_attrs",
            Some("standby"),
        ),
        ("PGGSSENCMODE", "disable", "gssencmode", Some("disable")),
    ] {
        let settings = with(name, value).load();
        let found = direct(&settings).params.get(part).map(String::as_str);
        assert_eq!(found, expected, "{name}={value}");
    }
    let both = [&database[..], &[("PGREQUIRESSL", "1"), ("PGSSLMODE", "verify-full")]].concat();
    assert_eq!(direct(&env(&both).load()).params["sslmode"], "verify-full");
    with("PGREQUIREPEER", "postgres").refused(&["PGREQUIREPEER from the environment"]);
    with("PGSSLCRLDIR", "/etc/crl").refused(&["PGSSLCRLDIR from the environment"]);
    with("PGGSSENCMODE", "require").refused(&["PGGSSENCMODE from the environment"]);
}

#[test]
fn url_and_secret_in_one_layer_conflict_and_the_stronger_layer_wins() {
    let url = ("DATABASE_URL", "postgres://u:p@h/db");
    env(&[url, ("BACKUP_SECRET_ID", "prod")])
        .refused(&["DATABASE_URL from the environment and BACKUP_SECRET_ID from the environment are in conflict"]);
    Place::new()
        .flag("DATABASE_URL", url.1)
        .flag("BACKUP_SECRET_ID", "prod")
        .refused(&["--database-url and --secret-id are in conflict"]);
    let settings = env(&[url]).flag("BACKUP_SECRET_ID", "prod").load();
    assert!(matches!(settings.source(), CredentialSource::Secret { id, .. } if id == "prod"));
    let settings = env(&[url]).env_file("BACKUP_SECRET_ID=prod").load();
    assert_eq!(direct(&settings).host.as_deref(), Some("h"));
}

#[test]
fn parts_beside_a_url_of_the_same_layer_must_agree() {
    let url = ("DATABASE_URL", "postgres://u:p@h/db?sslmode=verify-full");
    let settings = env(&[
        url,
        ("DB_HOST", "h"),
        ("DB_NAME", "db"),
        ("DB_PORT", "5440"),
        ("PGSSLMODE", "disable"),
    ])
    .load();
    assert_eq!(direct(&settings).port, Some(5440));
    assert_eq!(direct(&settings).params["sslmode"], "verify-full");
    let message = env(&[url, ("DB_HOST", "other"), ("DB_PASSWORD", "hunter2")]).refused(&[
        "DATABASE_URL from the environment and DB_HOST from the environment are in conflict: they differ in the host",
        "DB_PASSWORD",
    ]);
    assert!(!message.contains("hunter2"));
}

#[test]
fn parts_of_another_layer_replace_or_complete_the_url() {
    let settings = env(&[("DB_PASSWORD", "from env"), ("DB_HOST", "ignored")])
        .flag("DATABASE_URL", "postgres://u@h/db")
        .load();
    assert_eq!(direct(&settings).host.as_deref(), Some("h"));
    assert_eq!(password(&settings), Some("from env"));
    let settings = env(&[("DB_HOST", "stronger")])
        .env_file("DATABASE_URL=postgres://u:p@h/db")
        .load();
    assert_eq!(direct(&settings).host.as_deref(), Some("stronger"));
    assert_eq!(password(&settings), Some("p"));
}

#[test]
fn a_password_in_a_flag_is_warned_of() {
    let settings = Place::new().flag("DATABASE_URL", "postgres://u:hunter2@h/db").load();
    assert!(
        settings.warnings[0].contains("visible to every user"),
        "{:?}",
        settings.warnings
    );
    // A manifest says nothing of the command line that made it.
    assert!(settings.notes.iter().all(|note| !note.contains("password")));
    assert!(!settings.warnings.concat().contains("hunter2"));
}

#[test]
fn parts_beside_a_secret_override_it_from_the_same_or_a_stronger_layer() {
    let place = env(&[
        ("BACKUP_SECRET_ID", "prod"),
        ("DB_NAME", "shop"),
        ("PGSSLMODE", "require"),
    ])
    .named_env_file("DB_HOST=localhost\nDB_PASSWORD=old\n");
    let settings = place.load();
    let CredentialSource::Secret {
        id,
        overrides,
        defaults,
        beside,
        ..
    } = settings.source()
    else {
        panic!("{:?}", settings.source())
    };
    assert_eq!(id, "prod");
    assert_eq!(overrides.dbname.as_deref(), Some("shop"));
    assert_eq!((&overrides.host, overrides.password.is_none()), (&None, true));
    assert_eq!(overrides.params["sslmode"], "require");
    assert_eq!(
        (defaults.host.as_deref(), defaults.password.is_none()),
        (Some("localhost"), true)
    );
    assert_eq!(beside.as_slice(), [("host", "DB_HOST from named.env".to_owned())]);
    noted(
        &settings,
        "DB_PASSWORD from named.env not used: BACKUP_SECRET_ID from the environment has priority",
    );
    env(&[("BACKUP_SECRET_ID", "prod"), ("DB_PASSWORD", "x")]).refused(&["the secret holds the password"]);
    let settings = env(&[("DB_USER", "ada"), ("DB_PASSWORD", "x")])
        .env_file("BACKUP_SECRET_ID=prod")
        .load();
    assert_eq!(password(&settings), Some("x"));
}

#[test]
fn a_url_without_a_login_completes_a_secret() {
    let whole = |source: &CredentialSource| match source {
        CredentialSource::Secret {
            overrides, defaults, ..
        } => (overrides.host.clone(), defaults.host.clone()),
        other => panic!("{other:?}"),
    };
    let (h, secret) = ("postgres://h:5433/db", ("BACKUP_SECRET_ID", "prod"));
    let settings = env(&[secret, ("DATABASE_URL", h)]).load();
    assert_eq!(whole(settings.source()), (Some("h".into()), None));
    let settings = env(&[("DATABASE_URL", h)]).flag("BACKUP_SECRET_ID", "prod").load();
    assert_eq!(whole(settings.source()), (None, Some("h".into())));
    let target = ("BACKUP_TARGET_SECRET_ID", "prod");
    let settings = env(&[target]).flag("BACKUP_TARGET_URL", h).load();
    assert_eq!(whole(settings.target()), (Some("h".into()), None));
    let settings = env(&[target, ("BACKUP_TARGET_HOST", "other")])
        .env_file("BACKUP_TARGET_URL=postgres://h/db")
        .load();
    assert_eq!(whole(settings.target()), (Some("other".into()), Some("h".into())));
    // A URL with a login is a target of its own.
    let settings = env(&[target]).flag("BACKUP_TARGET_URL", "postgres://u@h/db").load();
    assert!(matches!(settings.target(), CredentialSource::Direct(info) if info.host.as_deref() == Some("h")));
    env(&[target, ("BACKUP_TARGET_URL", "postgres://u@h/db")]).refused(&["give the target once"]);
}

#[test]
fn a_database_that_is_chosen_counts_more_than_the_urls() {
    let place = Place::new()
        .flag("DATABASE_URL", "postgres://u@h/postgres")
        .flag("DB_NAME", "shop");
    assert_eq!(direct(&place.load()).dbname.as_deref(), Some("shop"));
    let settings = env(&[("BACKUP_SECRET_ID", "prod")]).flag("DB_NAME", "shop").load();
    assert!(matches!(
        settings.source(),
        CredentialSource::Secret { overrides, .. } if overrides.dbname.as_deref() == Some("shop")
    ));
}

#[test]
fn libpqs_variables_lie_beneath_ours() {
    let pg = [
        ("PGHOST", "pg"),
        ("PGPORT", "5433"),
        ("PGDATABASE", "pgdb"),
        ("PGUSER", "pguser"),
        ("PGPASSWORD", "pgpass"),
        ("PGCHANNELBINDING", "require"),
    ];
    let settings = env(&pg).load();
    assert_eq!(direct(&settings).target(), "pguser@pg:5433/pgdb");
    assert_eq!(password(&settings), Some("pgpass"));
    assert_eq!(direct(&settings).params["channel_binding"], "require");
    let settings = env(&pg).env_file("DB_HOST=ours\nDB_PASSWORD=ours\n").load();
    assert_eq!(direct(&settings).target(), "pguser@ours:5433/pgdb");
    assert_eq!(password(&settings), Some("ours"));
    // libpq's variables complete a target, but never with the name of its database.
    let settings = env(&pg).flag("BACKUP_TARGET_URL", "postgres://u@t").load();
    let CredentialSource::Direct(target) = settings.target() else {
        panic!("{:?}", settings.target())
    };
    assert_eq!(target.target(), "u@t:5433/?");
    // They name a source only if they name a host, a database or a service.
    assert!(matches!(
        env(&[("PGUSER", "u")]).load().source(),
        CredentialSource::None
    ));
    // For a secret they give defaults, without the password.
    let settings = env(&pg).flag("BACKUP_SECRET_ID", "prod").load();
    assert!(matches!(settings.source(), CredentialSource::Secret { defaults, .. }
        if defaults.host.as_deref() == Some("pg") && defaults.password.is_none()));
}

#[test]
fn what_drills_keeps_no_way_to_a_password() {
    let place = env(&[
        ("DATABASE_URL", "postgres://u@h/db"),
        ("BACKUP_DB_AUTH", "iam"),
        ("HOME", "/home/ada"),
    ]);
    let mut settings = place.load();
    assert_eq!(
        (settings.sources[0].auth, direct(&settings).params["sslmode"].as_str()),
        (Auth::Iam, "require")
    );
    settings.forget_passwords();
    assert_eq!(settings.sources[0].auth, Auth::Password);
    let mut settings = env(&[("DATABASE_URL", "postgres://u@h/db"), ("HOME", "/home/ada")]).load();
    assert!(direct(&settings).keys.may_change());
    settings.forget_passwords();
    assert!(!direct(&settings).keys.may_change());
}

#[test]
fn iam_needs_tls_and_no_password() {
    let iam = ("BACKUP_DB_AUTH", "iam");
    for url in [
        "postgres://u@h/db?sslmode=disable",
        "postgres://u@h/db?sslmode=prefer",
        "postgres:///db?host=/tmp&user=u",
    ] {
        env(&[iam, ("DATABASE_URL", url)]).refused(&["IAM login needs TLS"]);
    }
    let settings = env(&[iam, ("DATABASE_URL", "postgres://u:old@h/db?sslmode=verify-full")]).load();
    assert_eq!(
        (password(&settings), direct(&settings).params["sslmode"].as_str()),
        (None, "verify-full")
    );
    noted(&settings, "the password in the settings is not used");
}
