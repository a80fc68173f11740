//! Every reader of strangers' bytes, one function for each: given anything in any
//! pieces, it must answer, count every byte, and never panic. The same functions
//! are fuzzed (`fuzz/`) and replayed over a corpus as plain tests.

use curves::format::{
    Aim, ClearMl, Console, Delimited, JsonLines, MlflowMeta, MlflowMetric, Neptune, PluginLines, Schema,
    TensorBoard, TrainerState, Wandb, WandbCloud, clearml_task, detect,
};
use curves::log::{Counts, Metric, Names, Reader, Record, Row, Sink};

/// A name and what takes the bytes.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target; the names of directories in `fuzz/corpus`.
pub(crate) const TARGETS: [Target; 12] = [
    ("wandb", wandb),
    ("wandb_cloud", wandb_cloud),
    ("tensorboard", tensorboard),
    ("aim", aim),
    ("clearml", clearml),
    ("neptune", neptune),
    ("plugin", plugin),
    ("jsonl", jsonl),
    ("delimited", delimited),
    ("trainer", trainer),
    ("mlflow", mlflow),
    ("console", console),
];

/// What reached a sink, without keeping it.
#[derive(Default)]
struct Heard {
    names: Names,
    rows: u64,
    values: u64,
    records: u64,
    /// Of everything in its order.
    sum: u64,
}

impl Heard {
    fn add(&mut self, text: &str) {
        // FNV-1a.
        for byte in text.bytes() {
            self.sum = (self.sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Sink for Heard {
    fn metric(&mut self, name: &str) -> Option<Metric> {
        assert!(name.len() <= 4096 && !name.contains('\x1b'), "a name that no sink should see");
        self.names.intern(name)
    }

    fn row(&mut self, row: &Row<'_>) {
        assert!(!row.values.is_empty(), "a row has values");
        assert!(row.step.is_none_or(|step| step <= 1 << 53));
        (self.rows, self.values) = (self.rows + 1, self.values + row.values.len() as u64);
        self.add(&format!("{row:?}"));
    }

    fn record(&mut self, record: Record<'_>) {
        if let Record::Config { path, .. } | Record::Summary { path, .. } = &record {
            assert!(!path.is_empty());
        }
        self.records += 1;
        self.add(&format!("{record:?}"));
    }
}

fn hear(mut reader: Box<dyn Reader>, bytes: &[u8], piece: usize) -> (u64, u64, u64, Counts) {
    let mut heard = Heard::default();
    for piece in bytes.chunks(piece) {
        reader.feed(piece, &mut heard);
    }
    reader.finish(&mut heard);
    (heard.rows, heard.values, heard.sum, *reader.counts())
}

/// The first byte says how large the pieces are; they change nothing.
fn bears(make: impl Fn() -> Box<dyn Reader>, bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let whole = hear(make(), bytes, bytes.len().max(1));
    assert_eq!(whole.3.bytes, bytes.len() as u64);
    assert!(whole.3.torn.count <= whole.3.bytes);
    assert_eq!(hear(make(), bytes, usize::from(*piece) + 1), whole, "pieces of {piece} give something else");
}

/// W&B's file of a run, also one that goes on.
pub(crate) fn wandb(bytes: &[u8]) {
    bears(|| Box::new(Wandb::new()), bytes);
    bears(|| Box::new(Wandb::resumed()), bytes);
}

/// What was copied from W&B's server.
pub(crate) fn wandb_cloud(bytes: &[u8]) {
    bears(|| Box::new(WandbCloud::new()), bytes);
}

/// An event file.
pub(crate) fn tensorboard(bytes: &[u8]) {
    bears(|| Box::new(TensorBoard::new()), bytes);
}

/// A table and a log of Aim's, told by the first byte; what follows is both.
pub(crate) fn aim(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let mut aim = Aim::new();
    if kind & 1 == 0 {
        aim.table(bytes);
    } else {
        aim.log(bytes);
    }
    if kind & 2 != 0 {
        aim.log(bytes);
        aim.table(bytes);
    }
    for run in ["e66a6a72e9b14bd08e949694", "abd8b7cea64743199f42b06f", ""] {
        aim.push(run, &mut Heard::default());
    }
    assert!(aim.counts().bytes >= bytes.len() as u64);
}

/// Events and a task of ClearML.
pub(crate) fn clearml(bytes: &[u8]) {
    bears(|| Box::new(ClearMl::new()), bytes);
    let _ = clearml_task(bytes, &mut Heard::default());
}

/// Neptune's log of operations.
pub(crate) fn neptune(bytes: &[u8]) {
    bears(|| Box::new(Neptune::new()), bytes);
}

/// What a plug-in prints.
pub(crate) fn plugin(bytes: &[u8]) {
    bears(|| Box::new(PluginLines::new()), bytes);
}

/// JSON objects, and what any file could be.
pub(crate) fn jsonl(bytes: &[u8]) {
    bears(|| Box::new(JsonLines::new(Schema::default())), bytes);
    for path in ["a", "mlruns/metrics/a", "meta.yaml", "a.csv", "trainer_state.json"] {
        assert!(detect(path, bytes).iter().all(|guess| (1..=5).contains(&guess.strength)));
    }
}

/// A table of text, also one metric's.
pub(crate) fn delimited(bytes: &[u8]) {
    bears(|| Box::new(Delimited::new(Schema::default())), bytes);
    bears(|| Box::new(Delimited::of_metric("train/loss", Schema::default())), bytes);
}

/// The Trainer's state.
pub(crate) fn trainer(bytes: &[u8]) {
    bears(|| Box::new(TrainerState::new()), bytes);
}

/// Files of MLflow's file store.
pub(crate) fn mlflow(bytes: &[u8]) {
    bears(|| Box::new(MlflowMetric::new("train/loss")), bytes);
    bears(|| Box::new(MlflowMeta::of_run()), bytes);
}

/// Anything that was printed.
pub(crate) fn console(bytes: &[u8]) {
    bears(|| Box::new(Console::new()), bytes);
}
