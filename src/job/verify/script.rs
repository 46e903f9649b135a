//! A plain script: pgstow decompresses it, counts it again, and compares its tables with the manifest.

use std::convert::Infallible;
use std::io::{self, Read};

use super::Finding;
use crate::format::archive::{BlockDigest, difference};
use crate::format::script::{Contents, Reader, Table, header_of};
use crate::repository::manifest::{FileIndex, Manifest, TableRecord, Tally, role};
use crate::repository::stored_archive::is_named;
use crate::repository::stored_script::{Unread, unpack};
use crate::store::reading::our_error;
use crate::units::count;

/// The result of reading a script, besides the digest of its object.
pub(super) struct ScriptReading {
    pub findings: Vec<Finding>,
    /// Counted from a script whose manifest does not count its tables.
    pub counted: Option<Tally>,
    /// Why this version would not run it. That differs between versions, so it does not mean that the bytes are wrong.
    pub refused: Option<String>,
}

/// The script must decompress to its end, to as many bytes as pg_dump wrote, and hold what the manifest says. If pgstow
/// cannot read the script, it returns an error; that says nothing about the script.
pub(super) fn look(manifest: &Manifest, name: &str, stored: impl Read) -> io::Result<ScriptReading> {
    let bytes = manifest.metadata.bytes_read;
    let wanted = manifest.script.map(|script| script.bytes).or(bytes);
    let only = |what: String| ScriptReading {
        findings: vec![Finding::of_file(name, what)],
        counted: None,
        refused: None,
    };
    let limit = wanted.unwrap_or(u64::MAX);
    let mut counting = Ok(Reader::counting());
    let found = match unpack(manifest.compression.algorithm, stored, limit, |piece| {
        if let Ok(reader) = &mut counting
            && let Err(refused) = reader.pass(&piece)
        {
            counting = Err(refused);
        }
        Ok::<_, Infallible>(())
    }) {
        Ok(found) => found,
        Err(Unread::Stored(error)) => match our_error(error) {
            Ok(ours) => return Err(io::Error::other(ours)),
            Err(error) => return Ok(only(format!("does not decompress: {error}"))),
        },
        Err(Unread::Taken(never)) => match never {},
    };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
        return Ok(only(match found > wanted {
            true => format!("holds more than the {wanted} bytes of SQL that the manifest says"),
            false => format!("holds {found} bytes of SQL, the manifest says {wanted}"),
        }));
    }
    let contents = match counting.and_then(|reader| reader.end(found)) {
        Ok(contents) => contents,
        Err(refused) => {
            return Ok(ScriptReading {
                findings: Vec::new(),
                counted: None,
                refused: Some(refused.to_string()),
            });
        }
    };
    Ok(match manifest.script {
        Some(_) => ScriptReading {
            findings: compare(manifest, name, &contents),
            counted: None,
            refused: None,
        },
        // The version that made the backup did not or could not count its tables.
        None => ScriptReading {
            findings: Vec::new(),
            counted: Some(Tally {
                count: contents.tables.len() as u64,
                rows: contents.tables.iter().map(Table::rows).sum(),
            }),
            refused: None,
        },
    })
}

/// Compares every table and block of large objects, in order.
fn compare(manifest: &Manifest, file: &str, contents: &Contents) -> Vec<Finding> {
    let utf8 = manifest.server.encoding == "UTF8";
    let own = manifest.data_file(role::SQL).map(|(index, _)| index);
    let mut differences: Vec<(Option<String>, String)> = Vec::new();
    for (record, table) in manifest.tables.iter().zip(&contents.tables) {
        let name = format!("{}.{}", record.schema, record.name);
        let whats = match another_place(record, table, own, utf8) {
            Some(what) => vec![what],
            None => other_contents(record, table),
        };
        differences.extend(whats.into_iter().map(|what| (Some(name.clone()), what)));
    }
    let (found, wanted) = (contents.tables.len(), manifest.tables.len());
    if found != wanted {
        let what = format!(
            "holds the rows of {}, the manifest says {wanted}",
            count(found, "table")
        );
        differences.push((None, what));
    }
    for (record, objects) in manifest.large_objects.iter().zip(&contents.large_objects) {
        let what = other_than(&objects.digest, record.count, record.bytes, &record.sha256);
        differences.extend(what.map(|what| (Some("large objects".to_owned()), what)));
    }
    let (found, wanted) = (contents.large_objects.len(), manifest.large_objects.len());
    if found != wanted {
        let what = format!("holds {found} groups of large objects, the manifest says {wanted}");
        differences.push((None, what));
    }
    let script = manifest.script.map(|script| script.definitions);
    if let Some(wanted) = script.filter(|wanted| *wanted != contents.headers) {
        let what = format!("has {} definitions, the manifest says {wanted}", contents.headers);
        differences.push((None, what));
    }
    let finding = |(table, what)| Finding {
        file: file.to_owned(),
        table,
        what,
    };
    differences.into_iter().map(finding).collect()
}

/// Set if these rows are not those of the recorded table. `own` is the script's index among the data files.
fn another_place(record: &TableRecord, table: &Table, own: Option<FileIndex>, utf8: bool) -> Option<String> {
    if Some(record.place.file) != own {
        return Some("its rows are in the script, the manifest says in another file".to_owned());
    }
    // If rows are loaded through another table, only the header names the table that they belong to.
    let (schema, other) = table.name();
    let of_copy = is_named(&record.schema, &schema, utf8) && is_named(&record.name, &other, utf8);
    if !of_copy && !table.through_root {
        return Some(format!(
            "the rows at byte {} of the script are those of {schema}.{other}",
            table.offset
        ));
    }
    let owner = record.owner.as_deref().unwrap_or_default();
    let expected = header_of(record.schema.as_bytes(), record.name.as_bytes(), owner.as_bytes());
    let header = table.header.as_ref();
    let header = header.filter(|header| !is_named(&expected.line(), &header.line(), utf8))?;
    Some(format!(
        "the rows at byte {} of the script are under the header {:?}",
        table.offset,
        header.line()
    ))
}

fn other_contents(record: &TableRecord, table: &Table) -> Vec<String> {
    let mut whats = Vec::new();
    if table.offset != record.place.offset || table.digest.bytes != record.place.length {
        whats.push(format!(
            "its rows are at byte {} of the script, the manifest says {}",
            table.offset, record.place.offset
        ));
    }
    whats.extend(other_than(&table.digest, record.rows, record.bytes, &record.sha256));
    whats
}

fn other_than(found: &BlockDigest, count: u64, bytes: u64, sha256: &str) -> Option<String> {
    let mut promise = found.clone();
    promise.content.set_count(count);
    promise.bytes = bytes;
    if hex::decode_to_slice(sha256, &mut promise.sha256).is_err() {
        return Some(format!("the manifest's {sha256:?} is no SHA-256"));
    }
    (*found != promise).then(|| difference(found, &promise))
}
