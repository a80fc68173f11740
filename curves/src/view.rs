//! What is shown of runs beside the judgement of one: values by step, plain
//! statistics, comparisons, searches, drawings.
//!
//! Everything here is pure and works on columns of values that are in memory
//! already. It must never hide a value that is not finite, never invent one
//! without saying so, and never call a difference between two single runs
//! significant.

mod course;
mod matching;
mod spark;
mod statistics;

pub use course::{Axis, Course};
pub use matching::{At, How, Outside, at, first_reaching};
pub use spark::spark;
pub use statistics::{Slope, Statistics, statistics};
