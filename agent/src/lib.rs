//! agent.
pub mod environment;
pub mod guard;
pub mod keeper;
pub mod os;
pub mod process;
pub mod spool;
