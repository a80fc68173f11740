//! What the crate promises to those who store trees with it: one program, so that it is linked once.
#![allow(clippy::unwrap_used, reason = "every function here is part of a test")]

mod corpus;
mod deltas;
mod format;
mod hostile;
mod kills;
mod limits;
mod numbers;
mod resume;
mod roundtrip;
mod sealed;
mod source_git;
mod source_trees;
