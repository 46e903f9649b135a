//! The four layers of settings, strongest first: flags, environment, `.env`, TOML file. Each gives text by variable,
//! and keeps where the text came from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Input;
use super::aliases;
use super::dotenv;
use super::found_file;
use super::known;
use super::libpq;
use super::problems::Problems;
use super::secret_file;
use super::setting::{ValueKind, nearest};
use super::stores;
use super::table::SETTINGS;
use super::unknown::Unknown;
use super::value::{Layer, Origin, Value, Values};
use crate::run::named_file;

/// The values of all layers.
pub struct Layers {
    pub values: Values,
    /// The values without a `.env` that the user has not named, if pgstow read such a file.
    pub without_found: Option<Values>,
}

/// Reads all layers. If a file that the user has named cannot be read, that is a problem; a missing `.env` in the
/// working directory is none.
pub fn read(input: &Input, problems: &mut Problems, notes: &mut Vec<String>, warnings: &mut Vec<String>) -> Layers {
    let mut taking = Taking {
        values: Values::default(),
        unknown: Unknown::default(),
        unseen: Vec::new(),
        problems,
    };
    take_flags(&mut taking.values, input);
    let from_environment = input.env.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let origin = Origin {
        layer: Layer::Environment,
        place: "the environment",
        folder: &input.working_dir,
    };
    taking.take(from_environment, &origin);
    let mut without_found = taking.take_env_file(input, warnings);
    let Taking {
        mut values,
        unknown,
        unseen,
        problems,
    } = taking;
    // In the report too: of a scheduled run, people read only the report.
    for told in unseen.into_iter().chain(unknown.warning()) {
        notes.push(told.clone());
        warnings.push(told);
    }
    take_config(&mut values, input, problems);
    if let Some(values) = &mut without_found {
        // The problems of this file are already in `problems`.
        take_config(values, input, &mut Problems::default());
    }
    Layers { values, without_found }
}

/// The layers that consist of variables, while they are taken.
struct Taking<'a> {
    values: Values,
    /// Variables that are no settings, although a user may think that they are.
    unknown: Unknown,
    /// Warnings about variables in a file that only the SDK would read, from the environment.
    unseen: Vec<String>,
    problems: &'a mut Problems,
}

fn take_flags(values: &mut Values, input: &Input) {
    for setting in SETTINGS {
        // These are options of one command, not flags of all commands: `restore --target`.
        let flag = match setting.variable {
            "BACKUP_TARGET_URL" => "target",
            "DB_NAME" => "database",
            _ => setting.flag.unwrap_or(setting.variable),
        };
        if let Some(texts) = input.flags.get(setting.variable).filter(|texts| !texts.is_empty()) {
            let value = Value {
                texts: texts.clone(),
                layer: Layer::Flags,
                name: format!("--{flag}"),
                file: None,
            };
            values.offer(setting.variable, value);
        }
    }
}

fn take_config(values: &mut Values, input: &Input, problems: &mut Problems) {
    let config = input
        .config_file
        .clone()
        .or_else(|| path_variable(input, "BACKUP_CONFIG"));
    let Some(path) = config else { return };
    let path = input.working_dir.join(path);
    let name = file_name(&path);
    if let Some(text) = read_file(&path, "--config", problems) {
        let origin = Origin {
            layer: Layer::ConfigFile,
            place: &name,
            folder: &input.working_dir,
        };
        take_toml(values, &text, &origin, problems);
    }
}

/// The `.env` file, and whether it has to be there.
fn env_file(input: &Input) -> (PathBuf, bool) {
    let named = input
        .env_file
        .clone()
        .or_else(|| path_variable(input, "BACKUP_ENV_FILE"));
    match named {
        Some(path) => (input.working_dir.join(path), true),
        None => (input.working_dir.join(".env"), false),
    }
}

fn path_variable(input: &Input, name: &str) -> Option<PathBuf> {
    input.env.get(name).filter(|path| !path.is_empty()).map(Into::into)
}

/// The file's name without its folder: enough for a user to recognise it.
fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn read_file(path: &Path, name: &str, problems: &mut Problems) -> Option<String> {
    match named_file::read_text(path, found_file::LONGEST) {
        Ok(text) => Some(text),
        Err(error) => {
            problems.unreadable(path, name, &error);
            None
        }
    }
}

impl Taking<'_> {
    /// Returns the values without the file if the user has not named it.
    fn take_env_file(&mut self, input: &Input, warnings: &mut Vec<String>) -> Option<Values> {
        let (path, required) = env_file(input);
        let name = file_name(&path);
        let text = if required {
            read_file(&path, "--env-file", self.problems)
        } else {
            found_file::read(&path, self.problems, warnings)
        };
        let mut pairs = match dotenv::parse(&text?) {
            Ok(pairs) => pairs,
            Err(malformed) => {
                let what = format!("line {} of {name}: {}", malformed.line, malformed.why);
                self.problems.add(what);
                return None;
            }
        };
        let mut layer = Layer::EnvFile;
        let mut without_found = None;
        if !required {
            layer = Layer::FoundFile;
            found_file::leave_out(&mut pairs, self.problems, warnings);
            without_found = Some(self.values.clone());
        }
        // The last of two lines with the same name counts, as in the older systems.
        let last: BTreeMap<_, _> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let origin = Origin {
            layer,
            place: &name,
            folder: &input.working_dir,
        };
        self.take(last.into_iter(), &origin);
        without_found
    }

    /// Takes variables of the table, of the older systems and of libpq. An empty variable counts as not set, because
    /// templates and compose files often set every variable.
    fn take<'a>(&mut self, variables: impl Iterator<Item = (&'a str, &'a str)>, origin: &Origin<'_>) {
        for (name, text) in variables {
            let name_here = format!("{name} from {}", origin.place);
            let setting = known::by_variable(name);
            let known = setting
                .map(|setting| setting.variable)
                .or_else(|| aliases::variable(name))
                .or_else(|| libpq::variable(name));
            let Some(variable) = known else {
                self.take_unknown(name, text, name_here, origin);
                continue;
            };
            let texts: Vec<String> = match setting.map(|setting| setting.kind) {
                Some(ValueKind::List) if variable == "BACKUP_STORE" => match stores::words(text) {
                    Ok(words) => words,
                    Err(why) => {
                        self.problems.add_of(variable, format!("{name_here}: {why}"));
                        continue;
                    }
                },
                Some(ValueKind::List) => text.split_whitespace().map(str::to_owned).collect(),
                _ => vec![text.to_owned()],
            };
            if texts.iter().all(String::is_empty) {
                continue;
            }
            self.values.offer(
                variable,
                Value {
                    texts,
                    layer: origin.layer,
                    name: name_here,
                    file: None,
                },
            );
        }
    }

    /// A variable that is in no table may name the file of a secret.
    fn take_unknown(&mut self, name: &str, text: &str, name_here: String, origin: &Origin<'_>) {
        match secret_file::of_variable(name) {
            _ if text.is_empty() => {}
            Some(variable) => {
                let value = secret_file::read(text, variable, name_here, origin, self.problems);
                offer_file(&mut self.values, variable, value, self.problems);
            }
            None => {
                self.unknown.meet(name, text, origin.place);
                self.unseen.extend(unseen_by_the_sdk(name, &name_here, origin.layer));
            }
        }
    }
}

/// If one layer gives both the secret and a file for it, one of them is a mistake.
fn offer_file(values: &mut Values, variable: &'static str, value: Option<Value>, problems: &mut Problems) {
    let Some(value) = value else { return };
    match values.get(variable) {
        Some(given) if given.layer == value.layer => {
            let mut found = Problems::default();
            found.conflict(given, &value, "give the secret once");
            problems.absorb(found, variable);
        }
        _ => values.offer(variable, value),
    }
}

/// The AWS SDK reads the process environment only.
fn unseen_by_the_sdk(name: &str, name_here: &str, layer: Layer) -> Option<String> {
    (name.starts_with("AWS_") && matches!(layer, Layer::EnvFile | Layer::FoundFile))
        .then(|| format!("{name_here} was ignored: set it in the environment for the AWS SDK to see it"))
}

fn take_toml(values: &mut Values, text: &str, origin: &Origin<'_>, problems: &mut Problems) {
    let file = origin.place;
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            // The error's own Display quotes the line, which may hold a password.
            let error: toml::de::Error = error;
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
            problems.add(format!("line {line} of {file}: {}", error.message()));
            return;
        }
    };
    let mut flat = Vec::new();
    flatten("", &table, &mut flat);
    for (key, value) in flat {
        let Some(setting) = known::by_key(&key) else {
            if let (Some(variable), Some(path)) = (secret_file::of_key(&key), value.as_str()) {
                let name = format!("`{key}` in {file}");
                let value = secret_file::read(path, variable, name, origin, problems);
                offer_file(values, variable, value, problems);
                continue;
            }
            let near = nearest(&key, SETTINGS.iter().filter_map(|setting| setting.key));
            let near = near.map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
            problems.add(format!("`{key}` in {file} is not a setting{near}"));
            continue;
        };
        let name = format!("`{key}` in {file}");
        let texts = match (value, setting.kind) {
            (toml::Value::Array(items), ValueKind::List) => items.iter().map(scalar).collect(),
            (value, _) => scalar(value).map(|text| vec![text]),
        };
        match texts {
            Some(texts) => values.offer(
                setting.variable,
                Value {
                    texts,
                    layer: Layer::ConfigFile,
                    name,
                    file: None,
                },
            ),
            None => problems.add_of(
                setting.variable,
                format!("{name}: a {} does not fit here", value.type_str()),
            ),
        }
    }
}

fn flatten<'a>(prefix: &str, table: &'a toml::Table, flat: &mut Vec<(String, &'a toml::Value)>) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            toml::Value::Table(inner) => flatten(&format!("{key}."), inner, flat),
            value => flat.push((key, value)),
        }
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}
