//! What an increment covers, table by table, and the files that say so.
//!
//! A round calls three steps, and reads its stream between them:
//!
//! 1. [`look`] reads the catalog. Then the round brings the publications up to date with it, and reads the stream at
//!    least to [`Looked::at`]; [`StreamFacts`] hears every message.
//! 2. [`probe`] takes a view of the tables whose updates do not arrive, if there are any. Then the round reads the stream
//!    on, at least to [`Probe::at`], so that it has all that the view sees. [`settle`] decides what the differences from
//!    the previous catalog mean for each table, and reads the baselines into the stores. Then the round reads the stream
//!    on, at least to [`Settled::at`], so that the baselines lie within the increment.
//! 3. [`finish`] looks once more, and says what is covered.
//!
//! The round may end its stream earlier (deadline, size): [`settle`] then sees from the position that the catalog is
//! ahead of the stream, reads no baselines, and leaves the differences to the next increment.

mod covered;
mod file;
mod large_objects;
mod whole;

use std::collections::{BTreeMap, BTreeSet};

use super::baselines::StoredBaselines;
use super::context::Context;
use super::definitions;
use super::difference::{Action, Decision, Now, SMALL, difference, is_changed};
use super::facts::StreamFacts;
use super::probe::{Probe, Probed};
use super::sequences;
use crate::error::Result;
use crate::format::Lsn;
use crate::format::fold::Horizon;
use crate::format::script::Sum;
use crate::job::backup::answered;
use crate::job::backup::replicas::Replicas;
use crate::postgres::{PublicationChanges, PublicationKind, TableCatalog, TableKind};
use crate::repository::manifest::{Baseline, ObjectsCoverage, ReplayProof, SequenceState, TableCoverage};
use crate::repository::seen_catalog::{SeenCatalog, SeenRows};

pub(in crate::job) use file::CoverageFile;
use large_objects::CoveredObjects;

/// Why the next increment reads a table that this one had read, or has other definitions for.
const UNDEFINED: &str = "the new definitions could not be stored; it is left to the next increment";

/// How many tables that could not be published the report names.
const WARNED: usize = 5;

/// The catalog as it is before the stream is read.
pub(in crate::job) struct Looked {
    pub catalog: TableCatalog,
    pub fingerprint: String,
    /// Everything that was committed before this position is in the catalog. `None`: it is not known.
    pub since: Option<Lsn>,
    /// Everything in the catalog was committed before this position: read the stream at least to here.
    pub at: Lsn,
}

/// What the round has seen of the source beside the stream.
pub(in crate::job) struct Sighting {
    pub looked: Looked,
    /// What was done to bring the publications up to date with `looked`.
    pub publications: PublicationChanges,
    /// The `catalog.json` of the increment before, or of the full with which the stream began. Without it no moment of
    /// this increment is exact.
    pub previous: Option<SeenCatalog>,
}

/// What the increment becomes.
pub(in crate::job) enum Outcome {
    /// Why a new full is better than this increment.
    NewFull(String),
    Settled(Box<Settled>),
}

/// All is decided, and the baselines are in the stores.
pub(in crate::job) struct Settled {
    /// Read the stream on, at least to here. `None`: there are no baselines.
    pub at: Option<Lsn>,
    looked: Looked,
    previous: Option<SeenCatalog>,
    publications: PublicationChanges,
    counted: BTreeMap<u32, u64>,
    decisions: Vec<Decision>,
    probed: BTreeMap<u32, Probed>,
    /// What the probe saw.
    probed_in: Option<Horizon>,
    /// Tables whose baseline has to wait, and why.
    postponed: BTreeMap<u32, String>,
    baselines: Option<StoredBaselines>,
    large_objects: CoveredObjects,
    warnings: Vec<String>,
}

/// What goes into the manifest, and the files beside the changes.
pub(in crate::job) struct Coverage {
    pub tables: Vec<TableCoverage>,
    pub baselines: Vec<Baseline>,
    pub sequences: Vec<SequenceState>,
    pub large_objects: Option<ObjectsCoverage>,
    /// Its `.dump` is in the stores; its `.toc` is in `files`.
    pub archive: Option<StoredBaselines>,
    /// To be put and recorded.
    pub files: Vec<CoverageFile>,
    pub warnings: Vec<String>,
}

/// Reads the catalog, and the fingerprint of all definitions.
pub(in crate::job) async fn look(context: &Context<'_>) -> Result<Looked> {
    let session = &context.source.session;
    let (since, before) = answered(context.job, session.unsettled_position()).await?;
    // It takes time, in which most of these transactions end.
    let fingerprint = definitions::fingerprint(context).await?;
    let running = answered(context.job, session.running()).await?;
    let catalog = answered(context.job, session.table_catalog()).await?;
    let at = context.job.stop.or_stop(session.settled_position()).await?;
    let Some(at) = at else {
        return Err(covered::unflushed());
    };
    Ok(Looked {
        catalog,
        fingerprint,
        since: before.is_disjoint(&running).then_some(since),
        at,
    })
}

/// `facts` are those of the stream up to `read_to`.
pub(in crate::job) async fn settle(
    context: &Context<'_>,
    replicas: &mut Replicas,
    sighting: Sighting,
    probe: Option<Probe>,
    (facts, read_to): (&StreamFacts, Lsn),
) -> Result<Outcome> {
    let Sighting {
        looked,
        publications,
        previous,
    } = sighting;
    let session = &context.source.session;
    let counted = answered(context.job, session.rows_changed(&keyless(&publications))).await?;
    let now = Now {
        catalog: &looked.catalog,
        publications: &publications,
        publishing: &looked.catalog.publishing(),
        counted: &counted,
        from: context.from,
    };
    let decisions = difference(previous.as_ref(), &now, facts);
    let warnings = unpublished(&publications);
    let mut settled = Settled {
        at: None,
        looked,
        previous,
        publications,
        counted,
        decisions,
        probed: BTreeMap::new(),
        probed_in: None,
        postponed: BTreeMap::new(),
        baselines: None,
        large_objects: CoveredObjects::default(),
        warnings,
    };
    if read_to < settled.looked.at {
        let why = "the stream was not read to its end, so the table's baseline is left to the next increment";
        settled.postpone(&settled.readings(), why);
        settled.large_objects = CoveredObjects::unread(context).await?;
        return Ok(Outcome::Settled(Box::new(settled)));
    }
    if let Some(probe) = probe {
        read_with(context, &mut settled, probe, facts).await?;
    }
    whole::measure(context, &mut settled).await?;
    if let Some(why) = whole::too_much(context, &settled).await? {
        return Ok(Outcome::NewFull(why));
    }
    whole::wait(context, &mut settled).await?;
    whole::store(context, replicas, &mut settled).await?;
    Ok(Outcome::Settled(Box::new(settled)))
}

/// Tables whose changes do not arrive, or whose updates fail, until a statement can be carried out.
fn unpublished(publications: &PublicationChanges) -> Vec<String> {
    let told = publications.postponed.iter().map(|one| {
        let (what, urgent) = match one.breaks_updates {
            true => (
                "taken out of its publication",
                "; its UPDATE and DELETE fail until then",
            ),
            false => ("published", ""),
        };
        format!("{}.{} could not be {what}{urgent}: {}", one.schema, one.name, one.why)
    });
    let mut warnings: Vec<String> = told.clone().take(WARNED).collect();
    let more = told.skip(WARNED).count();
    if more > 0 {
        warnings.push(format!("{more} more tables could not be published"));
    }
    warnings
}

fn keyless(publications: &PublicationChanges) -> Vec<u32> {
    let published = publications.after.iter();
    let keyless = published.filter(|(_, kind)| **kind == PublicationKind::Inserts);
    keyless.map(|(oid, _)| *oid).collect()
}

impl Settled {
    /// The tables that are to be read whole, and do not have to wait.
    fn readings(&self) -> Vec<u32> {
        let is_read = |decision: &&Decision| match decision.action {
            Action::Read(_) => true,
            Action::Probe => self
                .probed
                .get(&decision.oid)
                .is_none_or(|probed| !probed.keeps_earlier),
            _ => false,
        };
        let read = self.decisions.iter().filter(is_read).map(|decision| decision.oid);
        read.filter(|oid| !self.postponed.contains_key(oid)).collect()
    }

    /// Those of them whose rows need other definitions than before.
    fn redefined(&self) -> Vec<u32> {
        let is_redefined = |oid: &u32| {
            let before = self.previous.as_ref().and_then(|previous| previous.table(*oid));
            let both = before.zip(self.looked.catalog.table(*oid));
            both.is_some_and(|(before, now)| before.lacking.is_some() || is_changed(&before.table, now, true))
        };
        self.readings().into_iter().filter(is_redefined).collect()
    }

    /// What may be replayed up to the baseline of a table.
    fn proof_of(&self, oid: u32) -> Option<ReplayProof> {
        let of_table = self.decisions.iter().find(|decision| decision.oid == oid);
        match &of_table?.action {
            Action::Read(reading) => reading.proof,
            _ => None,
        }
    }

    fn postpone(&mut self, tables: &[u32], why: &str) {
        self.postponed.extend(tables.iter().map(|oid| (*oid, why.to_owned())));
    }

    fn bytes_of(&self, tables: &[u32]) -> u64 {
        let chosen: BTreeSet<u32> = tables.iter().copied().collect();
        let read = self.decisions.iter().filter(|decision| chosen.contains(&decision.oid));
        read.map(|decision| decision.bytes).sum()
    }
}

/// A view of the small tables whose updates do not arrive. `None`: there are none.
pub(in crate::job) async fn probe(
    context: &Context<'_>,
    catalog: &TableCatalog,
    publications: &PublicationChanges,
) -> Result<Option<Probe>> {
    let is_small = |oid: &u32| {
        let table = catalog.table(*oid);
        table.is_some_and(|table| table.kind == TableKind::Ordinary && table.bytes <= SMALL)
    };
    if !keyless(publications).iter().any(is_small) {
        return Ok(None);
    }
    let opened = context.job.stop.or_stop(Probe::open(&context.source.session));
    opened.await.map(Some)
}

/// Reads the small tables whose updates do not arrive.
async fn read_with(context: &Context<'_>, settled: &mut Settled, mut probe: Probe, facts: &StreamFacts) -> Result<()> {
    let is_probed = |decision: &&Decision| decision.action == Action::Probe;
    let tables: Vec<u32> = settled.decisions.iter().filter(is_probed).map(|one| one.oid).collect();
    let session = &context.source.session;
    let statements = answered(context.job, session.copy_statements(&tables)).await?;
    for (oid, copy) in statements {
        let seen = settled.previous.as_ref().and_then(|previous| previous.table(oid));
        let earlier = seen.and_then(|seen| seen.rows.as_ref());
        match answered(context.job, probe.look(&copy, earlier)).await? {
            Ok(mut probed) => {
                probed.keeps_earlier &= earlier
                    .and_then(|earlier| grown(earlier, facts, oid, &probe.horizon))
                    .is_some_and(|grown| grown == probed.appended);
                // The rows may be as before because an update was taken back.
                let before = seen.and_then(|seen| seen.counted);
                let now = settled.counted.get(&oid).copied();
                probed.keeps_earlier &= before.is_none() || now.is_none() || before == now;
                settled.probed.insert(oid, probed);
            }
            Err(refused) => settled.postpone(&[oid], &format!("it could not be read: {refused}")),
        }
    }
    settled.probed_in = Some(probe.horizon.clone());
    probe.close().await;
    Ok(())
}

/// The rows that the view has since the earlier text, by the stream's account.
fn grown(earlier: &SeenRows, facts: &StreamFacts, oid: u32, view: &Horizon) -> Option<Sum> {
    let mut grown = earlier.ahead?;
    grown.merge(facts.inserted(oid, |xid| view.sees(xid))?);
    Some(grown)
}

/// `facts` and `to` are those of the whole increment.
pub(in crate::job) async fn finish(
    context: &Context<'_>,
    mut settled: Settled,
    (facts, to): (&StreamFacts, Lsn),
) -> Result<Coverage> {
    let previous = settled.previous.as_ref().map(|previous| &previous.definitions);
    let (fingerprint, at) = (&settled.looked.fingerprint, settled.looked.at);
    let mut taken = definitions::take(context, previous, fingerprint, at).await?;
    // After the definitions, so that what has changed in them until they were taken is known to be late.
    let again = match taken.catalog.take() {
        Some(catalog) => catalog,
        None => answered(context.job, context.source.session.table_catalog()).await?,
    };
    if taken.warning.is_some() {
        settled.postpone(&settled.redefined(), UNDEFINED);
    }
    let mut late = covered::late(&settled.looked, &again, facts);
    let publications = answered(context.job, context.source.session.publications(context.slot)).await?;
    late.extend(covered::unpublished(&settled, &publications.memberships(&again)));
    let unusable: Vec<u32> = settled
        .readings()
        .into_iter()
        .filter(|oid| late.contains(oid))
        .collect();
    settled.postpone(
        &unusable,
        "it changed while it was read; its baseline is left to the next increment",
    );
    settled.large_objects.look_again(context).await?;
    let (sequences, unreadable) = sequences::read(context).await?;
    settled.warnings.extend(unreadable);
    let defined = taken.changed_from(to);
    let tables = covered::tables(((context.from, to), defined), &settled, &late, &again);
    let is_undefined = taken.warning.is_some();
    settled.warnings.extend(taken.warning);
    let baselines = covered::baselines(&settled);
    let again = taken.archive.is_some().then_some(&again);
    let seen = covered::seen(&settled, (taken.seen, again), is_undefined, facts);
    let mut files = vec![CoverageFile::catalog(&seen)?];
    files.extend(
        taken
            .archive
            .map(|archive| CoverageFile::definitions(context.id, archive)),
    );
    if let Some(stored) = &mut settled.baselines {
        settled.warnings.append(&mut stored.warnings);
        let encoding = &context.source.session.server().encoding;
        covered::describe(&mut stored.tables, &settled.looked.catalog, encoding);
        files.push(CoverageFile::contents(context.id, stored.toc.clone()));
    }
    Ok(Coverage {
        tables,
        baselines,
        sequences,
        large_objects: settled.large_objects.coverage,
        archive: settled.baselines,
        files,
        warnings: settled.warnings,
    })
}
