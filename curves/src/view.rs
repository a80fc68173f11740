//! What is shown of runs beside the judgement of one: values by step, plain
//! statistics, comparisons, searches, drawings.
//!
//! Everything here is pure and works on columns of values that are in memory
//! already. It must never hide a value that is not finite, never invent one
//! without saying so, and never call a difference between two single runs
//! significant.

mod calendar;
mod course;
pub mod draw;
pub mod filter;
mod importance;
mod matching;
mod question;
mod spark;
mod speed;
mod stages;
mod statistics;

pub use calendar::date;
use calendar::days;
pub use course::{Axis, Course};
pub use importance::{FEWEST_RUNS, GROUPED, Importance, Setting, importance};
pub use matching::{At, How, Outside, at, first_reaching};
pub use question::{Order, Question, understand};
pub use spark::spark;
pub use speed::{Speed, speed, times_as_fast};
pub use stages::{Stretch, stretch};
pub use statistics::{Slope, Statistics, statistics};
