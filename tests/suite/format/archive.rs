//! The rules of docs/FORMAT.md for what we write, and that nothing short of a whole archive
//! passes. The archives here are built by hand; `round_trip` takes PostgreSQL's own.

pub mod builder;
pub mod memory;

mod ranges;
mod reading_back;
mod stages;

use builder::{Builder, Content, inflate, streams};
use memory::{Shape, flow, run_blocking};
use pgstow::dataflow::compress::{Codec, PIECE};
use pgstow::error::Code;
use pgstow::format::archive::BlockContent;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Zstd(1),
    Codec::AutoZstd,
    Codec::Gzip(3),
    Codec::AutoGzip,
];

pub fn row(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b'a' + (state % 23) as u8
        })
        .collect()
}

/// Several pieces, an empty table, a value beyond one piece, large objects of every sort.
fn varied(minor: u8) -> Builder {
    Builder {
        minor,
        blocks: vec![
            Content::Table((0..30_000).map(|seed| row(seed, 90)).collect()),
            Content::Table(Vec::new()),
            Content::Table(vec![row(1, 3 * PIECE + 17), Vec::new(), row(2, 1)]),
            Content::LargeObjects(vec![
                (16_400, vec![row(3, 2 * PIECE)]),
                (16_401, vec![]),
                (3_000_000_000, vec![row(4, 100), row(5, 200)]),
            ]),
            Content::Table(vec![row(6, 40)]),
        ],
    }
}

#[test]
fn rule_1_each_zstd_chunk_is_exactly_one_frame() {
    let builder = varied(16);
    let rewritten = run_blocking(flow(builder.build(), Shape::Archive, Codec::Zstd(3))).unwrap();
    let stored = streams(&rewritten.object, builder.head().len());
    for (stream, text) in stored.iter().zip(builder.streams()) {
        let mut unpacked = Vec::new();
        for chunk in &stream.chunks {
            let frame = zstd::zstd_safe::find_frame_compressed_size(chunk).unwrap();
            assert_eq!(frame, chunk.len(), "nothing may follow a frame inside its chunk");
            unpacked.extend(zstd::decode_all(chunk.as_slice()).unwrap());
        }
        assert!(unpacked == text);
    }
}

#[test]
fn rule_2_each_table_and_large_object_is_exactly_one_zlib_stream() {
    for minor in [14, 15, 16] {
        let builder = varied(minor);
        let rewritten = run_blocking(flow(builder.build(), Shape::Archive, Codec::Gzip(6))).unwrap();
        let stored = streams(&rewritten.object, builder.head().len());
        assert_eq!(stored.len(), builder.streams().len());
        for (stream, text) in stored.iter().zip(builder.streams()) {
            let bytes = stream.chunks.concat();
            assert_eq!(bytes[..2], [0x78, 0x9c]);
            // `inflate` refuses a wrong Adler-32 and anything after the one stream.
            assert!(inflate(&bytes) == text);
        }
    }
}

#[test]
fn rule_3_an_empty_large_object_is_a_valid_empty_stream() {
    let builder = Builder {
        minor: 15,
        blocks: vec![Content::LargeObjects(vec![(77, vec![])])],
    };
    let gzip = run_blocking(flow(builder.build(), Shape::Archive, Codec::Gzip(6))).unwrap();
    let stored = streams(&gzip.object, builder.head().len());
    assert_eq!(
        stored[0].chunks.concat(),
        [0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01]
    );

    let zstd = run_blocking(flow(builder.build(), Shape::Archive, Codec::Zstd(3))).unwrap();
    let stored = streams(&zstd.object, builder.head().len());
    assert_eq!(stored[0].chunks.len(), 1);
    assert!(zstd::decode_all(stored[0].chunks[0].as_slice()).unwrap().is_empty());

    let none = run_blocking(flow(builder.build(), Shape::Archive, Codec::None)).unwrap();
    assert!(none.object == builder.build());
}

#[test]
fn rule_4_chunks_are_never_empty_and_never_much_beyond_a_piece() {
    for codec in CODECS {
        let builder = varied(16);
        let rewritten = run_blocking(flow(builder.build(), Shape::Archive, codec)).unwrap();
        for stream in streams(&rewritten.object, builder.head().len()) {
            for chunk in stream.chunks {
                assert!(
                    !chunk.is_empty() && chunk.len() <= 4 << 20,
                    "{codec:?}: a chunk of {}",
                    chunk.len()
                );
            }
        }
    }
}

#[test]
fn rule_5_blocks_keep_the_order_of_the_table_of_contents() {
    for codec in CODECS {
        let builder = varied(16);
        let rewritten = run_blocking(flow(builder.build(), Shape::Archive, codec)).unwrap();
        let mut ids: Vec<i64> = streams(&rewritten.object, builder.head().len())
            .iter()
            .map(|s| s.dump_id)
            .collect();
        ids.dedup();
        assert_eq!(ids, [1, 2, 3, 4, 5]);
    }
    // And a source that breaks it is refused: restoring from a pipe would miss a table.
    let two = Builder {
        minor: 16,
        blocks: vec![Content::Table(vec![row(1, 5)]), Content::Table(vec![row(2, 5)])],
    };
    let archive = two.build();
    let (head, blocks) = archive.split_at(two.head().len());
    let (first, second) = blocks.split_at(blocks.len() / 2);
    let error = run_blocking(flow([head, second, first].concat(), Shape::Archive, Codec::None))
        .err()
        .unwrap();
    assert_eq!(error.code(), Code::PgDumpErr);
    assert!(error.message().contains("was expected"), "{error}");
}

#[test]
fn rule_6_zstd_frames_carry_a_checksum_that_catches_a_flipped_bit() {
    let builder = Builder {
        minor: 16,
        blocks: vec![Content::Table((0..500).map(|seed| row(seed, 60)).collect())],
    };
    let rewritten = run_blocking(flow(builder.build(), Shape::Archive, Codec::Zstd(1))).unwrap();
    for stream in streams(&rewritten.object, builder.head().len()) {
        for chunk in stream.chunks {
            assert_ne!(chunk[4] & 0b100, 0, "the frame header announces a content checksum");
            let mut flipped = chunk.clone();
            *flipped.last_mut().unwrap() ^= 1;
            assert!(zstd::decode_all(flipped.as_slice()).is_err());
        }
    }
}

#[test]
fn rule_7_zstd_is_refused_where_the_archive_version_cannot_say_it() {
    let error = run_blocking(flow(varied(14).build(), Shape::Archive, Codec::Zstd(3)))
        .err()
        .unwrap();
    assert_eq!(error.code(), Code::PgDumpErr);
    assert!(error.message().contains("1.14"), "{error}");
    run_blocking(flow(varied(15).build(), Shape::Archive, Codec::Zstd(3))).unwrap();
}

#[test]
fn the_table_of_contents_points_at_every_block() {
    for (minor, codec) in [(14, Codec::Gzip(6)), (15, Codec::Zstd(3)), (16, Codec::None)] {
        let builder = varied(minor);
        let rewritten = run_blocking(flow(builder.build(), Shape::Archive, codec)).unwrap();
        let archive = rewritten.passed.archive.unwrap();
        assert_eq!(archive.toc.len(), builder.head().len());
        let mut starts: Vec<u64> = streams(&rewritten.object, builder.head().len())
            .iter()
            .map(|s| s.block_at as u64)
            .collect();
        starts.dedup();
        let places: Vec<u64> = archive.blocks.iter().map(|block| block.place.offset).collect();
        assert_eq!(places, starts);
        for block in &archive.blocks {
            let offset = block.place.offset.to_le_bytes();
            let entry = [&[2u8], offset.as_slice()].concat();
            assert!(memchr::memmem::find(&archive.toc, &entry).is_some());
        }
        let ends: Vec<u64> = archive
            .blocks
            .iter()
            .map(|block| block.place.offset + block.place.length)
            .collect();
        assert_eq!(ends[..ends.len() - 1], starts[1..]);
        assert_eq!(*ends.last().unwrap(), rewritten.object.len() as u64);
    }
}

#[test]
fn rows_bytes_and_digests_are_those_of_the_copy_text() {
    let builder = varied(16);
    for codec in CODECS {
        let rewritten = run_blocking(flow(builder.build(), Shape::Archive, codec)).unwrap();
        let archive = rewritten.passed.archive.unwrap();
        for (block, content) in archive.blocks.iter().zip(&builder.blocks) {
            match content {
                Content::Table(rows) => {
                    let text: Vec<u8> = rows.iter().flat_map(|row| [row.as_slice(), b"\n"].concat()).collect();
                    assert_eq!(
                        block.digest.content,
                        BlockContent::Table {
                            rows: rows.len() as u64
                        }
                    );
                    assert_eq!(block.digest.bytes, text.len() as u64);
                    assert_eq!(block.digest.sha256[..], Sha256::digest(&text)[..]);
                }
                Content::LargeObjects(objects) => {
                    let lines: String = objects
                        .iter()
                        .map(|(oid, chunks)| {
                            let content = chunks.concat();
                            format!("{oid} {} {}\n", content.len(), hex::encode(Sha256::digest(&content)))
                        })
                        .collect();
                    assert_eq!(
                        block.digest.content,
                        BlockContent::LargeObjects {
                            count: objects.len() as u64
                        }
                    );
                    assert_eq!(block.digest.sha256[..], Sha256::digest(lines)[..]);
                }
            }
        }
        assert_eq!(
            rewritten.passed.expected.sha256[..],
            Sha256::digest(&rewritten.object)[..]
        );
    }
}

#[test]
fn an_archive_cut_anywhere_is_not_a_backup() {
    let builder = Builder {
        minor: 16,
        blocks: vec![
            Content::Table(vec![row(1, 30), row(2, 30)]),
            Content::LargeObjects(vec![(5, vec![row(3, 10)]), (6, vec![])]),
            Content::Table(vec![]),
        ],
    };
    let archive = builder.build();
    for length in 0..archive.len() {
        let error = run_blocking(flow(&archive[..length], Shape::Archive, Codec::Zstd(1))).err();
        assert_eq!(
            error.map(|error| error.code()),
            Some(Code::PgDumpErr),
            "cut at {length} of {}",
            archive.len()
        );
    }
    run_blocking(flow(archive, Shape::Archive, Codec::Zstd(1))).unwrap();
}

#[test]
fn bytes_after_the_end_are_not_pg_dumps() {
    let mut archive = varied(16).build();
    archive.push(0);
    let error = run_blocking(flow(archive, Shape::Archive, Codec::None)).err().unwrap();
    assert!(error.message().contains("after the archive's end"), "{error}");
}

#[test]
fn other_archive_versions_are_named_in_the_error() {
    for minor in [13, 17] {
        let mut archive = varied(16).build();
        archive[6] = minor;
        let error = run_blocking(flow(archive, Shape::Archive, Codec::None)).err().unwrap();
        assert_eq!(error.code(), Code::PgDumpErr);
        assert!(error.message().contains(&format!("1.{minor}")), "{error}");
    }
}

#[test]
fn plain_sql_without_its_first_and_last_words_is_not_a_backup() {
    let start = "--\n-- PostgreSQL database dump\n--\n\n";
    let end = "\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n";
    let body = format!("{start}{}", "SELECT 1;\n".repeat(300_000));
    for codec in CODECS {
        let whole = run_blocking(flow(format!("{body}{end}"), Shape::Sql, codec)).unwrap();
        let text = match codec {
            Codec::None => whole.object,
            Codec::Zstd(_) | Codec::AutoZstd => zstd::decode_all(whole.object.as_slice()).unwrap(),
            Codec::Gzip(_) | Codec::AutoGzip => {
                let mut text = Vec::new();
                let mut members = flate2::bufread::MultiGzDecoder::new(whole.object.as_slice());
                std::io::Read::read_to_end(&mut members, &mut text).unwrap();
                text
            }
        };
        assert!(text == format!("{body}{end}").into_bytes());
        for spoilt in [
            body.clone(),
            format!("NOTICE: hello\n{body}{end}"),
            format!("{body}{end}x"),
            format!("{body}{end}{}", "\0".repeat(10_000)),
            format!("{body}{}", end.strip_suffix('\n').unwrap()),
            start[..10].to_owned(),
            String::new(),
        ] {
            let error = run_blocking(flow(spoilt, Shape::Sql, codec)).err().unwrap();
            assert_eq!(error.code(), Code::PgDumpErr);
        }
    }
}

fn content() -> impl Strategy<Value = Content> {
    let bytes = |max| proptest::collection::vec(any::<u8>().prop_map(|b| if b == b'\n' { b'n' } else { b }), 0..max);
    prop_oneof![
        proptest::collection::vec(bytes(300), 0..40).prop_map(Content::Table),
        proptest::collection::vec((1..=u32::MAX, proptest::collection::vec(bytes(500), 0..4)), 0..6)
            .prop_map(Content::LargeObjects),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_archive_comes_back_as_it_was(
        minor in 15u8..=16,
        blocks in proptest::collection::vec(content(), 0..8),
        codec in prop_oneof![Just(Codec::None), Just(Codec::Zstd(1)), Just(Codec::Gzip(1))],
    ) {
        let builder = Builder { minor, blocks };
        let rewritten = run_blocking(flow(builder.build(), Shape::Archive, codec)).unwrap();
        let stored = streams(&rewritten.object, builder.head().len());
        let texts: Vec<Vec<u8>> = stored
            .iter()
            .map(|stream| match codec {
                Codec::None => stream.chunks.concat(),
                Codec::Zstd(_) | Codec::AutoZstd => stream.chunks.iter().flat_map(|c| zstd::decode_all(c.as_slice()).unwrap()).collect(),
                Codec::Gzip(_) | Codec::AutoGzip => inflate(&stream.chunks.concat()),
            })
            .collect();
        prop_assert_eq!(texts, builder.streams());
    }

    #[test]
    fn random_damage_never_panics(
        position in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        minor in 14u8..=16,
    ) {
        let builder = Builder {
            minor,
            blocks: vec![
                Content::Table(vec![row(1, 30)]),
                Content::LargeObjects(vec![(5, vec![row(3, 10)])]),
            ],
        };
        let mut archive = builder.build();
        let position = position.index(archive.len());
        archive[position] = byte;
        let _ = run_blocking(flow(archive, Shape::Archive, Codec::Gzip(1)));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut archive = b"PGDMP\x01\x10\x00\x04\x08\x01\x00".to_vec();
        archive.extend(&bytes);
        prop_assert!(run_blocking(flow(archive, Shape::Archive, Codec::None)).is_err());
        prop_assert!(run_blocking(flow(bytes, Shape::Archive, Codec::None)).is_err());
    }
}

/// The fuzz target's corpus, replayed in every test run: what once broke the reader stays here.
#[test]
fn the_fuzz_corpus_ends_in_an_error_or_the_end() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/archive");
    let mut replayed = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for codec in CODECS {
            let _ = run_blocking(flow(bytes.clone(), Shape::Archive, codec));
        }
        replayed += 1;
    }
    assert!(replayed >= 6, "only {replayed} inputs in {folder}");
}

/// Writes the corpus's seeds: whole archives of each version.
#[test]
fn the_corpus_has_a_whole_archive_of_each_version() {
    for minor in [14, 15, 16] {
        let builder = Builder {
            minor,
            blocks: vec![
                Content::Table(vec![row(1, 30), Vec::new()]),
                Content::LargeObjects(vec![(5, vec![row(3, 10), row(4, 3)]), (3_000_000_000, vec![])]),
                Content::Table(vec![]),
            ],
        };
        let path = format!("{}/fuzz/corpus/archive/whole-1.{minor}", env!("CARGO_MANIFEST_DIR"));
        let stored = std::fs::read(&path).unwrap_or_default();
        if std::env::var_os("PGSTOW_WRITE_CORPUS").is_some() {
            std::fs::write(&path, builder.build()).unwrap();
        } else {
            assert!(
                stored == builder.build(),
                "{path}: write it anew with PGSTOW_WRITE_CORPUS=1"
            );
        }
    }
}
