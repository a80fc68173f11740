//! Readers of the files that tracking tools write, one module for each format.
//!
//! All of them are fed bytes as they come and push what those complete; none
//! opens a file. Whatever the bytes are, they must not panic, must not hold
//! more than [`MAX_RECORD_BYTES`] and the tables of names, must give every
//! record that is whole, and must count what they leave out. What is read and
//! what is lost is listed in `docs/formats.md`.

mod delimited;
mod fields;
mod json;
mod jsonl;
mod leveldb_log;
mod lines;
mod protobuf;
mod time;
mod wandb;

pub use delimited::Delimited;
pub use fields::Schema;
pub use jsonl::JsonLines;
pub use wandb::Wandb;

/// A longer record is skipped and counted.
pub const MAX_RECORD_BYTES: usize = 16 << 20;
