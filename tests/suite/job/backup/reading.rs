//! What a backup has read, and what it says of the rest: nothing of the database is missing from it
//! without a word.

mod changing;
mod lacking;
mod losing;
