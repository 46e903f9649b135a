//! A sum that is equal for the same rows, in any order of rows and columns.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The sum of the SHA-256 of every row: four numbers of 64 bits, each modulo 2^64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum([u64; 4]);

impl Sum {
    pub fn add(&mut self, row: &[u8]) {
        let digest = Sha256::digest(row);
        for (lane, bytes) in self.0.iter_mut().zip(digest.chunks_exact(8)) {
            let mut number = [0; 8];
            number.copy_from_slice(bytes);
            *lane = lane.wrapping_add(u64::from_le_bytes(number));
        }
    }

    pub fn merge(&mut self, other: Sum) {
        for (lane, more) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_add(more);
        }
    }
}

/// The sum of COPY text that comes in pieces. The fields of each row are put in the order of their columns' names.
#[derive(Debug)]
pub(crate) struct RowSum {
    /// The order in which the fields are taken; `None` if they are already in the order of the names.
    order: Option<Vec<usize>>,
    /// The start of a row that continues in the next piece.
    begun: Vec<u8>,
    row: Vec<u8>,
    /// The end of the rows has come. pg_dump puts empty lines behind it, which are no rows.
    ended: bool,
    sum: Sum,
}

impl RowSum {
    pub fn of(columns: &[Vec<u8>]) -> Self {
        let mut order: Vec<usize> = (0..columns.len()).collect();
        order.sort_by_key(|index| &columns[*index]);
        Self {
            order: Some(order).filter(|order| !order.is_sorted()),
            begun: Vec::new(),
            row: Vec::new(),
            ended: false,
            sum: Sum::default(),
        }
    }

    pub fn update(&mut self, mut text: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', text) {
            if self.begun.is_empty() {
                self.line(&text[..end]);
            } else {
                let mut begun = std::mem::take(&mut self.begun);
                begun.extend_from_slice(&text[..end]);
                self.line(&begun);
                begun.clear();
                self.begun = begun;
            }
            text = &text[end + 1..];
        }
        self.begun.extend_from_slice(text);
    }

    fn line(&mut self, line: &[u8]) {
        // The end of the rows. A row whose only text is `\.` has one more backslash.
        self.ended |= line == b"\\.";
        if self.ended {
            return;
        }
        let Some(order) = &self.order else {
            return self.sum.add(line);
        };
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
        if fields.len() != order.len() {
            return self.sum.add(line);
        }
        self.row.clear();
        for (number, index) in order.iter().enumerate() {
            if number > 0 {
                self.row.push(b'\t');
            }
            self.row.extend_from_slice(fields[*index]);
        }
        self.sum.add(&self.row);
    }

    pub fn finish(self) -> Sum {
        self.sum
    }
}
