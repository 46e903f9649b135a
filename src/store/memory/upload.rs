//! An upload into the store in memory.

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{MemoryStore, Op};
use crate::error::{Code, Error, Result};
use crate::store::{Expected, Mark, ObjectInfo, Stored, Upload, taken};

pub(super) struct MemoryUpload {
    pub(super) store: MemoryStore,
    pub(super) key: String,
    pub(super) id: String,
    pub(super) object: ObjectInfo,
    pub(super) body: Vec<u8>,
}

#[async_trait]
impl Upload for MemoryUpload {
    fn mark(&self) -> Mark {
        Mark(self.id.clone())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let Self { store, key, body, .. } = self;
        store
            .call(Op::Write, key, |_| {
                body.extend_from_slice(&bytes);
                Ok(())
            })
            .await
    }

    async fn complete(self: Box<Self>, expected: &Expected) -> Result<Stored> {
        let Self {
            store,
            key,
            id,
            object,
            body,
        } = *self;
        let bytes = body.len() as u64;
        let result = store
            .call(Op::Complete, &key, |state| {
                if expected.bytes != bytes || expected.sha256[..] != Sha256::digest(&body)[..] {
                    return Err(Error::new(
                        Code::Store,
                        format!("{key}: not the bytes that were expected"),
                    ));
                }
                if !object.replace && state.objects.contains_key(&key) {
                    return Err(taken(&key, "memory://test"));
                }
                state.write(&key, body.into(), object.tags, object.metadata);
                Ok(Stored {
                    bytes,
                    checksum: None,
                    parts: Vec::new(),
                })
            })
            .await;
        store.state().unfinished.remove(&id);
        result
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.store
            .call(Op::Abort, &self.key, |state| {
                state.unfinished.remove(&self.id);
                Ok(())
            })
            .await
    }
}
