//! OpenPGP messages that stock gpg decrypts, and of which any part can be read alone.
//!
//! ```text
//! message = head (4096 bytes) ‖ D2 ‖ body in pieces of 64 KiB, each after its length
//! body    = 01 ‖ CFB(prefix ‖ literal packet ‖ D3 14 SHA-1)
//! literal = CB ‖ ('b' 00 00000000 ‖ content) in pieces of 64 KiB, each after its length
//! ```
//!
//! The head holds the session key, encrypted once for each reader, and a padding packet. It has one length, so new
//! readers can be written in its place. The body is a packet of RFC 4880 (tag 18, AES-256). The pieces have one
//! size, so [`Layout`] computes where each byte of the content is stored; for the last pieces it needs the content's
//! length. CFB needs only the 16 bytes before a block to decrypt it.
//!
//! The integrity of a *part* is not the message's own matter: OpenPGP's SHA-1 covers the whole, and comes last. The
//! caller compares a digest of the stored bytes before it passes on what [`PartReader`] returns.

mod cfb;
mod cut;
mod error;
mod head;
mod joined;
mod layout;
mod packet;
mod passphrase;
mod reader;
mod recipient;
mod secret_key;
mod session_key;
mod start;
mod whole;
mod writer;

pub use error::{KeyError, MessageError, OpenError};
pub use head::Head;
pub use layout::{Layout, Shape};
pub use packet::SessionKeyPacket;
pub use passphrase::Passphrase;
pub use reader::PartReader;
pub use recipient::Recipient;
pub use secret_key::SecretKey;
pub use session_key::SessionKey;
pub use start::Start;
pub use whole::check;
pub use writer::{Side, Writer, Written};
