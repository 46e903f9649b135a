//! pgstow from Rust: makes a backup and follows its events, lists it, verifies it, and restores it into another database.
//!
//! ```text
//! cargo run --example round_trip -- postgres://postgres@localhost/shop postgres://postgres@localhost/copy ./backups
//! ```

#![allow(clippy::print_stdout)]

use std::sync::Arc;

use pgstow::{
    App, BackupRequest, Command, Error, Event, Input, Observer, Report, RestoreRequest, Result, Settings, Stop,
    VerifyRequest, VerifySelection,
};

struct Printing;

impl Observer for Printing {
    fn event(&self, event: &Event) {
        println!("{event:?}");
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, target, store] = &arguments[..] else {
        return Err(Error::config("give the source's URL, the target's URL, and the store"));
    };
    let mut input = Input::of_this_process()?;
    for (name, value) in [
        ("DATABASE_URL", source),
        ("BACKUP_TARGET_URL", target),
        ("BACKUP_STORE", store),
    ] {
        input.env.insert(name.into(), value.clone());
    }
    for report in round_trip(&input).await? {
        println!("{}", report.text());
    }
    Ok(())
}

pub async fn round_trip(input: &Input) -> Result<Vec<Report>> {
    let app = App::new(Settings::load(input)?).await?;
    let latest = || "latest".to_owned();
    let commands = [
        Command::Backup(BackupRequest::default()),
        Command::List { database: None },
        Command::Verify(VerifyRequest::of(VerifySelection::One(latest()))),
        Command::Restore(RestoreRequest {
            backup: latest(),
            ..RestoreRequest::default()
        }),
    ];
    let mut reports = Vec::new();
    for command in commands {
        reports.push(app.run(command, Stop::new(), Arc::new(Printing)).await?);
    }
    Ok(reports)
}
