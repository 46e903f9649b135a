//! Looks at the target before anything is changed, and finds what would make the restore fail halfway.

use super::plan::{LeftOut, Plan};
use super::{Job, database};
use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::postgres::{self, ConnectionInfo, Session};
use crate::repository::manifest::{Manifest, role};
use crate::units::count;

/// How many names an error lists.
const NAMED: usize = 5;
/// A definition takes a lock for its object, and some for objects that come with it (toast, row type).
const LOCKS_PER_DEFINITION: u64 = 3;

/// The databases from which the server makes others.
pub(super) const TEMPLATES: [&str; 2] = ["template0", "template1"];

/// A session with the server, and how to reach the database to restore into.
pub(super) struct Target {
    /// In the database to restore into, or in another one if it does not exist yet.
    pub session: Session,
    /// Of the database to restore into.
    pub info: ConnectionInfo,
    pub found: postgres::TargetSurvey,
    /// Whether the database to restore into exists.
    pub exists: bool,
    /// It is a template database, which cannot be dropped as it is.
    pub is_template: bool,
}

pub(super) async fn reach(job: &Job<'_>, request: &RestoreRequest) -> Result<Target> {
    if !request.create {
        let (_, session) = job.target.connect(&job.settings.postgres).await?;
        let info = settled(&session).await?;
        // Questions may wait for locks of other sessions too.
        let limit = format!("SET lock_timeout = {}", job.settings.postgres.lock_wait.as_millis());
        session.execute(&limit).await?;
        let found = session.survey_target().await?;
        return Ok(Target {
            session,
            info,
            found,
            exists: true,
            is_template: false,
        });
    }
    let wanted = job.target.current().await?;
    let Some(name) = wanted.database().map(str::to_owned) else {
        return Err(Error::config("--create: the target names no database")
            .hint("end --target with the name: postgres://user@host:5432/NAME"));
    };
    let mut elsewhere = wanted;
    elsewhere.dbname = Some(if name == "postgres" { "template1" } else { "postgres" }.to_owned());
    let session = Session::connect(&elsewhere, &job.settings.postgres).await?;
    let mut info = settled(&session).await?;
    info.dbname = Some(name.clone());
    // The encoding of the new database is not that of this one.
    info.params.remove("client_encoding");
    let found = session.survey_target().await?;
    let there = session.database(&name).await?;
    if let Some(there) = &there
        && request.clean
    {
        there.check(&name, request.force)?;
    }
    Ok(Target {
        session,
        info,
        found,
        exists: there.is_some(),
        is_template: there.is_some_and(|there| there.is_template),
    })
}

/// The connection for pg_restore and psql, without settings that would disturb them. Options are only sent if they
/// are needed, because a pooler may refuse them.
async fn settled(session: &Session) -> Result<ConnectionInfo> {
    let mut info = session.loading_info();
    for option in session.settle_obstacles().await? {
        let options = info.params.entry("options".into()).or_default();
        *options = format!("{options} -c {option}").trim_start().to_owned();
    }
    Ok(info)
}

impl Target {
    /// Settings of the backup's database that this one lacks. They are not restored.
    pub fn settings_that_stay_away(&self, items: &[Item]) -> Vec<LeftOut> {
        let lacking = database::settings(items)
            .into_iter()
            .filter(|setting| !self.found.settings.contains(&setting.to_string()));
        let told = lacking.map(|setting| LeftOut {
            what: setting.what(),
            why: "the target existed before and keeps its own settings: --create restores those of the backup".into(),
        });
        told.collect()
    }

    /// Whether the plan's definitions fit into one transaction of this server.
    pub fn fits_one_transaction(&self, plan: &Plan) -> bool {
        (plan.before.len() as u64).saturating_mul(LOCKS_PER_DEFINITION) < self.found.locks
    }

    pub fn name(&self) -> &str {
        self.info.database().unwrap_or_default()
    }

    /// Checks what every restore needs.
    pub fn check(&self, manifest: &Manifest, request: &RestoreRequest) -> Result<()> {
        let server = self.session.server();
        let refused = |what: String| Error::new(Code::RestoreErr, what);
        let source_major = manifest.server.version_num / 10_000;
        if server.major < source_major {
            return Err(Error::new(
                Code::Version,
                format!(
                    "the target is PostgreSQL {}, older than the backup's server, {}",
                    server.version, manifest.server.version
                ),
            )
            .hint(format!("restore into PostgreSQL {source_major} or newer")));
        }
        if server.in_recovery {
            return Err(
                refused("the target is a standby, which is read-only".into()).hint("give the primary's address")
            );
        }
        if request.create {
            return self.check_creation(manifest, request);
        }
        // For an archive it is known what it makes and where: see [`super::allowed`].
        if !self.found.may_create && manifest.files.contains_key(role::SQL) {
            return Err(self.may_not_create());
        }
        if self.found.objects > 0 && request.tables.is_empty() && !request.clean {
            return Err(refused(format!(
                "the target {} holds {} already: {}",
                self.name(),
                count(self.found.objects, "object"),
                some_of(&self.found.first_objects, self.found.objects)
            ))
            .hint(
                "restore into an empty database, make one with --create, or replace what the backup also holds with \
                 --clean",
            ));
        }
        self.check_space(manifest, request)
    }

    pub fn may_not_create(&self) -> Error {
        let user = &self.session.server().user;
        let what = format!("the role {user} may not create anything in {}", self.name());
        let right = format!("CREATE ON DATABASE {}", postgres::quoting::identifier(self.name()));
        Error::new(Code::Permission, what).hint(granting(&right, self.found.owner.as_deref(), user))
    }

    fn check_creation(&self, manifest: &Manifest, request: &RestoreRequest) -> Result<()> {
        let name = self.name();
        let is_its_own = name == TEMPLATES[1] && manifest.database == name;
        if TEMPLATES.contains(&name) && !is_its_own {
            let what = format!("--create: new databases are copies of {name}, and it cannot become another database");
            return Err(Error::config(what).hint("end --target with another name"));
        }
        if self.exists && !request.clean {
            return Err(
                Error::new(Code::RestoreErr, format!("the database {} exists already", self.name()))
                    .hint("restore into it without --create, or replace it with --create --clean"),
            );
        }
        if !self.found.may_create_databases && !self.found.is_superuser {
            let user = &self.session.server().user;
            return Err(
                Error::new(Code::Permission, format!("the role {user} may not create databases")).hint(format!(
                    "ALTER ROLE {} CREATEDB, or make the database yourself and leave --create out",
                    postgres::quoting::identifier(user)
                )),
            );
        }
        Ok(())
    }

    /// Checks what this plan needs besides.
    pub fn check_plan(&self, plan: &Plan, request: &RestoreRequest) -> Result<()> {
        let refused = |what: String| Error::new(Code::RestoreErr, what);
        let lacking: Vec<String> = plan
            .extensions
            .iter()
            .filter(|name| !self.found.extensions.contains_key(*name))
            .cloned()
            .collect();
        // With `--keep-going` the restore continues without them.
        if !lacking.is_empty() && !request.keep_going {
            return Err(refused(format!(
                "the target's server lacks extensions that the backup needs: {}",
                some_of(&lacking, lacking.len() as u64)
            ))
            .hint(
                "install their packages on the server; or restore without them, and without what needs them: \
                 --keep-going",
            ));
        }
        if !request.globals {
            self.check_roles(plan)?;
        }
        let strangers: Vec<String> = plan
            .owners
            .iter()
            .filter(|(role, _)| self.found.roles.get(*role) == Some(&false))
            .map(|(role, object)| format!("{role} ({object})"))
            .collect();
        if !strangers.is_empty() {
            let user = &self.session.server().user;
            return Err(Error::new(
                Code::Permission,
                format!(
                    "the role {user} may not give objects to their owners in the backup: {}",
                    some_of(&strangers, strangers.len() as u64)
                ),
            )
            .hint(format!(
                "GRANT those roles TO {}, or use --no-owner, or leave their objects out with --exclude KIND:NAME",
                postgres::quoting::identifier(user)
            )));
        }
        match request.no_tablespaces {
            true => Ok(()),
            false => self.check_tablespaces(plan),
        }
    }

    fn check_tablespaces(&self, plan: &Plan) -> Result<()> {
        let found = &self.found.tablespaces;
        let of = |state: Option<&bool>| -> Vec<String> {
            let of = plan.tablespaces.iter().filter(|name| found.get(*name) == state);
            of.cloned().collect()
        };
        let lacking = of(None);
        if !lacking.is_empty() {
            let what = format!(
                "the target lacks tablespaces: {}",
                some_of(&lacking, lacking.len() as u64)
            );
            return Err(Error::new(Code::RestoreErr, what)
                .hint("make them, or put everything into the default one with --no-tablespaces"));
        }
        let closed = of(Some(&false));
        if let Some(first) = closed.first() {
            let user = &self.session.server().user;
            let names = some_of(&closed, closed.len() as u64);
            let what = format!("the role {user} may not create anything in tablespaces of the backup: {names}");
            return Err(Error::new(Code::Permission, what).hint(format!(
                "GRANT CREATE ON TABLESPACE {} TO {}, or put everything into the default one with --no-tablespaces",
                postgres::quoting::identifier(first),
                postgres::quoting::identifier(user)
            )));
        }
        Ok(())
    }

    /// Checks that the roles of the plan exist.
    fn check_roles(&self, plan: &Plan) -> Result<()> {
        let unknown: Vec<String> = plan
            .roles
            .iter()
            .filter(|role| !self.found.roles.contains_key(*role))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            return Err(Error::new(
                Code::RestoreErr,
                format!(
                    "the target lacks roles that own things, have grants or are named by policies in the backup: {}",
                    some_of(&unknown, unknown.len() as u64)
                ),
            )
            .hint(
                "make them with --globals or by hand, or leave out what names them: --no-owner, --no-privileges, \
                 --exclude POLICY, --exclude USER-MAPPING",
            ));
        }
        Ok(())
    }

    /// If pgstow can see the server's disk, it must have room for as much as the source took.
    fn check_space(&self, manifest: &Manifest, request: &RestoreRequest) -> Result<()> {
        let needed = manifest.metadata.database_bytes;
        let (Some(free), Some(needed), true) = (self.found.free_bytes, needed, request.tables.is_empty()) else {
            return Ok(());
        };
        if free < needed && !request.clean {
            return Err(Error::new(
                Code::RestoreErr,
                format!(
                    "the target's disk has {} free, the database took {}",
                    crate::units::human_bytes(free),
                    crate::units::human_bytes(needed)
                ),
            )
            .hint("free space on the server, or restore single tables with --table"));
        }
        Ok(())
    }
}

/// The hint for a right that a role lacks. `owner`: of the object, if it is no superuser.
pub(super) fn granting(right: &str, owner: Option<&str>, user: &str) -> String {
    let role = postgres::quoting::identifier(user);
    match owner {
        None => format!("GRANT {right} TO {role}"),
        Some(owner) => format!(
            "GRANT {right} TO {role}, as {owner} or a superuser; or make it a member of that owner: GRANT {} TO {role}",
            postgres::quoting::identifier(owner)
        ),
    }
}

pub(super) fn some_of(names: &[String], count: u64) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    match count.saturating_sub(shown.len() as u64) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
