//! `outlast analyze --explain`: why each file is read as what, and what else it
//! could be.

use super::find::{Explained, Found};
use super::words;
use crate::app::Context;
use crate::commands::views::budget::Lines;

/// Prints it.
pub(super) fn print(ctx: &Context, found: &Found, json: bool, tokens: usize) {
    if json {
        let all: Vec<_> = found.explained.iter().map(object).collect();
        ctx.printer.json(&all);
        return;
    }
    let mut lines = Lines::new("");
    for explained in &found.explained {
        // What was taken matters more than what lies beside it.
        lines.push(u8::from(explained.format.is_none()), &line(explained));
    }
    ctx.printer.raw(lines.fit(tokens).as_bytes());
    let untold = found.skipped_count.saturating_sub(found.skipped.len() as u64);
    if untold > 0 {
        ctx.printer.note(&format!("{untold} more were passed over"));
    }
}

fn line(explained: &Explained) -> String {
    let Explained { path, format, why, others } = explained;
    let taken = format.map_or("passed over", words::format);
    let others: Vec<String> = others
        .iter()
        .map(|guess| format!("{} ({}, {} of 5)", words::format(guess.format), guess.reason, guess.strength))
        .collect();
    let others = if others.is_empty() { String::new() } else { format!("; or else {}", others.join(", ")) };
    format!("{}: {taken}: {why}{others}", words::path(path))
}

fn object(explained: &Explained) -> serde_json::Value {
    let others: Vec<_> = explained
        .others
        .iter()
        .map(|guess| {
            serde_json::json!({
                "format": words::format(guess.format), "why": guess.reason, "strength": guess.strength,
            })
        })
        .collect();
    serde_json::json!({
        "path": explained.path.to_string_lossy(),
        "format": explained.format.map(words::format),
        "why": explained.why,
        "others": others,
    })
}
