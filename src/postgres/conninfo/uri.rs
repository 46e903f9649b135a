//! `postgres://user:password@host:port/database?parameter=value&…`, split as libpq splits it: at fixed characters,
//! before anything is decoded.

use super::{ConnectionInfo, parameters};
use crate::error::{Error, Result};

/// The rest after the scheme, if the text is a connection URL. Applications write their driver into the scheme
/// (`postgresql+asyncpg://`, `jdbc:postgresql://`), and often share the URL with their backups.
pub(super) fn strip_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let scheme = scheme.strip_prefix("jdbc:").unwrap_or(&scheme);
    let (kind, driver) = scheme.split_once('+').unwrap_or((scheme, "driver"));
    let is_name = !driver.is_empty() && driver.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (matches!(kind, "postgresql" | "postgres") && is_name).then_some(rest)
}

/// Whether the text contains a connection URL anywhere.
pub(super) fn is_in(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.match_indices("postgres")
        .any(|(at, _)| strip_scheme(&text[at..]).is_some())
}

pub(super) fn parse(rest: &str, info: &mut ConnectionInfo) -> Result<()> {
    // The first `@` before any `/` ends the user and password.
    let userinfo_end = rest.find(['@', '/']).filter(|&at| rest.as_bytes()[at] == b'@');
    let (userinfo, rest) = match userinfo_end {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None => (None, rest),
    };
    let (before_query, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = match before_query.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (before_query, None),
    };

    if authority.contains('@') || (userinfo.is_none() && path.is_some_and(|path| path.contains('@'))) {
        return Err(
            Error::config("the connection URL is ambiguous: it has an `@` in the wrong place")
                .hint("in the user, password and database name write @ as %40, / as %2F, : as %3A"),
        );
    }
    if let Some(userinfo) = userinfo {
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        parameters::set(info, "user", &decode(user, "user")?)?;
        parameters::set(info, "password", &decode(password, "password")?)?;
    }
    let (host, port) = split_authority(authority)?;
    parameters::set(info, "host", &decode(host, "host")?)?;
    parameters::set(info, "port", &decode(port, "port")?).map_err(|error| match error.has_own_hint() {
        true => error,
        false => error.hint("in a URL's password write / as %2F, ? as %3F, # as %23, @ as %40, : as %3A"),
    })?;
    if let Some(path) = path {
        parameters::set(info, "dbname", &decode(path, "database name")?)?;
    }
    let query = query.unwrap_or_default();
    // Before an `@`, text that looks like parameters may be the end of a password.
    let names_are_safe = !query.contains('@');
    for part in query.split('&').filter(|part| !part.is_empty()) {
        parse_parameter(part, info, names_are_safe)?;
    }
    Ok(())
}

fn split_authority(authority: &str) -> Result<(&str, &str)> {
    if authority.contains(',') {
        return Err(parameters::several_hosts());
    }
    if let Some(after) = authority.strip_prefix('[') {
        let Some((address, after)) = after.split_once(']') else {
            return Err(Error::config("the connection URL's IPv6 address lacks its closing `]`"));
        };
        if address.is_empty() {
            return Err(Error::config("the connection URL's IPv6 address is empty"));
        }
        return match after.strip_prefix(':') {
            Some(port) => Ok((address, port)),
            None if after.is_empty() => Ok((address, "")),
            None => Err(Error::config(
                "the connection URL has something other than a port after its IPv6 address",
            )),
        };
    }
    Ok(authority.split_once(':').unwrap_or((authority, "")))
}

fn parse_parameter(part: &str, info: &mut ConnectionInfo, names_are_safe: bool) -> Result<()> {
    let Some((name, value)) = part.split_once('=') else {
        return Err(Error::config("a parameter of the connection URL has no `=`"));
    };
    if !names_are_safe && !parameters::is_known(name) {
        return Err(Error::config("the connection URL has an unknown parameter")
            .hint("in the user and password write ? as %3F, / as %2F, @ as %40"));
    }
    let name = decode(name, "parameter name")?;
    let value = decode(value, &format!("parameter {}", parameters::printable(&name)))?;
    parameters::set(info, &name, &value)
}

/// `%XX` decoded; `+` stays a plus, as in libpq.
fn decode(text: &str, part: &str) -> Result<String> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(percent) = memchr::memchr(b'%', &bytes[at..]) {
        let digits = bytes.get(at + percent + 1..at + percent + 3).unwrap_or_default();
        if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(
                Error::config(format!("the connection URL's {part} has a broken percent-encoding"))
                    .hint("a percent sign itself is written %25"),
            );
        }
        at += percent + 3;
    }
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Error::config(format!("the connection URL's {part} is not UTF-8")))
}
