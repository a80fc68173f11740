//! Behaviour that no single crate owns.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "tests panic and talk")]

mod former;
mod model;
mod planner;
mod reach;
mod scenarios;
mod simulation;
mod tidy;
