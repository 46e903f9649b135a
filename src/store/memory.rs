//! A store in memory for unit tests: it refuses wrong requests, and its failures can be scripted.

mod upload;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{
    Condition, Conditional, Deleted, Lifecycle, ListedObject, Object, ObjectHead, ObjectInfo, ObjectVersion, PENDING,
    Put, Rule, Rules, Store, TIER_TAG, UPLOAD, Unfinished, Upload,
};
use crate::error::{Code, Error, Result};
use upload::MemoryUpload;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    Reach,
    Upload,
    Write,
    Complete,
    Abort,
    Put,
    Get,
    GetRange,
    Head,
    List,
    Folders,
    Unfinished,
    AbortUnfinished,
    Discard,
    Tags,
    SetTags,
    Rules,
    InstallRules,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Fails without doing anything.
    Reject,
    /// Does the work and then fails: the answer was lost.
    LoseAnswer,
}

#[derive(Debug, Clone)]
struct Held {
    body: Bytes,
    version: u64,
    tags: Vec<(String, String)>,
    metadata: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Held>,
    unfinished: BTreeMap<String, Unfinished>,
    foreign_rules: Vec<Rule>,
    rules: Vec<Rule>,
    versions: u64,
    /// Operation and key, in order.
    calls: Vec<(Op, String)>,
    /// Operation, number of the call (from 1, counted per operation), and the fault there.
    faults: Vec<(Op, usize, Fault)>,
    /// A put was refused because the store knows no conditions.
    refused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conditions {
    Known,
    None,
    /// It refuses them, as some S3 stores do.
    Refused,
    /// It accepts every put and ignores the condition.
    Overlooked,
}

/// A clone is another handle of the same store.
#[derive(Debug, Clone)]
pub(crate) struct MemoryStore {
    state: Arc<Mutex<State>>,
    lifecycle: bool,
    conditions: Conditions,
}

impl MemoryStore {
    /// Like S3, with tags and rules.
    pub(crate) fn with_lifecycle() -> Self {
        Self {
            state: Arc::default(),
            lifecycle: true,
            conditions: Conditions::Known,
        }
    }

    /// Like a folder.
    pub(crate) fn without_lifecycle() -> Self {
        Self {
            lifecycle: false,
            ..Self::with_lifecycle()
        }
    }

    pub(crate) fn without_conditions(self) -> Self {
        Self {
            conditions: Conditions::None,
            ..self
        }
    }

    pub(crate) fn refusing_conditions(self) -> Self {
        Self {
            conditions: Conditions::Refused,
            ..self
        }
    }

    pub(crate) fn overlooking_conditions(self) -> Self {
        Self {
            conditions: Conditions::Overlooked,
            ..self
        }
    }

    /// Scripts the fault of the `nth` call (from 1, counted from now) of an operation.
    pub(crate) fn fault(&self, op: Op, nth: usize, fault: Fault) {
        let mut state = self.state();
        let done = state.calls.iter().filter(|(called, _)| *called == op).count();
        state.faults.push((op, done + nth, fault));
    }

    /// Keys of the calls of one operation so far, in order.
    pub(crate) fn calls(&self, op: Op) -> Vec<String> {
        let state = self.state();
        let calls = state.calls.iter().filter(|(called, _)| *called == op);
        calls.map(|(_, key)| key.clone()).collect()
    }

    /// How many requests of any sort have been made.
    pub(crate) fn requests(&self) -> usize {
        self.state().calls.len()
    }

    /// Adds an object without counting a call.
    pub(crate) fn plant(&self, key: &str, body: impl Into<Bytes>, tags: &[(&str, &str)]) {
        let tags = tags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        self.state().write(key, body.into(), tags, Vec::new());
    }

    pub(crate) fn plant_unfinished(&self, key: &str, started: Option<Timestamp>) {
        self.state().begin(key, started);
    }

    pub(crate) fn remove(&self, key: &str) {
        assert!(self.state().objects.remove(key).is_some(), "no object {key}");
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    pub(crate) fn unfinished_keys(&self) -> Vec<String> {
        self.state().unfinished.values().map(|one| one.key.clone()).collect()
    }

    pub(crate) fn body(&self, key: &str) -> Option<Bytes> {
        self.state().objects.get(key).map(|held| held.body.clone())
    }

    pub(crate) fn metadata(&self, key: &str) -> Vec<(String, String)> {
        self.state().objects[key].metadata.clone()
    }

    /// The value of one tag of an object; the object must exist.
    pub(crate) fn tag(&self, key: &str, tag: &str) -> Option<String> {
        let state = self.state();
        let held = state.objects.get(key).unwrap_or_else(|| panic!("no object {key}"));
        let found = held.tags.iter().find(|(name, _)| name == tag);
        found.map(|(_, value)| value.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Does `work`, unless a fault is scripted.
    async fn call<T>(&self, op: Op, key: &str, work: impl FnOnce(&mut State) -> Result<T> + Send) -> Result<T> {
        // As over a network, other tasks run between any two requests.
        tokio::task::yield_now().await;
        let mut state = self.state();
        state.calls.push((op, key.to_owned()));
        let nth = state.calls.iter().filter(|(called, _)| *called == op).count();
        let fault = state.faults.iter().find(|(on, at, _)| *on == op && *at == nth);
        match fault.map(|(_, _, fault)| *fault) {
            None => work(&mut state),
            Some(Fault::Reject) => Err(scripted(op, "rejected")),
            Some(Fault::LoseAnswer) => {
                work(&mut state)?;
                Err(scripted(op, "answer lost"))
            }
        }
    }
}

fn scripted(op: Op, what: &str) -> Error {
    Error::new(Code::Store, format!("scripted fault: {op:?} {what}"))
}

impl State {
    fn write(
        &mut self,
        key: &str,
        body: Bytes,
        tags: Vec<(String, String)>,
        metadata: Vec<(String, String)>,
    ) -> ObjectVersion {
        assert!(
            !key.is_empty() && key.split('/').all(|segment| !matches!(segment, "" | "." | "..")),
            "not a safe key: {key:?}"
        );
        self.versions += 1;
        let held = Held {
            body,
            version: self.versions,
            tags,
            metadata,
        };
        self.objects.insert(key.to_owned(), held);
        ObjectVersion(self.versions.to_string())
    }

    fn begin(&mut self, key: &str, started: Option<Timestamp>) -> String {
        self.versions += 1;
        let id = format!("upload-{}", self.versions);
        let unfinished = Unfinished {
            key: key.to_owned(),
            id: id.clone(),
            started,
        };
        self.unfinished.insert(id.clone(), unfinished);
        id
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn url(&self) -> &'static str {
        "memory://test"
    }

    async fn reach(&self) -> Result<()> {
        self.call(Op::Reach, "", |_| Ok(())).await
    }

    async fn upload(&self, key: &str, object: &ObjectInfo) -> Result<Box<dyn Upload>> {
        let id = self.call(Op::Upload, key, |state| Ok(state.begin(key, None))).await?;
        let mut object = object.clone();
        object.metadata.push((UPLOAD.to_owned(), id.clone()));
        Ok(Box::new(MemoryUpload {
            store: self.clone(),
            key: key.to_owned(),
            id,
            object,
            body: Vec::new(),
        }))
    }

    async fn put(&self, key: &str, body: Bytes, object: &ObjectInfo) -> Result<ObjectVersion> {
        self.call(Op::Put, key, |state| {
            Ok(state.write(key, body, object.tags.clone(), object.metadata.clone()))
        })
        .await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>> {
        let most = super::limits::most(key);
        self.call(Op::Get, key, |state| match state.objects.get(key) {
            Some(held) if held.body.len() as u64 > most => {
                Err(super::limits::too_long(key, held.body.len() as u64, most))
            }
            held => Ok(held.map(|held| Object {
                body: held.body.clone(),
                version: ObjectVersion(held.version.to_string()),
            })),
        })
        .await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Option<Bytes>> {
        self.call(Op::GetRange, key, |state| {
            Ok(state.objects.get(key).map(|held| {
                let size = held.body.len() as u64;
                let from = usize::try_from(offset.min(size)).unwrap();
                let to = usize::try_from(offset.saturating_add(length).min(size)).unwrap();
                held.body.slice(from..to)
            }))
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectHead>> {
        self.call(Op::Head, key, |state| {
            Ok(state.objects.get(key).map(|held| ObjectHead {
                bytes: held.body.len() as u64,
                version: ObjectVersion(held.version.to_string()),
                metadata: held.metadata.clone(),
            }))
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        self.call(Op::List, prefix, |state| {
            let within = state.objects.iter().filter(|(key, _)| key.starts_with(prefix));
            Ok(within
                .map(|(key, held)| ListedObject {
                    key: key.clone(),
                    bytes: held.body.len() as u64,
                    modified: None,
                })
                .collect())
        })
        .await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.call(Op::Folders, prefix, |state| {
            let below = state.objects.keys().filter_map(|key| key.strip_prefix(prefix));
            let mut names: Vec<String> = below
                .filter_map(|rest| Some(rest.split_once('/')?.0.to_owned()))
                .collect();
            names.sort_unstable();
            names.dedup();
            Ok(names)
        })
        .await
    }

    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>> {
        self.call(Op::Unfinished, prefix, |state| {
            let within = state.unfinished.values().filter(|one| one.key.starts_with(prefix));
            Ok(within.cloned().collect())
        })
        .await
    }

    async fn abort_unfinished(&self, unfinished: &Unfinished) -> Result<()> {
        self.call(Op::AbortUnfinished, &unfinished.key, |state| {
            state.unfinished.remove(&unfinished.id);
            Ok(())
        })
        .await
    }

    async fn discard(&self, key: &str) -> Result<()> {
        let lifecycle = self.lifecycle;
        self.call(Op::Discard, key, |state| {
            if lifecycle {
                if let Some(held) = state.objects.get_mut(key) {
                    held.tags = vec![(TIER_TAG.to_owned(), PENDING.to_owned())];
                }
            } else {
                state.objects.remove(key);
            }
            Ok(())
        })
        .await
    }

    fn lifecycle(&self) -> Option<&dyn Lifecycle> {
        self.lifecycle.then_some(self as &dyn Lifecycle)
    }

    fn conditional(&self) -> Option<&dyn Conditional> {
        (self.conditions != Conditions::None).then_some(self as &dyn Conditional)
    }
}

#[async_trait]
impl Conditional for MemoryStore {
    async fn put_if(&self, key: &str, body: Bytes, object: &ObjectInfo, condition: Condition) -> Result<Put> {
        let conditions = self.conditions;
        self.call(Op::Put, key, |state| {
            if conditions == Conditions::Refused {
                state.refused = true;
                return Err(Error::new(Code::Store, "it knows no conditions"));
            }
            match (condition, state.objects.get(key)) {
                _ if conditions == Conditions::Overlooked => {}
                (Condition::Absent, Some(held)) if held.body == body => {
                    return Ok(Put::Done(ObjectVersion(held.version.to_string())));
                }
                (Condition::Absent, Some(_)) | (Condition::Unchanged(_), None) => return Ok(Put::Refused),
                (Condition::Unchanged(version), Some(held)) if version.0 != held.version.to_string() => {
                    return Ok(Put::Refused);
                }
                _ => {}
            }
            Ok(Put::Done(state.write(
                key,
                body,
                object.tags.clone(),
                object.metadata.clone(),
            )))
        })
        .await
    }

    fn refused(&self) -> bool {
        self.state().refused
    }
}

#[async_trait]
impl Lifecycle for MemoryStore {
    async fn tags(&self, key: &str) -> Result<Option<Vec<(String, String)>>> {
        self.call(Op::Tags, key, |state| {
            Ok(state.objects.get(key).map(|held| held.tags.clone()))
        })
        .await
    }

    async fn set_tags(&self, key: &str, tags: &[(String, String)]) -> Result<()> {
        self.call(Op::SetTags, key, |state| match state.objects.get_mut(key) {
            Some(held) => {
                held.tags = tags.to_vec();
                Ok(())
            }
            None => Err(Error::new(Code::Store, format!("cannot tag {key}: no such object"))),
        })
        .await
    }

    async fn try_delete(&self, key: &str) -> Result<Deleted> {
        self.call(Op::Discard, key, |state| {
            state.objects.remove(key);
            Ok(Deleted::Gone)
        })
        .await
    }

    async fn rules(&self) -> Result<Rules> {
        self.call(Op::Rules, "", |state| {
            Ok(Rules {
                ours: state.rules.clone(),
                foreign: state.foreign_rules.clone(),
            })
        })
        .await
    }

    async fn install_rules(&self, ours: &[Rule]) -> Result<()> {
        self.call(Op::InstallRules, "", |state| {
            state.rules = ours.to_vec();
            Ok(())
        })
        .await
    }

    fn prefix(&self) -> &'static str {
        ""
    }
}

#[cfg(test)]
mod tests;
