//! SQL as `psql -X -q -A -t -v ON_ERROR_STOP=1` runs it, without a process and an encrypted line for every text: that
//! was a seventh of the whole suite's time.

use std::iter::Peekable;
use std::str::CharIndices;

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// Rows, columns separated by `|`, or what the server refuses; nothing where only psql knows how: for its own commands,
/// rows within the text, lines that must be encrypted, and databases in other encodings.
pub fn run(url: &str, script: &str) -> Option<Result<String, String>> {
    let statements = statements(script)?;
    if url.contains('?') {
        return None;
    }
    let mut config: Config = url.parse().ok()?;
    config.application_name("psql");
    // The test may be within a runtime of its own.
    std::thread::scope(|scope| {
        let session = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(all(&config, &statements))
        });
        session.join().unwrap()
    })
}

async fn all(config: &Config, statements: &[&str]) -> Option<Result<String, String>> {
    let (client, connection) = config.connect(NoTls).await.ok()?;
    if connection.parameter("server_encoding") != Some("UTF8") {
        return None;
    }
    let connection = tokio::spawn(connection);
    let mut text = String::new();
    for statement in statements {
        let messages = match client.simple_query(statement).await {
            Ok(messages) => messages,
            Err(error) => {
                let told = error
                    .as_db_error()
                    .map_or_else(|| error.to_string(), |told| format!("{told:?}"));
                return Some(Err(format!("{statement}\n{told}")));
            }
        };
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                let columns: Vec<&str> = (0..row.len()).map(|at| row.get(at).unwrap_or_default()).collect();
                text.push_str(&columns.join("|"));
                text.push('\n');
            }
        }
    }
    drop(client);
    // As psql's end: the server has been told.
    let _ = connection.await;
    Some(Ok(text))
}

/// One by one, as psql sends them: each is a transaction of its own.
fn statements(script: &str) -> Option<Vec<&str>> {
    let upper = script.to_ascii_uppercase();
    if !script.is_ascii() || script.contains('\\') || upper.contains("ATOMIC") || upper.contains("STDIN") {
        return None;
    }
    let (mut all, mut begin, mut depth) = (Vec::new(), 0, 0);
    let mut at = script.char_indices().peekable();
    while let Some((place, one)) = at.next() {
        match one {
            '\'' | '"' => skip(&mut at, one),
            '$' => {
                let tag = tag(&script[place..]);
                if let Some(tag) = tag {
                    let end = script[place + tag.len()..].find(tag)? + place + 2 * tag.len();
                    while at.next_if(|(place, _)| *place < end).is_some() {}
                }
            }
            '-' if script[place..].starts_with("--") => while at.next_if(|(_, next)| *next != '\n').is_some() {},
            '/' if script[place..].starts_with("/*") => return None,
            '(' => depth += 1,
            ')' => depth -= 1,
            ';' if depth == 0 => {
                all.push(&script[begin..place]);
                begin = place + 1;
            }
            _ => {}
        }
    }
    all.push(&script[begin..]);
    all.retain(|statement| !statement.trim().is_empty());
    Some(all)
}

/// To the end of what is quoted; a quote within it is doubled, and so begins another one.
fn skip(at: &mut Peekable<CharIndices<'_>>, quote: char) {
    while at.next_if(|(_, next)| *next != quote).is_some() {}
    at.next();
}

/// What begins and ends a text between dollars.
fn tag(text: &str) -> Option<&str> {
    let length = text[1..].find('$')? + 2;
    let word = &text[1..length - 1];
    let is_word = word.chars().all(|one| one.is_ascii_alphanumeric() || one == '_');
    (is_word && !word.starts_with(|one: char| one.is_ascii_digit())).then_some(&text[..length])
}
