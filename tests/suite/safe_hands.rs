//! Attacks: on our sessions, our children, the machine that drills, and whoever restores from a store to
//! which others can write.

mod signatures;
