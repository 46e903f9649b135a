//! The small files of an increment: its catalog, the changed definitions, and the table of contents of its baselines.

use bytes::Bytes;

use crate::error::Result;
use crate::repository::backup_id::{BackupId, CATALOG};
use crate::repository::manifest::role;
use crate::repository::seen_catalog::SeenCatalog;

pub(in crate::job) struct CoverageFile {
    pub role: &'static str,
    pub name: String,
    pub bytes: Bytes,
    pub content_type: &'static str,
}

impl CoverageFile {
    pub(super) fn catalog(seen: &SeenCatalog) -> Result<Self> {
        Ok(Self {
            role: role::CATALOG,
            name: CATALOG.to_owned(),
            bytes: seen.to_bytes()?.into(),
            content_type: "application/json",
        })
    }

    pub(super) fn definitions(id: &BackupId, archive: Bytes) -> Self {
        Self {
            role: role::SCHEMA,
            name: id.schema_name(),
            bytes: archive,
            content_type: "application/octet-stream",
        }
    }

    pub(super) fn contents(id: &BackupId, toc: Bytes) -> Self {
        Self {
            role: role::TOC,
            name: id.toc_name(),
            bytes: toc,
            content_type: "application/octet-stream",
        }
    }
}
