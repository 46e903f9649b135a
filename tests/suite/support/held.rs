//! A database whose tables are held, and can be read in several streams.

use std::sync::Arc;

use pgstow::dataflow::parallel::{self, Opening, ReadRequest, Streams};
use pgstow::postgres::{ConnectionInfo, Hold, Passfile, Programs, Session, Snapshot, Taken};
use pgstow::settings::Postgres;

use super::database::Database;
use super::services::postgres_settings;

pub struct Held {
    pub settings: Postgres,
    pub session: Session,
    pub programs: Programs,
    pub passfile: Option<Arc<Passfile>>,
    pub snapshot: Snapshot,
}

impl Held {
    /// With streams that may read so many bytes ahead.
    pub async fn open(database: &Database, jobs: usize, read_ahead: u64) -> (Self, Box<Streams>) {
        let settings = postgres_settings(database.major);
        let info = ConnectionInfo::parse_url(&database.url()).unwrap();
        let session = Session::connect(&info, &settings).await.unwrap();
        let programs = Programs::find(database.major, &settings).await.unwrap();
        let passfile = Passfile::create(&settings.temp, session.info()).unwrap();
        let Taken::Held(hold, snapshot) = Hold::take(&session, settings.lock_wait).await.unwrap() else {
            panic!("the tables cannot be held");
        };
        let held = Self {
            settings,
            session,
            programs,
            passfile: passfile.map(Arc::new),
            snapshot,
        };
        let request = ReadRequest {
            session: &held.session,
            programs: &held.programs,
            passfile: held.passfile.as_ref(),
            snapshot: &held.snapshot.id,
            jobs,
            read_ahead,
            settings: &held.settings,
        };
        let streams = match parallel::open(&request, hold).await.unwrap() {
            Opening::Streams(streams) => streams,
            Opening::Crossed(why) | Opening::OneStream(why) => panic!("no streams: {why}"),
        };
        (held, streams)
    }
}
