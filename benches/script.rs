//! How fast a plain dump's rows and large objects are counted, in one thread: `cargo bench --bench script`.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use pgstow::format::script::Reader;

const PIECE: usize = 2 << 20;
const PIECES: usize = 100;

fn measured(what: &str, begin: &str, part: &str, end: &str) {
    let body = part.repeat(PIECE / part.len());
    let mut best = f64::MAX;
    for _ in 0..3 {
        let mut reader = Reader::counting();
        let began = Instant::now();
        let mut told = |text: &str| {
            if let Err(refused) = reader.pass(text.as_bytes()) {
                println!("{what}: {refused}");
            }
        };
        told(begin);
        for _ in 0..PIECES {
            told(&body);
        }
        told(end);
        best = best.min(began.elapsed().as_secs_f64());
        if let Err(refused) = reader.end(0) {
            println!("{what}: {refused}");
        }
    }
    println!("{what:<14} {:>6.0} MB/s", (body.len() * PIECES) as f64 / best / 1e6);
}

fn main() {
    let copy =
        "--\n-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: o\n--\n\nCOPY public.t (a, b) FROM stdin;\n";
    let row = "4711\t2024-03-01 12:00:00+00\tt\t\\N\tthe quick brown fox jumps over the lazy dog\t{\"a\": 1}\n";
    measured("rows", copy, row, "\\.\n\n\n");
    measured("narrow rows", copy, "1\t\\N\n", "\\.\n\n\n");
    measured("empty rows", copy, "\n", "\\.\n\n\n");
    let object = format!(
        "SELECT pg_catalog.lo_open('7', 131072);\nSELECT pg_catalog.lowrite(0, '\\x{}');\nSELECT pg_catalog.lo_close(0);\n\n",
        "00ff5c0a".repeat(4096)
    );
    let blobs = "--\n-- Data for Name: 7; Type: BLOBS; Schema: -; Owner: o\n--\n\n";
    measured("large objects", blobs, &object, "\n");
    let table = "--\n-- Name: t; Type: TABLE; Schema: public; Owner: o\n--\n\nCREATE TABLE public.t (\n    a integer,\n    b text\n);\n\n\n";
    measured("definitions", "", table, "\n");
}
