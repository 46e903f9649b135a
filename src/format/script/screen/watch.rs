//! Reports the content of a script while the screen reads it.

use super::Screened;

/// Gets the content of a script. If it returns an error, the screen refuses the script for that reason.
pub trait Watch {
    /// Whether it needs the content at all.
    const WATCHES: bool = true;
    /// How many bytes of a statement are kept for it. Of a longer statement it gets the start.
    const KEEPS: usize;

    /// A comment between statements, from its dashes to the end of the line.
    fn comment(&mut self, text: &[u8]) -> Screened;

    /// A statement with its semicolon. `whole` is false if it was too long.
    fn statement(&mut self, sql: &[u8], whole: bool) -> Screened;

    /// A `COPY … FROM stdin;`, whose rows begin at the byte `at` of the script.
    fn rows_begin(&mut self, sql: &[u8], at: u64) -> Screened;

    /// Some bytes of the rows. In the end all of them have come, with the line that ends them.
    fn rows(&mut self, bytes: &[u8]);

    fn rows_end(&mut self) -> Screened;
}

/// For a script that is only checked.
impl Watch for () {
    const WATCHES: bool = false;
    const KEEPS: usize = 0;

    fn comment(&mut self, _text: &[u8]) -> Screened {
        Ok(())
    }

    fn statement(&mut self, _sql: &[u8], _whole: bool) -> Screened {
        Ok(())
    }

    fn rows_begin(&mut self, _sql: &[u8], _at: u64) -> Screened {
        Ok(())
    }

    fn rows(&mut self, _bytes: &[u8]) {}

    fn rows_end(&mut self) -> Screened {
        Ok(())
    }
}

/// The bytes that are kept until the watcher gets them.
#[derive(Debug)]
pub(super) struct Watching<W> {
    watch: W,
    /// The bytes since the last statement or comment that the watcher got.
    kept: Vec<u8>,
    whole: bool,
    /// Where in this piece the rows begin that the watcher has not got.
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

    /// A comment within a statement is a part of that statement.
    pub fn comment_ends(&mut self, between: bool) -> Screened {
        if !between {
            return Ok(());
        }
        let told = self.watch.comment(self.kept.trim_ascii_end());
        self.forget();
        told
    }

    pub fn statement_ends(&mut self, is_copy: bool) -> Screened {
        // `rows_begin` reports a COPY.
        if is_copy {
            return Ok(());
        }
        let told = self.watch.statement(&self.kept, self.whole);
        self.forget();
        told
    }

    /// Rows begin at `from` of this piece, which is `at` in the script.
    pub fn rows_begin(&mut self, from: usize, at: u64) -> Screened {
        self.rows_from = Some(from);
        let told = match self.whole {
            true => self.watch.rows_begin(&self.kept, at),
            false => Err("has a COPY that is too long".into()),
        };
        self.forget();
        told
    }

    /// Rows end with the last byte of this piece.
    pub fn rows_end(&mut self, piece: &[u8]) -> Screened {
        let from = self.rows_from.take().unwrap_or(0);
        self.watch.rows(&piece[from..]);
        self.watch.rows_end()
    }

    /// A new piece begins.
    pub fn piece(&mut self, within_rows: bool) {
        self.rows_from = within_rows.then_some(0);
    }

    pub fn piece_ends(&mut self, piece: &[u8]) -> Screened {
        if W::WATCHES
            && let Some(from) = self.rows_from
        {
            self.watch.rows(&piece[from..]);
        }
        Ok(())
    }
}
