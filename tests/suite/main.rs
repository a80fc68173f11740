//! Behaviour that no single crate owns.

mod scenarios;
mod simulation;
mod tidy;
