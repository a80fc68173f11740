//! Storing checkpoints while nobody answers: an attempt's signed URLs for its
//! next objects, the numbers that it has used, and what is stored and not yet
//! committed. All of it outlives the agent, so that one that is started again
//! goes on without a controller.
//!
//! It never uses a number twice, never forgets what was stored without saying
//! so, and shows a URL to nobody but the store. Without a booklet everything
//! goes through the controller, as it always did.
//!
//! `numbers`, `pending`, `renewal` and `rate` decide and touch nothing;
//! `shelf` keeps files, `connect` reaches a store, `way` is what a publish is
//! given, and `courier` brings them together.

mod connect;
mod courier;
mod numbers;
mod pending;
mod rate;
mod renewal;
mod shelf;
mod way;

pub use connect::{fetcher, over_the_network};
pub use courier::{Courier, Parts, Settled};
pub use pending::{Entry, MOST, Pending};
pub use shelf::{DirShelf, Shelf};
pub use way::Way;

use std::sync::Arc;

use artifacts::store::booklet::{SignedRequests, Trust};

/// Makes what sends requests under signed URLs.
pub type Connect = Arc<dyn Fn(&Trust) -> Arc<dyn SignedRequests> + Send + Sync>;
