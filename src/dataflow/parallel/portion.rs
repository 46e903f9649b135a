//! What goes from those who read to the one who writes.

use super::read_ahead::Room;

/// A stretch of COPY text of one task, and where in it its reads end.
#[derive(Debug, Default)]
pub struct Portion {
    pub text: Vec<u8>,
    pub ends: Vec<End>,
    /// Given back when the portion is.
    pub room: Option<Room>,
}

/// A COPY's end: so many bytes into the portion, and so many rows by the server's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub at: usize,
    pub rows: u64,
}

impl Portion {
    pub fn end(&mut self, rows: u64) {
        let at = self.text.len();
        self.ends.push(End { at, rows });
    }
}

#[derive(Debug)]
pub enum Event {
    Portion(Portion),
    /// The next read is for the holder: somebody waits for the table's lock.
    Locked,
}
