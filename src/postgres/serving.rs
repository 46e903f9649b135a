//! What the session's role may make of foreign servers, found like [`super::allowed`]: by trying it in a transaction
//! that is rolled back.

use tokio_postgres::error::SqlState;

use super::Session;
use super::allowed::QUIETLY;
use super::quoting::{identifier, literal};
use crate::error::Result;

/// A foreign server that a restore makes, with what hangs on it.
#[derive(Debug, Default)]
pub struct ForeignServer<'a> {
    /// The server, if it exists already; otherwise it is made by `wrapper`.
    pub existing: Option<&'a str>,
    pub wrapper: &'a str,
    /// Extensions that come first, each with its schema; one of them may make the wrapper.
    pub extensions: Vec<(&'a str, String)>,
    /// The role to which the server is given.
    pub owner: Option<&'a str>,
    /// The roles of its user mappings.
    pub users: Vec<MappedUser<'a>>,
    /// Its foreign tables: one of each kind.
    pub tables: Vec<ServedTable<'a>>,
}

/// An option and its value.
pub type ForeignOption = (String, String);

/// A role with a user mapping; `None`: the mapping is for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedUser<'a> {
    pub role: Option<&'a str>,
    /// A wrapper lets only some roles set some of them, such as files of this server, and sessions without a password.
    pub options: &'a [ForeignOption],
}

/// A foreign table that a restore makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServedTable<'a> {
    /// For messages.
    pub name: &'a str,
    /// As with user mappings.
    pub options: &'a [ForeignOption],
}

/// What the server refuses first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerRefusal<'a> {
    /// A server of this wrapper.
    Making,
    /// Giving it to its owner.
    Giving,
    /// The mapping of a role; `None`: of everybody.
    Mapping(Option<&'a str>),
    /// The mapping of a role with this option.
    MappingOption(Option<&'a str>, &'a str),
    /// Foreign tables.
    Using,
    /// This foreign table, because of its options.
    TableOptions(&'a str),
}

/// A name that no server is likely to have.
const TRIED: &str = "pgstow_asks";

impl Session {
    /// The first step that the server refuses to this role. `None`: it refuses none, or it cannot be asked here.
    pub async fn refuses_server<'a>(&self, asked: &ForeignServer<'a>) -> Result<Option<ServerRefusal<'a>>> {
        let failed = |error| self.error("cannot ask what the role may do", &error);
        let mut steps = steps(asked);
        if !self.may_make_temporary().await? {
            steps.retain(|(step, _)| !matches!(step, ServerRefusal::TableOptions(_)));
        }
        self.client.batch_execute(QUIETLY).await.map_err(failed)?;
        let refused = self.try_server(asked, steps).await;
        self.client.batch_execute("ROLLBACK").await.map_err(failed)?;
        refused.map_err(failed)
    }

    async fn try_server<'a>(
        &self,
        asked: &ForeignServer<'a>,
        steps: Vec<(ServerRefusal<'a>, String)>,
    ) -> std::result::Result<Option<ServerRefusal<'a>>, tokio_postgres::Error> {
        for (name, schema) in &asked.extensions {
            let statement = format!(
                "SET LOCAL search_path TO {}, public; CREATE EXTENSION {}",
                identifier(schema),
                identifier(name)
            );
            if !self.tried_step(&statement).await?.is_done() {
                return Ok(None);
            }
        }
        for (step, statement) in steps {
            match self.tried_step(&statement).await? {
                Tried::Done => {}
                Tried::Refused => return Ok(Some(step)),
                // Every other error says nothing about the role.
                Tried::Failed => return Ok(None),
            }
        }
        Ok(None)
    }

    async fn tried_step(&self, statement: &str) -> std::result::Result<Tried, tokio_postgres::Error> {
        match self.client.batch_execute(statement).await {
            Ok(()) => Ok(Tried::Done),
            Err(error) => match error.code() {
                Some(state) if *state == SqlState::INSUFFICIENT_PRIVILEGE => Ok(Tried::Refused),
                Some(_) => Ok(Tried::Failed),
                None => Err(error),
            },
        }
    }
}

enum Tried {
    Done,
    Refused,
    Failed,
}

impl Tried {
    fn is_done(&self) -> bool {
        matches!(self, Tried::Done)
    }
}

fn steps<'a>(asked: &ForeignServer<'a>) -> Vec<(ServerRefusal<'a>, String)> {
    let mut steps = Vec::new();
    let server = identifier(asked.existing.unwrap_or(TRIED));
    if asked.existing.is_none() {
        let wrapper = identifier(asked.wrapper);
        let making = format!("CREATE SERVER {server} FOREIGN DATA WRAPPER {wrapper}");
        steps.push((ServerRefusal::Making, making));
        if let Some(owner) = asked.owner {
            let giving = format!("ALTER SERVER {server} OWNER TO {}", identifier(owner));
            steps.push((ServerRefusal::Giving, giving));
        }
    }
    for user in &asked.users {
        let role = user.role.map_or_else(|| "PUBLIC".to_owned(), identifier);
        let mapping = format!("CREATE USER MAPPING FOR {role} SERVER {server}");
        steps.push((ServerRefusal::Mapping(user.role), mapping));
        for (name, value) in user.options.iter().filter(|(name, _)| !is_credential(name)) {
            let option = format!("{} {}", identifier(name), literal(value));
            let adding = format!("ALTER USER MAPPING FOR {role} SERVER {server} OPTIONS (ADD {option})");
            steps.push((ServerRefusal::MappingOption(user.role, name), adding));
        }
    }
    // Who may have a mapping of their own may make foreign tables.
    if !asked.tables.is_empty() {
        let using = format!("CREATE USER MAPPING IF NOT EXISTS FOR CURRENT_USER SERVER {server}");
        steps.push((ServerRefusal::Using, using));
    }
    let with_options = asked.tables.iter().filter(|table| !table.options.is_empty());
    for (number, table) in with_options.enumerate() {
        let options = table.options.iter();
        let options = options.map(|(name, value)| format!("{} {}", identifier(name), literal(value)));
        let options = options.collect::<Vec<_>>().join(", ");
        let making = format!("CREATE FOREIGN TABLE pg_temp.pgstow_asks{number} () SERVER {server} OPTIONS ({options})");
        steps.push((ServerRefusal::TableOptions(table.name), making));
    }
    steps
}

/// The value of such an option is not sent only to try it: a server may log statements.
fn is_credential(option: &str) -> bool {
    option != "password_required" && ["pass", "secret", "token"].iter().any(|word| option.contains(word))
}
