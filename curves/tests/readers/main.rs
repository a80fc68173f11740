//! The readers of tracking tools' files against files that those tools wrote,
//! and against every way in which files break.
//!
//! The data are whole files of wandb 0.31.0 and 0.19.11, tensorboardX 2.6.5,
//! the writer of tensorboard 2.21.0, mlflow 3.17.2, transformers 5.23.0, Keras
//! 3.15.1, scikit-learn 1.9.1 and lightgbm 4.7.0. The `truth-*.csv` hold what
//! the programs passed to the tools.

mod aim;
mod cloud;
mod detection;
mod hostile;
mod others;
mod samples;
mod written;

use curves::format::{
    Console, Delimited, JsonLines, MlflowMeta, MlflowMetric, PluginLines, Schema, TensorBoard, TrainerState,
    Wandb,
};
use curves::log::{Collected, Metric, Names, Reader, Record, Row, Sink};

/// A file of `tests/data`.
fn data(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))).expect("test data")
}

fn jsonl() -> Box<dyn Reader> {
    Box::new(JsonLines::new(Schema::default()))
}

fn csv() -> Box<dyn Reader> {
    Box::new(Delimited::new(Schema::default()))
}

fn wandb() -> Box<dyn Reader> {
    Box::new(Wandb::new())
}

fn tensorboard() -> Box<dyn Reader> {
    Box::new(TensorBoard::new())
}

fn trainer() -> Box<dyn Reader> {
    Box::new(TrainerState::new())
}

fn mlflow_metric() -> Box<dyn Reader> {
    Box::new(MlflowMetric::new("train/loss"))
}

fn mlflow_meta() -> Box<dyn Reader> {
    Box::new(MlflowMeta::of_run())
}

fn plugin() -> Box<dyn Reader> {
    Box::new(PluginLines::new())
}

fn console() -> Box<dyn Reader> {
    Box::new(Console::new())
}

/// All of a file at once.
fn collect(mut reader: Box<dyn Reader>, bytes: &[u8]) -> Collected {
    let mut log = Collected::default();
    reader.feed(bytes, &mut log);
    reader.finish(&mut log);
    log
}

/// Everything that reached a sink, in words.
#[derive(Default)]
struct Trace {
    names: Names,
    said: Vec<String>,
}

impl Sink for Trace {
    fn metric(&mut self, name: &str) -> Option<Metric> {
        self.names.intern(name)
    }
    fn row(&mut self, row: &Row<'_>) {
        let values: Vec<_> = row.values.iter().map(|(m, v)| (self.names.name(*m), v)).collect();
        self.said.push(format!("{:?} {:?} {values:?}", row.step, row.time));
    }
    fn record(&mut self, record: Record<'_>) {
        self.said.push(format!("{record:?}"));
    }
}
