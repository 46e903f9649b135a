//! The roles that a grant names. pg_dump's statements are few and regular; the server reports what is not understood
//! here.

/// The roles that follow `TO` and `FROM` in pg_dump's GRANT and REVOKE statements, and those of
/// `FOR ROLE` and `SET SESSION AUTHORIZATION`.
pub fn roles(definition: &str) -> Vec<String> {
    let words = words(definition);
    let mut roles = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let next = |offset: usize| words.get(at + offset);
        let role = match word {
            Word::Bare("TO" | "FROM") => next(1),
            Word::Bare("ROLE") if matches!(at.checked_sub(1).map(|at| &words[at]), Some(Word::Bare("FOR"))) => next(1),
            // Not those of `RESET SESSION AUTHORIZATION`.
            Word::Bare("AUTHORIZATION")
                if !matches!(at.checked_sub(2).map(|at| &words[at]), Some(Word::Bare("RESET"))) =>
            {
                next(1)
            }
            _ => None,
        };
        match role {
            Some(Word::Bare("PUBLIC" | "DEFAULT")) | None => {}
            Some(Word::Bare(name)) => roles.push((*name).to_owned()),
            Some(Word::Quoted(name)) => roles.push(name.clone()),
        }
    }
    roles.sort();
    roles.dedup();
    roles
}

/// The roles that a policy is for: `CREATE POLICY p ON t FOR SELECT TO a, b USING (…);`
pub fn of_policy(definition: &str) -> Vec<String> {
    let words = words(definition);
    let head = words
        .iter()
        .take_while(|word| !matches!(word, Word::Bare("USING" | "WITH")));
    let named = head.skip_while(|word| !matches!(word, Word::Bare("TO"))).skip(1);
    let named = named.filter(|word| !matches!(word, Word::Bare("PUBLIC" | "public")));
    named.map(Word::text).collect()
}

/// The role of a user mapping: `CREATE USER MAPPING FOR a SERVER b OPTIONS (…);`
pub fn of_mapping(definition: &str) -> Option<String> {
    let words = words(definition);
    let mut named = words
        .iter()
        .skip_while(|word| !matches!(word, Word::Bare("FOR")))
        .skip(1);
    let role = named
        .next()
        .filter(|word| !matches!(word, Word::Bare("PUBLIC" | "public")));
    role.map(Word::text)
}

/// What a subscription requires of the role that makes it: `CREATE SUBSCRIPTION a CONNECTION 'b' PUBLICATION c WITH
/// (…);`
#[derive(Debug, PartialEq, Eq)]
pub struct Subscription {
    pub connection: String,
    pub password_required: bool,
}

pub fn of_subscription(definition: &str) -> Option<Subscription> {
    let words = words(definition);
    let at = words.iter().position(|word| matches!(word, Word::Bare("CONNECTION")))?;
    let connection = match words.get(at + 1..)? {
        // A string that contains a backslash.
        [Word::Bare("E"), Word::Quoted(text), ..] => text.replace("\\\\", "\\"),
        [Word::Quoted(text), ..] => text.clone(),
        _ => return None,
    };
    let waived = words
        .windows(2)
        .any(|pair| matches!(pair, [Word::Bare("password_required"), Word::Bare("false")]));
    Some(Subscription {
        connection,
        password_required: !waived,
    })
}

enum Word<'a> {
    Bare(&'a str),
    Quoted(String),
}

impl Word<'_> {
    fn text(&self) -> String {
        match self {
            Word::Bare(text) => (*text).to_owned(),
            Word::Quoted(text) => text.clone(),
        }
    }
}

/// Bare words and quoted texts; signs between them are skipped.
fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        if first == '"' || first == '\'' {
            let (name, after) = quoted(&rest[1..], first);
            words.push(Word::Quoted(name));
            rest = after;
        } else if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            words.push(Word::Bare(&rest[..end]));
            rest = &rest[end..];
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    words
}

/// The text up to the closing quote, in which a doubled quote stands for one; and what follows.
fn quoted(text: &str, quote: char) -> (String, &str) {
    let mut name = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(quote) {
        name.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix(quote) {
            Some(after) => {
                name.push(quote);
                rest = after;
            }
            None => return (name, rest),
        }
    }
    name.push_str(rest);
    (name, "")
}

#[cfg(test)]
mod tests {
    use super::{Subscription, of_mapping, of_policy, of_subscription, roles};

    #[test]
    fn what_a_subscription_takes_is_found_however_it_is_written() {
        let found = |connection: &str, password_required: bool| {
            Some(Subscription {
                connection: connection.to_owned(),
                password_required,
            })
        };
        for (rest, expected) in [
            (
                "su CONNECTION 'host=x' PUBLICATION p WITH (connect = false, slot_name = NONE);",
                found("host=x", true),
            ),
            (
                "\"a CONNECTION\" CONNECTION 'password=''x y''' PUBLICATION p WITH (connect = false, password_required = false);",
                found("password='x y'", false),
            ),
            (
                "su CONNECTION E'password=\\\\x' PUBLICATION p WITH (connect = false);",
                found("password=\\x", true),
            ),
            ("su PUBLICATION p;", None),
        ] {
            assert_eq!(
                of_subscription(&format!("CREATE SUBSCRIPTION {rest}")),
                expected,
                "{rest}"
            );
        }
    }

    #[test]
    fn the_roles_of_policies_and_mappings_are_found() {
        let policy = "CREATE POLICY \"TO x\" ON s.t AS RESTRICTIVE FOR SELECT TO reader, \"My TO\" USING ((who IN (SELECT a FROM s.u)));";
        assert_eq!(of_policy(policy), ["reader", "My TO"]);
        assert!(of_policy("CREATE POLICY p ON s.t USING ((a = 'TO me'));").is_empty());
        let mapping = "CREATE USER MAPPING FOR \"Ada L\" SERVER far OPTIONS (\n    \"user\" 'FOR b'\n);";
        assert_eq!(of_mapping(mapping).as_deref(), Some("Ada L"));
        assert_eq!(of_mapping("CREATE USER MAPPING FOR public SERVER far;"), None);
    }

    #[test]
    fn the_roles_of_a_grant_are_found_however_they_are_written() {
        let found = roles(
            "REVOKE ALL ON SCHEMA public FROM PUBLIC;\nGRANT SELECT(\"TO me\") ON TABLE public.\"FROM x\" TO reader;\n\
             GRANT ALL ON TABLE a.b TO \"it's \"\"me\"\"\" WITH GRANT OPTION;\n\
             SET SESSION AUTHORIZATION 'grantor';\nGRANT USAGE ON SCHEMA s TO writer;\nRESET SESSION AUTHORIZATION;\n\
             ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA s GRANT SELECT ON TABLES TO reader;\n",
        );
        assert_eq!(found, ["grantor", "it's \"me\"", "maker", "reader", "writer"]);
    }
}
