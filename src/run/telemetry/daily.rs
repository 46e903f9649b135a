//! Files of lines, a new one each day: `combined-2026-01-31.log`. Days are those of a time zone.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// What a file is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Everything.
    Combined,
    /// What failed.
    Error,
    /// Who asked for what.
    Admin,
    /// How runs begin and end.
    Backup,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Combined, Kind::Error, Kind::Admin, Kind::Backup];

    fn name(self) -> &'static str {
        match self {
            Kind::Combined => "combined",
            Kind::Error => "error",
            Kind::Admin => "admin",
            Kind::Backup => "backup",
        }
    }
}

/// A file as long as this is followed by another one of its day: `combined-2026-01-31.1.log`.
const LONGEST: u64 = 20 << 20;
/// The last of a day: what does not fit into these is not written.
const MOST: u32 = 99;

#[derive(Debug)]
pub(super) struct Daily {
    folder: PathBuf,
    zone: TimeZone,
    days: u32,
    open: Mutex<BTreeMap<Kind, Open>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    day: Date,
    number: u32,
    bytes: u64,
}

impl Daily {
    /// Files in `folder`, which is made if need be. Each is kept for so many days.
    pub fn new(folder: &Path, zone: TimeZone, days: u32) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        let daily = Self {
            folder: folder.to_owned(),
            zone,
            days,
            open: Mutex::default(),
        };
        // So that a folder that cannot be written is an error now.
        daily.write(Kind::Combined, "", Timestamp::now())?;
        Ok(daily)
    }

    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Adds a line, which ends in a line feed, to the file of this moment.
    pub fn write(&self, kind: Kind, line: &str, now: Timestamp) -> io::Result<()> {
        let day = now.to_zoned_datetime(self.zone.clone()).date();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let held = open.get(&kind).map(|held| (held.day, held.number, held.bytes));
        let of_today = held.filter(|(of, ..)| *of == day);
        if !of_today.is_some_and(|(_, number, bytes)| bytes < LONGEST || number == MOST) {
            let begun = self.begin(kind, day, of_today.map_or(0, |(_, number, _)| number))?;
            if of_today.is_none() {
                self.remove_old(kind, day);
            }
            open.insert(kind, begun);
        }
        let Some(file) = open.get_mut(&kind) else {
            return Ok(());
        };
        if file.bytes >= LONGEST {
            return Err(io::Error::other("the day's files are full"));
        }
        file.file.write_all(line.as_bytes())?;
        file.bytes += line.len() as u64;
        Ok(())
    }

    /// The day's first file, from this number on, that has room.
    fn begin(&self, kind: Kind, day: Date, first: u32) -> io::Result<Open> {
        let mut number = first;
        loop {
            let path = self.folder.join(name(kind, day, number));
            let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
            let bytes = file.metadata()?.len();
            if bytes < LONGEST || number == MOST {
                return Ok(Open {
                    file,
                    day,
                    number,
                    bytes,
                });
            }
            number += 1;
        }
    }

    /// An old file that cannot be removed is tried again the next day.
    fn remove_old(&self, kind: Kind, day: Date) {
        let Ok(oldest) = day.checked_sub(i64::from(self.days).days()) else {
            return;
        };
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let file_name = entry.file_name();
            let old = file_name.to_str().and_then(day_of).filter(|(of, _)| *of == kind);
            if old.is_some_and(|(_, day)| day < oldest) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn name(kind: Kind, day: Date, number: u32) -> String {
    let kind = kind.name();
    match number {
        0 => format!("{kind}-{day}.log"),
        number => format!("{kind}-{day}.{number}.log"),
    }
}

/// The kind and the day of a file that this module has made.
fn day_of(file: &str) -> Option<(Kind, Date)> {
    let (kind, rest) = file.split_once('-')?;
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
    let rest = rest.strip_suffix(".log")?;
    let (day, number) = rest.split_once('.').unwrap_or((rest, "0"));
    let day: Date = day.parse().ok()?;
    let number: u32 = number.parse().ok()?;
    (name(kind, day, number) == file).then_some((kind, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_day_of_the_zone_has_a_file_and_old_ones_go_but_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("logs");
        let daily = Daily::new(&folder, TimeZone::get("Europe/Berlin").unwrap(), 2).unwrap();
        fs::remove_file(folder.join(&names(&folder)[0])).unwrap();
        for kept in [
            "combined-2026-01-01.log.gz",
            "combined-2026-1-1.log",
            "notes",
            "error-2026-01-01.log",
        ] {
            fs::write(folder.join(kept), "").unwrap();
        }
        for (moment, line) in [
            ("2026-01-30T22:59:59Z", "one\n"),
            ("2026-01-30T23:00:00Z", "two\n"),
            ("2026-02-01T12:00:00Z", "three\n"),
            ("2026-02-02T12:00:00Z", "four\n"),
        ] {
            daily.write(Kind::Combined, line, at(moment)).unwrap();
        }
        let expected = [
            "combined-2026-01-01.log.gz",
            "combined-2026-01-31.log",
            "combined-2026-02-01.log",
            "combined-2026-02-02.log",
            "combined-2026-1-1.log",
            "error-2026-01-01.log",
            "notes",
        ];
        assert_eq!(names(&folder), expected);
        assert_eq!(
            fs::read_to_string(folder.join("combined-2026-01-31.log")).unwrap(),
            "two\n"
        );
    }

    #[test]
    fn a_long_file_is_followed_by_another_also_after_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let now = at("2026-01-31T04:05:00Z");
        let new = || Daily::new(place.path(), TimeZone::UTC, 7).unwrap();
        let long = File::create(place.path().join("backup-2026-01-31.log")).unwrap();
        long.set_len(LONGEST).unwrap();
        new().write(Kind::Backup, "one\n", now).unwrap();
        let daily = new();
        daily.write(Kind::Backup, "two\n", now).unwrap();
        let second = place.path().join("backup-2026-01-31.1.log");
        assert_eq!(fs::read_to_string(&second).unwrap(), "one\ntwo\n");
    }
}
