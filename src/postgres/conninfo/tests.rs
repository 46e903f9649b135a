use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::error::Code;

fn parse(text: &str) -> ConnectionInfo {
    ConnectionInfo::parse_url(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    let error = ConnectionInfo::parse_url(text).expect_err(text);
    assert_eq!(error.code(), Code::Config, "{text}");
    format!("{} / {}", error.message(), error.hint_text())
}

fn password(info: &ConnectionInfo) -> Option<&str> {
    info.password.as_ref().map(ExposeSecret::expose_secret)
}

#[test]
fn a_full_url_gives_all_parts() {
    let info = parse("postgresql://bob:s%40cr%2Fet%3A%25@db.example:5433/my%20shop?sslmode=require&options=-c%20a%3Db");
    assert_eq!(info.host.as_deref(), Some("db.example"));
    assert_eq!(info.port, Some(5433));
    assert_eq!(info.user.as_deref(), Some("bob"));
    assert_eq!(password(&info), Some("s@cr/et:%"));
    assert_eq!(info.dbname.as_deref(), Some("my shop"));
    assert_eq!(info.params["sslmode"], "require");
    assert_eq!(info.params["options"], "-c a=b");
}

#[test]
fn urls_are_cut_as_libpq_cuts_them() {
    // host, port, user, password, dbname
    type Parts<'a> = (
        Option<&'a str>,
        Option<u16>,
        Option<&'a str>,
        Option<&'a str>,
        Option<&'a str>,
    );
    let cases: &[(&str, Parts)] = &[
        ("postgres://", (None, None, None, None, None)),
        ("postgres:///", (None, None, None, None, None)),
        ("postgres://h", (Some("h"), None, None, None, None)),
        ("postgres://h/", (Some("h"), None, None, None, None)),
        ("postgres://h:5/", (Some("h"), Some(5), None, None, None)),
        ("postgres://:5/d", (None, Some(5), None, None, Some("d"))),
        ("postgres://u@", (None, None, Some("u"), None, None)),
        ("postgres://u:@h", (Some("h"), None, Some("u"), None, None)),
        ("postgres://:p@h", (Some("h"), None, None, Some("p"), None)),
        ("postgres://@h", (Some("h"), None, None, None, None)),
        ("postgres://u:a:b@h", (Some("h"), None, Some("u"), Some("a:b"), None)),
        (
            "postgres://u:a?b#c&d=e@h/d",
            (Some("h"), None, Some("u"), Some("a?b#c&d=e"), Some("d")),
        ),
        ("postgres://u:a+b@h", (Some("h"), None, Some("u"), Some("a+b"), None)),
        (
            "postgres://[::1]:5433/d",
            (Some("::1"), Some(5433), None, None, Some("d")),
        ),
        (
            "postgres://[2001:db8::1]",
            (Some("2001:db8::1"), None, None, None, None),
        ),
        (
            "postgres://%2Fvar%2Frun%2Fpostgresql/d",
            (Some("/var/run/postgresql"), None, None, None, Some("d")),
        ),
        (
            "postgres:///d?host=/tmp&port=5433&user=u@x&password=p%26q",
            (Some("/tmp"), Some(5433), Some("u@x"), Some("p&q"), Some("d")),
        ),
        (
            "postgres://u:p@h/d?host=other&dbname=e&user=v&password=q",
            (Some("other"), None, Some("v"), Some("q"), Some("e")),
        ),
        ("postgres://h/d/e", (Some("h"), None, None, None, Some("d/e"))),
        ("postgres://h/d?", (Some("h"), None, None, None, Some("d"))),
        ("postgres://h?dbname=d", (Some("h"), None, None, None, Some("d"))),
        (
            "POSTGRES://u@h/%F0%9F%90%98",
            (Some("h"), None, Some("u"), None, Some("🐘")),
        ),
        (
            "postgres://u@h/a%3Db%27c%0Ad",
            (Some("h"), None, Some("u"), None, Some("a=b'c\nd")),
        ),
        (
            "postgresql+asyncpg://u:p@h/d",
            (Some("h"), None, Some("u"), Some("p"), Some("d")),
        ),
        (
            "jdbc:postgresql://h:5433/d?user=u&password=p&currentSchema=a",
            (Some("h"), Some(5433), Some("u"), Some("p"), Some("d")),
        ),
        (
            "postgres://u@h/d?schema=public&pgbouncer=true&connection_limit=1",
            (Some("h"), None, Some("u"), None, Some("d")),
        ),
        ("postgres://u@h/d@e", (Some("h"), None, Some("u"), None, Some("d@e"))),
    ];
    for (url, (host, port, user, secret, dbname)) in cases {
        let info = parse(url);
        assert_eq!(info.host.as_deref(), *host, "{url}");
        assert_eq!(info.port, *port, "{url}");
        assert_eq!(info.user.as_deref(), *user, "{url}");
        assert_eq!(password(&info), *secret, "{url}");
        assert_eq!(info.dbname.as_deref(), *dbname, "{url}");
    }
}

#[test]
fn a_bad_url_is_refused_without_quoting_it() {
    for url in [
        "",
        "hunter2",
        "mysql://u:hunter2@h/d",
        "jdbc:mysql://h/d?user=u&password=hunter2",
        "postgresql+://u:hunter2@h/d",
        "postgresql+a b://u:hunter2@h/d",
        "postgres://u:hunter2@x@h/d",
        "postgres://u:@hunter2@h/d",
        "postgres://u:hunter2/x@h/d",
        "postgres://u:1/hunter2@h/d",
        "postgres://u:1/x?hunter2=x@h/d",
        "postgres://u:1/x?hunter2=x&y@h/d",
        "postgres://u:p@x?hunter2=x@h/d",
        "postgres://u:hunter2%zz@h/d",
        "postgres://u:hunter2%@h/d",
        "postgres://u:hunter2%00@h/d",
        "postgres://u:hunter2%ff@h/d",
        "postgres://u:hunter2@h:port/d",
        "postgres://u:hunter2@h:0/d",
        "postgres://u:hunter2@h:65536/d",
        "postgres://u:hunter2@[::1/d",
        "postgres://u:hunter2@[]/d",
        "postgres://u:hunter2@[::1]x/d",
        "postgres://u:hunter2@h/d?sslmode",
        "postgres://u:hunter2@h/d?sslmode=hunter2",
        "postgres://u:hunter2@h/d?sslpassword=hunter2",
        "postgres://u:hunter2@h/d?hostaddr=hunter2",
        "postgres://u:hunter2@h/d?connect_timeout=hunter2",
        "host=h password='hunter2",
        "host=h password=a hunter2",
        "host=h password=a hunter2=b",
    ] {
        let text = refusal(url);
        assert!(!text.contains("hunter2"), "{url}: {text}");
    }
}

#[test]
fn an_unknown_parameter_is_named() {
    assert!(refusal("postgres://u@h/d?search_path=a").contains("`search_path`"));
    assert!(refusal("host=h password='a://b' pool=3").contains("`pool`"));
    assert!(refusal("postgres://u@h/d?sslpassword=x").contains("`sslpassword`"));
    assert!(refusal("postgres://u@h/d?requirepeer=x").contains("`requirepeer`"));
}

#[test]
fn a_space_beside_the_host_does_not_count() {
    assert_eq!(
        parse("host=' db.example ' dbname=d").host.as_deref(),
        Some("db.example")
    );
    assert_eq!(parse("host=' ' dbname=d").host, None);
}

#[test]
fn files_of_libpqs_are_understood_and_not_handed_on() {
    let info = parse("postgres:///?service=shop&servicefile=/etc/services&passfile=/run/pass");
    assert_eq!(info.files.service.as_deref(), Some("shop"));
    assert_eq!(info.files.servicefile.as_deref(), Some(Path::new("/etc/services")));
    assert_eq!(info.files.passfile.as_deref(), Some(Path::new("/run/pass")));
    assert_eq!(info.to_conninfo(), "");
    let merged = parse("postgres://u@h/d?passfile=/other").merge(&info);
    assert_eq!(merged.files, info.files);
}

#[test]
fn an_ipv6_address_may_stand_in_brackets() {
    for (host, meant) in [
        ("[::1]", "::1"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
        ("::1", "::1"),
        ("[db]", "[db]"),
        ("[::1", "[::1"),
    ] {
        let mut info = ConnectionInfo::default();
        info.set("host", host).unwrap();
        assert_eq!(info.host.as_deref(), Some(meant));
    }
}

#[test]
fn several_hosts_are_refused() {
    for url in [
        "postgres://a,b/d",
        "postgres://a:1,b:2/d",
        "postgres:///d?host=a,b",
        "host=a,b",
        "port=1,2 host=a",
    ] {
        assert!(refusal(url).contains("several hosts"), "{url}");
    }
}

#[test]
fn a_connection_url_is_known_anywhere_in_a_text() {
    for text in [
        "postgres://u:p@h/d",
        "postgresql://h/d",
        "postgresql+asyncpg://u:p@h/d",
        "jdbc:postgresql://h/d?user=u",
        "url=jdbc:postgresql://h/d",
        "at POSTGRES://u:p@h/d",
        "postgres and postgres://h",
    ] {
        assert!(is_connection_url(text), "{text}");
    }
    for text in [
        "",
        "postgres",
        "postgres:",
        "the postgres of http://h/d",
        "s3://postgres/x",
        "postgres+://h",
    ] {
        assert!(!is_connection_url(text), "{text}");
    }
}

#[test]
fn older_ways_to_ask_for_tls_become_sslmode() {
    assert_eq!(parse("postgres://h/d?ssl=true").params["sslmode"], "require");
    for off in ["postgres://h/d?ssl=false", "jdbc:postgresql://h/d?ssl=false"] {
        assert_eq!(parse(off).params["sslmode"], "disable");
    }
    assert_eq!(parse("host=h requiressl=1").params["sslmode"], "require");
    refusal("postgres://h/d?ssl=maybe");
}

#[test]
fn keyword_strings_are_read_with_quotes_and_escapes() {
    let info = parse(r" host = db  port=5433 user='o\'brien' password='a b\\c' dbname=x\ y options='' ");
    assert_eq!(info.host.as_deref(), Some("db"));
    assert_eq!(info.port, Some(5433));
    assert_eq!(info.user.as_deref(), Some("o'brien"));
    assert_eq!(password(&info), Some(r"a b\c"));
    assert_eq!(info.dbname.as_deref(), Some("x y"));
    assert!(info.params.is_empty());
}

#[test]
fn defaults_fill_in_what_is_absent_but_never_a_user_or_a_database() {
    let info = parse("postgres://bob@/shop").settled().unwrap();
    assert_eq!(info.target(), "bob@localhost:5432/shop");
    for (lacking, what) in [
        ("postgres://h/d", "no database user"),
        ("postgres://bob@h:5433", "no database is named"),
    ] {
        let error = parse(lacking).settled().unwrap_err();
        assert_eq!(error.code(), Code::Config);
        assert!(error.message().contains(what), "{error}");
    }
}

#[test]
fn what_a_target_lacks_is_named_by_the_targets_settings() {
    let target = ConnectionInfo {
        whose: Whose::Target,
        ..ConnectionInfo::default()
    };
    for (lacking, source, of_target) in [
        ("postgres://h/d", "DB_USER", "BACKUP_TARGET_USER"),
        ("postgres://bob@h:5433", "DB_NAME", "BACKUP_TARGET_NAME"),
    ] {
        let error = parse(lacking).settled().unwrap_err();
        assert!(error.hint_text().contains(source), "{}", error.hint_text());
        for merged in [parse(lacking).merge(&target), target.clone().merge(&parse(lacking))] {
            let error = merged.settled().unwrap_err();
            let hint = error.hint_text();
            assert!(
                hint.contains(of_target) && !hint.contains(&format!(" {source}")),
                "{hint}"
            );
        }
    }
}

#[test]
fn merging_lets_the_given_parts_win() {
    let base = parse("postgres://u:p@h:1/d?sslmode=require&hostaddr=10.0.0.1");
    let merged = base.clone().merge(&parse("dbname=e sslmode=verify-full"));
    assert_eq!(merged.target(), "u@h:1/e");
    assert_eq!(merged.params["sslmode"], "verify-full");
    assert_eq!(merged.params["hostaddr"], "10.0.0.1");
    let elsewhere = base.merge(&parse("host=other"));
    assert!(!elsewhere.params.contains_key("hostaddr"));
}

#[test]
fn neither_debug_nor_display_nor_conninfo_shows_the_password() {
    let mut info = parse("postgres://u:hunter2@h/d?sslmode=require");
    info.params.insert("sslpassword".into(), "hunter2".into());
    assert!(!info.to_conninfo().contains("hunter2"));
    info.params.remove("sslpassword");
    assert!(!format!("{info:?} {info}").contains("hunter2"));
}

proptest! {
    #[test]
    fn what_is_written_as_a_keyword_string_reads_back_the_same(
        host in "[^\0,@\\s][^\0,]{0,19}[^\0,\\s]",
        port in 1u16..,
        user in "[^\0]{1,20}",
        dbname in "[^\0]{1,40}",
        options in proptest::option::of("[^\0]{1,20}"),
    ) {
        let mut info = ConnectionInfo { host: Some(host), port: Some(port), user: Some(user), dbname: Some(dbname), ..Default::default() };
        if let Some(options) = options {
            info.params.insert("options".into(), options);
        }
        prop_assert_eq!(ConnectionInfo::parse_url(&info.to_conninfo()).unwrap(), info);
    }

    #[test]
    fn any_password_survives_percent_encoding(secret in "[^\0]{1,40}") {
        let encoded = percent_encoding::utf8_percent_encode(&secret, percent_encoding::NON_ALPHANUMERIC);
        let info = parse(&format!("postgres://u:{encoded}@h/d"));
        prop_assert_eq!(password(&info), Some(secret.as_str()));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(postgres://)?\\PC{0,80}") {
        let _ = ConnectionInfo::parse_url(&text);
    }
}
