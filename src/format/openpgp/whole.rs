//! Reads a whole message, and compares the SHA-1 at its end.

use std::io::{self, Read, Write};

use sha1::{Digest, Sha1};

use super::cfb::{BLOCK, Decrypted};
use super::error::MessageError;
use super::joined::{Joined, expect};
use super::layout::{DIGEST_START, LITERAL_START, Layout, PREFIX, VERSION};
use super::session_key::SessionKey;

/// Writes the content to `into`, before it is known whether the message is whole: as gpg does. The head is passed over.
pub fn check(layout: &Layout, key: &SessionKey, message: impl Read, into: &mut impl Write) -> io::Result<()> {
    let mut message = message;
    let head = io::copy(&mut (&mut message).take(layout.head()), &mut io::sink())?;
    if head != layout.head() {
        return Err(MessageError::Cut.into());
    }
    let mut outer = Joined::whole(message, layout.outer());
    let mut version = [0; VERSION as usize];
    outer.read_exact(&mut version)?;
    if version != [1] {
        return Err(MessageError::Version(version[0]).into());
    }
    let mut digested = Digested {
        source: Decrypted::from_start(outer, key),
        sha1: Sha1::new(),
    };
    let mut prefix = [0; PREFIX as usize];
    digested.read_exact(&mut prefix)?;
    if !is_prefix(&prefix) {
        return Err(MessageError::Prefix.into());
    }
    let mut literal = Joined::whole(digested, layout.inner());
    expect(&mut literal, &LITERAL_START)?;
    io::copy(&mut literal, into)?;
    let mut digested = literal.end()?;
    expect(&mut digested, &DIGEST_START)?;
    let Digested { mut source, sha1 } = digested;
    let mut digest = [0; 20];
    source.read_exact(&mut digest)?;
    if sha1.finalize()[..] != digest {
        return Err(MessageError::Damaged.into());
    }
    let mut after = source.into_source().end()?;
    match after.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(MessageError::Rest.into()),
    }
}

/// Whether the last two bytes are those before them again.
pub(super) fn is_prefix(prefix: &[u8; PREFIX as usize]) -> bool {
    prefix[BLOCK - 2..BLOCK] == prefix[BLOCK..]
}

struct Digested<R> {
    source: R,
    sha1: Sha1,
}

impl<R: Read> Read for Digested<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(into)?;
        self.sha1.update(&into[..count]);
        Ok(count)
    }
}
