//! The compression of a backup.

use super::Reader;
use crate::settings::Compression;
use crate::settings::specs::{self, CompressionSpec};
use crate::settings::value::Value;

/// The default level of zstd, as in pg_dump. In frames of 2 MiB it gives no more bytes than pg_dump's stream, and fewer
/// than gzip.
pub const ZSTD_LEVEL: i32 = 3;
/// The default level of gzip, as in pg_dump, so that users can compare sizes.
pub const GZIP_LEVEL: u32 = 6;

impl Reader<'_> {
    /// In the older systems `BACKUP_COMPRESSION` was true or false, with the level in a variable of its own.
    pub(super) fn compression(&mut self) -> Compression {
        let value = self.values.get("BACKUP_COMPRESSION").cloned();
        let Some((value, switch)) = value.and_then(|value| specs::truth(value.text()).map(|switch| (value, switch)))
        else {
            return self.chosen_compression();
        };
        self.values.remove("BACKUP_COMPRESSION");
        let level = self.values.get("BACKUP_COMPRESSION_LEVEL");
        let stronger = level.is_some_and(|level| level.layer < value.layer);
        if switch && let Some(level) = level.cloned() {
            return self
                .gzip_of_a_level(&level, &format!("{} with {}", value.name, level.name))
                .settled(ZSTD_LEVEL, GZIP_LEVEL);
        }
        if switch || stronger {
            return self.chosen_compression();
        }
        self.values.remove("BACKUP_COMPRESSION_LEVEL");
        Compression::None
    }

    pub(super) fn chosen_compression(&mut self) -> Compression {
        let algorithm = self.read("BACKUP_COMPRESSION", specs::compression);
        let named = self.values.get("BACKUP_COMPRESSION").cloned();
        let level = self.values.get("BACKUP_COMPRESSION_LEVEL").cloned();
        let chosen = match (algorithm, named, level) {
            (None, Some(_), _) => CompressionSpec::Auto,
            (algorithm, _, None) => algorithm.unwrap_or(CompressionSpec::Auto),
            (None, None, Some(level)) => self.level_alone(&level),
            (Some(algorithm), Some(named), Some(level)) => self.with_level(algorithm, &named, &level),
            (Some(algorithm), None, Some(_)) => algorithm,
        };
        chosen.settled(ZSTD_LEVEL, GZIP_LEVEL)
    }

    /// The older systems had only gzip, with zlib's 0 for no compression.
    pub(super) fn level_alone(&mut self, level: &Value) -> CompressionSpec {
        self.gzip_of_a_level(level, &format!("{} alone", level.name))
    }

    pub(super) fn gzip_of_a_level(&mut self, level: &Value, given: &str) -> CompressionSpec {
        if level.text().trim() == "0" {
            self.note(format!("{given}: 0 means no compression"));
            return CompressionSpec::None;
        }
        let level_read = self.read("BACKUP_COMPRESSION_LEVEL", specs::gzip_level);
        self.note(format!(
            "{given} means gzip, as in the older systems; BACKUP_COMPRESSION=auto without a level is smaller and faster"
        ));
        CompressionSpec::Gzip(level_read)
    }

    pub(super) fn with_level(&mut self, algorithm: CompressionSpec, named: &Value, level: &Value) -> CompressionSpec {
        if !algorithm.takes_level() {
            return match level.layer.cmp(&named.layer) {
                std::cmp::Ordering::Less => self.level_alone(level),
                std::cmp::Ordering::Equal => {
                    let name = named.text();
                    self.problems.conflict(named, level, &format!("{name} has no level"));
                    algorithm
                }
                std::cmp::Ordering::Greater => algorithm,
            };
        }
        if algorithm.has_level() && level.layer > named.layer {
            return algorithm;
        }
        let text = level.text().trim();
        match algorithm.with_level(text) {
            Ok(with) if algorithm.has_level() && with != algorithm && level.layer == named.layer => {
                self.problems.conflict(named, level, "they name different levels");
                algorithm
            }
            Ok(with) => with,
            Err(why) => {
                self.problems.conflict(named, level, &why);
                algorithm
            }
        }
    }
}
