//! The binary `outlast`: every verb, and what people see. It asks the
//! controller and shows answers; it decides nothing about runs. One file per
//! verb below `commands`; the hidden verbs make this one file the controller,
//! guard, keeper and agent of this computer too.

pub mod config;
pub mod exit_code;
pub mod printer;

pub mod app;
pub mod args;

pub mod client;
pub mod daemon;
pub mod link;
pub mod remote;

pub mod attach;
pub mod chaos;
pub mod follow;
pub mod market;
pub mod mcp;
pub mod pull;
pub mod report;
pub mod screen;
pub mod secrets;
pub mod source;

pub mod commands;
