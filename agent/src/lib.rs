//! The supervisor on each machine. `guard` starts and restarts, `keeper` owns
//! one program and its output, the agent (`app`) talks to the controller:
//! `supervisor` decides, `driver` acts through `world`, `uplink` carries.

pub mod supervisor;

pub mod metering;
pub mod outbox;

pub mod background;
pub mod booklets;
pub mod data;
pub mod deadman;
pub mod driver;
pub mod gateway;
pub mod identity;
pub mod link;
pub mod notice;
pub mod query;
pub mod uplink;
pub mod world;

pub mod environment;
pub mod evidence;
pub mod guard;
pub mod health;
pub mod keeper;
pub mod os;
pub mod process;
pub mod ranks;
pub mod saves;
pub mod secrets;
pub mod spool;
pub mod upgrade;

pub mod app;
pub mod command;
