//! The commands that an event may ask for. Often more people may send events than may restore.

use crate::command::Command;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Whether the settings let an event ask for this.
pub(super) fn of_event(command: &Command, settings: &Settings) -> Result<()> {
    match command {
        Command::Restore(_) if !settings.allow_restore => Err(Error::config(
            "this function refuses restore events: BACKUP_ALLOW_RESTORE is not true",
        )
        .hint("restore with the command line, or set BACKUP_ALLOW_RESTORE=true and BACKUP_TARGET_SECRET_ID")),
        Command::Verify(request) if request.drill && !settings.allow_drill => Err(Error::config(
            "this function refuses drills, which run functions of the database: BACKUP_ALLOW_DRILL is false",
        )
        .hint(
            "send the event to the function that drills and may not read the database's secret (the output \
             DrillFunction of the template, drill_function_name of the Terraform module); or set \
             BACKUP_ALLOW_DRILL=true",
        )),
        _ => Ok(()),
    }
}
