//! What earlier checkpoints of the same place were made of. Most frameworks
//! write nowhere how many files a checkpoint has; that the one before had one
//! more is the best evidence there is. It is evidence of lateness only: it
//! never says that something is whole, and never keeps a checkpoint for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::directory::Listing;
use super::{Reason, deepspeed, step_of};

/// Places remembered; more than a run saves into.
const MOST: usize = 256;
/// Names at the top of a checkpoint that are compared. One with more is a
/// store of its own kind, whose names mean nothing.
const KINDS: usize = 1_024;
/// Letters and digits in a row that are no word but a random name.
const RANDOM: usize = 16;

/// One complete checkpoint: its name and the kinds of files it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Example {
    pub(super) name: String,
    pub(super) kinds: BTreeSet<String>,
    /// Kinds that a later one had not, and which was the first such.
    without: BTreeMap<String, String>,
}

/// The last of each place, and the one before: what was just learned of a
/// checkpoint itself is no measure for it.
#[derive(Debug, Default)]
pub(super) struct Examples(BTreeMap<(PathBuf, String), Vec<Example>>);

impl Examples {
    /// Remembers a complete checkpoint in place of the one before.
    pub(super) fn learn(&mut self, dir: &Listing) {
        let kinds = kinds(dir);
        let Some(place) = place(dir).filter(|_| !kinds.is_empty()) else { return };
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let known = self.0.entry(place).or_default();
        known.retain(|example| example.name != dir.name);
        known.push(Example { name: dir.name.clone(), kinds, without: BTreeMap::new() });
        if known.len() > 2 {
            known.remove(0);
        }
    }

    /// Another complete one whose name differs in its numbers only.
    pub(super) fn of(&self, dir: &Listing) -> Option<&Example> {
        self.0.get(&place(dir)?)?.iter().rfind(|example| example.name != dir.name)
    }

    /// What the one before had and this one has not yet. What one that was
    /// followed by a newer one never got is not saved any more.
    pub(super) fn late(&mut self, dir: &Listing) -> Option<Reason> {
        let here = kinds(dir);
        let example = self.0.get_mut(&place(dir)?)?.iter_mut().rfind(|example| example.name != dir.name)?;
        for kind in example.kinds.iter().filter(|kind| !here.contains(*kind)) {
            let first = example.without.entry(kind.clone()).or_insert_with(|| dir.name.clone());
            if *first == dir.name || step_of(first) >= step_of(&dir.name) {
                return Some(Reason::unlike(&format!("`{kind}`"), &example.name));
            }
        }
        None
    }
}

/// The directory above and the name without its numbers: what is saved under
/// one such name is the same thing again.
fn place(dir: &Listing) -> Option<(PathBuf, String)> {
    let stem = dir.name.chars().filter(|c| !c.is_ascii_digit()).collect();
    Some((dir.path.parent()?.to_owned(), stem))
}

/// The names at its top, and those of the ranks' states of DeepSpeed, which
/// lie deeper; its own step and random names left out.
pub(super) fn kinds(dir: &Listing) -> BTreeSet<String> {
    let step = step_of(&dir.name);
    let mut kinds = BTreeSet::new();
    for member in &dir.files {
        let top = member.path.find('/').map_or(member.path.as_str(), |slash| &member.path[..=slash]);
        kinds.insert(kind(top, step));
        if deepspeed::is_state(&member.path) {
            kinds.insert(kind(&member.path, step));
        }
        if kinds.len() > KINDS {
            return BTreeSet::new();
        }
    }
    kinds
}

/// A name in which the step is a `#`, and a random part a `*`.
pub(super) fn kind(name: &str, step: Option<u64>) -> String {
    let mut kind = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let end = |of: fn(&char) -> bool| rest.chars().take_while(of).map(char::len_utf8).sum::<usize>();
        let (word, digits) = (end(char::is_ascii_alphanumeric), end(char::is_ascii_digit));
        let is_random = word >= RANDOM && rest[..word].bytes().any(|b| b.is_ascii_digit());
        let taken = if is_random {
            kind.push('*');
            word
        } else if digits > 0 && step.is_some() && rest[..digits].parse().ok() == step {
            kind.push('#');
            digits
        } else {
            // Whole runs, so that a number is never taken apart.
            let run = if digits > 0 { digits } else { first.len_utf8() };
            kind.push_str(&rest[..run]);
            run
        };
        rest = &rest[taken..];
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_from_save_to_save_is_left_out_of_a_name() {
        for (name, expected) in [
            ("global_step10/", "global_step#/"),
            ("global_step100/", "global_step100/"),
            ("iter_0000010.pt", "iter_#.pt"),
            ("rng_state_3.pth", "rng_state_3.pth"),
            ("d0a1b2c3d4e5f60718293a4b5c6d7e8f", "*"),
            ("pytorch_model_fsdp_0/", "pytorch_model_fsdp_0/"),
            ("größe10", "größe#"),
        ] {
            assert_eq!(kind(name, Some(10)), expected);
        }
    }
}
