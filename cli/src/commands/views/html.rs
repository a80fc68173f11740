//! A report as one HTML file: nothing is fetched, everything out of logs is text.
//!
//! Its policy lets only the script of this program run, told by a number made
//! from all that the page holds, which nothing in the page can name beforehand.

use std::collections::BTreeMap;

use curves::view::date;
use curves::view::draw::Line;
use serde_json::{Value, json};

use super::page::{COLUMNS, Part, cells};
use crate::commands::analyze::words;

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");
/// Lines of one chart.
const LINES: usize = 20;

/// The page.
pub(super) fn page(parts: &[Part]) -> String {
    let charts = charts(parts);
    let data = embedded(&Value::from(charts.iter().map(|(_, chart)| chart.clone()).collect::<Vec<_>>()));
    let body = body(parts, &charts);
    let nonce = blake3::hash(format!("{data}{body}").as_bytes()).to_hex();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'"
    );
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Training report</title>\n\
         <style nonce=\"{nonce}\">\n{STYLE}</style>\n</head>\n<body>\n{body}\
         <script type=\"application/json\" id=\"charts\">{data}</script>\n\
         <script nonce=\"{nonce}\">\n{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

/// JSON that cannot end the element it stands in.
fn embedded(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in words::legible(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// One chart for each metric, runs over each other.
fn charts(parts: &[Part]) -> Vec<(String, Value)> {
    let mut order: Vec<&str> = Vec::new();
    let mut by_metric: BTreeMap<&str, Vec<(String, &Line, &Part)>> = BTreeMap::new();
    for part in parts {
        for line in &part.lines {
            if !order.contains(&line.name.as_str()) {
                order.push(&line.name);
            }
            by_metric.entry(&line.name).or_default().push((part.title(), line, part));
        }
    }
    order
        .into_iter()
        .filter_map(|metric| {
            let lines = by_metric.get(metric)?;
            let one = |(run, line, _): &(String, &Line, &Part)| {
                let points: Vec<Value> =
                    line.points.iter().map(|p| json!([p.0, Some(p.1).filter(|v| v.is_finite())])).collect();
                let name = if parts.len() == 1 { words::page(metric) } else { run.clone() };
                json!({ "name": name, "points": points })
            };
            let marks: Vec<Value> = match parts {
                [part] => {
                    let of_metric = |text: &str| text.ends_with(&format!(" in {}", words::page(metric)));
                    part.marks
                        .iter()
                        .filter(|mark| of_metric(&mark.text))
                        .map(|mark| json!([mark.place, mark.text]))
                        .collect()
                }
                _ => Vec::new(),
            };
            let lines: Vec<Value> = lines.iter().take(LINES).map(one).collect();
            Some((words::page(metric), json!({ "lines": lines, "marks": marks })))
        })
        .collect()
}

fn body(parts: &[Part], charts: &[(String, Value)]) -> String {
    let mut out = String::from("<h1>Training report</h1>\n");
    if parts.len() > 1 {
        let rows = parts.iter().map(|part| {
            let run = &part.described;
            let primary = run.primary.as_deref().and_then(|name| Some((name, run.metric(name)?.1)));
            let said = primary.map(|(name, figures)| {
                format!("{} {}", words::page(name), curves::judge::short(figures.last))
            });
            vec![
                part.title(),
                run.state.to_owned(),
                run.began.map(date).unwrap_or_default(),
                run.steps.map(|steps| steps.to_string()).unwrap_or_default(),
                said.unwrap_or_default(),
                run.labels.join(" "),
            ]
        });
        out.push_str(&table(&["run", "state", "date", "steps", "primary metric", "labels"], rows));
    }
    out.push_str("<p><small>Drag over a chart to look closer, turn the wheel to zoom, click twice to see all.</small></p>\n<div class=\"charts\">\n");
    for (metric, chart) in charts {
        out.push_str(&format!(
            "<figure><figcaption><label><input type=\"checkbox\"> log</label>{}</figcaption><canvas></canvas><div class=\"tip\"></div>{}</figure>\n",
            escaped(metric),
            key(chart)
        ));
    }
    out.push_str("</div>\n");
    for part in parts {
        run(part, &mut out);
    }
    out
}

/// Names of the lines beside their colours, as marks of classes would be many.
fn key(chart: &Value) -> String {
    let lines = chart.get("lines").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if lines.len() < 2 {
        return String::new();
    }
    let names: Vec<String> = lines
        .iter()
        .enumerate()
        .map(|(index, line)| {
            let name = line.get("name").and_then(Value::as_str).unwrap_or_default();
            format!("<span><i class=\"c{}\"></i>{}</span>", index % 8, escaped(name))
        })
        .collect();
    format!("<div class=\"key\">{}</div>", names.concat())
}

fn run(part: &Part, out: &mut String) {
    let described = &part.described;
    out.push_str(&format!("<h2>{}</h2>\n", escaped(&part.title())));
    let health = described.health.map_or("unknown".into(), |health| format!("{health} of 100"));
    out.push_str(&format!("<p>Health {health}; {}. ", escaped(&described.labels.join(", "))));
    out.push_str(&part.sentences.iter().map(|text| escaped(text)).collect::<Vec<_>>().join(" "));
    out.push_str("</p>\n");
    for (what, text, is_address) in described.links.shown() {
        let text = escaped(text);
        let text =
            if is_address { format!("<a rel=\"noreferrer\" href=\"{text}\">{text}</a>") } else { text };
        out.push_str(&format!("<p>{what}: {text}</p>\n"));
    }
    if !part.remarks.is_empty() {
        let one = |(what, text): &(String, String)| format!("<li>{what}: {}</li>\n", escaped(text));
        let all: Vec<String> = part.remarks.iter().map(one).collect();
        out.push_str(&format!("<h3>Notes</h3>\n<ul>\n{}</ul>\n", all.concat()));
    }
    for note in &part.notes {
        out.push_str(&format!("<p>Not read: {}</p>\n", escaped(note)));
    }
    if !part.findings.is_empty() {
        out.push_str("<h3>Findings</h3>\n<table><tr><th>severity</th><th>what</th><th>steps</th><th>advice</th></tr>\n");
        for [severity, what, steps, advice] in &part.findings {
            out.push_str(&format!(
                "<tr><td class=\"{0}\">{0}</td><td>{1}</td><td>{2}</td><td>{3}</td></tr>\n",
                escaped(severity),
                escaped(what),
                escaped(steps),
                escaped(advice)
            ));
        }
        out.push_str("</table>\n");
    }
    out.push_str("<h3>Metrics</h3>\n");
    out.push_str(&table(&COLUMNS, part.metrics.iter().map(|(name, found)| cells(name, found).to_vec())));
    if part.more > 0 {
        out.push_str(&format!("<p>{} more are not listed.</p>\n", part.more));
    }
    if !part.settings.is_empty() {
        out.push_str("<h3>Settings</h3>\n");
        let rows = part.settings.iter().map(|(name, value)| vec![words::page(name), value.clone()]);
        out.push_str(&table(&["setting", "value"], rows));
    }
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let cells = |tag: &str, cells: Vec<String>| {
        let cells: Vec<String> =
            cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{}</tr>\n", cells.concat())
    };
    let mut out = String::from("<table>\n");
    out.push_str(&cells("th", head.iter().map(|text| (*text).to_owned()).collect()));
    rows.for_each(|row| out.push_str(&cells("td", row)));
    out + "</table>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_end_their_element() {
        let text = embedded(&json!(["</script><script>alert(1)</script>", "<!--"]));
        assert!(!text.contains('<'), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()[1], "<!--");
        assert_eq!(escaped("<b a='c'>&\"\n"), "&lt;b a=&#39;c&#39;&gt;&amp;&quot;\\n");
    }
}
