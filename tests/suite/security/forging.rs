//! Forged backups: a person who can write to the store changes the content, and corrects every sum.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::job::restore::place::Backed;

/// Puts another content into a backup's file, with a manifest and sums that fit it; a script is given
/// as it is before compression.
pub fn forge_whole(backed: &Backed, role: &str, content: &[u8]) {
    let path = backed.file(role);
    let bytes = packed(&path, content);
    let (old, new) = (sum(&fs::read(&path).unwrap()), sum(&bytes));
    fs::write(&path, &bytes).unwrap();
    let sums = backed.folder().join("SHA256SUMS");
    let text = fs::read_to_string(&sums).unwrap();
    assert!(text.contains(&old), "{text}");
    fs::write(&sums, text.replace(&old, &new)).unwrap();
    let mut manifest = backed.manifest();
    manifest["files"][role]["bytes"] = bytes.len().into();
    manifest["files"][role]["sha256"] = new.clone().into();
    manifest["checksums"][role] = format!("sha256:{new}").into();
    mend_data_files(&mut manifest);
    if role == "sql" {
        manifest["metadata"]["bytes_read"] = content.len().into();
        // What an older version would not have counted does not contradict it.
        manifest.as_object_mut().unwrap().remove("script");
        manifest["tables"] = serde_json::json!([]);
    }
    write_manifest(backed, &manifest);
}

/// `data_files` says of each file what `files` says.
pub fn mend_data_files(manifest: &mut Value) {
    let files = manifest["files"].clone();
    for file in manifest["data_files"].as_array_mut().unwrap() {
        let told = &files[file["role"].as_str().unwrap()];
        file["name"] = told["name"].clone();
        file["bytes"] = told["bytes"].clone();
        file["digests"]["sha256"] = told["sha256"].clone();
    }
}

/// A file's content, a script's as it is before compression.
pub fn content(backed: &Backed, role: &str) -> Vec<u8> {
    let path = backed.file(role);
    let bytes = fs::read(&path).unwrap();
    let mut content = Vec::new();
    match extension(&path) {
        "gz" => flate2::read::MultiGzDecoder::new(&bytes[..])
            .read_to_end(&mut content)
            .map(drop)
            .unwrap(),
        "zst" => zstd::stream::copy_decode(&bytes[..], &mut content).unwrap(),
        _ => content = bytes,
    }
    content
}

fn packed(path: &Path, content: &[u8]) -> Vec<u8> {
    match extension(path) {
        "gz" => {
            let mut packing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packing.write_all(content).unwrap();
            packing.finish().unwrap()
        }
        "zst" => zstd::stream::encode_all(content, 1).unwrap(),
        _ => content.to_vec(),
    }
}

fn extension(path: &Path) -> &str {
    path.extension().unwrap().to_str().unwrap()
}

fn sum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn write_manifest(backed: &Backed, manifest: &Value) {
    fs::write(backed.folder().join("manifest.json"), manifest.to_string()).unwrap();
    crate::support::wreck::reseal(&backed.folder());
}

/// A file that a program makes when it is run by what it should not run.
pub struct Marker(PathBuf);

impl Marker {
    /// In a folder of its own, where PostgreSQL's own user may write too.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("pgstow-marker-")
            .tempdir()
            .unwrap()
            .keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        Self(folder.join("was-here"))
    }

    pub fn command(&self) -> String {
        format!("touch {}", self.0.display())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn was_made(&self) -> bool {
        self.0.exists()
    }

    pub fn wipe(&self) {
        drop(fs::remove_file(&self.0));
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(self.0.parent().unwrap()));
    }
}
