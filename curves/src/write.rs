//! Curves in the formats of other tools, so that those can show a run: one
//! module for each. Bytes come out in the order in which they belong into the
//! file; nothing here opens one.
//!
//! What is written is what [`crate::format`] reads back, and what the tools'
//! own readers take.

mod message;
mod tensorboard;
mod wandb;

pub use tensorboard::TensorBoardWriter;
pub use wandb::{About, WandbWriter};
