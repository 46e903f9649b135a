//! Texts of an archive in another encoding than UTF-8: names, and the definitions that hold them. Reports and pgstow's
//! own statements need them in UTF-8. The caller that knows the encoding gives the translations.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

/// The texts of an archive that is not in UTF-8, by their bytes. In a text that is not here, replacement marks stand
/// for bytes that are not UTF-8.
pub type Texts = HashMap<Vec<u8>, String>;

/// The known translations of texts that are not ASCII, and the set that collects such texts.
#[derive(Clone, Copy)]
pub(super) struct Meeting<'a> {
    pub known: &'a Texts,
    pub met: Option<&'a RefCell<BTreeSet<Vec<u8>>>>,
}

impl Meeting<'_> {
    pub fn read(self, bytes: Vec<u8>) -> String {
        if !bytes.is_ascii() {
            // Bytes of another encoding may be valid UTF-8 too, with a different text.
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
