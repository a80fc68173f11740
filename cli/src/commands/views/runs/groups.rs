//! Which run is the best of those that belong together.

use std::collections::BTreeMap;

use curves::judge::schema::{Direction, read_name};

use crate::commands::views::described::Described;

/// The label.
pub(super) const LABEL: &str = "best-of-group";

/// Labels the best run of each group of two or more: those that are in a group, or
/// have the same name without the number at its end, and are judged by the same
/// metric, whose better end is known. A run that diverged is not the best.
pub(super) fn label(runs: &mut [Described]) {
    let mut groups: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (index, run) in runs.iter().enumerate() {
        let Some(metric) = &run.primary else { continue };
        let group = run.group().cloned().unwrap_or_else(|| run.stem().0);
        groups.entry((group, metric.clone())).or_default().push(index);
    }
    for ((_, metric), members) in groups.into_iter().filter(|(_, members)| members.len() > 1) {
        let higher = match way(runs, &members, &metric) {
            Direction::Higher => true,
            Direction::Lower => false,
            Direction::Unknown => continue,
        };
        let value = |index: &usize| {
            let run = runs.get(*index).filter(|run| !run.labels.iter().any(|label| label == "diverged"))?;
            Some((*index, run.best(&metric, higher)?.1))
        };
        let values = || members.iter().filter_map(value);
        let best = if higher {
            values().max_by(|a, b| a.1.total_cmp(&b.1))
        } else {
            values().min_by(|a, b| a.1.total_cmp(&b.1))
        };
        if let Some(run) = best.and_then(|(index, _)| runs.get_mut(index)) {
            run.labels.push(LABEL.to_owned());
        }
    }
}

fn way(runs: &[Described], members: &[usize], metric: &str) -> Direction {
    let judged = members.iter().filter_map(|index| runs.get(*index)).map(|run| run.direction);
    judged.into_iter().find(|way| *way != Direction::Unknown).unwrap_or(read_name(metric).direction)
}
