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
    load::each(&args.paths, args.shown.format.as_ref(), |run| {
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

/// As much of a page as fits: nothing stays without its heading, of a table no row
/// without its head, and of a drawing all or nothing.
pub(super) fn fitted(ranked: &[(u8, String)], most: usize) -> String {
    let mut lines = Lines::new(", all in a file with --out FILE");
    // Headings that are open, by their depth, and the head of a table.
    let (mut open, mut table): (Vec<(usize, usize)>, Option<usize>) = (Vec::new(), None);
    for (rank, text) in ranked {
        if text.starts_with("    ") {
            lines.push_under(open.last().map(|(_, index)| *index), *rank, text);
            continue;
        }
        for line in text.split('\n') {
            let depth = line.len() - line.trim_start_matches('#').len();
            if depth > 0 {
                open.retain(|(above, _)| *above < depth);
            }
            let under = open.last().map(|(_, index)| *index);
            table = table.filter(|_| line.starts_with('|'));
            match (depth, line.starts_with('|'), table) {
                (1.., _, _) => {
                    let index = match depth {
                        1 => lines.push_under(under, *rank, line),
                        _ => lines.push_hollow(under, *rank, line),
                    };
                    open.push((depth, index));
                }
                (_, true, None) => table = Some(lines.push_hollow(under, *rank, line)),
                (_, true, head) if line.starts_with("| ---") => {
                    table = Some(lines.push_hollow(head, *rank, line));
                }
                (_, true, head) => {
                    lines.push_under(head, *rank, line);
                }
                (_, false, _) => {
                    lines.push_under(under, *rank, line);
                }
            }
        }
    }
    lines.fit(most)
}
