//! Placeholder of the `faces` branch: the bare signatures that the faces call. The real one
//! replaces this file when the branches are merged.

use std::sync::Arc;

use crate::command::Command;
use crate::error::{Error, Result};
use crate::progress::Observer;
use crate::report::Report;
use crate::settings::Settings;
use crate::stop::Stop;

pub struct App {
    settings: Settings,
}

impl App {
    #[allow(clippy::unused_async)]
    pub async fn new(settings: Settings) -> Result<App> {
        Ok(App { settings })
    }

    #[allow(clippy::unused_async, clippy::needless_pass_by_value)]
    pub async fn run(&self, command: Command, _stop: Stop, _observer: Arc<dyn Observer>) -> Result<Report> {
        Err(Error::internal(format!(
            "{command:?} for {:?}: the faces branch has no jobs",
            self.settings.stores
        )))
    }
}
