//! Runs as Markdown: a report, pages for notebooks, and a model card. Names and
//! texts of logs are escaped, so that they cannot be markup.

use curves::view::date;
use curves::view::draw::{Chart, Signs, terminal};

use super::link::Links;
use super::page::{COLUMNS, Part, cells};
use crate::commands::analyze::words;

/// Lines of Markdown with their ranks, as [`super::budget::Lines`] takes them.
pub(super) type Ranked = Vec<(u8, String)>;

/// Makes text stand for itself.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in words::legible(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '!' | '~' | '$' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

fn row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
    format!("| {} |", cells.join(" | "))
}

fn table(rank: u8, head: &[&str], rows: impl Iterator<Item = Vec<String>>, out: &mut Ranked) {
    out.push((rank, format!("| {} |", head.join(" | "))));
    out.push((rank, format!("|{}", " --- |".repeat(head.len()))));
    out.extend(rows.map(|cells| (rank, row(&cells))));
    out.push((rank, String::new()));
}

/// A report of runs.
pub(super) fn report(parts: &[Part]) -> Ranked {
    let mut out: Ranked = vec![(0, "# Training report".into()), (0, String::new())];
    if parts.len() > 1 {
        let rows = parts.iter().map(|part| {
            let run = &part.described;
            let primary = run.primary.as_deref().and_then(|name| Some((name, run.metric(name)?.1)));
            vec![
                part.title(),
                run.state.to_owned(),
                run.began.map(date).unwrap_or_default(),
                run.steps.map(|steps| steps.to_string()).unwrap_or_default(),
                primary
                    .map(|(name, figures)| {
                        format!("{} {}", words::page(name), curves::judge::short(figures.last))
                    })
                    .unwrap_or_default(),
                run.labels.join(" "),
            ]
        });
        table(1, &["run", "state", "date", "steps", "primary metric", "labels"], rows, &mut out);
    }
    for part in parts {
        run(part, &mut out);
    }
    out
}

fn run(part: &Part, out: &mut Ranked) {
    out.push((1, format!("## {}", escaped(&part.title()))));
    out.push((1, String::new()));
    body(part, out);
}

/// Summary, findings, metrics, a drawing and settings of one run.
fn body(part: &Part, out: &mut Ranked) {
    let described = &part.described;
    let health = described.health.map_or("unknown".into(), |health| format!("{health} of 100"));
    out.push((1, format!("Health {health}; {}.", escaped(&described.labels.join(", ")))));
    out.push((1, String::new()));
    for sentence in &part.sentences {
        out.push((1, escaped(sentence)));
    }
    out.push((1, String::new()));
    links(&described.links, out);
    remarks(2, "### Notes", part, out);
    part.notes.iter().for_each(|note| out.push((2, format!("Not read: {}", escaped(note)))));
    if !part.findings.is_empty() {
        out.push((2, "### Findings".into()));
        out.push((2, String::new()));
        table(
            2,
            &["severity", "what", "steps", "advice"],
            part.findings.iter().map(|cells| cells.to_vec()),
            out,
        );
    }
    out.push((3, "### Metrics".into()));
    out.push((3, String::new()));
    table(3, &COLUMNS, part.metrics.iter().map(|(name, found)| cells(name, found).to_vec()), out);
    if part.more > 0 {
        out.push((3, format!("{} more are not listed.", part.more)));
        out.push((3, String::new()));
    }
    if let Some(line) = part.lines.first() {
        let mut chart = Chart::new(
            "",
            "step",
            vec![curves::view::draw::Line { name: words::metric(&line.name), points: line.points.clone() }],
        );
        chart.marks.clone_from(&part.marks);
        // Four spaces make a block that no name can end.
        let drawn = terminal(&chart, 64, 12, Signs::Ascii);
        let drawn: Vec<String> = drawn.lines().map(|line| format!("    {}", words::ascii(line))).collect();
        out.push((4, drawn.join("\n")));
        out.push((4, String::new()));
    }
    if !part.settings.is_empty() {
        out.push((4, "### Settings".into()));
        out.push((4, String::new()));
        let rows = part.settings.iter().map(|(name, value)| vec![words::page(name), value.clone()]);
        table(4, &["setting", "value"], rows, out);
    }
}

/// What people said of a run.
fn remarks(rank: u8, heading: &str, part: &Part, out: &mut Ranked) {
    if part.remarks.is_empty() {
        return;
    }
    out.push((rank, heading.to_owned()));
    out.push((rank, String::new()));
    for (what, text) in &part.remarks {
        out.push((rank, format!("- {what}: {}", escaped(text))));
    }
    out.push((rank, String::new()));
}

/// What a run is tied to. An address stands alone, so that it is one to click on.
fn links(links: &Links, out: &mut Ranked) {
    for (what, text, is_address) in links.shown() {
        let text = if is_address { format!("<{text}>") } else { escaped(text) };
        out.push((3, format!("{what}: {text}")));
        out.push((3, String::new()));
    }
}

/// A text in quotes of YAML.
fn yaml(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// A page for Obsidian: properties on top, then the report.
pub(super) fn obsidian(part: &Part) -> Ranked {
    let run = &part.described;
    let mut out: Ranked = vec![(0, "---".into()), (0, format!("title: {}", yaml(&part.title())))];
    if let Some(began) = run.began {
        out.push((0, format!("date: {}", date(began))));
    }
    // Tags of Obsidian hold letters, digits, `_`, `-` and `/`.
    let tag = |text: &String| {
        text.chars()
            .map(|c| if c.is_alphanumeric() || "_-/".contains(c) { c } else { '-' })
            .collect::<String>()
    };
    let tags: Vec<String> = ["training".to_owned()]
        .iter()
        .chain(&run.all_tags())
        .chain(&run.labels)
        .map(|text| yaml(&tag(text)))
        .collect();
    out.push((0, format!("tags: [{}]", tags.join(", "))));
    out.push((0, format!("state: {}", run.state)));
    if let Some(health) = run.health {
        out.push((0, format!("health: {health}")));
    }
    if let Some((name, figures)) = run.primary.as_deref().and_then(|name| run.metric(name)) {
        out.push((0, format!("metric: {}", yaml(name))));
        if figures.last.is_finite() {
            out.push((0, format!("value: {}", super::numbers::full(figures.last))));
        }
    }
    out.push((0, format!("source: {}", yaml(&run.path))));
    out.push((0, "---".into()));
    out.push((0, String::new()));
    self::run(part, &mut out);
    out
}

/// A page for Notion, which has no properties in Markdown: a table instead.
pub(super) fn notion(part: &Part) -> Ranked {
    let run = &part.described;
    let mut out: Ranked = Vec::new();
    out.push((0, format!("# {}", escaped(&part.title()))));
    out.push((0, String::new()));
    let rows = [
        ("State", run.state.to_owned()),
        ("Date", run.began.map(date).unwrap_or_default()),
        ("Steps", run.steps.map(|steps| steps.to_string()).unwrap_or_default()),
        ("Tags", run.all_tags().join(", ")),
        ("Source", run.path.clone()),
    ];
    let rows = rows
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| vec![name.to_owned(), value]);
    table(0, &["Property", "Value"], rows, &mut out);
    body(part, &mut out);
    out
}

/// A model card as the Hugging Face Hub reads it. What no log says is left for a
/// person to write, and marked.
pub(super) fn card(part: &Part) -> Ranked {
    let run = &part.described;
    let mut out: Ranked = vec![(0, "---".into())];
    let tags: Vec<String> = run.all_tags().iter().map(|tag| yaml(tag)).collect();
    if !tags.is_empty() {
        out.push((0, format!("tags: [{}]", tags.join(", "))));
    }
    out.push((0, "---".into()));
    out.push((0, String::new()));
    out.push((0, format!("# {}", escaped(&part.title()))));
    for (title, text) in [
        (
            "Model description",
            "*To be written by a person: what the model is and what it is for. No log says it.*",
        ),
        ("Intended uses and limits", "*To be written by a person.*"),
        ("Training data", "*To be written by a person: sources, sizes, licences.*"),
    ] {
        out.push((1, format!("\n## {title}\n\n{text}")));
    }
    out.push((1, "\n## Training\n".into()));
    for (what, value) in [
        ("Steps", run.steps.map(|steps| steps.to_string())),
        ("Date", run.began.map(date)),
        ("Ended", Some(run.state.to_owned()).filter(|state| state != "unknown")),
        (
            "Health of the curves",
            run.health.map(|health| format!("{health} of 100, {}", run.labels.join(", "))),
        ),
    ] {
        if let Some(value) = value {
            out.push((1, format!("- {what}: {}", escaped(&value))));
        }
    }
    out.push((1, String::new()));
    out.push((1, "## Results\n".into()));
    out.push((1, "Values of one run: another random seed may give others.\n".into()));
    table(
        2,
        &COLUMNS,
        part.metrics.iter().take(20).map(|(name, found)| cells(name, found).to_vec()),
        &mut out,
    );
    remarks(2, "## Notes", part, &mut out);
    if !part.settings.is_empty() {
        out.push((3, "## Hyperparameters\n".into()));
        let rows = part.settings.iter().map(|(name, value)| vec![words::page(name), value.clone()]);
        table(3, &["setting", "value"], rows, &mut out);
    }
    out
}

/// All of it as one text.
pub(super) fn whole(ranked: &[(u8, String)]) -> String {
    ranked.iter().map(|(_, line)| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_markup() {
        let text = escaped("<img src=x> `a` [b](c) | d\n# e");
        assert_eq!(text, "&lt;img src=x&gt; \\`a\\` \\[b\\](c) \\| d\\\\n\\# e");
        assert_eq!(row(&["a|b".into()]), "| a\\|b |");
    }
}
