//! What earlier checkpoints of the same place were made of. Frameworks whose
//! ranks save by themselves write nowhere how many files a checkpoint has;
//! that the one before had one more is the best evidence there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::directory::Listing;
use super::{deepspeed, huggingface};

/// Places remembered; more than a run saves into.
const MOST: usize = 256;

/// One complete checkpoint: its name and the kinds of files it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Example {
    pub(super) name: String,
    pub(super) kinds: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct Examples(BTreeMap<(PathBuf, &'static str), Example>);

impl Examples {
    /// Remembers a complete checkpoint in place of the one before.
    pub(super) fn learn(&mut self, dir: &Listing) {
        for (layout, kinds) in
            [("huggingface", huggingface::kinds(dir)), ("deepspeed", deepspeed::kinds(dir))]
        {
            let Some(parent) = dir.path.parent().filter(|_| !kinds.is_empty()) else { continue };
            if self.0.len() >= MOST {
                self.0.clear();
            }
            let example = Example { name: dir.name.clone(), kinds };
            self.0.insert((parent.to_owned(), layout), example);
        }
    }

    /// The last one in the directory `parent`.
    pub(super) fn of(&self, parent: &Path, layout: &'static str) -> Option<&Example> {
        self.0.get(&(parent.to_owned(), layout))
    }
}
