//! A store in front of a real one, which meets its fate at a chosen call.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use pgstow::error::{Code, Error, Result};
use pgstow::repository::retention::Rule;
use pgstow::store::{
    Condition, Conditional, Deleted, Expected, Lifecycle, ListedObject, Mark, Object, ObjectHead, ObjectInfo,
    ObjectVersion, Put, Rules, Store, Stored, Unfinished, Upload,
};
use tokio::sync::Notify;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// The process dies when the call has had its effect and before its answer. Since calls are
    /// let through one by one, this is also the death right before the next call.
    Die,
    /// The store refuses, as its contract says: an upload that cannot be completed is gone.
    Reject,
    /// The call has its effect, and fails.
    LoseAnswer,
    /// The store cannot be reached: no effect, and nothing that the contract promises either.
    Unreachable,
    /// Waits until the test says [`Script::resume`]; other calls pass meanwhile.
    Hold,
}

/// Decides by the call's number, from 1, and by what it is: `put shop/…/manifest.json if absent`.
type Decide = Box<dyn Fn(usize, &str) -> Fate + Send + Sync>;

pub struct Script {
    decide: Decide,
    calls: Mutex<Vec<String>>,
    dead: AtomicBool,
    /// One call at a time, so that a death finds nothing else on its way.
    turn: tokio::sync::Mutex<()>,
    died: Notify,
    held: Notify,
    resume: Notify,
    ended: Notify,
}

impl Script {
    pub fn new(decide: impl Fn(usize, &str) -> Fate + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            decide: Box::new(decide),
            calls: Mutex::new(Vec::new()),
            dead: AtomicBool::new(false),
            turn: tokio::sync::Mutex::new(()),
            died: Notify::new(),
            held: Notify::new(),
            resume: Notify::new(),
            ended: Notify::new(),
        })
    }

    pub fn watch() -> Arc<Self> {
        Self::new(|_, _| Fate::Pass)
    }

    /// The `number`th call, and no other.
    pub fn at(number: usize, fate: Fate) -> Arc<Self> {
        Self::new(move |this, _| if this == number { fate } else { Fate::Pass })
    }

    /// The first call whose description has all of these words, and no other.
    pub fn first(words: &'static [&'static str], fate: Fate) -> Arc<Self> {
        let met = AtomicBool::new(false);
        Self::new(move |_, call| {
            let matches = words.iter().all(|word| call.contains(word));
            if matches && !met.swap(true, Ordering::Relaxed) {
                fate
            } else {
                Fate::Pass
            }
        })
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub async fn died(&self) {
        self.died.notified().await;
    }

    /// Waits until a call is held; a run that ends before that would be waited for without end.
    pub async fn held(&self) {
        tokio::select! {
            biased;
            () = self.held.notified() => {}
            () = self.ended.notified() => panic!("the run has ended, and nothing was held: {:?}", self.calls()),
        }
    }

    /// The run under this script is over.
    pub fn ended(&self) {
        self.ended.notify_one();
    }

    pub fn resume(&self) {
        self.resume.notify_one();
    }

    async fn meet<T>(&self, call: String, effect: impl Future<Output = Result<T>>) -> Result<T> {
        let turn = self.turn.lock().await;
        match self.fate(&call) {
            Fate::Pass => effect.await,
            Fate::Die => {
                let _ = effect.await;
                self.die().await
            }
            Fate::Reject | Fate::Unreachable => Err(scripted(&call)),
            Fate::LoseAnswer => {
                effect.await?;
                Err(scripted(&call))
            }
            Fate::Hold => {
                drop(turn);
                self.hold().await;
                effect.await
            }
        }
    }

    fn fate(&self, call: &str) -> Fate {
        if self.dead.load(Ordering::Relaxed) {
            // A task that outlives the run for a moment.
            return Fate::Die;
        }
        let mut calls = self.calls.lock().unwrap();
        calls.push(call.to_owned());
        (self.decide)(calls.len(), call)
    }

    async fn die<T>(&self) -> T {
        self.dead.store(true, Ordering::Relaxed);
        self.died.notify_one();
        std::future::pending().await
    }

    async fn hold(&self) {
        self.held.notify_one();
        self.resume.notified().await;
    }
}

fn scripted(call: &str) -> Error {
    Error::new(Code::Store, format!("scripted fault: {call}"))
}

pub struct Crashing {
    inner: Arc<dyn Store>,
    script: Arc<Script>,
}

impl Crashing {
    pub fn around(inner: Arc<dyn Store>, script: &Arc<Script>) -> Arc<dyn Store> {
        Arc::new(Self {
            inner,
            script: Arc::clone(script),
        })
    }

    fn tagger(&self) -> &dyn Lifecycle {
        self.inner.lifecycle().unwrap()
    }
}

fn named(condition: &Condition) -> &'static str {
    match condition {
        Condition::Absent => "if absent",
        Condition::Unchanged(_) => "if unchanged",
    }
}

#[async_trait]
impl Store for Crashing {
    fn url(&self) -> &str {
        self.inner.url()
    }

    async fn reach(&self) -> Result<()> {
        self.script.meet("reach".to_owned(), self.inner.reach()).await
    }

    async fn upload(&self, key: &str, object: &ObjectInfo) -> Result<Box<dyn Upload>> {
        let call = format!("upload {key}");
        let inner = self.script.meet(call, self.inner.upload(key, object)).await?;
        Ok(Box::new(CrashingUpload {
            inner,
            key: key.to_owned(),
            script: Arc::clone(&self.script),
        }))
    }

    async fn put(&self, key: &str, body: Bytes, object: &ObjectInfo) -> Result<ObjectVersion> {
        let effect = self.inner.put(key, body, object);
        self.script.meet(format!("put {key} always"), effect).await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>> {
        self.script.meet(format!("get {key}"), self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Option<Bytes>> {
        let effect = self.inner.get_range(key, offset, length);
        self.script.meet(format!("get {key}"), effect).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectHead>> {
        self.script.meet(format!("head {key}"), self.inner.head(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        self.script
            .meet(format!("list {prefix}"), self.inner.list(prefix))
            .await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let effect = self.inner.folders(prefix);
        self.script.meet(format!("folders {prefix}"), effect).await
    }

    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>> {
        let effect = self.inner.unfinished(prefix);
        self.script.meet(format!("unfinished {prefix}"), effect).await
    }

    async fn abort_unfinished(&self, unfinished: &Unfinished) -> Result<()> {
        let effect = self.inner.abort_unfinished(unfinished);
        self.script
            .meet(format!("abort_unfinished {}", unfinished.key), effect)
            .await
    }

    async fn came_from(&self, key: &str, mark: &Mark) -> Result<bool> {
        let effect = self.inner.came_from(key, mark);
        self.script.meet(format!("head {key}"), effect).await
    }

    async fn discard(&self, key: &str) -> Result<()> {
        self.script
            .meet(format!("discard {key}"), self.inner.discard(key))
            .await
    }

    fn lifecycle(&self) -> Option<&dyn Lifecycle> {
        self.inner.lifecycle().map(|_| self as &dyn Lifecycle)
    }

    fn conditional(&self) -> Option<&dyn Conditional> {
        self.inner.conditional().map(|_| self as &dyn Conditional)
    }
}

#[async_trait]
impl Conditional for Crashing {
    async fn put_if(&self, key: &str, body: Bytes, object: &ObjectInfo, condition: Condition) -> Result<Put> {
        let call = format!("put {key} {}", named(&condition));
        let inner = self.inner.conditional().unwrap();
        self.script.meet(call, inner.put_if(key, body, object, condition)).await
    }

    fn refused(&self) -> bool {
        self.inner.conditional().unwrap().refused()
    }
}

#[async_trait]
impl Lifecycle for Crashing {
    async fn tags(&self, key: &str) -> Result<Option<Vec<(String, String)>>> {
        self.script.meet(format!("tags {key}"), self.tagger().tags(key)).await
    }

    async fn set_tags(&self, key: &str, tags: &[(String, String)]) -> Result<()> {
        let effect = self.tagger().set_tags(key, tags);
        self.script.meet(format!("set_tags {key}"), effect).await
    }

    async fn try_delete(&self, key: &str) -> Result<Deleted> {
        let effect = self.tagger().try_delete(key);
        self.script.meet(format!("try_delete {key}"), effect).await
    }

    async fn rules(&self) -> Result<Rules> {
        self.script.meet("rules".to_owned(), self.tagger().rules()).await
    }

    async fn install_rules(&self, ours: &[Rule]) -> Result<()> {
        let effect = self.tagger().install_rules(ours);
        self.script.meet("install_rules".to_owned(), effect).await
    }

    fn prefix(&self) -> &str {
        self.tagger().prefix()
    }
}

struct CrashingUpload {
    inner: Box<dyn Upload>,
    key: String,
    script: Arc<Script>,
}

#[async_trait]
impl Upload for CrashingUpload {
    fn mark(&self) -> Mark {
        self.inner.mark()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let call = format!("write {}", self.key);
        self.script.meet(call, self.inner.write(bytes)).await
    }

    async fn complete(self: Box<Self>, expected: &Expected) -> Result<Stored> {
        let Self { inner, key, script } = *self;
        let call = format!("complete {key}");
        // Not by `meet`: what a failed completion leaves depends on how it fails.
        let _turn = script.turn.lock().await;
        match script.fate(&call) {
            Fate::Pass => inner.complete(expected).await,
            Fate::Die => {
                let _ = inner.complete(expected).await;
                script.die().await
            }
            Fate::Reject => {
                inner.abort().await?;
                Err(scripted(&call))
            }
            Fate::Unreachable => Err(scripted(&call)),
            Fate::LoseAnswer => {
                inner.complete(expected).await?;
                Err(scripted(&call))
            }
            Fate::Hold => {
                drop(_turn);
                script.hold().await;
                inner.complete(expected).await
            }
        }
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let Self { inner, key, script } = *self;
        script.meet(format!("abort {key}"), inner.abort()).await
    }
}
