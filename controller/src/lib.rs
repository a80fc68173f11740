//! The thin control plane: it rents machines, notices loss, binds attempts,
//! makes checkpoints durable and keeps the record. `rpc` translates,
//! `liveness` and `plan` decide without IO, `execute` acts, `reconcile` loops.

pub mod clock;
pub mod model;
pub mod money;

pub mod liveness;
pub mod plan;
pub mod replay;

pub mod best;
pub mod bill;
pub mod capsule;
pub mod carrier;
pub mod core;
pub mod durable;
pub mod early;
pub mod execute;
#[cfg(feature = "failpoints")]
mod failpoint;
pub mod foreign;
pub mod hazard;
pub mod health;
pub mod ingest;
pub mod kept;
pub mod keys;
pub mod known;
pub mod label;
pub mod reconcile;
pub mod reputation;
pub mod retain;
pub mod rpc;
pub mod runfiles;
pub mod scrub;
pub mod secrets;
pub mod verify;
pub mod work;

pub mod bootstrap;
pub mod notify;
pub mod objects;
pub mod provider;
pub mod store;

pub mod app;
#[cfg(test)]
mod bench;
pub mod command;
pub mod home;
pub mod moved;
