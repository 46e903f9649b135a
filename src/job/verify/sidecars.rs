//! The small files of a backup, and the sums over all of them.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

use super::Finding;
use crate::error::{Code, Result};
use crate::repository::backup_id::{MD5SUMS, SHA256SUMS};
use crate::repository::manifest::Manifest;
use crate::repository::stored_archive::read_file;
use crate::store::Store;

/// The result of checking them.
pub(super) struct Small {
    pub findings: Vec<Finding>,
    /// Bytes that were read.
    pub bytes: u64,
    /// The MD5 of the data files in `MD5SUMS`, if there is one. The data files are read later.
    pub md5: Md5s,
}

/// MD5s by file name.
pub(super) type Md5s = BTreeMap<String, [u8; 16]>;

pub(super) async fn check(store: &dyn Store, manifest: &Manifest) -> Result<Small> {
    let mut findings = Vec::new();
    let mut read = 0;
    let mut sha256 = BTreeMap::new();
    let mut md5 = BTreeMap::new();
    for (role, file) in &manifest.files {
        let name = file.name.as_str();
        sha256.insert(name, Some(file.sha256.clone()));
        if manifest.data_file(role).is_some() {
            md5.insert(name, None);
            continue;
        }
        match read_file(store, &manifest.id, file).await {
            Ok(bytes) => {
                read += bytes.len() as u64;
                md5.insert(name, Some(hex::encode(Md5::digest(&bytes))));
            }
            Err(error) if error.code() == Code::Integrity => {
                let key = manifest.id.key(name);
                let message = error.message();
                let what = message.strip_prefix(&key).unwrap_or(&message).trim_start();
                findings.push(Finding::of_file(name, what));
                md5.insert(name, None);
            }
            Err(error) => return Err(error),
        }
    }
    let sums = Sums {
        store,
        manifest,
        name: SHA256SUMS,
        digests: sha256,
        wanted: true,
    };
    findings.extend(sums.check().await?.0);
    let sums = Sums {
        name: MD5SUMS,
        digests: md5,
        wanted: false,
        ..sums
    };
    let (found, md5) = sums.check().await?;
    findings.extend(found);
    Ok(Small {
        findings,
        bytes: read,
        md5,
    })
}

/// A file of sums. It must have the digest of every file, for people who check with stock tools.
struct Sums<'a> {
    store: &'a dyn Store,
    manifest: &'a Manifest,
    name: &'static str,
    /// By file, if it is known.
    digests: BTreeMap<&'a str, Option<String>>,
    /// Whether every backup has such a file.
    wanted: bool,
}

/// The findings, and the MD5s of the data files.
type Said = (Vec<Finding>, Md5s);

impl Sums<'_> {
    async fn check(&self) -> Result<Said> {
        let found = self.read().await?;
        // Read it again: a bit that flipped on the way is no damage in the store.
        if found.0.is_empty() {
            Ok(found)
        } else {
            self.read().await
        }
    }

    async fn read(&self) -> Result<Said> {
        let alone = |what: String| Ok((vec![Finding::of_file(self.name, what)], Md5s::new()));
        let object = match self.store.get(&self.manifest.id.key(self.name)).await {
            Ok(Some(object)) => object,
            Ok(None) if self.wanted => return alone("is missing".into()),
            Ok(None) => return Ok((Vec::new(), Md5s::new())),
            Err(error) if error.code() == Code::Integrity => {
                return alone(format!("cannot be read: {}", error.message()));
            }
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&object.body);
        let mut said: BTreeMap<&str, &str> = BTreeMap::new();
        for line in text.lines() {
            match line.split_once("  ") {
                Some((digest, name)) => {
                    said.insert(name, digest);
                }
                None => return alone(format!("has a malformed line {line:?}")),
            }
        }
        let mut findings = Vec::new();
        let mut of_data = Md5s::new();
        for (name, digest) in &self.digests {
            match (said.get(name), digest) {
                (None, _) => findings.push(format!("lacks {name}")),
                (Some(said), Some(digest)) if said != digest => {
                    findings.push(format!("has another digest for {name} than the manifest"));
                }
                (Some(_), Some(_)) => {}
                (Some(said), None) => {
                    let mut md5 = [0; 16];
                    match hex::decode_to_slice(said, &mut md5) {
                        Ok(()) if self.is_of_data(name) => drop(of_data.insert((*name).to_owned(), md5)),
                        Ok(()) => {}
                        Err(_) => findings.push(format!("has a text for {name} that is no MD5: {said:?}")),
                    }
                }
            }
        }
        let unknown = said.keys().filter(|name| !self.digests.contains_key(*name));
        findings.extend(unknown.map(|name| format!("names {name:?}, which is not in the manifest")));
        let findings = findings.into_iter().map(|what| Finding::of_file(self.name, what));
        Ok((findings.collect(), of_data))
    }

    fn is_of_data(&self, name: &str) -> bool {
        self.manifest.data_records().any(|file| file.name == name)
    }
}
