//! A moment, and the restore to it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use pgstow::format::Lsn;
use serde_json::Value;

use super::busy::Redefined;
use super::chain::Chain;
use super::moments::{self, Moment, Rows};
use super::session::Session;
use crate::support::database::Database;
use crate::support::program::run;

/// What the backups say of the names and the spans.
pub struct Backups {
    /// In the order of the stream.
    increments: Vec<Increment>,
    fulls: BTreeMap<String, BTreeMap<String, u32>>,
}

struct Increment {
    id: String,
    from: Lsn,
    to: Lsn,
    /// By name; of two tables with the same name, both.
    names: Vec<(String, u32)>,
}

/// What the comparisons of all moments came to.
#[derive(Default, Debug)]
pub struct Figures {
    pub moments: usize,
    pub equal: usize,
    /// Equal but for a column that was added or dropped just before the moment.
    pub wider: usize,
    pub not_exact: usize,
    /// Made and dropped within one increment, which nothing can know.
    pub short_lived: usize,
    pub definitions: usize,
    /// Tables that were also restored alone.
    pub copies: usize,
}

impl Backups {
    pub fn read(chain: &Chain) -> Self {
        let (mut increments, mut fulls) = (Vec::new(), BTreeMap::new());
        let names = |list: &Value| -> Vec<(String, u32)> {
            let name = |one: &Value| {
                let text = |key: &str| one[key].as_str().unwrap().to_owned();
                (
                    format!("{}.{}", text("schema"), text("name")),
                    one["oid"].as_u64().unwrap() as u32,
                )
            };
            list.as_array().unwrap().iter().map(name).collect()
        };
        for manifest in chain.manifests() {
            let id = manifest["id"].as_str().unwrap().to_owned();
            if id.ends_with("-full") {
                fulls.insert(id, names(&manifest["tables"]).into_iter().collect());
                continue;
            }
            let position = |key: &str| manifest["stream"][key].as_str().unwrap().parse().unwrap();
            increments.push(Increment {
                id,
                from: position("from"),
                to: position("to"),
                names: names(&manifest["coverage"]),
            });
        }
        increments.sort_by_key(|increment| increment.from);
        Self { increments, fulls }
    }

    pub fn count(&self) -> (usize, usize) {
        (self.fulls.len(), self.increments.len())
    }

    /// From here all moments can be had.
    pub fn first_full(&self) -> &str {
        self.fulls.keys().next().unwrap()
    }

    /// The increment that the position lies in, or ends.
    fn around(&self, lsn: Lsn) -> usize {
        self.increments
            .iter()
            .position(|increment| lsn <= increment.to)
            .unwrap()
    }

    /// The tables that a name may mean at a moment: names may be exchanged within an increment.
    fn meant(&self, name: &str, lsn: Lsn) -> BTreeSet<u32> {
        let around = self.around(lsn);
        let near = &self.increments[around.saturating_sub(1)..(around + 2).min(self.increments.len())];
        let all = near.iter().flat_map(|increment| &increment.names);
        let full = self.fulls.values().flatten();
        let named = all.map(|(name, oid)| (name, oid)).chain(full);
        named.filter(|(one, _)| *one == name).map(|(_, oid)| *oid).collect()
    }

    /// By the name that a table has in the definitions of this backup.
    fn of_definitions(&self, id: &str, lsn: Lsn) -> BTreeMap<String, u32> {
        if let Some(names) = self.fulls.get(id) {
            return names.clone();
        }
        let increment = self.increments.iter().find(|increment| increment.id == id).unwrap();
        // They may be in force before its end.
        assert!(increment.from <= lsn, "{id} begins at {}, behind {lsn}", increment.from);
        increment.names.iter().cloned().collect()
    }

    /// Whether a definition was changed so near to the moment that the increments may not have a table exactly.
    fn may_lack(&self, changes: &[Redefined], name: &str, lsn: Lsn) -> bool {
        let around = self.around(lsn);
        // What was changed before the first full may be found out by the first increments.
        let begin = around.checked_sub(2).map_or(Lsn(0), |at| self.increments[at].from);
        let end = self.increments[around].to;
        changes.iter().any(|one| {
            let of_table = name.split('.').next_back().unwrap().starts_with(&one.table);
            of_table && one.from <= end && one.to >= begin
        })
    }

    /// No definition was changed since those that a restore to the moment uses.
    fn are_definitions_those_of(&self, changes: &[Redefined], lsn: Lsn) -> bool {
        let around = self.around(lsn);
        let begin = self.increments[around.saturating_sub(1)].from;
        around > 0 && !changes.iter().any(|one| one.from <= lsn && one.to >= begin)
    }
}

/// A moment that was restored.
pub struct Compared<'a> {
    pub chain: &'a Chain,
    pub backups: &'a Backups,
    pub changes: &'a [Redefined],
    pub moment: &'a Moment,
    /// The full that the restore begins with, or `latest`.
    pub base: &'a str,
    /// Or only the tables that are exact.
    pub is_whole: bool,
    pub target: &'a Database,
    /// As it is after the load.
    pub source: &'a Database,
}

/// How the names of tables begin that the writers empty.
const EMPTIED: [&str; 6] = [
    "public.boss",
    "public.minion",
    "public.made",
    "public.ev_",
    "public.evo_",
    "other.evo_",
];

/// Tables that are also restored alone: their types are those of the source now.
const COPIED: [&str; 7] = [
    "public.accounts",
    "public.doc",
    "public.whole",
    "public.Num Keys",
    "public.bykey",
    "public.odd",
    "public.ev_late_1",
];

impl Compared<'_> {
    /// Restores it, by its position or its time, and compares everything. Gives what is wrong.
    pub fn compare(&self, by_time: bool, figures: &mut Figures) -> Vec<String> {
        let lsn = self.moment.lsn.to_string();
        let asked = match by_time {
            true => ["--to-time", &self.moment.time],
            false => ["--to-lsn", &lsn],
        };
        figures.moments += 1;
        let told = |what: String| format!("at {lsn}, {}, from {}: {what}", self.moment.time, self.base);
        match self.compared(asked, figures) {
            Ok((_, wrong)) if wrong.is_empty() => Vec::new(),
            Ok((report, wrong)) => vec![told(format!("{}\n{report:#}", wrong.join("\n")))],
            Err(failed) => vec![told(failed)],
        }
    }

    fn compared(&self, asked: [&str; 2], figures: &mut Figures) -> Result<(Value, Vec<String>), String> {
        let planned = self.report(self.command(&["--allow-partial", "--dry-run"], asked))?;
        let (report, mut wrong) = match self.is_whole {
            true => self.whole(asked, figures)?,
            false => self.alone(asked, &planned, figures)?,
        };
        // The changes themselves are not read by a dry run; up to them it says the same.
        for key in ["position", "stops_after", "stops_before", "definitions_of"] {
            if planned[key] != report[key] {
                wrong.push(format!("the dry run says {key}: {}", planned[key]));
            }
        }
        wrong.extend(self.wrong_copy(asked, &planned, figures)?);
        Ok((report, wrong))
    }

    fn command(&self, words: &[&str], asked: [&str; 2]) -> Command {
        let mut restore = self.chain.command(&["restore", self.base]);
        restore
            .args(words)
            .args(asked)
            .env("BACKUP_TARGET_URL", self.target.url());
        restore
    }

    fn report(&self, mut restore: Command) -> Result<Value, String> {
        let run = run(&mut restore);
        match run.status.code() {
            Some(0) => Ok(run.json()["moment"].take()),
            status => Err(format!("{:?}: {status:?}: {}", restore.get_args(), run.stderr)),
        }
    }

    /// Everything, also what is not exact.
    fn whole(&self, asked: [&str; 2], figures: &mut Figures) -> Result<(Value, Vec<String>), String> {
        let report = self.report(self.command(&["--allow-partial"], asked))?;
        let mut wrong = self.wrong_rows(&report, figures);
        let tally: i64 = self.target.sql("SELECT last_value FROM tally").parse().unwrap();
        if tally < self.moment.tally {
            wrong.push(format!("the sequence is at {tally}, and was at {}", self.moment.tally));
        }
        wrong.extend(self.wrong_definitions(figures));
        Ok((report, wrong))
    }

    /// The tables that are exact, and nothing else.
    fn alone(&self, asked: [&str; 2], planned: &Value, figures: &mut Figures) -> Result<(Value, Vec<String>), String> {
        let named = self.named(planned);
        let names = self.names(planned);
        let is_exact = |(name, oid): &(&String, &u32)| {
            !named.contains_key(oid) && !name.starts_with("public.ev_") && !has_no_key(name)
        };
        let mut exact: Vec<&str> = names.iter().filter(is_exact).map(|(name, _)| name.as_str()).collect();
        let lacks = |name: &str| format!("has no table \"{name}\"");
        let report = loop {
            let words: Vec<&str> = exact.iter().flat_map(|name| ["--table", name]).collect();
            match self.report(self.command(&words, asked)) {
                // It was renamed while the increment was made: the definitions are a little later than the names.
                Err(failed) if exact.iter().any(|name| failed.contains(&lacks(name))) => {
                    exact.retain(|name| !failed.contains(&lacks(name)));
                }
                report => break report?,
            }
        };
        let mut wrong = Vec::new();
        for (oid, restored) in self.restored(planned) {
            match self.moment.tables.get(&oid) {
                Some(was) if was.digest == restored.digest => figures.equal += 1,
                Some(was) if self.is_wider(was, &restored) => figures.wider += 1,
                Some(was) => wrong.push(difference(was, &restored)),
                None => wrong.push(format!("{} was not there any more", restored.name)),
            }
        }
        Ok((report, wrong))
    }

    /// What the report says of the tables that are not exact, by their OIDs.
    fn named<'r>(&self, report: &'r Value) -> BTreeMap<u32, &'r Value> {
        let all = report["not_exact"].as_array().map_or(&[][..], Vec::as_slice);
        let meant = |one: &'r Value| {
            let oids = self.backups.meant(one["what"].as_str().unwrap(), self.moment.lsn);
            oids.into_iter().map(move |oid| (oid, one))
        };
        all.iter().flat_map(meant).collect()
    }

    /// The OIDs of the tables in the definitions that are used.
    fn names(&self, report: &Value) -> BTreeMap<String, u32> {
        let id = report["definitions_of"].as_str().unwrap();
        self.backups.of_definitions(id, self.moment.lsn)
    }

    /// By OID.
    fn restored(&self, report: &Value) -> BTreeMap<u32, Rows> {
        let names = self.names(report);
        let all = moments::rows(&Session::open(&self.target.url()).unwrap()).unwrap();
        // Definitions may be a little later than the names that the same increment lists.
        let later = |rows: &Rows| {
            let meant = self.backups.meant(&rows.name, self.moment.lsn);
            meant.iter().find(|oid| self.moment.tables.contains_key(oid)).copied()
        };
        let oid = |rows: &Rows| {
            let found = names.get(&rows.name).copied().or_else(|| later(rows));
            found.unwrap_or_else(|| panic!("{}: {names:?}\n{report:#}", rows.name))
        };
        all.into_values().map(|rows| (oid(&rows), rows)).collect()
    }

    fn wrong_rows(&self, report: &Value, figures: &mut Figures) -> Vec<String> {
        let (named, restored) = (self.named(report), self.restored(report));
        let tables = &self.moment.tables;
        let is_more = |oid: &&u32| !tables.contains_key(oid) && !named.contains_key(oid);
        let more = restored.keys().filter(is_more);
        let mut wrong: Vec<String> = more
            .map(|oid| format!("{} was not there any more", restored[oid].name))
            .collect();
        for (oid, rows) in tables {
            match (named.get(oid), restored.get(oid)) {
                (Some(why), _) => {
                    figures.not_exact += 1;
                    wrong.extend(self.unjustified(rows, why, report));
                }
                (None, Some(other)) if other.digest == rows.digest => figures.equal += 1,
                (None, Some(other)) if self.is_wider(rows, other) => figures.wider += 1,
                (None, Some(other)) => wrong.push(difference(rows, other)),
                (None, None) if self.backups.is_unknown(*oid) => figures.short_lived += 1,
                // Before its first row, nothing shows that it is there already.
                (None, None) if rows.count == 0 && self.backups.may_lack(self.changes, &rows.name, self.moment.lsn) => {
                    figures.short_lived += 1;
                }
                (None, None) => wrong.push(format!("{} ({oid}) is neither restored nor named", rows.name)),
            }
        }
        wrong
    }

    /// A column was added or dropped since the definitions that the restore uses, and no row was changed since: the
    /// rows are the same but for their last column.
    fn is_wider(&self, was: &Rows, restored: &Rows) -> bool {
        let around = self.backups.around(self.moment.lsn);
        let begin = self.backups.increments[around.saturating_sub(1)].from;
        let is_column = |one: &Redefined| {
            let of_table = was.name.split('.').next_back().unwrap().starts_with(&one.table);
            of_table
                && one.from <= self.moment.lsn
                && one.to >= begin
                && [" ADD c_", " DROP c_"].iter().any(|what| one.what.contains(what))
        };
        let values = |text: &str| text.rsplit_once(") #").map(|(values, _)| values.to_owned());
        let begins = |long: &Rows, short: &Rows| {
            let mut pairs = long.texts.iter().zip(&short.texts);
            pairs.all(|(long, short)| values(short).is_some_and(|values| long.starts_with(&format!("{values},"))))
        };
        was.count == restored.count
            && self.changes.iter().any(is_column)
            && (begins(was, restored) || begins(restored, was))
    }

    /// Why a table that is said not to be exact should be.
    fn unjustified(&self, rows: &Rows, why: &Value, report: &Value) -> Option<String> {
        let position = |text: &Value| text.as_str().map(|text| text.parse::<Lsn>().unwrap());
        let lsn = position(&report["position"]).unwrap();
        // A time is any position up to the first later commit.
        let latest = position(&report["stops_before"]["lsn"]).unwrap_or(lsn);
        let is_inside = position(&why["before"]).is_none_or(|before| before <= latest)
            && position(&why["after"]).is_none_or(|after| lsn < after);
        // A TRUNCATE at the end of an increment, which is not in it yet, looks like a rewrite.
        let was_emptied = EMPTIED.iter().any(|name| rows.name.starts_with(name));
        let is_justified = is_inside
            && (has_no_key(&rows.name) || was_emptied || self.backups.may_lack(self.changes, &rows.name, latest));
        (!is_justified).then(|| format!("{} should be exact: {why}", rows.name))
    }

    /// One of the tables, beside what the source holds now.
    fn wrong_copy(&self, asked: [&str; 2], planned: &Value, figures: &mut Figures) -> Result<Option<String>, String> {
        let named = self.named(planned);
        let one = COPIED[figures.moments % COPIED.len()];
        let found = self.moment.tables.iter().find(|(_, rows)| rows.name == one);
        let Some((_, was)) = found.filter(|(oid, _)| !named.contains_key(oid)) else {
            return Ok(None);
        };
        let mut restore = self.command(&["--table", one, "--into", "recovered"], asked);
        restore.env("BACKUP_TARGET_URL", self.source.url());
        self.report(restore)?;
        let mut copied = moments::rows(&Session::open(&self.source.url()).unwrap()).unwrap();
        copied.retain(|_, rows| rows.name.starts_with("recovered."));
        self.source.sql("DROP SCHEMA recovered CASCADE");
        figures.copies += 1;
        let (_, copy) = copied.pop_first().unwrap();
        Ok((copy.digest != was.digest).then(|| difference(was, &copy)))
    }

    fn wrong_definitions(&self, figures: &mut Figures) -> Option<String> {
        let defined = self.moment.definitions.as_ref()?;
        if !self.backups.are_definitions_those_of(self.changes, self.moment.lsn) {
            return None;
        }
        figures.definitions += 1;
        let restored = moments::definitions(self.target, None).unwrap();
        let lines = |one: &[String], other: &[String]| -> String {
            let only = one.iter().filter(|line| !other.contains(line)).cloned();
            only.collect::<Vec<_>>().join("\n")
        };
        let (lacks, more) = (lines(defined, &restored), lines(&restored, defined));
        let is_same = lacks.is_empty() && more.is_empty();
        (!is_same).then(|| format!("definitions: restored lacks\n{lacks}\nand has\n{more}"))
    }
}

impl Backups {
    /// No backup has ever seen the table.
    fn is_unknown(&self, oid: u32) -> bool {
        let listed = self.increments.iter().flat_map(|increment| &increment.names);
        !listed
            .map(|(_, oid)| oid)
            .chain(self.fulls.values().flat_map(BTreeMap::values))
            .any(|one| *one == oid)
    }
}

/// Updates of such a table do not arrive.
fn has_no_key(name: &str) -> bool {
    let keyless = ["public.sloppy", "public.history", "public.audit", "evo_2", "evo_6"];
    keyless.iter().any(|one| name.contains(one))
}

fn difference(was: &Rows, restored: &Rows) -> String {
    let only = |one: &Rows, other: &Rows| -> String {
        let mut rest: Vec<&String> = other.texts.iter().collect();
        let mut lines = Vec::new();
        for text in &one.texts {
            match rest.iter().position(|other| *other == text) {
                Some(at) => drop(rest.swap_remove(at)),
                None => lines.push(format!("    {}", text.chars().take(120).collect::<String>())),
            }
        }
        lines.truncate(12);
        lines.join("\n")
    };
    format!(
        "{} had {} rows and is restored (as {}) with {}:\n  lost\n{}\n  invented\n{}",
        was.name,
        was.count,
        restored.name,
        restored.count,
        only(was, restored),
        only(restored, was)
    )
}
