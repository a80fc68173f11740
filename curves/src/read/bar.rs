//! Progress bars: `Epoch 5:  45%|####5     | 45/100 [00:10<00:12, 4.5it/s, loss=0.3]`.
//!
//! A bar without metrics moves only the progress, never the step: data loading
//! and downloads draw bars too.

use super::keyvalue;
use super::line::LineMetrics;
use crate::number;

/// Words in a bar's title which say that it is not the training that moves.
const ASIDE: [&str; 9] =
    ["val", "valid", "validation", "validating", "eval", "evaluating", "test", "testing", "sanity"];

/// Words of a title that belongs to the training, besides metrics.
const TRAINING: [&str; 6] = ["epoch", "train", "training", "step", "steps", "iteration"];

/// A line taken apart.
pub(super) struct Bar<'a> {
    title: &'a str,
    done: Option<u64>,
    total: Option<u64>,
    rest: &'a str,
}

/// Takes a line apart when it is a bar.
pub(super) fn split(line: &str) -> Option<Bar<'_>> {
    let mark = line.find("%|")?;
    let before = &line[..mark];
    let title = before.trim_end_matches(|c: char| c.is_ascii_digit());
    if title.len() == before.len() {
        return None;
    }
    let after = &line[mark + 2..];
    let open = after.find('[')?;
    let bar_end = after[..open].rfind('|')?;
    let (done, total) = after[bar_end + 1..open].trim().split_once('/')?;
    Some(Bar { title: title.trim(), done: integer(done), total: integer(total), rest: &after[open..] })
}

fn integer(text: &str) -> Option<u64> {
    number::step(text.trim()).map(|(number, _)| number)
}

impl Bar<'_> {
    fn words(&self) -> impl Iterator<Item = String> {
        self.title
            .split(|c: char| !c.is_ascii_alphanumeric())
            .map(str::to_ascii_lowercase)
            .filter(|w| !w.is_empty())
    }

    /// Where it ends.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Position and total when the bar may be the training's own.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        let own = self.title.is_empty() || self.words().any(|w| TRAINING.contains(&w.as_str()));
        let aside = self.words().any(|w| ASIDE.contains(&w.as_str()));
        (own && !aside).then_some(self.done.zip(self.total)).flatten()
    }

    /// The bar's metrics. Bars that begin anew in each epoch count on: the
    /// step is `epoch * total + done`.
    pub(super) fn metrics(&self) -> LineMetrics {
        let mut metrics = keyvalue::parse_postfix(&format!("{} | {}", self.title, self.rest));
        let epochs = metrics.progress.take();
        metrics.progress = self.progress();
        let aside = self.words().any(|w| ASIDE.contains(&w.as_str()));
        if metrics.values.is_empty() || aside {
            metrics.step = None;
            if aside {
                metrics.epoch = None;
            }
            return metrics;
        }
        let passed = match (metrics.epoch.and_then(super::line::step), epochs) {
            // `Epoch 1/10` counts from one, a bare `Epoch 0` from zero.
            (Some(epoch), Some(_)) => epoch.saturating_sub(1),
            (Some(epoch), None) => epoch,
            (None, _) => 0,
        };
        let total = self.total.unwrap_or(0);
        metrics.step = self.done.and_then(|done| passed.checked_mul(total)?.checked_add(done));
        if let (Some(step), Some((_, all)), Some(total)) = (metrics.step, epochs, self.total) {
            metrics.progress = all.checked_mul(total).map(|whole| (step, whole));
        } else if metrics.epoch.is_some() {
            // How many epochs are to come is not known, so neither is the end.
            metrics.progress = None;
        }
        metrics
    }
}
