//! The program's own word that a checkpoint is finished: `ckpt done`. A word is
//! a small file in the checkpoint directory, so it waits for an agent that is
//! just being replaced, works from within containers, and can be written by a
//! program itself. It counts for the bytes that were there when it was given:
//! whatever is written later is not meant.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::os;
use crate::world::layout::AttemptDir;

/// Below the checkpoint directory; never a checkpoint itself.
pub(super) const DIRECTORY: &str = ".outlast-done";
/// Words looked at; more than a run keeps checkpoints.
const MOST: usize = 10_000;
const LONGEST: usize = 16 << 10;

/// What is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    /// Relative to the checkpoint directory, or to the source tree with
    /// `src/` before it.
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
}

/// A word that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// The step that it tells.
    pub(super) step: Option<u64>,
    /// When it was given.
    pub(super) at: (i64, i64),
    file: PathBuf,
}

/// All words of an attempt, by the relative path of what they are about.
#[derive(Debug, Default)]
pub(super) struct Words {
    words: BTreeMap<String, Word>,
    /// The directory's own time when they were read, if it tells of changes.
    as_of: Option<(i64, i64)>,
}

impl Words {
    /// The words as they stand. They are renamed into their directory, so its
    /// own time tells whether there are others.
    pub(super) fn now(&mut self, dir: &AttemptDir) -> &BTreeMap<String, Word> {
        let place = dir.checkpoints().join(DIRECTORY);
        let changed = place.metadata().ok().map(|meta| (meta.mtime(), meta.mtime_nsec()));
        if changed.is_none() || self.as_of != changed {
            self.words = words(&place);
            // A second word may come in the same tick.
            let now = i64::try_from(os::unix_ms() / 1_000).unwrap_or_default();
            self.as_of = changed.filter(|(seconds, _)| *seconds < now - 1);
        }
        &self.words
    }

    /// Takes away a word that has done its work.
    pub(super) fn forget(&mut self, relative: &str) {
        if let Some(word) = self.words.remove(relative)
            && let Err(error) = std::fs::remove_file(&word.file)
        {
            tracing::debug!(%error, "a word about a published checkpoint stays");
        }
    }
}

fn words(place: &Path) -> BTreeMap<String, Word> {
    let Ok(entries) = std::fs::read_dir(place) else { return BTreeMap::new() };
    let words = entries.filter_map(Result::ok).take(MOST).filter_map(|entry| {
        let file = entry.path();
        let meta = file.symlink_metadata().ok();
        let meta = meta.filter(|meta| meta.is_file() && meta.len() <= LONGEST as u64)?;
        let bytes = os::read_bounded(&file, LONGEST).ok()?;
        let said: Said = serde_json::from_slice(&bytes).ok()?;
        let relative = match said.path.strip_prefix("src/") {
            Some(path) => path.to_owned(),
            None => format!("@/{}", said.path),
        };
        Some((relative, Word { step: said.step, at: (meta.mtime(), meta.mtime_nsec()), file }))
    });
    words.collect()
}

/// Why a word cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum WordError {
    /// Not started by a run.
    #[error("{0} is not set: only the program of a run can say that a checkpoint is done")]
    Outside(&'static str),
    /// There is no such file or directory.
    #[error("{path}: {source}")]
    Path {
        /// What was named.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// It is nowhere where checkpoints are looked for.
    #[error("{0} lies neither in OUTLAST_CHECKPOINT_DIR nor in the source tree")]
    Elsewhere(String),
    /// The word could not be written down.
    #[error("the word could not be written below {path}: {source}")]
    Write {
        /// Where.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

/// Gives the word: `path` is finished. `variable` tells the contract's
/// variables of the calling program.
///
/// # Errors
/// Where this is no program of a run, or the word cannot be written down.
pub fn say(
    path: &Path,
    step: Option<u64>,
    variable: impl Fn(&str) -> Option<PathBuf>,
) -> Result<(), WordError> {
    const CHECKPOINTS: &str = "OUTLAST_CHECKPOINT_DIR";
    let place = variable(CHECKPOINTS).ok_or(WordError::Outside(CHECKPOINTS))?;
    let real = |path: &Path| {
        path.canonicalize().map_err(|source| WordError::Path { path: path.display().to_string(), source })
    };
    let (path, checkpoints) = (real(path)?, real(&place)?);
    // The results are a directory of the source tree's root.
    let source = variable("OUTLAST_OUTPUT_DIR").and_then(|dir| real(dir.parent()?).ok());
    let below = |root: &Path| {
        let rest = path.strip_prefix(root).ok()?;
        let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
        rest.to_str().filter(|rest| plain && !rest.is_empty()).map(str::to_owned)
    };
    let in_source = || Some(format!("src/{}", below(source.as_deref()?)?));
    let relative = below(&checkpoints).or_else(in_source);
    let relative = relative.ok_or_else(|| WordError::Elsewhere(path.display().to_string()))?;
    let failed = |source| WordError::Write { path: checkpoints.display().to_string(), source };
    let name = format!("{}.json", &blake3::hash(relative.as_bytes()).to_hex()[..24]);
    let words = checkpoints.join(DIRECTORY);
    std::fs::create_dir_all(&words).map_err(failed)?;
    let bytes = serde_json::to_vec(&Said { path: relative, step }).unwrap_or_default();
    os::write_durable(&words.join(name), &bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_by_what_it_is_about() {
        let root = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(root.path(), "a");
        std::fs::create_dir_all(dir.checkpoints().join("step-5")).unwrap();
        std::fs::create_dir_all(dir.outputs()).unwrap();
        std::fs::create_dir_all(dir.source().join("out/7")).unwrap();
        let variable = |name: &str| match name {
            "OUTLAST_CHECKPOINT_DIR" => Some(dir.checkpoints()),
            "OUTLAST_OUTPUT_DIR" => Some(dir.outputs()),
            _ => None,
        };
        say(&dir.checkpoints().join("step-5"), Some(5), variable).unwrap();
        say(&dir.source().join("out/7"), None, variable).unwrap();
        let words = |dir: &AttemptDir| words(&dir.checkpoints().join(DIRECTORY));
        let found = words(&dir);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["@/step-5", "out/7"]);
        assert_eq!((found["@/step-5"].step, found["out/7"].step), (Some(5), None));
        say(&dir.checkpoints().join("step-5"), Some(6), variable).unwrap();
        assert_eq!(words(&dir)["@/step-5"].step, Some(6), "the last word counts");
        // What others put there is no word.
        let place = dir.checkpoints().join(DIRECTORY);
        std::fs::write(place.join("x"), "{").unwrap();
        std::fs::write(place.join("y"), vec![b' '; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", place.join("z")).unwrap();
        assert_eq!(words(&dir).len(), 2);
        // What was read is read again only when there may be more.
        let mut kept = Words::default();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        std::fs::File::open(&place).unwrap().set_modified(old).unwrap();
        assert_eq!(kept.now(&dir).len(), 2);
        std::fs::remove_file(place.join("y")).unwrap();
        std::fs::write(place.join("w.json"), r#"{"path": "step-9"}"#).unwrap();
        std::fs::File::open(&place).unwrap().set_modified(old).unwrap();
        assert_eq!(kept.now(&dir).len(), 2);
        std::fs::remove_file(place.join("x")).unwrap();
        assert!(kept.now(&dir).contains_key("@/step-9"));
        kept.forget("@/step-9");
        assert!(!place.join("w.json").exists() && !kept.now(&dir).contains_key("@/step-9"));
        let error = |path: &Path| say(path, None, variable).unwrap_err().to_string();
        assert!(error(root.path()).contains("lies neither"), "{}", error(root.path()));
        assert!(error(&dir.checkpoints()).contains("lies neither"));
        assert!(error(&dir.checkpoints().join("gone")).contains("gone: No such file"));
        let outside = say(&dir.checkpoints().join("step-5"), None, |_| None).unwrap_err();
        assert!(outside.to_string().contains("OUTLAST_CHECKPOINT_DIR is not set"));
    }
}
