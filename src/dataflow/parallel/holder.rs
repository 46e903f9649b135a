//! The session that locks every table ([`Hold`](crate::postgres::Hold)) until the end: so no other session can empty,
//! rewrite or drop a table that a worker has still to read. The snapshot would not show that; the table would just
//! look empty.
//!
//! A worker's own lock may have to wait behind another session that waits for the holder's lock. PostgreSQL sees no
//! deadlock in that, since the holder waits for nothing. So a worker stops waiting after a moment, and the holder,
//! which has the lock already, reads the table.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::Shared;
use super::plan::Facts;
use super::portion::{Portion, PortionEvent};
use crate::dataflow::compress::PIECE;
use crate::error::{Code, Error, Result};
use crate::postgres::{READ, Refusal, Rows, TABLES, Wire};

/// The first server with Tid Range Scan.
const PAGES_SINCE: u32 = 14;

/// The tables for which a query may be planned. A COPY of a whole table runs no code of the table's owner. Planning a
/// query does: the planner evaluates constants in the expressions of indexes and statistics, with the owner's
/// functions and pgstow's rights. So as superuser, pgstow plans only for its own tables and those of other
/// superusers, whatever the table has: its owner can add an index during the backup. As another role, pgstow plans if
/// those expressions have only PostgreSQL's own functions, operators and types.
const PLANNED: &str = "
    (NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
     OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = c.relowner AND (r.rolsuper OR r.rolname = current_user)))
    AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid
      WHERE i.indrelid = c.oid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
        AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
                             'pg_catalog.pg_type'::pg_catalog.regclass))
    AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_statistic_ext s
      JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND d.objid = s.oid
      WHERE s.stxrelid = c.oid AND s.stxexprs IS NOT NULL
        AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
                             'pg_catalog.pg_type'::pg_catalog.regclass))";

/// The facts about the tables, by OID, when all of them are locked.
pub async fn facts(wire: &mut Wire, major: u32) -> Result<HashMap<u32, Facts>> {
    let trusted = if major >= PAGES_SINCE { PLANNED } else { "false" };
    let question = format!(
        "SELECT c.oid, coalesce(pg_catalog.pg_relation_size(c.oid), 0),
                CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE coalesce(pg_catalog.pg_relation_size(c.reltoastrelid), 0) END,
                pg_catalog.current_setting('block_size'), am.amname = 'heap' AND {trusted},
                pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
         FROM {TABLES} AND c.relkind = 'r'"
    );
    let rows = wire.query(question.as_bytes()).await.map_err(Refusal::into_error)?;
    let mut facts = HashMap::with_capacity(rows.len());
    for row in &rows {
        let (Some(oid), Some(bytes), Some(beside), Some(page)) = (
            row.number::<u32>(0),
            row.number::<u64>(1),
            row.number::<u64>(2),
            row.number::<u64>(3),
        ) else {
            return Err(Error::internal("the server's answer about its tables cannot be parsed"));
        };
        let known = Facts {
            table: row.bytes(5).unwrap_or_default().to_vec(),
            pages: u32::try_from(bytes / page.max(1)).unwrap_or(u32::MAX),
            bytes: bytes + beside,
            has_pages: major >= PAGES_SINCE && row.text(4) == Some("t"),
            condition: None,
        };
        facts.insert(oid, known);
    }
    // The table of contents does not say which rows of an extension's tables are configuration.
    let question = "SELECT chosen.oid, chosen.condition FROM pg_catalog.pg_extension e CROSS JOIN LATERAL
                    ROWS FROM (pg_catalog.unnest(e.extconfig), pg_catalog.unnest(e.extcondition))
                    AS chosen (oid, condition) WHERE chosen.condition <> ''";
    let rows = wire.query(question.as_bytes()).await.map_err(Refusal::into_error)?;
    for row in &rows {
        if let Some(known) = row.number(0).and_then(|oid: u32| facts.get_mut(&oid)) {
            known.condition = row.bytes(1).map(<[u8]>::to_vec);
        }
    }
    Ok(facts)
}

/// The requests to the session while it holds the locks.
pub enum Request {
    /// A read that a worker could not make.
    Read {
        read: usize,
        events: mpsc::Sender<PortionEvent>,
    },
    /// All is read: release the locks. Answered when the server has confirmed that the session lasted to the end.
    LetGo { done: mpsc::Sender<PortionEvent> },
}

/// Holds the locks, and reads on request, until it is told to release them. If the session ends earlier, the backup
/// fails: the tables are not locked any more.
pub async fn serve(mut wire: Wire, shared: &Shared, mut requests: mpsc::Receiver<Request>) -> Result<()> {
    loop {
        let request = tokio::select! {
            request = requests.recv() => request,
            error = wire.ended() => return Err(lost_hold(&error)),
        };
        match request {
            None => return Ok(()),
            Some(Request::LetGo { done }) => {
                wire.execute(b"COMMIT")
                    .await
                    .map_err(|refusal| lost_hold(&refusal.into_error()))?;
                let _ = done.send(PortionEvent::Locked).await;
                return Ok(());
            }
            Some(Request::Read { read, events }) => {
                let mut statement = Vec::new();
                shared.plan.statement(read, &mut statement);
                let mut handing = Handing {
                    portion: Portion::default(),
                    events,
                    shared,
                    since_turn: 0,
                };
                wire.copy(&statement, &mut handing)
                    .await
                    .map_err(|refusal| refusal.of_reading(&format!("cannot read {}", shared.name(read))))?;
                handing.hand_on().await?;
            }
        }
    }
}

fn lost_hold(error: &Error) -> Error {
    let text = format!("the session that holds the tables has ended: {}", error.message());
    Error::new(Code::ConnErr, text).hint(error.hint_text().to_owned())
}

/// Rows for a writer that waits for them: two portions are enough, so they need no room to read ahead.
struct Handing<'a> {
    portion: Portion,
    events: mpsc::Sender<PortionEvent>,
    shared: &'a Shared,
    since_turn: usize,
}

impl Handing<'_> {
    async fn hand_on(&mut self) -> Result<()> {
        let portion = std::mem::take(&mut self.portion);
        self.events
            .send(PortionEvent::Portion(portion))
            .await
            .map_err(|_| Error::internal("the writer of a table's rows has ended"))
    }
}

impl Rows for Handing<'_> {
    fn text(&mut self, bytes: &[u8]) {
        self.portion.text.extend_from_slice(bytes);
        self.since_turn += bytes.len();
    }

    fn end(&mut self, rows: u64) {
        self.portion.end(rows);
    }

    async fn turn(&mut self) -> Result<()> {
        self.shared.turn(std::mem::take(&mut self.since_turn)).await;
        if self.portion.text.len() > PIECE - READ {
            self.hand_on().await?;
        }
        Ok(())
    }
}
