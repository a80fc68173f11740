//! Readers of the files that tracking tools write, one module for each format.
//!
//! All of them are fed bytes as they come and push what those complete; none
//! opens a file. Whatever the bytes are, they must not panic, must not hold
//! more than [`MAX_RECORD_BYTES`] and the tables of names, must give every
//! record that is whole, and must count what they leave out. What is read and
//! what is lost is listed in `docs/formats.md`.

mod aim;
mod clearml;
mod console;
mod delimited;
mod detect;
mod fields;
mod json;
mod jsonl;
mod leveldb_log;
mod lines;
mod mlflow_files;
mod neptune;
mod outlast;
mod pending;
mod plugin;
mod protobuf;
mod rows;
mod tensorboard;
mod time;
mod trainer_state;
mod wandb;
mod yaml;

pub use aim::Aim;
pub use clearml::{ClearMl, clearml_task};
pub use console::Console;
pub use delimited::Delimited;
pub use detect::{Format, Guess, HEAD_BYTES, detect};
pub use fields::Schema;
pub use json::parse as parse_json;
pub use jsonl::JsonLines;
pub use mlflow_files::{MlflowMeta, MlflowMetric, mlflow_is_deleted, mlflow_param, mlflow_tag};
pub use neptune::Neptune;
pub use outlast::Outlast;
pub use plugin::PluginLines;
pub use rows::{MlflowRows, TrackioRows, mlflow_value};
pub use tensorboard::TensorBoard;
pub use trainer_state::TrainerState;
pub use wandb::{Wandb, WandbCloud};
pub use yaml::Yaml;

pub(crate) use json::quoted_number;

/// A longer record is skipped and counted.
pub const MAX_RECORD_BYTES: usize = 16 << 20;
