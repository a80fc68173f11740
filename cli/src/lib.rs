//! cli.

pub mod config;
pub mod exit_code;
pub mod printer;
