//! What a client may read without a tool: status, logs and failure of each run,
//! and the report on curves in a file. All of it is bounded and quoted as the
//! tools' answers are.

use std::sync::Arc;

use proto::v1;
use rmcp::ErrorData;
use rmcp::model::{ListResourcesResult, ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::{Value, json};

use super::arguments::Arguments;
use super::desk::Desk;
use super::paging::newest_first;
use super::reply::{failure, spelt};
use super::server::Progress;
use super::{analysis, following, reading};
use crate::commands::answer;

/// Tokens of one resource.
const TOKENS: usize = 4_000;
/// Runs of a page.
const PAGE: usize = 50;
const RUNS: &str = "outlast://runs/";
const FILES: &str = "outlast://files/";

/// The templates.
pub(super) fn templates(desk: &Desk) -> Vec<ResourceTemplate> {
    let text = "text/plain";
    let files = ResourceTemplate::new(format!("{FILES}{{+path}}"), "report")
        .with_description("What training curves below a path show")
        .with_mime_type(text);
    let mut all = vec![files];
    if !desk.analysis {
        for (part, what) in [("status", "A run in full"), ("logs", "Its last lines"), ("why", "Why it ended")]
        {
            let template = ResourceTemplate::new(format!("{RUNS}{{run}}/{part}"), part);
            all.push(template.with_description(what).with_mime_type(text));
        }
    }
    all
}

fn refused(error: &anyhow::Error) -> ErrorData {
    let failure = failure(error);
    let help = failure.help.first().map(|help| format!("; {help}")).unwrap_or_default();
    ErrorData::internal_error(spelt(&format!("{}{help}", failure.message), 500), None)
}

/// The runs, newest first: a log and a report of each.
pub(super) async fn list(desk: &Desk, cursor: Option<String>) -> Result<ListResourcesResult, ErrorData> {
    let number = |text: String| text.parse::<u64>();
    let behind = cursor.map(number).transpose();
    let behind = behind.map_err(|_| ErrorData::invalid_params("this cursor was not given out", None))?;
    if desk.analysis {
        return Ok(ListResourcesResult::with_all_items(Vec::new()));
    }
    let runs = runs(desk).await.map_err(|error| refused(&error))?;
    let (runs, numbers) = newest_first(runs, behind, |run| run.created_ms, |run| run.id.clone());
    let shown = runs.iter().take(PAGE);
    let resources = shown.flat_map(|run| {
        ["logs", "why"].map(|part| {
            let name = spelt(&run.name, 80);
            Resource::new(format!("{RUNS}{}/{part}", run.id), format!("{part} of {name}"))
                .with_mime_type("text/plain")
        })
    });
    let mut result = ListResourcesResult::with_all_items(resources.collect());
    if runs.len() > PAGE {
        result.next_cursor = numbers.get(PAGE - 1).map(u64::to_string);
    }
    Ok(result)
}

async fn runs(desk: &Desk) -> anyhow::Result<Vec<v1::RunView>> {
    let Some(client) = desk.existing().await? else { return Ok(Vec::new()) };
    Ok(answer(client.operator.clone().list_runs(v1::ListRunsRequest { all: true }).await)?.runs)
}

/// One resource.
pub(super) async fn read(
    desk: &Arc<Desk>,
    uri: &str,
    progress: Progress,
) -> Result<ReadResourceResult, ErrorData> {
    let unknown = || {
        let known = "outlast://runs/RUN/status, /logs or /why, or outlast://files/PATH";
        ErrorData::resource_not_found(format!("there is no such resource; there are {known}"), None)
    };
    if uri.len() > 4_096 {
        return Err(unknown());
    }
    let given = |value: Value| Arguments::new(value.as_object().cloned());
    let reply = if let Some(path) = uri.strip_prefix(FILES) {
        let path = decoded(path).ok_or_else(unknown)?;
        let mut given = given(json!({ "paths": [path], "max_tokens": TOKENS }));
        given.budget().map_err(|failure| refused(&failure.into()))?;
        analysis::analyze(desk, given, progress).await
    } else {
        let of_run = uri.strip_prefix(RUNS).and_then(|rest| rest.split_once('/'));
        let (run, part) = of_run.filter(|_| !desk.analysis).ok_or_else(unknown)?;
        let run = decoded(run).ok_or_else(unknown)?;
        match part {
            "status" => reading::status(desk, given(json!({ "run": run }))).await,
            "logs" => following::logs(desk, given(json!({ "run": run, "lines": 500 }))).await,
            "why" => reading::why(desk, given(json!({ "run": run }))).await,
            _ => return Err(unknown()),
        }
    };
    let text = reply.map_err(|error| refused(&error))?.text(TOKENS);
    Ok(ReadResourceResult::new(vec![ResourceContents::text(text, uri)]))
}

/// A part of a URI as it was meant; `None`: it is none.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty() && !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_uri_are_decoded_or_refused() {
        assert_eq!(decoded("a%20b/c.jsonl").as_deref(), Some("a b/c.jsonl"));
        for bad in ["", "%", "%2", "%zz", "%00", "%ff"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }
}
