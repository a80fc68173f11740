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
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

impl Files {
    fn begin(path: PathBuf, writer: Writer, pending: Vec<u8>) -> io::Result<Self> {
        let beside = path.with_file_name(".forwarded.new");
        let file = File::create(&beside)?;
        Ok(Self { writer, path, beside: Some(beside), file, pending, step: None })
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
                    let values: Vec<(&str, f64)> = row.values.iter().map(|(n, v)| (n.as_str(), *v)).collect();
                    writer.row(row.step, row.time, &values, &mut self.pending);
                }
                (Came::Values(row), Writer::Wandb(writer)) => {
                    // Steps that a resumed attempt does again are left out.
                    if self.step.is_some_and(|step| row.step < step) {
                        continue;
                    }
                    self.step = Some(row.step);
                    let values: Vec<(&str, f64)> = row.values.iter().map(|(n, v)| (n.as_str(), *v)).collect();
                    writer.row(row.step, row.time, &values, &mut self.pending);
                }
                (Came::From(step), Writer::TensorBoard(writer)) => {
                    writer.restart(*step, &mut self.pending);
                }
                (Came::From(_), Writer::Wandb(_)) => {}
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
    use super::*;

    #[test]
    fn directories_are_named_by_the_moment() {
        assert_eq!(stamp(1_796_030_176_934), "20261130_091616");
    }
}
