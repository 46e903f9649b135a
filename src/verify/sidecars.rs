//! The small files of a backup, and the sums over all of them.

use std::collections::BTreeMap;

use super::Finding;
use crate::backup_id::SHA256SUMS;
use crate::error::{Code, Result};
use crate::manifest::{Manifest, role};
use crate::store::Store;
use crate::stored_archive::read_file;

pub(super) async fn check(store: &dyn Store, manifest: &Manifest) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (role, file) in &manifest.files {
        if role == role::DUMP || role == role::SQL {
            continue;
        }
        match read_file(store, &manifest.id, file).await {
            Ok(_) => {}
            Err(error) if error.code() == Code::Integrity => {
                let key = manifest.id.key(&file.name);
                let message = error.message();
                let what = message.strip_prefix(&key).unwrap_or(&message).trim_start();
                findings.push(Finding::of_file(&file.name, what));
            }
            Err(error) => return Err(error),
        }
    }
    // A bit that was flipped on the way says nothing about what is stored.
    if !sums(store, manifest).await?.is_empty() {
        findings.extend(sums(store, manifest).await?);
    }
    Ok(findings)
}

/// `SHA256SUMS` must say of every file what the manifest says, for whoever checks by stock tools.
async fn sums(store: &dyn Store, manifest: &Manifest) -> Result<Vec<Finding>> {
    let key = manifest.id.key(SHA256SUMS);
    let object = match store.get(&key).await {
        Ok(Some(object)) => object,
        Ok(None) => return Ok(vec![Finding::of_file(SHA256SUMS, "is missing")]),
        Err(error) if error.code() == Code::Integrity => {
            return Ok(vec![Finding::of_file(
                SHA256SUMS,
                format!("cannot be read: {}", error.message()),
            )]);
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
            None => return Ok(vec![Finding::of_file(SHA256SUMS, format!("has the odd line {line:?}"))]),
        }
    }
    let differs = |name: &str, sha256: &str| match said.get(name) {
        Some(digest) if *digest == sha256 => None,
        Some(_) => Some(format!("says of {name} another digest than the manifest")),
        None => Some(format!("lacks {name}")),
    };
    let findings = manifest
        .files
        .values()
        .filter_map(|file| differs(&file.name, &file.sha256));
    let known = |name: &str| manifest.files.values().any(|file| file.name == name);
    let unknown = said.keys().filter(|name| !known(name));
    let unknown = unknown.map(|name| format!("names {name:?}, which the manifest does not"));
    let findings = findings.chain(unknown);
    Ok(findings.map(|what| Finding::of_file(SHA256SUMS, what)).collect())
}
