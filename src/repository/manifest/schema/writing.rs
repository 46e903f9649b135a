//! Writes a manifest as schema 2, or as schema 3 if it refers to another backup.

use serde::Serialize;
use serde::ser::{Error, SerializeMap, SerializeSeq, Serializer};

use super::{Digests, JsonFile, JsonObjects, JsonTable};
use crate::repository::manifest::blocks::{LargeObjectsRecord, TableRecord};
use crate::repository::manifest::{DataFile, FileRange, Increment, Manifest, References, SCHEMA, WRITTEN, format_name};

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written::of(self).map_err(S::Error::custom)?;
        let mut map = serializer.serialize_map(None)?;
        let schema = if self.references.is_some() { SCHEMA } else { WRITTEN };
        map.serialize_entry("schema", &schema)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("type", &self.kind)?;
        map.serialize_entry("timestamp", &self.timestamp)?;
        map.serialize_entry("finished_at", &self.finished_at)?;
        map.serialize_entry("version", &self.version)?;
        map.serialize_entry("database", &self.database)?;
        map.serialize_entry("trigger", &self.trigger)?;
        some(&mut map, "digest_file", self.digest_file.as_ref())?;
        some(&mut map, "predecessor", self.predecessor.as_ref())?;
        some(&mut map, "store", self.store.as_ref())?;
        some(&mut map, "stores", filled(&self.stores))?;
        some(&mut map, "tags", self.tags.as_ref())?;
        some(&mut map, "event_id", self.event_id.as_ref())?;
        map.serialize_entry("server", &self.server)?;
        map.serialize_entry("pg_dump", &self.pg_dump)?;
        map.serialize_entry("format", format_name::of(self.format))?;
        map.serialize_entry("compression", &self.compression)?;
        map.serialize_entry("snapshot", &self.snapshot)?;
        map.serialize_entry("tier", &self.tier)?;
        map.serialize_entry("encryption", &self.encryption)?;
        map.serialize_entry("files", &self.files)?;
        map.serialize_entry("data_files", &written.files)?;
        some(
            &mut map,
            "missing",
            Some(&self.missing).filter(|missing| !missing.is_empty()),
        )?;
        some(&mut map, "left_out", filled(&self.left_out))?;
        some(&mut map, "extensions", self.extensions.as_ref())?;
        some(&mut map, "collations", self.collations.as_ref())?;
        some(&mut map, "warnings", filled(&self.warnings))?;
        some(&mut map, "script", self.script.as_ref())?;
        map.serialize_entry("tables", &Tables(self, &written))?;
        if !self.large_objects.is_empty() {
            map.serialize_entry("large_objects", &LargeObjects(self, &written))?;
        }
        some(&mut map, "settings", self.settings.as_ref())?;
        some(&mut map, "references", self.references.as_ref())?;
        some(&mut map, "beginning", self.beginning.as_ref())?;
        if let Some(increment) = &self.increment {
            increment_entries(&mut map, increment)?;
        }
        let first = written.files.first();
        map.serialize_entry("parts", first.map_or(&[][..], |first| &first.parts))?;
        some(
            &mut map,
            "store_checksum",
            first.and_then(|first| first.store_checksum.as_ref()),
        )?;
        map.serialize_entry("metadata", &self.metadata)?;
        map.serialize_entry("checksums", &self.checksums)?;
        map.end()
    }
}

fn increment_entries<M: SerializeMap>(map: &mut M, increment: &Increment) -> Result<(), M::Error> {
    map.serialize_entry("stream", &increment.stream)?;
    map.serialize_entry("changes", &increment.changes)?;
    map.serialize_entry("coverage", &increment.coverage)?;
    some(map, "baselines", filled(&increment.baselines))?;
    map.serialize_entry("sequences", &increment.sequences)?;
    some(map, "large_objects_coverage", increment.large_objects.as_ref())
}

fn some<M: SerializeMap, T: Serialize + ?Sized>(map: &mut M, name: &str, value: Option<&T>) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, value))
}

fn filled<T>(list: &[T]) -> Option<&[T]> {
    Some(list).filter(|list| !list.is_empty())
}

/// The data files as they are written.
struct Written<'a> {
    files: Vec<JsonFile>,
    references: Option<&'a References>,
}

impl<'a> Written<'a> {
    fn of(manifest: &'a Manifest) -> Result<Self, String> {
        let file = |file: &DataFile| {
            let record = manifest.files.get(&file.role);
            let record = record.ok_or_else(|| format!("there is no {:?} file", file.role))?;
            Ok(JsonFile {
                role: file.role.clone(),
                name: record.name.clone(),
                bytes: record.bytes,
                digests: Digests {
                    sha256: record.sha256.clone(),
                },
                parts: file.parts.clone(),
                store_checksum: file.store_checksum.clone(),
                encryption: file.encryption.clone(),
            })
        };
        let files = manifest.data_files.iter().map(file).collect::<Result<_, String>>()?;
        Ok(Self {
            files,
            references: manifest.references.as_ref(),
        })
    }

    fn name<E: Error>(&self, place: FileRange) -> Result<String, E> {
        let file = self.files.get(place.file.0);
        let file = file.ok_or_else(|| E::custom(format_args!("there is no data file {}", place.file.0)))?;
        Ok(file.name.clone())
    }

    fn table<E: Error>(&self, table: &TableRecord) -> Result<JsonTable, E> {
        let from = self.references.filter(|_| table.place.file.0 == self.files.len());
        Ok(JsonTable {
            schema: table.schema.clone(),
            name: table.name.clone(),
            owner: table.owner.clone(),
            oid: table.oid,
            columns: table.columns.clone(),
            rows: table.rows,
            bytes: table.bytes,
            sha256: table.sha256.clone(),
            from: from.map(|references| references.from.clone()),
            file: Some(match from {
                Some(references) => references.file.name.clone(),
                None => self.name(table.place)?,
            }),
            offset: table.place.offset,
            length: table.place.length,
            read: table.read,
            ranges: table.ranges.clone(),
        })
    }

    fn objects<E: Error>(&self, objects: &LargeObjectsRecord) -> Result<JsonObjects, E> {
        Ok(JsonObjects {
            dump_id: objects.dump_id,
            count: objects.count,
            bytes: objects.bytes,
            sha256: objects.sha256.clone(),
            file: objects.place.map(|place| self.name(place)).transpose()?,
            offset: objects.place.map_or(0, |place| place.offset),
            length: objects.place.map_or(0, |place| place.length),
        })
    }
}

/// Writes one after the other: all of them at once may need hundreds of megabytes.
struct Tables<'a>(&'a Manifest, &'a Written<'a>);

impl Serialize for Tables<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.tables.len()))?;
        for table in &self.0.tables {
            list.serialize_element(&self.1.table::<S::Error>(table)?)?;
        }
        list.end()
    }
}

struct LargeObjects<'a>(&'a Manifest, &'a Written<'a>);

impl Serialize for LargeObjects<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.large_objects.len()))?;
        for objects in &self.0.large_objects {
            list.serialize_element(&self.1.objects::<S::Error>(objects)?)?;
        }
        list.end()
    }
}
