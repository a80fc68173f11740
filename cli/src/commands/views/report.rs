//! `outlast report`: runs on a page, for people.

use serde_json::json;

use super::budget::Lines;
use super::page::Part;
use super::{Answer, html, load, markdown, plot};
use crate::args::ReportArgs;
use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// Runs of one report.
const MOST: usize = 50;

/// The report of runs.
///
/// # Errors
/// A path without runs, or a file that cannot be written.
pub(crate) fn answer(args: &ReportArgs) -> anyhow::Result<Answer> {
    let mut parts = Vec::new();
    let mut more = 0_usize;
    load::each(&args.paths, args.shown.format, |run| {
        if parts.len() < MOST {
            parts.push(Part::of(&run, &args.metrics));
        } else {
            more += 1;
        }
    })?;
    let mut markdown = markdown::report(&parts);
    let left =
        if more > 0 { format!("{more} more runs are not in it: at most {MOST}") } else { String::new() };
    if more > 0 {
        markdown.insert(1, (0, format!("\n{left}.")));
    }
    let text = match &args.out {
        None => fitted(&markdown, args.shown.tokens as usize),
        Some(out) => {
            let end = out.extension().map(|end| end.to_string_lossy().to_lowercase());
            let bytes = match end.as_deref() {
                Some("html" | "htm") => html::page(&parts),
                Some("md" | "markdown") => markdown::whole(&markdown),
                _ => {
                    let message = format!("{}: its end says no kind of report", words::path(out));
                    return Err(Failure::new(ExitCode::BadInput, message)
                        .help("end it in .html or .md")
                        .into());
                }
            };
            plot::save(out, bytes.as_bytes())?;
            plot::said_written(out, &left, args.shown.tokens)
        }
    };
    let json = json!({
        "written": args.out,
        "left_out": more,
        "runs": parts.iter().map(|part| part.described.object()).collect::<Vec<_>>(),
        "markdown": markdown::whole(&markdown),
    });
    Ok(Answer { text, json })
}

/// As much of a page as fits.
pub(super) fn fitted(ranked: &[(u8, String)], most: usize) -> String {
    let mut lines = Lines::new(", all in a file with --out FILE");
    for (rank, text) in ranked {
        text.split('\n').for_each(|line| lines.push(*rank, line));
    }
    lines.fit(most)
}
