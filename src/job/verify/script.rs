//! A plain script: pgstow decompresses it, counts it again, and compares its tables with the manifest.

use std::convert::Infallible;
use std::io::{self, Read};

use super::Finding;
use crate::format::archive::{BlockDigest, difference};
use crate::format::script::{Contents, Reader, Table, header_of};
use crate::repository::manifest::{Manifest, Tally, role};
use crate::repository::stored_archive::is_named;
use crate::repository::stored_script::{Unread, unpack};
use crate::store::reading::our_error;
use crate::units::count;

/// The result of reading a script, besides the digest of its object.
pub(super) struct Looked {
    pub findings: Vec<Finding>,
    /// Counted from a script whose manifest does not count its tables.
    pub counted: Option<Tally>,
    /// Why this version would not run it. That differs between versions, so it does not mean that the bytes are wrong.
    pub refused: Option<String>,
}

/// The script must decompress to its end, to as many bytes as pg_dump wrote, and hold what the manifest says. An error
/// means that pgstow could not look, not that the script is wrong.
pub(super) fn look(manifest: &Manifest, name: &str, stored: impl Read) -> io::Result<Looked> {
    let bytes = manifest.metadata.bytes_read;
    let wanted = manifest.script.map(|script| script.bytes).or(bytes);
    let only = |what: String| Looked {
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
            return Ok(Looked {
                findings: Vec::new(),
                counted: None,
                refused: Some(refused.to_string()),
            });
        }
    };
    Ok(match manifest.script {
        Some(_) => Looked {
            findings: compare(manifest, name, &contents),
            counted: None,
            refused: None,
        },
        // The version that made the backup did not or could not count its tables.
        None => Looked {
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
    let mut findings = Vec::new();
    let mut differs = |table: Option<String>, what: String| {
        findings.push(Finding {
            file: file.to_owned(),
            table,
            what,
        });
    };
    let utf8 = manifest.server.encoding == "UTF8";
    let own = manifest.data_file(role::SQL).map(|(index, _)| index);
    for (record, table) in manifest.tables.iter().zip(&contents.tables) {
        let name = Some(format!("{}.{}", record.schema, record.name));
        if Some(record.place.file) != own {
            differs(
                name,
                "its rows are in the script, the manifest says in another file".to_owned(),
            );
            continue;
        }
        // If rows are loaded through another table, only the header names the table that they belong to.
        let (schema, other) = table.name();
        let of_copy = is_named(&record.schema, &schema, utf8) && is_named(&record.name, &other, utf8);
        if !of_copy && !table.through_root {
            let what = format!(
                "the rows at byte {} of the script are those of {schema}.{other}",
                table.offset
            );
            differs(name, what);
            continue;
        }
        let owner = record.owner.as_deref().unwrap_or_default();
        let expected = header_of(record.schema.as_bytes(), record.name.as_bytes(), owner.as_bytes());
        let header = table.header.as_ref();
        if let Some(header) = header.filter(|header| !is_named(&expected.line(), &header.line(), utf8)) {
            let what = format!(
                "the rows at byte {} of the script are under the header {:?}",
                table.offset,
                header.line()
            );
            differs(name, what);
            continue;
        }
        if table.offset != record.place.offset || table.digest.bytes != record.place.length {
            let what = format!(
                "its rows are at byte {} of the script, the manifest says {}",
                table.offset, record.place.offset
            );
            differs(name.clone(), what);
        }
        if let Some(what) = other_than(&table.digest, record.rows, record.bytes, &record.sha256) {
            differs(name, what);
        }
    }
    let (found, wanted) = (contents.tables.len(), manifest.tables.len());
    if found != wanted {
        differs(
            None,
            format!(
                "holds the rows of {}, the manifest says {wanted}",
                count(found, "table")
            ),
        );
    }
    for (record, objects) in manifest.large_objects.iter().zip(&contents.large_objects) {
        if let Some(what) = other_than(&objects.digest, record.count, record.bytes, &record.sha256) {
            differs(Some("large objects".to_owned()), what);
        }
    }
    let (found, wanted) = (contents.large_objects.len(), manifest.large_objects.len());
    if found != wanted {
        differs(
            None,
            format!("holds {found} groups of large objects, the manifest says {wanted}"),
        );
    }
    let script = manifest.script.map(|script| script.definitions);
    if let Some(wanted) = script.filter(|wanted| *wanted != contents.headers) {
        differs(
            None,
            format!("has {} definitions, the manifest says {wanted}", contents.headers),
        );
    }
    findings
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
