//! What the finished program promises to people, tried with the real binary:
//! real controllers, machines, kills and disks. Every test has a data directory
//! of its own, waits on what it can see instead of sleeping, and leaves nothing
//! behind, also when it fails.
#![cfg(target_os = "linux")]

mod agents;
mod answers;
mod beside;
mod bill;
mod booklets;
mod care;
mod carried;
mod choice;
mod contract;
mod controllers;
mod curves;
mod deploy;
mod disk;
mod double;
mod failures;
mod faulty_stores;
mod fetched;
mod health;
mod hostile;
mod losses;
mod market;
mod mcp;
mod money;
mod notices;
mod output;
mod persons;
mod processes;
mod programs;
mod questions;
mod saves;
mod sealed;
mod secrets;
mod stage;
mod strangers;
mod trees;
mod upgrade;
mod vast;
mod why;
