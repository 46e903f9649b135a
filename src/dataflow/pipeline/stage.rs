//! The optional stages between the framing and the seal, such as encryption: each may change the
//! bytes and how many they are.
//!
//! The framing counts places in the file's *content*, the seal in what is *stored*. What ties the
//! two together travels among the bytes: a [`Mark`](super::Mark) where a range begins or ends. A stage sends a
//! mark on between the stored bytes to which it belongs, so it alone knows how it lays its bytes
//! out, and nothing is read twice or kept.

use super::ended::Ended;
use super::passing::Passing;
use super::seal::{Seal, Sealed};

/// One pass, in memory that does not grow with the file.
pub trait Stage: Send {
    /// Takes what comes, and hands on what can be stored already.
    fn take(&mut self, passing: Passing, onward: &mut Onward<'_>) -> Result<(), Ended>;

    /// No more comes: hands on the rest.
    fn end(&mut self, onward: &mut Onward<'_>) -> Result<(), Ended>;
}

/// What lies behind a stage: the stages after it, and the seal.
pub struct Onward<'a> {
    stages: &'a mut [Box<dyn Stage>],
    seal: &'a mut Seal,
}

impl Onward<'_> {
    pub fn pass(&mut self, passing: Passing) -> Result<(), Ended> {
        match self.stages.split_first_mut() {
            None => self.seal.take(passing),
            Some((next, stages)) => next.take(
                passing,
                &mut Onward {
                    stages,
                    seal: self.seal,
                },
            ),
        }
    }
}

/// All of it, as the framing sees it.
pub(super) struct Stages {
    stages: Vec<Box<dyn Stage>>,
    seal: Seal,
}

impl Stages {
    pub(super) fn new(stages: Vec<Box<dyn Stage>>, seal: Seal) -> Self {
        Self { stages, seal }
    }

    pub(super) fn pass(&mut self, passing: Passing) -> Result<(), Ended> {
        let Self { stages, seal } = self;
        Onward { stages, seal }.pass(passing)
    }

    /// Each stage ends in turn, so that the next takes its rest before it ends itself. `content` is how many bytes
    /// have come in.
    pub(super) fn end(self, content: u64) -> Result<Sealed, Ended> {
        let Self { mut stages, mut seal } = self;
        let mut rest = &mut stages[..];
        while let Some((stage, stages)) = rest.split_first_mut() {
            stage.end(&mut Onward {
                stages,
                seal: &mut seal,
            })?;
            rest = stages;
        }
        Ok(seal.close(content))
    }
}
