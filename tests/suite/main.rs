//! Behaviour that no single crate owns.

mod tidy;
mod simulation;
