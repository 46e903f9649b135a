//! Properties that must hold for any bytes from outside. libFuzzer makes such bytes (`fuzz/`, `make fuzz`), and every
//! test run tries the kept ones (`fuzz/corpus`). A property panics if it does not hold; a panic of the tested code is
//! found in the same way.

pub mod archive;
pub mod changes;
pub mod conninfo;
pub mod contents;
pub mod dotenv;
pub mod globals;
pub mod manifest;
#[cfg(feature = "openpgp")]
pub mod openpgp;
pub mod wire;

use std::io::Read;

/// Gives a few bytes at a time, as a pipe or a socket may.
struct Trickle<'a> {
    bytes: &'a [u8],
    at_once: usize,
}

impl<'a> Trickle<'a> {
    /// Few bytes, so that nearly every field is cut somewhere; more for large inputs, so that they still end soon.
    fn new(bytes: &'a [u8]) -> Self {
        let at_once = 1 + bytes.len() / 512;
        Self { bytes, at_once }
    }

    fn take(&mut self, room: usize) -> &'a [u8] {
        let count = self.at_once.min(room).min(self.bytes.len());
        let (taken, left) = self.bytes.split_at(count);
        self.bytes = left;
        taken
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let taken = self.take(buffer.len());
        buffer[..taken.len()].copy_from_slice(taken);
        Ok(taken.len())
    }
}

/// The two parts of a text, divided at the first line end after the middle.
fn halves(text: &str) -> Option<(&str, &str)> {
    let middle = text.floor_char_boundary(text.len() / 2);
    let end = middle + text[middle..].find('\n')?;
    Some((&text[..end], &text[end + 1..]))
}

// A folder of kept inputs without its property would be an error.
#[cfg(all(test, feature = "openpgp"))]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    type Property = fn(&[u8]);

    const PROPERTIES: [(&str, Property); 9] = [
        ("archive", super::archive::check),
        ("changes", super::changes::check),
        ("conninfo", super::conninfo::check),
        ("contents", super::contents::check),
        ("dotenv", super::dotenv::check),
        ("globals", super::globals::check),
        ("manifest", super::manifest::check),
        ("openpgp", super::openpgp::check),
        ("wire", super::wire::check),
    ];

    #[test]
    fn every_kept_input_has_the_properties_that_are_fuzzed() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let kept: BTreeSet<_> = corpus
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        let tried: BTreeSet<_> = PROPERTIES.iter().map(|(target, _)| (*target).into()).collect();
        assert_eq!(kept, tried, "a folder in fuzz/corpus for every target");
        for (target, property) in PROPERTIES {
            let mut inputs = 0;
            for file in corpus.join(target).read_dir().unwrap() {
                let path = file.unwrap().path();
                // The last name in the output is the input that failed.
                println!("{}", path.display());
                property(&std::fs::read(&path).unwrap());
                inputs += 1;
            }
            assert!(inputs >= 5, "only {inputs} inputs for {target}");
        }
    }

    #[test]
    fn no_bytes_at_all_have_them_too() {
        for (_, property) in PROPERTIES {
            property(b"");
        }
    }
}
