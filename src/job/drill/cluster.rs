//! The throwaway server's roles and databases, and two logins: a role that is no superuser, for everything that
//! evaluates code of the backup; and the superuser, for objects that only it can make.

use std::collections::BTreeSet;

use secrecy::SecretString;

use super::evidence::Witness;
use super::settings::{SourceFacts, Withheld};
use super::{Job, LeftOut, locale};
use crate::error::{Error, Result};
use crate::format::archive::Item;
use crate::job::restore::{self, Plan};
use crate::postgres::quoting::{identifier, literal};
use crate::postgres::{ComparedGlobals, ConnectionInfo, Passfile, Powers, SchemaGrants, Session};
use crate::repository::catalog::Located;
use crate::repository::manifest::{Manifest, role};
use crate::run::private_folder::{PrivateFolder, answering};

/// The first major with a role that may read everything.
const READS_ALL: u32 = 14;

/// The start of the reason if the backup holds no roles.
pub(super) const HOLDS_NONE: &str = "the backup holds none: ";
/// The most tablespaces to make: no real script names more.
const TABLESPACES: usize = 1000;
/// The name of the second database.
const TWIN: &str = "pgstow_twin";

/// A login: a user and a database.
pub(super) struct ClusterLogin<'a> {
    pub info: ConnectionInfo,
    pub passfile: &'a Passfile,
}

pub(super) struct Cluster<'a> {
    job: &'a Job<'a>,
    pub witness: &'a Witness<'a>,
    session: Session,
    loader: ConnectionInfo,
    loaders_passfile: Passfile,
    passfile: Passfile,
    _folders: [PrivateFolder; 2],
    /// Roles that are superusers in the source.
    lowered: Vec<String>,
    source: SourceFacts,
    /// The roles as `globals.sql` made them, before any right was taken from them.
    pub roles: Roles,
}

/// The result of applying `globals.sql`.
#[derive(Default)]
pub(super) struct Roles {
    pub compared: ComparedGlobals,
    pub not_proved: Vec<LeftOut>,
}

/// The database into which the drill restores.
pub(super) struct Ground {
    /// The superuser's session, opened while the database was empty.
    pub session: Session,
    name: String,
    /// Why values may sort, compare and print differently here than in the source.
    pub locale: Option<String>,
    /// Settings that affect computed values in the source, but are missing here.
    pub withheld: Withheld,
    pub not_proved: Vec<LeftOut>,
}

impl<'a> Cluster<'a> {
    /// Makes the roles that the backup names, without any superuser, and the loader, which may do what each of them
    /// may.
    pub async fn prepare(
        job: &'a Job<'a>,
        witness: &'a Witness<'a>,
        located: &Located,
        plan: &Plan,
    ) -> Result<Cluster<'a>> {
        let server = witness.server;
        let settings = &job.settings.postgres;
        let session = Session::connect_to_our_own(server.info(), settings).await?;
        let roles = roles(&session, located).await?;
        let there = session.survey_target().await?.roles;
        for role in plan.roles.iter().filter(|role| !there.contains_key(*role)) {
            session.execute(&format!("CREATE ROLE {}", identifier(role))).await?;
        }
        let source = SourceFacts::of(located, &session).await?;
        let lowered = session.lower_roles().await?;
        let (name, password) = server.stranger()?;
        session.make_loader(&name, &password).await?;
        let loader = with_user(server.info(), name, password);
        let (folder, loaders_passfile) = passfile(job, &loader).await?;
        let (another, passfile) = passfile(job, server.info()).await?;
        Ok(Cluster {
            _folders: [folder, another],
            loaders_passfile,
            passfile,
            job,
            witness,
            session,
            loader,
            lowered,
            source,
            roles,
        })
    }

    pub fn superusers_name(&self) -> &str {
        self.witness.server.info().user.as_deref().unwrap_or_default()
    }

    pub fn keeps_files(&self) -> bool {
        self.job.settings.drill_unconfined || self.witness.server.keeps_files()
    }

    /// Makes the database with the properties in the backup.
    pub async fn ground(&self, items: &[Item], manifest: &Manifest) -> Result<Ground> {
        self.ground_named(ground_name(manifest), items, manifest).await
    }

    /// Makes another database with the same properties.
    pub async fn second_ground(&self, first: &Ground, items: &[Item], manifest: &Manifest) -> Result<Ground> {
        let name = if first.name == TWIN { "pgstow_other_twin" } else { TWIN };
        self.ground_named(name, items, manifest).await
    }

    async fn ground_named(&self, name: &str, items: &[Item], manifest: &Manifest) -> Result<Ground> {
        let mut not_proved = Vec::new();
        let mut locale = None;
        let made = match restore::database::creation(items, name) {
            Ok(creation) => {
                let creation = restore::database::without_tablespace(&creation);
                let refused = self.session.create_database(&creation).await?.err();
                if let Some(error) = &refused {
                    locale = Some(locale::lacking(&creation, error));
                }
                not_proved.extend(locale.iter().map(|why| LeftOut {
                    what: "the database's locale".into(),
                    why: why.clone(),
                }));
                refused.is_none()
            }
            Err(error) => {
                not_proved.push(LeftOut {
                    what: "the database itself".into(),
                    why: error.message(),
                });
                false
            }
        };
        if !made {
            let plain = format!(
                "CREATE DATABASE {} WITH TEMPLATE = template0 ENCODING = {} LOCALE = 'C'",
                identifier(name),
                literal(&manifest.server.encoding)
            );
            self.session.execute(&plain).await?;
        }
        // Before the session is opened, because a session gets these settings when it starts.
        let withheld = self.source.settle(&self.session, name, items).await?;
        let session =
            Session::connect_to_our_own(&within(self.witness.server.info(), name), &self.job.settings.postgres).await?;
        Ok(Ground {
            session,
            name: name.to_owned(),
            locale,
            withheld,
            not_proved,
        })
    }

    /// Makes a new database in place of the old one.
    pub async fn ground_again(&self, old: Ground, items: &[Item], manifest: &Manifest) -> Result<Ground> {
        old.session.close().await;
        self.session.drop_database(&old.name).await?;
        self.ground(items, manifest).await
    }

    pub fn loader(&self, ground: &Ground) -> ClusterLogin<'_> {
        ClusterLogin {
            info: within(&self.loader, &ground.name),
            passfile: &self.loaders_passfile,
        }
    }

    pub fn superuser(&self, ground: &Ground) -> ClusterLogin<'_> {
        ClusterLogin {
            info: within(self.witness.server.info(), &ground.name),
            passfile: &self.passfile,
        }
    }

    /// The login for the second dump: pg_dump sees some objects only as a superuser. It evaluates nothing, and no code
    /// of the backup runs any more.
    pub fn reader(&self, ground: &Ground, items: &[Item]) -> ClusterLogin<'_> {
        let hidden = |item: &Item| matches!(item.entry.desc.as_str(), "SUBSCRIPTION" | "USER MAPPING");
        self.reader_of(ground, items.iter().any(hidden))
    }

    /// The same, if it is known whether there are such objects.
    pub fn reader_of(&self, ground: &Ground, hidden: bool) -> ClusterLogin<'_> {
        // In older majors only a superuser can read everything.
        let old = self.session.server().major < READS_ALL;
        if old || hidden {
            self.superuser(ground)
        } else {
            self.loader(ground)
        }
    }

    /// Ends all sessions, so that no code of the backup runs any more, and gives the backup's superusers their power
    /// back: only a superuser may own some objects.
    pub async fn raise(&self, ground: &Ground) -> Result<()> {
        ground.session.end_others().await?;
        ground.session.set_superusers(&self.lowered, true).await
    }

    pub async fn lower(&self, ground: &Ground) -> Result<()> {
        ground.session.set_superusers(&self.lowered, false).await
    }

    pub async fn open_schemas(&self, ground: &Ground) -> Result<SchemaGrants> {
        ground.session.open_schemas().await
    }

    /// Lets the loader create schemas, because a script makes its own.
    pub async fn open_for_script(&self, ground: &Ground) -> Result<()> {
        let loader = self.loader.user.as_deref().unwrap_or_default();
        ground.session.open_database(&ground.name, loader).await
    }

    /// Makes tablespaces in the server's own folder, for all roles.
    pub async fn make_tablespaces(&self, names: &BTreeSet<Vec<u8>>) -> Result<()> {
        let names = names.iter().filter_map(|name| std::str::from_utf8(name).ok());
        // The server has its own tablespaces already.
        for name in names.filter(|name| !name.starts_with("pg_")).take(TABLESPACES) {
            self.session.make_tablespace(name).await?;
        }
        Ok(())
    }

    /// Call this when the script has ended. All roles may still use its schemas.
    pub async fn close_for_script(&self, ground: &Ground) -> Result<()> {
        let loader = self.loader.user.as_deref().unwrap_or_default();
        ground.session.close_database(loader).await
    }

    /// The roles that own the objects of extensions.
    pub fn makers(&self) -> [&str; 2] {
        [self.superusers_name(), self.loader.user.as_deref().unwrap_or_default()]
    }
}

/// The name of the database. The server's own databases exist already.
fn ground_name(manifest: &Manifest) -> &str {
    match manifest.database.as_str() {
        "postgres" | "template0" | "template1" => "drilled",
        name => name,
    }
}

/// Makes a password file in a folder that is removed however pgstow ends.
async fn passfile(job: &Job<'_>, info: &ConnectionInfo) -> Result<(PrivateFolder, Passfile)> {
    let info = info.clone();
    let made = answering(&job.settings.postgres.temp, move |temp| {
        let folder = PrivateFolder::watched(temp)?;
        match Passfile::within(&folder, &info)? {
            Some(passfile) => Ok((folder, passfile)),
            None => Err(Error::internal("a role of the throwaway server has no password")),
        }
    });
    job.stop.or_stop(made).await
}

/// Makes the roles of `globals.sql`, and compares them with it.
async fn roles(session: &Session, located: &Located) -> Result<Roles> {
    let left_out = |why: String| LeftOut {
        what: "roles".into(),
        why,
    };
    let manifest = &located.manifest;
    if let Some(why) = manifest.missing.get(role::GLOBALS) {
        return Ok(Roles {
            not_proved: vec![left_out(format!("{HOLDS_NONE}{why}"))],
            ..Roles::default()
        });
    }
    let sql = restore::globals::read(&*located.store, manifest).await?;
    let plan = restore::globals::plan(session, &sql, Powers::Throwaway).await?;
    let refused = plan.left_out.iter().map(|one| format!("{}: {}", one.what, one.why));
    let refused: Vec<_> = refused.collect();
    let applied = session.apply_globals(&plan).await?;
    let compared = session.compare_globals(&plan, &applied).await?;
    let untried = plan.kept.iter().chain(&compared.not_proved).map(|one| LeftOut {
        what: one.what.clone(),
        why: one.why.clone(),
    });
    let untried: Vec<LeftOut> = untried.collect();
    let told = refused.into_iter().chain(applied.notes).map(left_out);
    Ok(Roles {
        not_proved: told.chain(untried).collect(),
        compared,
    })
}

fn with_user(info: &ConnectionInfo, name: String, password: SecretString) -> ConnectionInfo {
    ConnectionInfo {
        user: Some(name),
        password: Some(password),
        ..info.clone()
    }
}

fn within(info: &ConnectionInfo, database: &str) -> ConnectionInfo {
    ConnectionInfo {
        dbname: Some(database.to_owned()),
        ..info.clone()
    }
}
