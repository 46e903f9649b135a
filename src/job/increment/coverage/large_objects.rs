//! The large objects: the stream does not have them, so an increment reads them whole if they changed.

use crate::error::Result;
use crate::job::backup::answered;
use crate::job::increment::context::Context;
use crate::repository::manifest::{CoverageState, ObjectsCoverage};
use crate::units::human_bytes;

/// Large objects up to this size are read in each increment.
const SMALL: u64 = 64 << 20;

/// What the increment has of them.
#[derive(Default)]
pub(super) struct CoveredObjects {
    /// `None`: there are none.
    pub coverage: Option<ObjectsCoverage>,
    /// Their fingerprint, if it is known and they are in a backup.
    pub fingerprint: Option<String>,
}

impl CoveredObjects {
    /// They are not read, because the stream was not read to its end.
    pub async fn unread(context: &Context<'_>) -> Result<Self> {
        let tally = answered(context.job, context.source.session.large_object_tally()).await?;
        Ok(Self {
            coverage: tally.any.then(|| left("the stream was not read to its end")),
            fingerprint: None,
        })
    }

    /// Decides whether they are to be read. `before` is their fingerprint in the previous increment.
    pub async fn look(context: &Context<'_>, before: Option<&String>) -> Result<Self> {
        let session = &context.source.session;
        let tally = answered(context.job, session.large_object_tally()).await?;
        if !tally.any {
            return Ok(Self::default());
        }
        if tally.bytes > SMALL {
            let why = format!(
                "they have {}, more than the {} up to which increments read them",
                human_bytes(tally.bytes),
                human_bytes(SMALL)
            );
            return Ok(Self {
                coverage: Some(left(&why)),
                fingerprint: None,
            });
        }
        let fingerprint = answered(context.job, session.large_objects_fingerprint()).await?;
        let is_same = before.is_some() && before == fingerprint.as_ref();
        Ok(Self {
            coverage: Some(if is_same { same() } else { read() }),
            fingerprint,
        })
    }

    pub fn are_read(&self) -> bool {
        self.coverage
            .as_ref()
            .is_some_and(|one| one.state == CoverageState::Baseline)
    }

    pub fn postpone(&mut self, why: &str) {
        self.coverage = Some(left(why));
        self.fingerprint = None;
    }

    /// Compares them once more, at the end of the increment, if it has not read them.
    pub async fn look_again(&mut self, context: &Context<'_>) -> Result<()> {
        let Some(coverage) = self.coverage.as_mut().filter(|one| one.state == CoverageState::Exact) else {
            return Ok(());
        };
        let now = answered(context.job, context.source.session.large_objects_fingerprint()).await?;
        if now != self.fingerprint {
            *coverage = left("they changed while the increment was made; the next one reads them");
        }
        Ok(())
    }
}

fn read() -> ObjectsCoverage {
    ObjectsCoverage {
        state: CoverageState::Baseline,
        why: "the stream does not have large objects; an increment reads them whole if they changed".into(),
    }
}

fn same() -> ObjectsCoverage {
    ObjectsCoverage {
        state: CoverageState::Exact,
        why: "they are those of the increment that read them last: no page of them was written since".into(),
    }
}

fn left(why: &str) -> ObjectsCoverage {
    ObjectsCoverage {
        state: CoverageState::FullOnly,
        why: format!("the stream does not have large objects: {why}"),
    }
}
