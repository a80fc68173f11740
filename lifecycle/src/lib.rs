//! What a run, an attempt, a machine and a checkpoint are, which changes are
//! legal, when to save, on which market and host to be, and what of a text is a
//! secret. Pure: no clock, no disk, no network, no runtime. The controller and
//! the agent decide with these types; they never decide beside them.

pub mod attempt;
pub mod bill;
pub mod cadence;
pub mod cause;
pub mod checkpoint;
pub mod choice;
pub mod comeback;
pub mod exit;
pub mod id;
pub mod machine;
pub mod market;
pub mod mask;
pub mod meter;
pub mod question;
pub mod refusal;
pub mod reputation;
pub mod retention;
pub mod retry;
pub mod run;
pub mod spec;
pub mod sweep;

pub use attempt::{AttemptEvent, AttemptState, LossCause};
pub use checkpoint::{CheckpointEvent, CheckpointState};
pub use exit::Exit;
pub use id::{AttemptId, Generation, HubId, MachineId, RunId};
pub use machine::{MachineEvent, MachineState};
pub use refusal::Refusal;
pub use run::{RunEvent, RunState};
pub use spec::RunSpec;
