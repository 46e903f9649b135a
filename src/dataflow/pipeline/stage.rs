//! The optional stages between the framing and the seal, such as encryption. Each may change the bytes and their
//! number.
//!
//! The framing counts places in the file's *content*, the seal in the *stored* bytes. A [`Mark`](super::Mark) between
//! the bytes connects the two: it says where a range begins or ends. A stage passes a mark on between the stored
//! bytes to which it belongs. So only the stage needs to know how it arranges its bytes, and nothing is read twice or
//! kept.

use super::ended::Ended;
use super::passing::Passing;
use super::seal::{Seal, Sealed};

/// One pass, in memory that does not grow with the file.
pub trait Stage: Send {
    /// Takes bytes or a mark, and passes on what can be stored already.
    fn take(&mut self, passing: Passing, onward: &mut Onward<'_>) -> Result<(), Ended>;

    /// The input has ended: passes on the rest.
    fn end(&mut self, onward: &mut Onward<'_>) -> Result<(), Ended>;
}

/// The rest of the path after a stage: the later stages, and the seal.
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

/// All stages and the seal, as the framing uses them.
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

    /// Ends the stages in order, so that each stage gets the rest of the one before it ends. `content` is the number
    /// of bytes that the framing has passed in.
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
