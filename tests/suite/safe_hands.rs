//! What hostile databases, stores and neighbours try, and do not get.

mod drill;
