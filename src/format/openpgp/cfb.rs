//! AES-256 in the mode CFB, as OpenPGP uses it: no resynchronisation, the first IV is zero.

use std::io::{self, Read};

use aes::Aes256;
use aes::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};

use super::error::MessageError;
use super::session_key::SessionKey;

pub(super) const BLOCK: usize = 16;
/// Decrypted at once.
const BUFFER: usize = 64 << 10;

fn cipher(key: &SessionKey) -> Aes256 {
    Aes256::new(key.expose().into())
}

pub(super) struct Encryptor(cfb_mode::Encryptor<Aes256>);

impl Encryptor {
    pub fn new(key: &SessionKey) -> Self {
        Self(cfb_mode::Encryptor::inner_iv_init(cipher(key), &Array::default()))
    }

    /// Encrypts the whole blocks at the beginning, and returns how many bytes these are.
    pub fn encrypt(&mut self, bytes: &mut [u8]) -> usize {
        let (blocks, _) = Array::slice_as_chunks_mut(bytes);
        self.0.encrypt_blocks(blocks);
        blocks.len() * BLOCK
    }

    /// Encrypts the last bytes, fewer than a block.
    pub fn encrypt_last(&mut self, bytes: &mut [u8]) {
        let mut block = Array::default();
        block[..bytes.len()].copy_from_slice(bytes);
        self.0.encrypt_block(&mut block);
        bytes.copy_from_slice(&block[..bytes.len()]);
    }
}

/// Decrypts what `source` gives.
pub(super) struct Decrypted<R> {
    source: R,
    state: State,
    buffer: Box<[u8]>,
    /// What of the buffer is decrypted and not yet returned.
    at: usize,
    end: usize,
}

enum State {
    /// The block before the content comes first.
    BeforeIv {
        cipher: Box<Aes256>,
        skip: usize,
    },
    Within(Box<cfb_mode::Decryptor<Aes256>>),
    Ended,
}

impl<R: Read> Decrypted<R> {
    /// `source` begins with a message's first block.
    pub fn from_start(source: R, key: &SessionKey) -> Self {
        let decryptor = cfb_mode::Decryptor::inner_iv_init(cipher(key), &Array::default());
        Self::new(source, State::Within(Box::new(decryptor)))
    }

    /// `source` begins with any block. It is not returned, and neither are `skip` bytes after it, fewer than a block.
    pub fn after_block(source: R, key: &SessionKey, skip: usize) -> Self {
        let cipher = Box::new(cipher(key));
        Self::new(source, State::BeforeIv { cipher, skip })
    }

    fn new(source: R, state: State) -> Self {
        Self {
            source,
            state,
            buffer: vec![0; BUFFER].into(),
            at: 0,
            end: 0,
        }
    }

    /// The source, when all has been returned that was wanted of it.
    pub fn into_source(self) -> R {
        self.source
    }

    fn fill(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => Ok(()),
            State::BeforeIv { cipher, skip } => {
                let mut iv = [0; BLOCK];
                if read_full(&mut self.source, &mut iv)? < BLOCK {
                    return Err(MessageError::Cut.into());
                }
                let decryptor = Box::new(cfb_mode::Decryptor::inner_iv_init(*cipher, &iv.into()));
                self.decrypt(decryptor)?;
                self.at = skip.min(self.end);
                Ok(())
            }
            State::Within(decryptor) => self.decrypt(decryptor),
        }
    }

    fn decrypt(&mut self, mut decryptor: Box<cfb_mode::Decryptor<Aes256>>) -> io::Result<()> {
        let filled = read_full(&mut self.source, &mut self.buffer)?;
        (self.at, self.end) = (0, filled);
        let (blocks, rest) = Array::slice_as_chunks_mut(&mut self.buffer[..filled]);
        decryptor.decrypt_blocks(blocks);
        if !rest.is_empty() {
            let mut block = Array::default();
            block[..rest.len()].copy_from_slice(rest);
            decryptor.decrypt_block(&mut block);
            rest.copy_from_slice(&block[..rest.len()]);
        }
        if filled == BUFFER {
            self.state = State::Within(decryptor);
        }
        Ok(())
    }
}

impl<R: Read> Read for Decrypted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end {
            self.fill()?;
        }
        let count = into.len().min(self.end - self.at);
        into[..count].copy_from_slice(&self.buffer[self.at..][..count]);
        self.at += count;
        Ok(count)
    }
}

/// Fills the buffer unless the source ends.
fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
