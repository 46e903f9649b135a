//! Any text, read as a connection URL or a keyword string; and any password in one.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret;

use crate::error::{Code, Error};
use crate::postgres::{ConnectionInfo, Files};

/// The parser refuses the text with `CONFIG`, or understands it. Then it reads the same from the keyword string that it
/// writes, except for the password, which it does not write.
///
/// If the text has a line break, the part before it is a password, and the part after it the rest of a URL and of a
/// keyword string. The parser keeps that password, and no message depends on it. If the password is not escaped as it
/// should be, a message shows no part of it, except the name of a parameter.
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
    // A value in quotes ends at the second quote, so it would be only a part of the password.
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

/// A password that is escaped as it should be.
fn secret(password: &str, text: impl Fn(&str) -> String) {
    const OTHER: &str = "another";
    let given = ConnectionInfo::parse_url(&text(password));
    match (given, ConnectionInfo::parse_url(&text(OTHER))) {
        (Ok(given), Ok(other)) => {
            let exposed =
                |info: &ConnectionInfo| info.password.as_ref().map(|secret| secret.expose_secret().to_owned());
            // The rest may hold another password; then that one counts.
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

/// A password that is not escaped: a message may show nothing of it but the name of a parameter.
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
