//! What a script holds, told while it is looked through.

use super::Seen;

/// Is told what passes. An error refuses the script, for that reason.
pub trait Watch {
    /// Whether it wants to be told at all.
    const WATCHES: bool = true;
    /// So much of one statement is kept for it; of a longer one it gets the beginning.
    const KEEPS: usize;

    /// A comment between statements, from its dashes to its line's end.
    fn comment(&mut self, text: &[u8]) -> Seen;

    /// A statement with its semicolon; `whole` unless it was too long.
    fn statement(&mut self, sql: &[u8], whole: bool) -> Seen;

    /// A `COPY … FROM stdin;`, whose rows begin at this byte of the script.
    fn rows_begin(&mut self, sql: &[u8], at: u64) -> Seen;

    /// Some of the rows' bytes: all of them come, and with the last the line that ends them.
    fn rows(&mut self, bytes: &[u8]);

    fn rows_end(&mut self) -> Seen;
}

/// Nobody is told.
impl Watch for () {
    const WATCHES: bool = false;
    const KEEPS: usize = 0;

    fn comment(&mut self, _text: &[u8]) -> Seen {
        Ok(())
    }

    fn statement(&mut self, _sql: &[u8], _whole: bool) -> Seen {
        Ok(())
    }

    fn rows_begin(&mut self, _sql: &[u8], _at: u64) -> Seen {
        Ok(())
    }

    fn rows(&mut self, _bytes: &[u8]) {}

    fn rows_end(&mut self) -> Seen {
        Ok(())
    }
}

/// What is kept until it is told.
#[derive(Debug)]
pub(super) struct Watching<W> {
    watch: W,
    /// Since the last statement or comment that was told.
    kept: Vec<u8>,
    whole: bool,
    /// Where in this piece the rows begin that have not been told.
    rows_from: Option<usize>,
}

impl<W: Watch> Watching<W> {
    pub fn new(watch: W) -> Self {
        Self {
            watch,
            kept: Vec::new(),
            whole: true,
            rows_from: None,
        }
    }

    pub fn into_inner(self) -> W {
        self.watch
    }

    pub fn keep(&mut self, bytes: &[u8]) {
        let bytes = match self.kept.is_empty() {
            true => bytes.trim_ascii_start(),
            false => bytes,
        };
        let room = W::KEEPS.saturating_sub(self.kept.len());
        self.whole &= bytes.len() <= room;
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    pub fn forget(&mut self) {
        self.kept.clear();
        self.whole = true;
    }

    /// Within a statement it is a part of that.
    pub fn comment_ends(&mut self, between: bool) -> Seen {
        if !between {
            return Ok(());
        }
        let told = self.watch.comment(self.kept.trim_ascii_end());
        self.forget();
        told
    }

    pub fn statement_ends(&mut self, is_copy: bool) -> Seen {
        // That one is told with its rows.
        if is_copy {
            return Ok(());
        }
        let told = self.watch.statement(&self.kept, self.whole);
        self.forget();
        told
    }

    /// At `from` of this piece, which is `at` in the script.
    pub fn rows_begin(&mut self, from: usize, at: u64) -> Seen {
        self.rows_from = Some(from);
        let told = match self.whole {
            true => self.watch.rows_begin(&self.kept, at),
            false => Err("has a COPY of endless length".into()),
        };
        self.forget();
        told
    }

    /// With the last byte of this piece.
    pub fn rows_end(&mut self, piece: &[u8]) -> Seen {
        let from = self.rows_from.take().unwrap_or(0);
        self.watch.rows(&piece[from..]);
        self.watch.rows_end()
    }

    /// A new piece comes.
    pub fn piece(&mut self, within_rows: bool) {
        self.rows_from = within_rows.then_some(0);
    }

    pub fn piece_ends(&mut self, piece: &[u8]) -> Seen {
        if W::WATCHES
            && let Some(from) = self.rows_from
        {
            self.watch.rows(&piece[from..]);
        }
        Ok(())
    }
}
