//! Level × ratio × CPU for the kinds of rows that databases hold: what `auto` is chosen by. Prints a
//! table that bench/report.py reads: `cargo bench --bench levels`.

use std::sync::Arc;

use crossbeam_channel::bounded;
use pgstow::dataflow::compress::{Effort, PIECE, PieceJob, Shape, work};
use rustix::time::{ClockId, clock_gettime};

/// As much of each kind as shows its ratio.
const BYTES: usize = 12 * PIECE;

/// xorshift: the same rows in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// Small numbers far more often than large ones.
    fn skewed(&mut self, sides: u64) -> u64 {
        let (one, two) = (self.roll(1000), self.roll(1000));
        one * two * self.roll(1000) * sides / 1_000_000_000
    }
}

fn word(number: u64) -> String {
    const SYLLABLES: [&str; 16] = [
        "ka", "ro", "mi", "ten", "sul", "ver", "an", "do", "pli", "gor", "es", "tra", "qui", "lo", "ben", "uz",
    ];
    let mut dice = Dice(number * 7919 + 1);
    (0..=dice.roll(4)).map(|_| SYLLABLES[dice.roll(16) as usize]).collect()
}

fn text(dice: &mut Dice, row: u64) -> String {
    let words: Vec<String> = (0..8 + dice.roll(16)).map(|_| word(dice.skewed(4000))).collect();
    format!("{row}\t{}\n", words.join(" "))
}

fn json(dice: &mut Dice, row: u64) -> String {
    format!(
        "{row}\t{{\"id\": {row}, \"at\": \"2024-03-{:02}T{:02}:{:02}:00+00:00\", \"tags\": [\"web\", \"new\"], \"user\": \
         \"{:08x}\", \"price\": {}.{:02}, \"address\": {{\"zip\": \"{:05}\", \"city\": \"{}\", \"street\": \"{} {}\"}}, \
         \"active\": {}}}\n",
        1 + row / 100_000 % 28,
        dice.roll(24),
        dice.roll(60),
        dice.roll(1 << 32),
        dice.roll(100),
        dice.roll(100),
        dice.roll(99_999),
        word(dice.skewed(300)),
        word(dice.skewed(900)),
        dice.roll(200),
        dice.roll(3) == 0,
    )
}

fn numbers(dice: &mut Dice, row: u64) -> String {
    format!(
        "{row}\t{}\t{}.{:02}\t0.{:016}\t{}\n",
        dice.roll(50_000),
        dice.roll(10_000),
        dice.roll(100),
        dice.roll(10_000_000_000_000_000),
        1 + dice.skewed(12)
    )
}

/// What a bytea of compressed data looks like in COPY's text.
fn packed(dice: &mut Dice, row: u64) -> String {
    let hex: String = (0..20).map(|_| format!("{:016x}", dice.roll(u64::MAX))).collect();
    format!("{row}\t\\\\x{hex}\n")
}

/// A kind of rows: one of them, by its number.
type Kind = fn(&mut Dice, u64) -> String;

fn pieces(row: Kind) -> Vec<Arc<Vec<u8>>> {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut all = Vec::new();
    for number in 1.. {
        if all.len() >= BYTES {
            break;
        }
        all.extend_from_slice(row(&mut dice, number).as_bytes());
    }
    all.chunks(PIECE).map(|piece| Arc::new(piece.to_vec())).collect()
}

/// Bytes out, and CPU seconds of one worker.
fn run(pieces: &[Arc<Vec<u8>>], effort: Effort) -> (usize, f64) {
    let (jobs, work_to_do) = bounded(1);
    let worker = std::thread::spawn(move || {
        work(&work_to_do);
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    });
    let mut bytes = 0;
    for (number, content) in pieces.iter().enumerate() {
        let shape = match effort {
            Effort::Gzip(_) => Shape::Deflate {
                before: number.checked_sub(1).map(|before| Arc::clone(&pieces[before])),
                last: number + 1 == pieces.len(),
            },
            _ => Shape::ZstdFrame,
        };
        let (answer, squeezed) = bounded(1);
        let content = Arc::clone(content);
        let job = PieceJob {
            content,
            shape,
            effort,
            answer,
        };
        jobs.send(job).expect("the worker takes jobs");
        bytes += squeezed.recv().expect("an answer").expect("it compresses").bytes.len();
    }
    drop(jobs);
    (bytes, worker.join().expect("the worker ends"))
}

#[allow(clippy::print_stdout)]
fn main() {
    let efforts = [
        ("zstd 1: auto, short of processors", Effort::Zstd(1)),
        ("zstd 2", Effort::Zstd(2)),
        ("zstd 3", Effort::Zstd(3)),
        ("auto, usually", Effort::Rows),
        ("auto, harder", Effort::DenseRows),
        ("zstd 6: auto, harder", Effort::Zstd(6)),
        ("zstd 9: auto, hardest", Effort::Zstd(9)),
        ("zstd 12", Effort::Zstd(12)),
        ("gzip 1", Effort::Gzip(1)),
        ("gzip 4", Effort::Gzip(4)),
        ("gzip 6", Effort::Gzip(6)),
        ("gzip 9", Effort::Gzip(9)),
    ];
    let kinds: [(&str, Kind); 4] = [
        ("text", text),
        ("JSON", json),
        ("numbers", numbers),
        ("compressed", packed),
    ];
    for (kind, row) in kinds {
        let pieces = pieces(row);
        let content: usize = pieces.iter().map(|piece| piece.len()).sum();
        for (name, effort) in efforts {
            let (bytes, seconds) = run(&pieces, effort);
            println!(
                "{kind}\t{name}\t{:.3}\t{:.2}",
                content as f64 / bytes as f64,
                seconds / content as f64 * 1e9
            );
        }
    }
}
