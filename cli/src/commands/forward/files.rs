//! The files of TensorBoard and of W&B: written anew at the start, under a name
//! of their own until they are whole, and appended to as more comes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use curves::write::{About, TensorBoardWriter, WandbWriter};
use proto::v1;

use super::rows::{Came, More};
use super::settings;

enum Writer {
    TensorBoard(TensorBoardWriter),
    Wandb(Box<WandbWriter>),
}

/// One file on its way.
pub(super) struct Files {
    writer: Writer,
    path: PathBuf,
    /// The name that it has until it was written to once.
    beside: Option<PathBuf>,
    file: File,
    pending: Vec<u8>,
    /// The highest step that is written: W&B takes none before it.
    step: Option<u64>,
    /// The same when the run went on from an earlier one.
    again: Option<u64>,
    /// The run goes on from here; told with the first row that it logs then, as that
    /// may lie before what its checkpoint was thought to hold.
    from: Option<u64>,
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

impl Files {
    fn begin(path: PathBuf, writer: Writer, pending: Vec<u8>) -> io::Result<Self> {
        let beside = path.with_file_name(".forwarded.new");
        let file = File::create(&beside)?;
        Ok(Self { writer, path, beside: Some(beside), file, pending, step: None, again: None, from: None })
    }

    /// `DIR/RUN/events.out.tfevents.*`
    ///
    /// # Errors
    /// Where the directory cannot be written to.
    pub(super) fn tensorboard(place: &Path, run: &v1::RunView) -> io::Result<Self> {
        let dir = place.join(&run.name);
        fs::create_dir_all(&dir)?;
        let mut pending = Vec::new();
        let writer = TensorBoardWriter::begin(seconds(run.created_ms), &mut pending);
        let name = format!("events.out.tfevents.{}.outlast.{}.0", run.created_ms / 1000, run.id);
        Self::begin(dir.join(name), Writer::TensorBoard(writer), pending)
    }

    /// `DIR/wandb/offline-run-DATE-ID/run-ID.wandb`
    ///
    /// # Errors
    /// Where the directory cannot be written to.
    pub(super) fn wandb(place: &Path, detail: &v1::RunDetail) -> io::Result<Self> {
        let run = detail.run.clone().unwrap_or_default();
        let id: String = run.id.chars().take(16).collect();
        let stamp = stamp(run.created_ms);
        let dir = place.join("wandb").join(format!("offline-run-{stamp}-{id}"));
        fs::create_dir_all(dir.join("files"))?;
        let about = About {
            name: run.name.clone(),
            project: run.project.clone(),
            config: settings(detail),
            started: seconds(run.created_ms),
            id: id.clone(),
        };
        let mut pending = Vec::new();
        let writer = WandbWriter::begin(&about, &mut pending);
        Self::begin(dir.join(format!("run-{id}.wandb")), Writer::Wandb(Box::new(writer)), pending)
    }

    /// Where it is.
    pub(super) fn place(&self) -> String {
        self.path.display().to_string()
    }

    /// Writes what came.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub(super) fn write(&mut self, more: &More) -> io::Result<()> {
        for came in &more.came {
            match (came, &mut self.writer) {
                (Came::Values(row), Writer::TensorBoard(writer)) => {
                    if let Some(from) = self.from.take() {
                        writer.restart(from.min(row.step), &mut self.pending);
                    }
                    let values: Vec<(&str, f64)> = row.values.iter().map(|(n, v)| (n.as_str(), *v)).collect();
                    writer.row(row.step, row.time, &values, &mut self.pending);
                }
                (Came::Values(row), Writer::Wandb(writer)) => {
                    // Steps that a resumed attempt does again are left out.
                    let before = self.step.is_some_and(|step| row.step < step);
                    if before || self.again.is_some_and(|again| row.step <= again) {
                        continue;
                    }
                    self.step = Some(row.step);
                    let values: Vec<(&str, f64)> = row.values.iter().map(|(n, v)| (n.as_str(), *v)).collect();
                    writer.row(row.step, row.time, &values, &mut self.pending);
                }
                (Came::From(step), Writer::TensorBoard(_)) => self.from = Some(*step),
                (Came::From(_), Writer::Wandb(_)) => self.again = self.step,
            }
        }
        self.flush()
    }

    /// The run has ended.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub(super) fn finish(&mut self, run: &v1::RunView) -> io::Result<()> {
        if let Writer::Wandb(writer) = &mut self.writer {
            let code = run.exit_code.unwrap_or(i32::from(run.state != "SUCCEEDED"));
            writer.finish(code, seconds(run.ended_ms), &mut self.pending);
        }
        self.flush()?;
        self.file.sync_all()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.pending.clear();
        if let Some(beside) = self.beside.take() {
            self.file.sync_all()?;
            fs::rename(beside, &self.path)?;
        }
        Ok(())
    }
}

/// `20261130_091616`, in UTC.
fn stamp(ms: u64) -> String {
    let moment = crate::commands::moment(ms);
    let digits: String = moment.chars().filter(char::is_ascii_digit).take(14).collect();
    let (day, time) = digits.split_at(digits.len().min(8));
    format!("{day}_{time}")
}

#[cfg(test)]
mod tests {
    use super::super::rows::Values;
    use super::*;
    use curves::format::{TensorBoard, Wandb};
    use curves::log::{Collected, Reader};

    /// A run that logged 1 to 3, went on where somebody thought that 3 was done, and
    /// began with 2.
    fn resumed() -> More {
        let row = |step: u64, value: f64| {
            Came::Values(Values { step, time: 1.7e9, values: vec![("loss".to_owned(), value)] })
        };
        let first = (1..4).map(|step| row(step, 0.5));
        More { came: first.chain([Came::From(3)]).chain((2..5).map(|step| row(step, 0.25))).collect() }
    }

    fn read(files: &mut Files, reader: &mut dyn Reader) -> Vec<(u64, f64)> {
        files.write(&resumed()).unwrap();
        let mut log = Collected::default();
        reader.feed(&fs::read(&files.path).unwrap(), &mut log);
        reader.finish(&mut log);
        let pairs = log.column("loss").unwrap().pairs();
        pairs.map(|(step, value)| (step.unwrap(), value)).collect()
    }

    #[test]
    fn what_a_resumed_run_does_again_stands_once() {
        let dir = tempfile::tempdir().unwrap();
        let run = v1::RunView { id: "abc".into(), name: "r".into(), ..Default::default() };
        let mut files = Files::tensorboard(dir.path(), &run).unwrap();
        let found = read(&mut files, &mut TensorBoard::new());
        assert_eq!(found, [(1, 0.5), (2, 0.25), (3, 0.25), (4, 0.25)]);
        let detail = v1::RunDetail { run: Some(run), ..Default::default() };
        let mut files = Files::wandb(dir.path(), &detail).unwrap();
        assert_eq!(read(&mut files, &mut Wandb::new()), [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.25)]);
    }

    #[test]
    fn directories_are_named_by_the_moment() {
        assert_eq!(stamp(1_796_030_176_934), "20261130_091616");
    }
}
