//! A plain script as it is stored, decompressed piece by piece. Verify, restore and drill read it here.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use super::manifest::CompressionAlgorithm;

/// The size of a piece of the decompressed script.
pub const PIECE: usize = 1 << 20;
/// pgstow's frames hold 2 MiB; see [`crate::format::archive::Unpack`].
const ZSTD_WINDOW_LOG: u32 = 24;

/// Why a script was not read to its end.
#[derive(Debug)]
pub enum Unread<E> {
    /// The script could not be read or does not decompress.
    Stored(io::Error),
    /// The receiver of the pieces failed.
    Taken(E),
}

/// Gives out pieces of [`PIECE`] bytes; the last one is shorter. Returns how many bytes came, and ends one byte past
/// `limit`: this shows that there is more, however much would follow.
pub fn unpack<E>(
    algorithm: CompressionAlgorithm,
    stored: impl Read,
    limit: u64,
    take: impl FnMut(Vec<u8>) -> Result<(), E>,
) -> Result<u64, Unread<E>> {
    match algorithm {
        CompressionAlgorithm::None => pieces(stored, limit, take),
        CompressionAlgorithm::Gzip => pieces(MultiGzDecoder::new(stored), limit, take),
        CompressionAlgorithm::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(stored).map_err(Unread::Stored)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(Unread::Stored)?;
            pieces(decoder, limit, take)
        }
    }
}

fn pieces<E>(script: impl Read, limit: u64, mut take: impl FnMut(Vec<u8>) -> Result<(), E>) -> Result<u64, Unread<E>> {
    let mut script = script.take(limit.saturating_add(1));
    let mut found = 0;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = Read::by_ref(&mut script).take(PIECE as u64).read_to_end(&mut piece);
        read.map_err(Unread::Stored)?;
        if piece.is_empty() {
            return Ok(found);
        }
        found += piece.len() as u64;
        take(piece).map_err(Unread::Taken)?;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Write;

    use super::*;

    fn script() -> Vec<u8> {
        (0..PIECE + 5).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    fn lengths(algorithm: CompressionAlgorithm, stored: &[u8], limit: u64) -> (u64, Vec<usize>) {
        let mut lengths = Vec::new();
        let found = unpack(algorithm, stored, limit, |piece| {
            lengths.push(piece.len());
            Ok::<_, Infallible>(())
        });
        (found.unwrap(), lengths)
    }

    #[test]
    fn a_script_comes_in_pieces_however_it_is_stored() {
        let script = script();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&script[..100]).unwrap();
        let mut members = gzip.finish().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&script[100..]).unwrap();
        members.extend(gzip.finish().unwrap());
        let zstd = zstd::encode_all(&script[..], 1).unwrap();
        for (algorithm, stored) in [
            (CompressionAlgorithm::None, &script),
            (CompressionAlgorithm::Gzip, &members),
            (CompressionAlgorithm::Zstd, &zstd),
        ] {
            let length = script.len() as u64;
            assert_eq!(lengths(algorithm, stored, length), (length, vec![PIECE, 5]));
            // The receiver sees that there is more, but gets no more of it.
            assert_eq!(lengths(algorithm, stored, 10), (11, vec![11]));
        }
    }

    #[test]
    fn a_script_that_does_not_decompress_is_told_from_a_taker_that_fails() {
        let cut = &zstd::encode_all(&script()[..], 1).unwrap()[..20];
        let unread = unpack(CompressionAlgorithm::Zstd, cut, u64::MAX, |_| Ok::<_, &str>(()));
        assert!(matches!(unread, Err(Unread::Stored(_))));
        let unread = unpack(CompressionAlgorithm::None, &b"SELECT 1;"[..], u64::MAX, |_| Err("full"));
        assert!(matches!(unread, Err(Unread::Taken("full"))));
    }
}
