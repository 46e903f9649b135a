//! Why the bytes stopped before their end, as the threads of the path tell each other.

use crate::error::Error;

pub enum Ended {
    Failed(Error),
    /// The stores take no more bytes; the fan-out knows why.
    OutletsClosed,
}
