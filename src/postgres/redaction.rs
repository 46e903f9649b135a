//! Removes secrets and the values of rows from foreign text: a server's message, a child's stderr.

use secrecy::{ExposeSecret, SecretString};

use super::ConnectionInfo;

const STARS: &str = "***";

/// Knows the secrets. Its own `Debug` shows none of them.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    password: Option<SecretString>,
}

impl Redactor {
    pub fn new(info: &ConnectionInfo) -> Self {
        Self {
            password: info.password.clone(),
        }
    }

    /// The text without the password, and without any value after `password=`.
    pub fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if let Some(password) = &self.password {
            let password = password.expose_secret();
            // Hiding a password of one or two letters would turn every message into stars, and such a password in a
            // message reveals nothing.
            if password.len() > 2 {
                text = text.replace(password, STARS);
            }
        }
        clean_assignments(&text)
    }
}

fn clean_assignments(text: &str) -> String {
    // ASCII lower case keeps every byte at its place.
    let lower = text.to_ascii_lowercase();
    let mut clean = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = lower[at..].find("password=") {
        let value = at + found + "password=".len();
        clean.push_str(&text[at..value]);
        clean.push_str(STARS);
        at = value + value_length(&text[value..]);
    }
    clean.push_str(&text[at..]);
    clean
}

fn value_length(value: &str) -> usize {
    let Some(quote @ ('\'' | '"')) = value.chars().next() else {
        return value
            .find(|c: char| c.is_whitespace() || matches!(c, '&' | '"' | '\'' | ')'))
            .unwrap_or(value.len());
    };
    let mut escaped = false;
    for (at, c) in value.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    value.len()
}

/// A detail without the row that it quotes: `Key (id)=(…)`, `COPY t, line 1, column a`.
pub(super) fn without_values(line: &str) -> String {
    if line.starts_with("CONTEXT: ") {
        return line.split(": \"").next().unwrap_or(line).to_owned();
    }
    for before_row in ["=(", "contains ("] {
        if let (Some(at), Some(end)) = (line.find(before_row), line.rfind(')')) {
            let start = at + before_row.len();
            if start <= end {
                return format!("{}…{}", &line[..start], &line[end..]);
            }
        }
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_and_every_assignment_of_one_are_taken_out() {
        let info = ConnectionInfo::parse_url("postgres://u:hunter2@h/d").unwrap();
        let redactor = Redactor::new(&info);
        assert_eq!(redactor.clean("FATAL: hunter2 is wrong"), "FATAL: *** is wrong");
        let redactor = Redactor::default();
        assert_eq!(
            redactor.clean(r"host=h PASSWORD='a \' b' sslpassword=x&y password="),
            "host=h PASSWORD=*** sslpassword=***&y password=***"
        );
        assert_eq!(redactor.clean("no secret here"), "no secret here");
    }

    #[test]
    fn a_long_message_is_read_once() {
        // In time that grows with the square of the length, this would take minutes.
        let text = "password=".repeat(100_000);
        assert_eq!(Redactor::default().clean(&text), "password=***");
        let text = "password= ".repeat(100_000);
        assert_eq!(Redactor::default().clean(&text), "password=*** ".repeat(100_000));
    }
}
