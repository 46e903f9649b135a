//! Base rows in, rows of the moment out.

use std::sync::Arc;

use super::images::Image;
use super::keyed::{Keyed, Met};
use super::net::Rows;
use super::whole::Whole;
use super::{FoldError, Net, text};

/// One pass over the rows of a table. The net effect itself does not change, so that a table can be read again.
#[derive(Debug)]
pub struct Rewriter {
    net: Arc<Net>,
    /// By the number of the entry: which base rows were met.
    met: Vec<bool>,
    /// By the number of the weight: how many base rows were dropped.
    dropped: Vec<u64>,
    key: Vec<u8>,
    row: Vec<u8>,
    written: u64,
}

impl Rewriter {
    pub fn new(net: Arc<Net>) -> Self {
        let (met, dropped) = match &net.rows {
            Rows::Keyed(keyed) => (vec![false; keyed.entries().len()], Vec::new()),
            Rows::Whole(whole) => (Vec::new(), vec![0; whole.weights().len()]),
            Rows::Appended { .. } => (Vec::new(), Vec::new()),
        };
        Self {
            net,
            met,
            dropped,
            key: Vec::new(),
            row: Vec::new(),
            written: 0,
        }
    }

    /// Takes one row of the base, without its newline, and puts what becomes of it at the end of `out`.
    pub fn row(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), FoldError> {
        let net = Arc::clone(&self.net);
        if net.is_emptied() {
            return Ok(());
        }
        match &net.rows {
            Rows::Keyed(keyed) => self.by_key(&net, keyed, line, out),
            Rows::Whole(whole) => {
                if let Some((number, weight)) = whole.meet(line)
                    && self.dropped[number as usize] < weight.taken
                {
                    self.dropped[number as usize] += 1;
                    return Ok(());
                }
                self.put(line, out);
                Ok(())
            }
            Rows::Appended { .. } => {
                self.put(line, out);
                Ok(())
            }
        }
    }

    fn by_key(&mut self, net: &Net, keyed: &Keyed, line: &[u8], out: &mut Vec<u8>) -> Result<(), FoldError> {
        if !text::key(line, &keyed.columns, &mut self.key) {
            return Err(FoldError::Base("a row has fewer columns than its table".into()));
        }
        match keyed.meet(&self.key) {
            Met::Untouched => self.put(line, out),
            Met::Added => {
                return Err(FoldError::Base("a row that was added later is in the backup already".into()));
            }
            Met::Changed(number, entry) => {
                if std::mem::replace(&mut self.met[number as usize], true) {
                    return Err(FoldError::Base("two rows have the same key".into()));
                }
                let Some(image) = &entry.row else { return Ok(()) };
                if !entry.partial {
                    return self.put_image(net, image, out);
                }
                self.row.clear();
                net.memory.read(image, &mut self.row)?;
                if text::columns(line) != net.columns() || text::merge(&self.row, line, |_| true, out) {
                    return Err(FoldError::Base("a row lacks a value that it should have".into()));
                }
                out.push(b'\n');
                self.written += 1;
            }
        }
        Ok(())
    }

    /// After the last base row: checks that every changed row was met. Then come the added rows, of which `out` gets a
    /// batch at a time, and is emptied by `full`.
    pub fn finish<E: From<FoldError>>(
        mut self,
        out: &mut Vec<u8>,
        mut full: impl FnMut(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let net = Arc::clone(&self.net);
        self.all_met(&net)?;
        match &net.rows {
            Rows::Keyed(keyed) => {
                for entry in keyed.added() {
                    if entry.partial {
                        return Err(FoldError::Changes("an added row lacks a value".into()).into());
                    }
                    if let Some(image) = &entry.row {
                        self.put_image(&net, image, out)?;
                    }
                    full(out)?;
                }
            }
            Rows::Whole(whole) => self.added_whole(&net, whole, out, &mut full)?,
            Rows::Appended { rows, .. } => {
                for image in rows {
                    self.put_image(&net, image, out)?;
                    full(out)?;
                }
            }
        }
        Ok(self.written)
    }

    fn added_whole<E: From<FoldError>>(
        &mut self,
        net: &Net,
        whole: &Whole,
        out: &mut Vec<u8>,
        full: &mut impl FnMut(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        for weight in whole.weights() {
            let Some(image) = &weight.row else { continue };
            for _ in 0..weight.added {
                self.put_image(net, image, out)?;
                full(out)?;
            }
        }
        Ok(())
    }

    fn all_met(&self, net: &Net) -> Result<(), FoldError> {
        let missing = match &net.rows {
            Rows::Keyed(keyed) => {
                let entries = keyed.entries().iter().zip(&self.met);
                entries.filter(|(entry, met)| entry.from_base && !**met).count() as u64
            }
            Rows::Whole(whole) => {
                let weights = whole.weights().iter().zip(&self.dropped);
                weights.map(|(weight, dropped)| weight.taken - dropped).sum()
            }
            Rows::Appended { .. } => 0,
        };
        if missing == 0 {
            return Ok(());
        }
        Err(FoldError::Base(format!("{missing} of the changed rows are not in it")))
    }

    fn put(&mut self, line: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(line);
        out.push(b'\n');
        self.written += 1;
    }

    fn put_image(&mut self, net: &Net, image: &Image, out: &mut Vec<u8>) -> Result<(), FoldError> {
        net.memory.read(image, out)?;
        out.push(b'\n');
        self.written += 1;
        Ok(())
    }
}
