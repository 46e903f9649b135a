//! Content that several stored objects make up: most of it is a file's own, and some is in another object.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::Content;
use crate::store::Store;
use crate::store::reading::Reading;

/// How many stretches are requested before their turn: a small one costs a round trip.
const AHEAD: usize = 3;

/// Where some of the content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In the file itself, from this offset.
    Own(u64),
    /// In the other object, from this offset.
    Other(u64),
    /// Nowhere in the store: these bytes.
    Bytes(Bytes),
}

/// The content from `at` to the next stretch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    pub at: u64,
    pub source: Source,
}

/// Where all of the content is, in order and without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assembly {
    /// The key of the other object.
    other: String,
    stretches: Vec<Stretch>,
    end: u64,
}

impl Assembly {
    pub fn with(other: String) -> Self {
        Self {
            other,
            ..Self::default()
        }
    }

    /// Appends content. What continues the stretch before in the same object becomes part of it.
    pub fn push(&mut self, source: Source, length: u64) {
        let at = self.end;
        self.end = self.end.saturating_add(length);
        let continues = self.stretches.last().is_some_and(|last| match (&last.source, &source) {
            (Source::Own(from), Source::Own(next)) | (Source::Other(from), Source::Other(next)) => {
                from.saturating_add(at - last.at) == *next
            }
            _ => false,
        });
        if !continues && length > 0 {
            self.stretches.push(Stretch { at, source });
        }
    }

    /// The stretch that holds this byte.
    fn holding(&self, at: u64) -> usize {
        self.stretches
            .partition_point(|stretch| stretch.at <= at)
            .saturating_sub(1)
    }

    /// The place of this content in its own object. The content must be in one stretch.
    pub(super) fn stored(&self, content: &Range<u64>) -> Range<u64> {
        let Some(stretch) = self.stretches.get(self.holding(content.start)) else {
            return content.clone();
        };
        let from = match stretch.source {
            Source::Own(from) | Source::Other(from) => from,
            Source::Bytes(_) => return content.clone(),
        };
        let start = from.saturating_add(content.start.saturating_sub(stretch.at));
        start..start.saturating_add(content.end - content.start)
    }

    /// The parts of this content, in order: each in one stretch.
    fn parts(&self, content: &Range<u64>) -> VecDeque<Part> {
        let mut parts = VecDeque::new();
        for index in self.holding(content.start)..self.stretches.len() {
            let Stretch { at, source } = &self.stretches[index];
            let end = self.stretches.get(index + 1).map_or(self.end, |next| next.at);
            let (start, end) = (content.start.max(*at), content.end.min(end));
            if start >= end {
                continue;
            }
            let (skipped, length) = (start - at, end - start);
            parts.push_back(match source {
                Source::Own(from) => Part::Own(from + skipped..from + skipped + length),
                Source::Other(from) => Part::Other(from + skipped..from + skipped + length),
                Source::Bytes(bytes) => {
                    let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(bytes.len());
                    let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len() - skipped);
                    Part::Bytes(bytes.slice(skipped..skipped + length))
                }
            });
        }
        parts
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Own(Range<u64>),
    Other(Range<u64>),
    Bytes(Bytes),
}

/// Reads the parts one after the other, and requests a few ahead of their turn.
pub(super) struct Assembling {
    store: Arc<dyn Store>,
    own_key: String,
    other_key: String,
    /// The file's own bytes, if the caller reads them.
    own: Option<Content>,
    parts: VecDeque<Part>,
    begun: VecDeque<Begun>,
    /// Requests are made in this runtime, from the thread that reads.
    runtime: Handle,
}

enum Begun {
    Reading(Content),
    /// As many bytes of what the caller reads.
    Given(u64),
}

impl Assembling {
    /// In a tokio runtime. `own` gives the file's own bytes in order; without it they are requested.
    pub(super) fn begin(
        assembly: &Assembly,
        (store, own_key): (&Arc<dyn Store>, &str),
        content: &Range<u64>,
        own: Option<Content>,
        runtime: Handle,
    ) -> Self {
        let mut assembling = Self {
            store: Arc::clone(store),
            own_key: own_key.to_owned(),
            other_key: assembly.other.clone(),
            own,
            parts: assembly.parts(content),
            begun: VecDeque::new(),
            runtime,
        };
        assembling.ask();
        assembling
    }

    fn ask(&mut self) {
        let _entered = self.runtime.enter();
        while self.begun.len() < AHEAD {
            let Some(part) = self.parts.pop_front() else { return };
            let reading = |key: &str, range: Range<u64>| {
                let reading = Reading::start(Arc::clone(&self.store), key.to_owned(), range);
                Begun::Reading(Box::new(reading.into_blocking()))
            };
            self.begun.push_back(match part {
                Part::Own(range) if self.own.is_some() => Begun::Given(range.end - range.start),
                Part::Own(range) => reading(&self.own_key, range),
                Part::Other(range) => reading(&self.other_key, range),
                Part::Bytes(bytes) => Begun::Reading(Box::new(io::Cursor::new(bytes))),
            });
        }
    }
}

impl Read for Assembling {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = match self.begun.front_mut() {
                None => return Ok(0),
                Some(Begun::Reading(reading)) => reading.read(buffer)?,
                Some(Begun::Given(0)) => 0,
                Some(Begun::Given(left)) => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    let own = self.own.as_mut().map_or(Ok(0), |own| own.read(&mut buffer[..most]))?;
                    *left -= own as u64;
                    if own == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    own
                }
            };
            if count > 0 {
                return Ok(count);
            }
            self.begun.pop_front();
            self.ask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembly() -> Assembly {
        let mut assembly = Assembly::with("other".to_owned());
        assembly.push(Source::Own(0), 100);
        assembly.push(Source::Own(100), 20);
        assembly.push(Source::Other(500), 30);
        assembly.push(Source::Other(530), 10);
        assembly.push(Source::Bytes(Bytes::from_static(b"abcdef")), 6);
        assembly.push(Source::Other(700), 4);
        assembly.push(Source::Own(120), 10);
        assembly
    }

    #[test]
    fn content_is_found_in_its_object() {
        let assembly = assembly();
        assert_eq!(assembly.stretches.len(), 5);
        assert_eq!(assembly.stored(&(0..120)), 0..120);
        assert_eq!(assembly.stored(&(125..160)), 505..540);
        assert_eq!(assembly.stored(&(166..170)), 700..704);
        assert_eq!(assembly.stored(&(171..180)), 121..130);
    }

    #[test]
    fn any_content_is_the_parts_that_make_it_up() {
        let assembly = assembly();
        assert_eq!(assembly.parts(&(0..0)), []);
        assert_eq!(
            assembly.parts(&(110..125)),
            [Part::Own(110..120), Part::Other(500..505)]
        );
        assert_eq!(
            assembly.parts(&(159..172)),
            [
                Part::Other(539..540),
                Part::Bytes(Bytes::from_static(b"abcdef")),
                Part::Other(700..704),
                Part::Own(120..122)
            ]
        );
        assert_eq!(assembly.parts(&(162..164)), [Part::Bytes(Bytes::from_static(b"cd"))]);
        assert_eq!(assembly.parts(&(170..999)), [Part::Own(120..130)]);
    }
}
