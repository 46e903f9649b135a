//! Texts of an archive in another encoding than UTF-8: names, and the definitions that hold them. For reports and for
//! statements of ours they must be UTF-8; whoever knows the encoding says what they are.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

/// Texts of an archive that is not in UTF-8, by their bytes. What is not here is read with marks in place of what
/// cannot be read.
pub type Texts = HashMap<Vec<u8>, String>;

/// What is known of texts that are not ASCII, and where those are noted that are met.
#[derive(Clone, Copy)]
pub(super) struct Meeting<'a> {
    pub known: &'a Texts,
    pub met: Option<&'a RefCell<BTreeSet<Vec<u8>>>>,
}

impl Meeting<'_> {
    pub fn read(self, bytes: Vec<u8>) -> String {
        if !bytes.is_ascii() {
            // Bytes of another encoding may be UTF-8 as well, and then another text.
            if let Some(known) = self.known.get(&bytes) {
                return known.clone();
            }
            if let Some(met) = self.met {
                met.borrow_mut().insert(bytes.clone());
            }
        }
        String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}
