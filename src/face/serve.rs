//! `pgstow serve`: one process that answers HTTP requests until it is asked to end.

mod listening;
mod systemd;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;

use crate::app::App;
use crate::command::Command;
use crate::control::schedule::Line;
use crate::control::{Control, Kind, Member, Newest, Parts, Plan, keep};
use crate::error::{Code, Error, Result};
use crate::face::web::{Access, Demands, Web, router};
use crate::report::{ListEntry, Report};
use crate::repository::backup_id::BackupKind;
use crate::run::clock::Clock;
use crate::run::progress::Silent;
use crate::run::stop::Stop;
use crate::settings::{Serve, Settings};

pub use systemd::Systemd;

/// The folder of the journal, in the folder for what this machine remembers.
const JOURNAL: &str = "journal";

/// Listens, and serves until `stop` is asked for. Then it begins no more runs, ends those that run, and returns.
///
/// # Errors
/// `CONFIG` for settings that would let strangers in, and if the address cannot be listened on.
pub async fn run(settings: Settings, mut systemd: Systemd, stop: &Stop) -> Result<()> {
    let clock: Clock = Timestamp::now;
    let mut serve = settings.serve.clone();
    let handed = systemd.listener()?;
    if let Some(address) = handed.as_ref().and_then(|listener| listener.local_addr().ok()) {
        serve.listen = address;
    }
    let (access, token) = access(&serve)?;
    let control = control(settings, &serve, clock).await?;
    let listener = listener(handed, &mut serve)?;
    announce(serve.listen, token.as_deref());
    let web = Web::new(control.clone(), access, &serve, clock);
    let telling = tokio::spawn(web.clone().keep_telling());
    let scheduling = tokio::spawn(keep(control.clone(), InStores(control.clone())));
    let closed = Stop::new();
    let answering = tokio::spawn(listening::serve(
        listener,
        router(web.clone()),
        serve.trusted_proxies.clone(),
        closed.clone(),
    ));
    systemd.ready();
    let systemd = Arc::new(systemd);
    let living = tokio::spawn({
        let systemd = systemd.clone();
        async move { systemd.keep_alive().await }
    });
    let reason = stop.requested().await;
    systemd.ending();
    scheduling.abort();
    // It answers until the runs have ended: that it is no longer ready, and how they end.
    let all_ended = control.close(reason, serve.shutdown).await;
    telling.abort();
    web.close().await;
    closed.request(reason);
    if tokio::time::timeout(Duration::from_secs(5), answering).await.is_err() {
        tracing::warn!("some requests were not answered to their end");
    }
    living.abort();
    match all_ended {
        true => Ok(()),
        false => Err(Error::from(reason).hint("a run did not end in time; the next one removes what it left")),
    }
}

/// The runs of the database that the settings name, and their journal.
async fn control(settings: Settings, serve: &Serve, clock: Clock) -> Result<Arc<Control>> {
    let journal = settings.state_dir.as_ref().map(|folder| folder.join(JOURNAL));
    let lines = lines(&settings)?;
    let app = Arc::new(App::new(settings).await?);
    let name = app.source_database().unwrap_or_else(|| "default".to_owned());
    let plan = |(kind, line)| Plan {
        database: name.clone(),
        kind,
        line,
    };
    let plans: Vec<Plan> = lines.into_iter().map(plan).collect();
    let parts = |journal| Parts {
        fleet: vec![Member {
            name: name.clone(),
            app: app.clone(),
        }],
        journal,
        max_runs: serve.max_runs,
        plans: plans.clone(),
        clock,
    };
    let control = match Control::new(parts(journal.as_deref())) {
        // Backups are made without a journal as well. Another process that has it would make them twice.
        Err(error) if error.code() != Code::Busy => {
            tracing::warn!("no journal is kept: {error}: {}", error.hint_text());
            Control::new(parts(None))?
        }
        made => made?,
    };
    Ok(Arc::new(control))
}

/// What it listens with: the socket that systemd has handed over, else one at the address of the settings. `serve` gets
/// the address that it has in truth.
fn listener(handed: Option<std::net::TcpListener>, serve: &mut Serve) -> Result<TcpListener> {
    let listener = match handed {
        Some(listener) => Ok(listener),
        None => std::net::TcpListener::bind(serve.listen),
    };
    let listener = listener.and_then(|listener| {
        listener.set_nonblocking(true)?;
        serve.listen = listener.local_addr()?;
        TcpListener::from_std(listener)
    });
    listener.map_err(|error| {
        Error::config(format!("{} cannot be listened on", serve.listen))
            .source(error)
            .hint("give --listen another address or port, or stop the process that has this one")
    })
}

/// The lines of the schedules.
fn lines(settings: &Settings) -> Result<Vec<(Kind, Line)>> {
    let given = [
        (Kind::Full, "FULL_BACKUP_SCHEDULE", &settings.schedule.full),
        (
            Kind::Incremental,
            "INCREMENTAL_BACKUP_SCHEDULE",
            &settings.schedule.incremental,
        ),
        (Kind::Cleanup, "CLEANUP_SCHEDULE", &settings.schedule.cleanup),
    ];
    let given = given
        .into_iter()
        .filter_map(|(kind, name, text)| Some((kind, name, text.as_ref()?)));
    given
        .map(|(kind, name, text)| Line::parse(name, text, settings.serve.zone.clone()).map(|line| (kind, line)))
        .collect()
}

/// When backups were made, as the stores say it.
struct InStores(Arc<Control>);

impl Newest for InStores {
    async fn newest(&self, database: &str, kind: BackupKind) -> Result<Option<Timestamp>> {
        let app = &self.0.member(Some(database))?.app;
        let command = Command::List { database: None };
        let report = match app.run(command, Stop::new(), Arc::new(Silent)).await {
            Ok(report) => report,
            // No backup at all. If that is because a disk is not mounted, the run that is begun now finds out, and says so.
            Err(error) if matches!(error.code(), Code::NotFound | Code::Enoent) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Report::List(report) = report else { return Ok(None) };
        let is_meant =
            |entry: &&ListEntry| entry.kind == kind && (entry.database == database || app.source_database().is_none());
        Ok(report
            .backups
            .iter()
            .filter(is_meant)
            .map(|entry| entry.timestamp)
            .max())
    }
}

/// What can prove who asks. Without any setting, a token of this process: the second half, for whoever started it.
fn access(serve: &Serve) -> Result<(Access, Option<String>)> {
    let mut access = Access::default();
    if let Some(file) = &serve.tokens_file {
        access.read_tokens(file)?;
    }
    if let Some(file) = &serve.users_file {
        access.read_users(file)?;
    }
    if let Some(key) = &serve.jwt_secret {
        let role = serve.jwt_default_role.parse().map_err(|_| {
            Error::config(format!(
                "BACKUP_JWT_DEFAULT_ROLE: {:?} is no role",
                serve.jwt_default_role
            ))
            .hint("give viewer, operator or admin")
        })?;
        let demands = Demands {
            default_role: role,
            audience: serve.jwt_audience.clone(),
            issuer: serve.jwt_issuer.clone(),
        };
        access.trust_hs256(key.expose_secret(), demands)?;
    }
    let is_public = !serve.listen.ip().is_loopback();
    if is_public && access.is_empty() {
        return Err(Error::config(format!(
            "{} can be reached from other machines, and nobody would be asked who they are",
            serve.listen
        ))
        .hint("set BACKUP_API_TOKENS_FILE, BACKUP_USERS_FILE or BACKUP_JWT_SECRET, or listen on 127.0.0.1"));
    }
    if is_public && serve.trusted_proxies.is_empty() {
        return Err(Error::config(format!(
            "{} can be reached from other machines, and tokens would cross the network in plain text",
            serve.listen
        ))
        .hint("put a proxy with TLS in front and set BACKUP_TRUSTED_PROXIES to its address, or listen on 127.0.0.1"));
    }
    if !access.is_empty() {
        return Ok((access, None));
    }
    let mut random = [0; 32];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| Error::internal("the system gives no random numbers"))?;
    let token = hex::encode(random);
    access.issue(&token, "whoever started pgstow");
    Ok((access, Some(token)))
}

/// Where it listens, for the person or the script that has started it.
fn announce(address: SocketAddr, token: Option<&str>) {
    let mut lines = format!("listening on http://{address}\n");
    if let Some(token) = token {
        lines += &format!("no tokens are set, so this one is for you, until this process ends: {token}\n");
    }
    // If stderr is closed, nobody reads it.
    let _ = std::io::stderr().lock().write_all(lines.as_bytes());
}
