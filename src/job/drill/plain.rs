//! The drill of a plain dump: pgstow runs the script, dumps the result as a script again, and compares the two part by
//! part.

mod ground;
mod order;
mod same;
mod twin;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use super::cluster::{Cluster, ClusterLogin, Ground};
use super::evidence::{Excuses, Says};
use super::exclusion::Reasons;
use super::exclusion::other_major;
use super::extensions::ExtensionMembers;
use super::settings::has_money;
use super::unproved::{FOREIGN, NOT_IN_A_SCRIPT, nothing_proved};
use super::{DrillReport, Job, second_dump, sequences};
use crate::error::{Code, Error, Result};
use crate::format::Format;
use crate::format::archive::Item;
use crate::format::script::{Contents, Counter, Header, Reader, Refused};
use crate::job::restore::{self, LeftOut};
use crate::postgres::Psql;
use crate::repository::catalog::Located;
use crate::repository::manifest::role;
use same::{Compared, Otherwise};

/// Bytes per read of the second dump.
const PIECE: usize = 1 << 20;

pub(super) async fn run(
    job: &Job<'_>,
    located: &Located,
    major: u32,
    cluster: &Cluster<'_>,
    report: &mut DrillReport,
) -> Result<()> {
    job.observer.phase("running the script in the throwaway server");
    let settings = &job.settings.postgres;
    let manifest = &located.manifest;
    let file = manifest.files.get(role::SQL).map_or("", |file| &file.name);
    let counter = Counter::gathering();
    // Another version may run a script that this one refuses: the refusal says nothing about its contents.
    let (checked, counter) = restore::script::check(&located.store, manifest, job.observer, counter).await?;
    let checked = Arc::new(checked);
    let backup = counter.contents(checked.bytes());
    let reasons = reasons(job, located, cluster, &backup).await?;
    note_reasons(&reasons, report);
    let (creation, unknown) = ground::creation(located).await?;
    let ground = cluster.ground(&creation, manifest).await?;
    let reasons = on_ground(reasons, &ground, unknown, &backup);
    let psql = Psql::find(ground.session.server().major, settings).await?;
    cluster.open_for_script(&ground).await?;
    cluster.make_tablespaces(&backup.tablespaces).await?;
    report.not_proved.extend(ground.not_proved.iter().cloned());
    let since = cluster.witness.mark();
    let way = cluster.loader(&ground);
    if let Err(error) = run_script(job, &way, &psql, &checked).await {
        return match cluster.witness.judge(since, &error, None, &excuses(&reasons)).await {
            // The script is one transaction, so nothing of it remains.
            Some(Says::Lacking(why)) => Err(nothing_proved(&why)),
            Some(Says::Wrong(fault)) => {
                report.blame(file, "the script", &order::weigh(fault, &backup));
                Ok(())
            }
            Some(Says::Contended) | None => Err(error),
        };
    }
    cluster.close_for_script(&ground).await?;
    let doubts = Doubts {
        members: ExtensionMembers::of(&ground.session, &reasons.extensions).await?,
        reasons,
    };
    let first = First {
        job,
        located,
        cluster,
        ground: &ground,
        creation: &creation,
        backup: &backup,
    };
    first.compare(major, &doubts, report).await
}

/// Adds the reasons of the database in which the script runs. `unknown`: why its locale cannot be the source's.
fn on_ground(reasons: Reasons, ground: &Ground, unknown: Option<String>, backup: &Contents) -> Reasons {
    let mut withheld = ground.withheld.clone();
    if !speaks_of_money(backup) {
        withheld.money = None;
    }
    Reasons {
        locale: ground.locale.clone().or(unknown),
        withheld,
        ..reasons
    }
}

/// Notes what a script cannot prove, and what this machine cannot.
fn note_reasons(reasons: &Reasons, report: &mut DrillReport) {
    report.not_proved.push(LeftOut {
        what: "the database's own settings, comment and grants".into(),
        why: NOT_IN_A_SCRIPT.into(),
    });
    report.notes.extend(reasons.sorting.clone());
    let others = reasons.extensions.names();
    report.not_proved.extend(others.iter().map(|name| LeftOut {
        what: format!("EXTENSION {name}"),
        why: reasons.extensions.why(name).unwrap_or_default().to_owned(),
    }));
}

async fn run_script(
    job: &Job<'_>,
    way: &ClusterLogin<'_>,
    psql: &Psql,
    checked: &Arc<restore::script::Checked>,
) -> Result<()> {
    let place = restore::script::ScriptTarget {
        psql,
        info: &way.info,
        passfile: Some(way.passfile),
        settings: &job.settings.postgres,
        stop: job.stop,
        observer: job.observer,
    };
    let ran = restore::script::run(&place, checked).await;
    ran.map_err(|failed| failed.error)
}

/// Why a refusal of the script may be no fault of the backup.
fn excuses(reasons: &Reasons) -> Excuses {
    Excuses {
        any: reasons.extensions.any().or_else(|| reasons.locale.clone()),
        settings: reasons.withheld.any(),
        money: reasons.withheld.money.clone(),
        rows: reasons.missing.looked_for().map(str::to_owned),
        names: None,
        sorting: reasons.sorting.clone(),
    }
}

/// Whether the script has objects that only a superuser can read.
fn has_hidden(contents: &Contents) -> bool {
    let mut kinds = contents.definitions.iter().map(|one| one.header.kind());
    kinds.any(|kind| matches!(kind.as_str(), "SUBSCRIPTION" | "USER MAPPING"))
}

/// Notes in the report what is the same and what differs. Returns the definitions with another text.
fn note(compared: Compared, doubts: &Doubts, report: &mut DrillReport) -> Vec<Otherwise> {
    report.definitions = compared.equal;
    report.sequences = compared.sequences;
    report
        .not_proved
        .extend(compared.too_long.into_iter().map(|what| LeftOut {
            what,
            why: "it is there, but too long to be compared".into(),
        }));
    let (foreign, differences): (Vec<_>, Vec<_>) = compared.differences.into_iter().partition(|one| one.is_foreign);
    let (doubtful, differences): (Vec<_>, Vec<_>) = differences
        .into_iter()
        .map(|one| (doubts.of_definition(&one.header), one))
        .partition(|(why, _)| why.is_some());
    report.not_proved.extend(doubtful.into_iter().map(|(why, one)| LeftOut {
        what: one.finding.table.unwrap_or_default(),
        why: format!("{} (it {})", why.unwrap_or_default(), one.finding.what),
    }));
    let differences = differences.into_iter().map(|(_, one)| one);
    report.problems.extend(differences.map(|one| one.finding));
    report.not_proved.extend(foreign.into_iter().map(|one| LeftOut {
        what: one.finding.table.unwrap_or_default(),
        why: FOREIGN.into(),
    }));
    compared.otherwise
}

/// The database in which the script was run.
struct First<'a> {
    job: &'a Job<'a>,
    located: &'a Located,
    cluster: &'a Cluster<'a>,
    ground: &'a Ground,
    creation: &'a [Item],
    backup: &'a Contents,
}

impl First<'_> {
    /// Dumps the database, and compares the two scripts.
    async fn compare(&self, major: u32, doubts: &Doubts, report: &mut DrillReport) -> Result<()> {
        let First {
            job,
            located,
            cluster,
            ground,
            backup,
            ..
        } = *self;
        let manifest = &located.manifest;
        sequences::move_back(&ground.session, backup).await?;
        job.observer.phase("dumping it again");
        let (again, version) = dump(job, cluster.reader_of(ground, has_hidden(backup))).await?;
        job.observer.phase("comparing");
        same::rows(manifest, backup, &again, doubts, report);
        same::large_objects(backup, &again, doubts, report);
        let compared = same::definitions(backup, &again, &cluster.makers());
        let otherwise = note(compared, doubts, report);
        // An empty database that is empty again: nothing else can be proved.
        report.ran = backup.tables.is_empty() && backup.headers == 0 && report.problems.is_empty();
        if otherwise.is_empty() {
            return Ok(());
        }
        let comparable = manifest.pg_dump.version.split('.').next() == version.split('.').next()
            && manifest.server.version_num / 10_000 == major;
        if !comparable {
            let why = format!("pg_dump of another major ({version}) may write it differently");
            report.not_proved.extend(otherwise.iter().map(|one| LeftOut {
                what: one.name(),
                why: why.clone(),
            }));
            return Ok(());
        }
        self.make_again(otherwise, doubts, report).await
    }

    /// A server may print a definition differently from the statement that made it. So pgstow runs the script's own
    /// statements once more, without its rows, over its own session.
    async fn make_again(&self, otherwise: Vec<Otherwise>, doubts: &Doubts, report: &mut DrillReport) -> Result<()> {
        let First {
            job,
            located,
            cluster,
            ground,
            creation,
            backup,
        } = *self;
        job.observer.phase("making what it defines once more");
        let made = twin::make(job, cluster, located, (ground, creation), backup).await?;
        let twin = match made {
            Ok(ground) => dump(job, cluster.reader_of(&ground, has_hidden(backup))).await?.0,
            Err(why) => {
                report.not_proved.extend(otherwise.iter().map(|one| LeftOut {
                    what: one.name(),
                    why: format!("its text differs, and its statements could not be run a second time: {why}"),
                }));
                return Ok(());
            }
        };
        for one in otherwise {
            match one.is_as_in(&twin, &cluster.makers()) {
                true => {
                    report.definitions += one.number();
                    report.sequences += one.sequences();
                }
                false if one.is_foreign => report.not_proved.push(LeftOut {
                    what: one.name(),
                    why: FOREIGN.into(),
                }),
                false => match &doubts.reasons.locale {
                    Some(why) => report.not_proved.push(LeftOut {
                        what: one.name(),
                        why: format!("{why} (it is defined otherwise)"),
                    }),
                    None => report.problems.push(one.finding()),
                },
            }
        }
        Ok(())
    }
}

/// Whether any definition in the script has the type money.
fn speaks_of_money(script: &Contents) -> bool {
    let definitions = script.definitions.iter();
    let mut statements = definitions.flat_map(|one| one.statements.iter().flatten());
    statements.any(|statement| has_money(statement))
}

/// Reasons why a difference from the backup may be no damage.
pub(super) struct Doubts {
    reasons: Reasons,
    members: ExtensionMembers,
}

impl Doubts {
    /// The reason, if an extension made the object here or the backup left it out.
    fn of_definition(&self, header: &Header) -> Option<String> {
        let (kind, schema, name) = (header.kind(), header.schema().unwrap_or_default(), header.name());
        let of_extension = self.members.of_tag(&kind, &schema, &name);
        let why = of_extension.or_else(|| self.reasons.missing.of_tag(&kind, &schema, &name));
        why.map(str::to_owned)
    }

    /// The reason for rows that differ or are missing.
    fn of_table(&self, schema: &str, name: &str) -> Option<String> {
        let of_extension = self.members.relation(schema, name);
        let why = of_extension.or_else(|| self.reasons.missing.of_tag("TABLE DATA", schema, name));
        why.map(str::to_owned)
    }

    /// The reason for equally many rows that differ. A script does not say which object was made with which extension.
    fn of_rows(&self) -> Option<String> {
        let of_major = || {
            let (source, here) = self.reasons.majors?;
            Some(other_major(source, here))
        };
        let of_extensions = self.reasons.extensions.any();
        let of_place = of_extensions.or_else(of_major).or_else(|| self.reasons.locale.clone());
        of_place.or_else(|| self.reasons.withheld.money.clone())
    }

    fn of_large_objects(&self) -> Option<&str> {
        self.reasons.missing.large_objects()
    }
}

async fn reasons(job: &Job<'_>, located: &Located, cluster: &Cluster<'_>, backup: &Contents) -> Result<Reasons> {
    let (_, reasons) = super::reasons(job, located, cluster.witness).await?;
    let made: HashSet<String> = backup
        .definitions
        .iter()
        .filter(|one| one.header.kind() == "EXTENSION")
        .map(|one| one.header.name())
        .collect();
    Ok(Reasons {
        extensions: reasons.extensions.of(|name| made.contains(name)),
        ..reasons
    })
}

/// Dumps the whole database as a script and reads its contents. Also returns pg_dump's version.
async fn dump(job: &Job<'_>, reader: ClusterLogin<'_>) -> Result<(Contents, String)> {
    let read = |mut output: File| {
        let unread = |error| Error::new(Code::PgDumpErr, "reading the second dump failed").source(error);
        let (mut reader, mut bytes) = (Reader::gathering(), 0_u64);
        let mut piece = vec![0; PIECE];
        loop {
            let count = output.read(&mut piece).map_err(unread)?;
            if count == 0 {
                break;
            }
            bytes += count as u64;
            reader.pass(&piece[..count]).map_err(|refused| unreadable(&refused))?;
        }
        reader.end(bytes).map_err(|refused| unreadable(&refused))
    };
    second_dump::read(job, reader, Format::Plain, read).await
}

fn unreadable(refused: &Refused) -> Error {
    Error::new(Code::PgDumpErr, format!("the second dump cannot be read: {refused}"))
}
