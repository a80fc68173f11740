//! `[logs]`: how much output a machine keeps while nobody can take it.

use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::quantity::write_size;
use super::section::Section;

/// The machine's log keeping.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logs {
    /// Bytes of unacknowledged output that are kept; `None` leaves it to the
    /// machine: a tenth of its free disk, at most 8 GiB.
    pub spool: Option<u64>,
}

/// Below this a burst of output would be dropped in normal work.
const LEAST: u64 = 1 << 20;

impl Section for Logs {
    fn keys(&self) -> &'static [&'static str] {
        &["spool"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        if key == "spool" {
            assign(&mut self.spool, field.size(LEAST, "\"2GiB\"").map(Some));
        }
    }

    fn get(&self, _key: &str) -> Json {
        json!(self.spool.map(write_size))
    }
}
