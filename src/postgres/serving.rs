//! What the session's role may make of foreign servers, found like [`super::allowed`]: by trying it in a transaction
//! that is rolled back.

use tokio_postgres::error::SqlState;

use super::Session;
use super::allowed::QUIETLY;
use super::quoting::identifier;
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
    /// Whether foreign tables use it.
    pub has_tables: bool,
}

/// A role with a user mapping; `None`: the mapping is for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedUser<'a> {
    pub role: Option<&'a str>,
    /// The mapping lets sessions connect without a password, which only a superuser may allow.
    pub is_without_password: bool,
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
    /// A mapping without a password.
    WithoutPassword,
    /// A foreign table.
    Using,
}

/// A name that no server is likely to have.
const TRIED: &str = "pgstow_asks";

impl Session {
    /// The first step that the server refuses to this role. `None`: it refuses none, or it cannot be asked here.
    pub async fn refuses_server<'a>(&self, asked: &ForeignServer<'a>) -> Result<Option<ServerRefusal<'a>>> {
        let failed = |error| self.error("cannot ask what the role may do", &error);
        self.client.batch_execute(QUIETLY).await.map_err(failed)?;
        let refused = self.try_server(asked).await;
        self.client.batch_execute("ROLLBACK").await.map_err(failed)?;
        refused.map_err(failed)
    }

    async fn try_server<'a>(
        &self,
        asked: &ForeignServer<'a>,
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
        for (step, statement) in steps(asked) {
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
        if user.is_without_password {
            let waiving =
                format!("ALTER USER MAPPING FOR {role} SERVER {server} OPTIONS (ADD password_required 'false')");
            steps.push((ServerRefusal::WithoutPassword, waiving));
        }
    }
    // Who may have a mapping of their own may make foreign tables.
    if asked.has_tables {
        let using = format!("CREATE USER MAPPING IF NOT EXISTS FOR CURRENT_USER SERVER {server}");
        steps.push((ServerRefusal::Using, using));
    }
    steps
}
