//! Texts of an archive in another encoding than UTF-8: names, and the definitions that hold them. For reports and for
//! statements of ours they must be UTF-8; whoever knows the encoding says what they are.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

/// Texts of an archive that is not in UTF-8, by their bytes. What is not here is read with marks in place of what
/// cannot be read.
pub type Texts = HashMap<Vec<u8>, String>;

/// What is known of texts that are not UTF-8, and where those are noted that are met.
#[derive(Clone, Copy)]
pub(super) struct Meeting<'a> {
    pub known: &'a Texts,
    pub met: Option<&'a RefCell<BTreeSet<Vec<u8>>>>,
}

impl Meeting<'_> {
    pub fn read(self, bytes: Vec<u8>) -> String {
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let bytes = error.into_bytes();
                let known = self.known.get(&bytes).cloned();
                let text = known.unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned());
                if let Some(met) = self.met {
                    met.borrow_mut().insert(bytes);
                }
                text
            }
        }
    }
}
