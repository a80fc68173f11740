//! What is said of trainings in CSV files: a head of names, the step first.

use curves::judge::{Judge, Report, Settings, Severity};

/// Judges the text of one file.
pub(crate) fn judged(text: &str) -> Report {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').skip(1).collect();
    let mut judge = Judge::new(Settings::default());
    let ids: Vec<_> = names.iter().map(|n| judge.metric(n)).collect();
    for line in lines {
        let mut cells = line.split(',');
        let step = cells.next().and_then(|c| c.parse().ok());
        for (id, cell) in ids.iter().zip(cells) {
            if let Ok(value) = cell.parse() {
                judge.point(*id, step, None, value);
            }
        }
    }
    judge.report()
}

/// One row of a table.
pub(crate) fn row(name: &str, report: &Report) -> String {
    let said: Vec<String> = report
        .findings
        .iter()
        .map(|f| {
            let grave = if f.severity >= Severity::Warning { "**" } else { "" };
            let last = f
                .last_step
                .filter(|l| Some(*l) != f.first_step)
                .map(|l| format!(" to {l}"))
                .unwrap_or_default();
            let first = f.first_step.map(|s| s.to_string()).unwrap_or_default();
            format!("{grave}{}{grave} {} {first}{last}", f.kind.name(), f.metric)
        })
        .collect();
    let labels: Vec<String> = report.health.labels.iter().map(|l| format!("{l:?}").to_lowercase()).collect();
    let score = report.health.score.map_or("none".into(), |s| s.to_string());
    format!("| {name} | {score} | {} | {} |", labels.join(", "), said.join("; "))
}
