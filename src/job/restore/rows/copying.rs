//! What a table holds now: its rows, read with COPY and summed or counted.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{BlockCopy, regclass};
use crate::error::{Code, Error, Result};
use crate::format::archive::{BlockContent, BlockDigest};
use crate::format::script::{RowSum, Sum};
use crate::postgres::{Refusal, Rows, StallClock, Wire};

/// What a table holds.
#[derive(Debug)]
pub(in crate::job::restore) struct RowDigests {
    /// In the order in which the rows came.
    pub digest: BlockDigest,
    /// Independent of the order.
    pub sum: Sum,
}

/// Digests rows as they come from the server.
struct Summed {
    sum: RowSum,
    sha256: Sha256,
    bytes: u64,
    rows: u64,
    /// Runs while the server is asked for more rows.
    clock: StallClock,
}

impl Rows for Summed {
    fn text(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }
    fn end(&mut self, rows: u64) {
        self.rows += rows;
    }
    async fn turn(&mut self) -> Result<()> {
        self.clock.begin();
        Ok(())
    }
}

/// Counts rows.
struct Counted {
    rows: u64,
    clock: StallClock,
}

impl Rows for Counted {
    fn text(&mut self, _: &[u8]) {}
    fn end(&mut self, rows: u64) {
        self.rows += rows;
    }
    async fn turn(&mut self) -> Result<()> {
        self.clock.begin();
        Ok(())
    }
}

/// The plain tables that a place stands for, quoted. `None` if this role may read only the place itself. That needs a
/// COPY of a query, which the server plans: a planner evaluates code of the table's owner in index expressions. So it
/// is used only then.
async fn plain_tables(wire: &mut Wire, place: &[u8]) -> std::result::Result<Option<Vec<Vec<u8>>>, Refusal> {
    if let Some(table) = place.strip_prefix(b"ONLY ") {
        return Ok(Some(vec![table.to_vec()]));
    }
    let question = [
        b"SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), t.isleaf, \
          pg_catalog.has_table_privilege(t.relid, 'SELECT') FROM pg_catalog.pg_partition_tree(",
        &*regclass(place),
        b") t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relid \
          JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace ORDER BY 1",
    ]
    .concat();
    let tree = wire.query(&question).await?;
    if tree.is_empty() {
        return Ok(Some(vec![place.to_vec()]));
    }
    let leaves = tree.iter().filter(|row| row.text(1) == Some("t"));
    let readable = leaves.clone().all(|row| row.text(2) == Some("t"));
    let names = leaves.filter_map(|row| row.bytes(0)).map(<[u8]>::to_vec);
    Ok(readable.then(|| names.collect()))
}

/// What the table holds now, in the columns that the backup has. If the server sends no byte for `stall`, reading
/// fails.
pub(in crate::job::restore) async fn read_again(
    wire: &mut Wire,
    copy: &BlockCopy,
    stall: Duration,
) -> std::result::Result<RowDigests, Refusal> {
    let clock = StallClock::default();
    let mut rows = Summed {
        sum: RowSum::of(&copy.names),
        sha256: Sha256::new(),
        bytes: 0,
        rows: 0,
        clock: clock.clone(),
    };
    copy_out(wire, &copy.place, &copy.columns, (&clock, stall), &mut rows).await?;
    Ok(RowDigests {
        digest: BlockDigest {
            content: BlockContent::Table { rows: rows.rows },
            bytes: rows.bytes,
            sha256: rows.sha256.finalize().into(),
        },
        sum: rows.sum.finish(),
    })
}

/// Sets the output formats that pg_dump used for the backup's rows, and resets them to those of the database.
const PRINTING: [&str; 2] = [
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3; \
     SET bytea_output = 'hex'",
    "RESET TimeZone; RESET DateStyle; RESET IntervalStyle; RESET extra_float_digits; RESET bytea_output",
];

/// The same in a session that loads rows, with the settings restored afterwards. After a refusal they are not
/// restored here: ending the transaction or the savepoint does it.
pub(in crate::job::restore) async fn read_between(
    wire: &mut Wire,
    copy: &BlockCopy,
    stall: Duration,
) -> std::result::Result<RowDigests, Refusal> {
    let [printed, own] = PRINTING;
    wire.execute(printed.as_bytes()).await?;
    let seen = read_again(wire, copy, stall).await?;
    wire.execute(own.as_bytes()).await?;
    Ok(seen)
}

/// The number of rows, read by their first column.
pub(in crate::job::restore) async fn count(
    wire: &mut Wire,
    copy: &BlockCopy,
    stall: Duration,
) -> std::result::Result<u64, Refusal> {
    let clock = StallClock::default();
    let mut rows = Counted {
        rows: 0,
        clock: clock.clone(),
    };
    let column = copy.names.first().map_or_else(Vec::new, |name| {
        let doubled = name.iter().flat_map(|byte| match byte {
            b'"' => vec![b'"'; 2],
            byte => vec![*byte],
        });
        [b"\"", &*doubled.collect::<Vec<u8>>(), b"\""].concat()
    });
    copy_out(wire, &copy.place, &column, (&clock, stall), &mut rows).await?;
    Ok(rows.rows)
}

async fn copy_out(
    wire: &mut Wire,
    place: &[u8],
    columns: &[u8],
    (clock, stall): (&StallClock, Duration),
    rows: &mut impl Rows,
) -> std::result::Result<(), Refusal> {
    let mut statements = Vec::new();
    match plain_tables(wire, place).await? {
        Some(tables) => {
            let columns = match columns {
                [] => Vec::new(),
                columns => [b" (", columns, b")"].concat(),
            };
            statements.extend(
                tables
                    .iter()
                    .map(|table| [b"COPY ", &**table, &columns, b" TO STDOUT"].concat()),
            );
        }
        None => statements.push([b"COPY (SELECT ", columns, b" FROM ", place, b") TO STDOUT"].concat()),
    }
    for statement in statements {
        clock.begin();
        tokio::select! {
            biased;
            copied = wire.copy(&statement, rows) => copied?,
            () = clock.watch(stall) => {
                let what = format!("the server has given no byte of the rows for {} s", stall.as_secs());
                return Err(Error::new(Code::Stalled, what).into());
            }
        }
    }
    Ok(())
}
