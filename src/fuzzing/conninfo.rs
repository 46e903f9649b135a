//! Any text as a connection URL or a keyword string, and any password in one.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret;

use crate::error::{Code, Error};
use crate::postgres::{ConnectionInfo, Files};

/// The text is refused as a setting, or understood; then it is the same after it was written as a
/// keyword string, but for the password, which is not written. Where a line break divides the text,
/// what is before it is a password, and what follows it the rest of a URL and of a keyword string:
/// then the password is kept, and no message depends on it; nor does one show a part of it that is no
/// parameter's name where it is not written as it must be.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match ConnectionInfo::parse_url(text) {
        Ok(info) => understood(&info),
        Err(error) => assert_eq!(error.code(), Code::Config),
    }
    let Some((password, rest)) = text.split_once('\n') else {
        return;
    };
    if password.is_empty() || password.contains('\0') {
        return;
    }
    secret(password, |password| {
        let password = utf8_percent_encode(password, NON_ALPHANUMERIC);
        format!("postgres://ada:{password}@{rest}")
    });
    secret(password, |password| {
        let password = password.replace('\\', "\\\\").replace('\'', "\\'");
        format!("password='{password}' {rest}")
    });
    unwritten(password, &format!("postgres://ada:{password}@db.example/shop"));
    // What is in quotes is a whole value, whatever follows it.
    if !password.trim_start().starts_with('\'') {
        unwritten(password, &format!("host=db.example password={password}"));
    }
}

fn understood(info: &ConnectionInfo) {
    let written = info.to_conninfo();
    let mut without = info.clone();
    without.password = None;
    without.files = Files::default();
    if without == ConnectionInfo::default() {
        assert_eq!(written, "");
    } else {
        assert_eq!(again(&written), without, "written and read");
    }
    assert_eq!(info.clone().merge(info), *info);
    assert_eq!(ConnectionInfo::default().merge(info), *info);
    match info.settled() {
        Ok(settled) => {
            assert_eq!(settled.database(), info.database());
            assert!(settled.host.is_some() && settled.port.is_some() && settled.dbname.is_some());
            assert_eq!(settled.settled().ok().as_ref(), Some(&settled));
        }
        Err(_) => assert!(info.user.is_none() || info.dbname.is_none()),
    }
}

fn again(written: &str) -> ConnectionInfo {
    ConnectionInfo::parse_url(written).unwrap_or_else(|error| panic!("{written}: {error}"))
}

/// A password that is written as it must be.
fn secret(password: &str, text: impl Fn(&str) -> String) {
    const OTHER: &str = "another";
    let given = ConnectionInfo::parse_url(&text(password));
    match (given, ConnectionInfo::parse_url(&text(OTHER))) {
        (Ok(given), Ok(other)) => {
            let exposed =
                |info: &ConnectionInfo| info.password.as_ref().map(|secret| secret.expose_secret().to_owned());
            // The rest may name another one, which counts then.
            if exposed(&other).as_deref() == Some(OTHER) {
                assert_eq!(exposed(&given).as_deref(), Some(password));
            }
            assert_eq!(format!("{given:?} {given}"), format!("{other:?} {other}"));
            assert_eq!(given.to_conninfo(), other.to_conninfo());
        }
        (given, other) => assert_eq!(
            given.err().as_ref().map(said),
            other.err().as_ref().map(said),
            "a message depends on the password"
        ),
    }
}

/// One that is not: nothing of it may be told but what is a parameter's name.
fn unwritten(password: &str, text: &str) {
    let Err(error) = ConnectionInfo::parse_url(text) else {
        return;
    };
    let told = error.message();
    for after in told.split("parameter `").skip(1) {
        let name = after.split('`').next().unwrap_or_default();
        let unknown = ConnectionInfo::default()
            .set(name, "x")
            .is_err_and(|error| said(&error).contains("not one of libpq's"));
        assert!(!unknown || !password.contains(name), "{told}");
    }
}

fn said(error: &Error) -> String {
    format!("{} / {}", error.message(), error.hint_text())
}
