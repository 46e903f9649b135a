//! The positions of the sequences: the stream does not have them.

use super::context::Context;
use crate::error::Result;
use crate::job::backup::answered;
use crate::repository::manifest::SequenceState;
use crate::units::some_of;

/// The most names in a warning.
const NAMED: usize = 5;

/// Reads all sequences. Call it when the stream has been read: a sequence may be ahead of the rows, but never behind.
/// Also a warning, if the role may not read some of them.
pub(super) async fn read(context: &Context<'_>) -> Result<(Vec<SequenceState>, Option<String>)> {
    let readings = answered(context.job, context.source.session.sequence_readings()).await?;
    let states = readings.read.into_iter().map(|sequence| SequenceState {
        schema: sequence.schema,
        name: sequence.name,
        oid: sequence.oid,
        last_value: sequence.last_value,
        is_called: sequence.is_called,
        ascends: sequence.ascends,
    });
    let unreadable = &readings.unreadable;
    let warning = (!unreadable.is_empty()).then(|| {
        format!(
            "the role may not read these sequences, so the increment does not have their positions: {}; GRANT SELECT ON \
             SEQUENCE mends it",
            some_of(unreadable, NAMED)
        )
    });
    Ok((states.collect(), warning))
}
