//! What the readers send to the writer.

use super::read_ahead::Room;

/// A part of one task's COPY text, and where in it its reads end.
#[derive(Debug, Default)]
pub struct Portion {
    pub text: Vec<u8>,
    pub ends: Vec<End>,
    /// Released with the portion.
    pub room: Option<Room>,
}

/// The end of a COPY: its offset in the portion, and the number of rows that the server counted.
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
pub enum PortionEvent {
    Portion(Portion),
    /// The holder must make the next read: another session waits for the table's lock.
    Locked,
}
