//! What users set, and where they set it.

mod libpq;
