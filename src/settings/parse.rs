//! From text to [`Settings`]: pgstow checks every value, and reports every problem, before anything starts.

mod cloud;
pub(super) mod compression;
mod database;
mod found;
mod handover;
mod metrics;
mod pace;
mod postgres;
mod retention;
mod serve;
mod signing;
mod store;
mod unneeded;

use std::fmt::Display;
use std::time::Duration;

use super::known;
use super::layers;
use super::problems::Problems;
use super::specs;
use super::value::Values;
use super::{Channel, Format, Incremental, Input, Log, LogFormat, OnChangedTables, Settings, Uses, aliases};
use crate::error::{Error, Result};

const LEASE: Duration = Duration::from_secs(120);

pub fn load(input: &Input) -> Result<Settings> {
    let mut problems = Problems::default();
    let (mut notes, mut warnings) = (Vec::new(), Vec::new());
    let mut layers = layers::read(input, &mut problems, &mut notes, &mut warnings);
    let mut of_aliases = Problems::default();
    aliases::translate(&mut layers.values, &mut of_aliases, &mut notes, &mut warnings);
    problems.absorb(of_aliases, "BACKUP_STORE");
    if let Some(values) = &mut layers.without_found {
        // Its warnings are already in the lists.
        aliases::translate(values, &mut Problems::default(), &mut Vec::new(), &mut Vec::new());
    }
    let mut reader = Reader {
        input,
        values: layers.values,
        without_found: layers.without_found,
        problems,
        cautions: notes.clone(),
        notes,
        warnings: Vec::new(),
    };
    let mut settings = reader.settings();
    warnings.append(&mut reader.warnings);
    let uses = input.uses;
    let unneeded = reader.unneeded(&settings);
    if unneeded.contains(&"AWS_") {
        // The run sends no request to AWS, so it must not read the file.
        settings.aws.ca_bundle = None;
    }
    let goes_by = |variable: &str| uses.go_by(variable) && !unneeded.iter().any(|start| variable.starts_with(start));
    let passed = reader.problems.passed_over(goes_by, uses == Uses::Doctor);
    let mut shown = Vec::new();
    match uses {
        Uses::Doctor => shown = passed,
        _ => warnings.extend(
            passed
                .into_iter()
                .map(|problem| format!("{problem} (this command does not need it)")),
        ),
    }
    // A setting that was ignored may be the one that is missing.
    let told = |error: Error| {
        warnings
            .iter()
            .fold(error, |error, warning| error.also(Error::config(warning.clone())))
    };
    reader.problems.into_result().map_err(told)?;
    Ok(Settings {
        warnings,
        problems: shown,
        notes: reader.notes,
        cautions: reader.cautions,
        ..settings
    })
}

struct Reader<'a> {
    input: &'a Input,
    values: Values,
    /// The values without the `.env` that the user has not named, if there is one.
    without_found: Option<Values>,
    problems: Problems,
    notes: Vec<String>,
    warnings: Vec<String>,
    cautions: Vec<String>,
}

impl Reader<'_> {
    fn settings(&mut self) -> Settings {
        let (sources, targets) = self.databases();
        let stores = self.of("BACKUP_STORE", Self::stores);
        self.keep_found_to_its_own(&stores);
        let retention = self.retention();
        let max_age = self.max_age();
        let incremental_max_age = self.incremental_max_age();
        let schedule = self.schedule();
        let compression = self.of("BACKUP_COMPRESSION", Self::compression);
        let format = self.format();
        let incremental = self.incremental();
        let on_changed_tables = self.on_changed_tables();
        let nice = self.of("BACKUP_NICE", Self::nice);
        let max_rate = self.max_rate();
        let jobs = self.of("BACKUP_NICE", |reader| reader.jobs(nice, format));
        let threads = self.count("BACKUP_THREADS", 1..=256);
        let threads = threads.unwrap_or(self.input.cpus.max(1));
        let postgres = self.of("BACKUP_PG_BIN", Self::postgres);
        let mut s3 = self.s3(&stores);
        let part_size = s3.part_size;
        let (memory, threads) = self.of("BACKUP_MEMORY", |reader| {
            reader.memory(jobs, threads, &stores, part_size)
        });
        s3.memory = memory.parts;
        Settings {
            sources,
            targets,
            stores,
            retention,
            max_age,
            incremental_max_age,
            schedule,
            compression,
            format,
            incremental,
            on_changed_tables,
            jobs,
            threads,
            memory,
            task_memory: self.input.memory,
            max_rate,
            nice,
            postgres,
            s3,
            aws: self.aws(),
            channels: self.channels(),
            handover: self.of("BACKUP_HANDOVER", Self::handover),
            allow_restore: self.switch("BACKUP_ALLOW_RESTORE").unwrap_or(false),
            allow_drill: self.switch("BACKUP_ALLOW_DRILL").unwrap_or(true),
            drill_unconfined: self.switch("BACKUP_DRILL_UNCONFINED").unwrap_or(false),
            metrics: self.of("BACKUP_METRICS", Self::metrics),
            lease: self.read("BACKUP_LEASE_SECONDS", specs::duration).unwrap_or(LEASE),
            md5: self.switch("BACKUP_MD5").unwrap_or(false),
            prove_chain: self.switch("BACKUP_PROVE_CHAIN").unwrap_or(true),
            adopt: self.switch("BACKUP_ADOPT").unwrap_or(false),
            store_create: self.store_create(),
            state_dir: self.state_dir(),
            serve: self.serve(),
            signing: self.signing(),
            json: self.input.json,
            log: self.log(),
            warnings: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
            cautions: Vec::new(),
        }
    }

    fn format(&mut self) -> Format {
        let format = self.choice("BACKUP_FORMAT", &[("custom", Format::Custom), ("plain", Format::Plain)]);
        format.unwrap_or(Format::Custom)
    }

    fn incremental(&mut self) -> Incremental {
        let kinds = [("slot", Incremental::Slot), ("reference", Incremental::Reference)];
        self.choice("BACKUP_INCREMENTAL", &kinds).unwrap_or(Incremental::Slot)
    }

    fn on_changed_tables(&mut self) -> OnChangedTables {
        let choices = [("fail", OnChangedTables::Fail), ("warn", OnChangedTables::Warn)];
        let choice = self.choice("BACKUP_ON_CHANGED_TABLES", &choices);
        choice.unwrap_or(OnChangedTables::Fail)
    }

    fn channels(&mut self) -> Vec<Channel> {
        let topic = self.read("BACKUP_SNS_TOPIC_ARN", cloud::topic);
        topic.map(|arn| Channel::Sns { arn }).into_iter().collect()
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn caution(&mut self, note: impl Into<String>) {
        let note = note.into();
        self.cautions.push(note.clone());
        self.notes.push(note);
    }

    /// Problems that `read` finds are problems of this setting.
    fn of<T>(&mut self, variable: &'static str, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::take(&mut self.problems);
        let value = read(self);
        let found = std::mem::replace(&mut self.problems, before);
        self.problems.absorb(found, variable);
        value
    }

    /// Parses one value. An error of the parser is a problem of that setting.
    fn read<T, E: Display>(&mut self, variable: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let value = self.values.get(variable)?;
        match parse(value.text().trim()) {
            Ok(parsed) => Some(parsed),
            Err(why) => {
                let mut found = Problems::default();
                found.add(format!("{}: {why}", value.name));
                match known::by_variable(variable) {
                    Some(setting) => self.problems.absorb(found, setting.variable),
                    None => self.problems.absorb(found, "BACKUP_STORE"),
                }
                None
            }
        }
    }

    fn text(&mut self, variable: &str) -> Option<String> {
        self.read(variable, |text| match text {
            "" => Err("it is empty"),
            text if text.chars().any(char::is_control) => Err("it has control characters"),
            text => Ok(text.to_owned()),
        })
    }

    fn count(&mut self, variable: &str, range: std::ops::RangeInclusive<u64>) -> Option<usize> {
        self.read(variable, |text| {
            specs::number(text, range).and_then(|number| usize::try_from(number).map_err(|error| error.to_string()))
        })
    }

    fn switch(&mut self, variable: &str) -> Option<bool> {
        self.read(variable, |text| specs::truth(text).ok_or("expected true or false"))
    }

    fn choice<T: Copy>(&mut self, variable: &str, choices: &[(&str, T)]) -> Option<T> {
        self.read(variable, |text| {
            let chosen = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            chosen.map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                format!("{text:?} is not {}", names.join(" or "))
            })
        })
    }

    fn log(&mut self) -> Log {
        let format = self.choice("LOG_FORMAT", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let (format_default, level) = match self.input.in_lambda {
            true => (LogFormat::Json, "info"),
            false => (LogFormat::Text, "warn"),
        };
        let filter = self.read("RUST_LOG", |text| specs::log_filter(text).map(|()| text.to_owned()));
        Log {
            format: format.unwrap_or(format_default),
            filter: filter.unwrap_or_else(|| level.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
