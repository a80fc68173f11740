//! The tools as a client sees them: names, words, arguments and hints. Every
//! word here is read by a model at the start of each session, so the whole list
//! has a bound in tokens that a test holds.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

/// What a tool may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads files below the roots.
    Analysis,
    /// Asks the controller.
    Look,
    /// Changes something; listed where control is allowed.
    Act,
}

/// An argument.
#[derive(Debug, Clone, Copy)]
enum Takes {
    /// A text that there must be.
    Needs(&'static str),
    Text(&'static str),
    Texts(&'static str),
    NeedsTexts(&'static str),
    Whole(&'static str),
    Number(&'static str),
    Flag(&'static str),
}
use Takes::{Flag, Needs, NeedsTexts, Number, Text, Texts, Whole};

/// One tool.
pub(super) struct Entry {
    pub(super) name: &'static str,
    what: &'static str,
    pub(super) kind: Kind,
    takes: &'static [Takes],
    /// Its answer is a list that may go on.
    lists: bool,
}

const fn entry(
    name: &'static str,
    kind: Kind,
    what: &'static str,
    takes: &'static [Takes],
    lists: bool,
) -> Entry {
    Entry { name, what, kind, takes, lists }
}

/// All of them.
pub(super) const ALL: &[Entry] = &[
    entry(
        "analyze",
        Kind::Analysis,
        "Judge training curves in files: health, what is wrong, what to do",
        &[NeedsTexts("paths"), Text("format")],
        false,
    ),
    entry(
        "history",
        Kind::Analysis,
        "Values of metrics by step, extremes kept",
        &[Needs("path"), Text("run"), Texts("metrics"), Whole("from"), Whole("to")],
        false,
    ),
    entry(
        "stats",
        Kind::Analysis,
        "Min, max, mean, last, spread, trend",
        &[Needs("path"), Text("run"), Texts("metrics"), Whole("from"), Whole("to")],
        false,
    ),
    entry("metrics", Kind::Analysis, "What a run logged", &[Needs("path"), Text("run")], false),
    entry(
        "settings",
        Kind::Analysis,
        "Settings a run was made with",
        &[Needs("path"), Text("run"), Text("only")],
        false,
    ),
    entry(
        "compare",
        Kind::Analysis,
        "Runs at one step against the first; PATH or PATH@STEP",
        &[NeedsTexts("runs"), Texts("metrics"), Whole("at")],
        false,
    ),
    entry(
        "find",
        Kind::Analysis,
        "Runs below a path, such as val_acc > 0.8 and state == finished",
        &[Needs("path"), Text("filter"), Text("best"), Text("sort"), Whole("top")],
        false,
    ),
    entry(
        "plot",
        Kind::Analysis,
        "Draw metrics in ASCII",
        &[NeedsTexts("paths"), Texts("metrics"), Flag("log"), Whole("from"), Whole("to")],
        false,
    ),
    entry("list", Kind::Look, "List runs", &[Flag("all"), Text("cursor")], true),
    entry("status", Kind::Look, "One run: state, step, cost, question", &[Needs("run")], false),
    entry(
        "watch",
        Kind::Look,
        "Wait until a run changes state, at most seconds",
        &[Needs("run"), Whole("seconds")],
        false,
    ),
    entry(
        "logs",
        Kind::Look,
        "Last lines a run wrote; cursor goes back",
        &[Needs("run"), Whole("lines"), Text("grep"), Whole("attempt"), Text("cursor")],
        true,
    ),
    entry("why", Kind::Look, "Why an attempt ended, what to try", &[Needs("run"), Whole("attempt")], false),
    entry("events", Kind::Look, "Journal of what happened", &[Text("run"), Text("cursor")], true),
    entry("checkpoints", Kind::Look, "Checkpoints of a run", &[Needs("run"), Text("cursor")], true),
    entry("cost", Kind::Look, "What runs cost", &[Text("run"), Text("cursor")], true),
    entry(
        "offers",
        Kind::Look,
        "Machines to rent now for this project",
        &[Text("provider"), Text("cursor")],
        true,
    ),
    entry(
        "run",
        Kind::Act,
        "Begin a run of this project; dry_run only shows price and cap",
        &[
            Texts("command"),
            Text("name"),
            Texts("set"),
            Number("max_usd"),
            Number("max_usd_per_hour"),
            Flag("dry_run"),
        ],
        false,
    ),
    entry("stop", Kind::Act, "Ask a run to save and end", &[Needs("run")], false),
    entry("destroy", Kind::Act, "End a run or machine at once, unsaved", &[Needs("target")], false),
    entry(
        "fork",
        Kind::Act,
        "New run from RUN, RUN@STEP or RUN@best with set key=value",
        &[Needs("checkpoint"), Texts("set"), Texts("command"), Text("name"), Flag("dry_run")],
        false,
    ),
    entry("resume", Kind::Act, "Go on with a held or ended run", &[Needs("run"), Flag("dry_run")], false),
];

/// The tool of this name.
pub(super) fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}

fn object(value: Value) -> Arc<JsonObject> {
    Arc::new(match value {
        Value::Object(map) => map,
        _ => JsonObject::new(),
    })
}

impl Entry {
    /// As the protocol has it.
    pub(super) fn tool(&self) -> Tool {
        let (mut properties, mut required) = (JsonObject::new(), Vec::new());
        for takes in self.takes {
            let (name, schema) = match takes {
                Needs(name) | Text(name) => (name, json!({ "type": "string" })),
                Texts(name) | NeedsTexts(name) => {
                    (name, json!({ "type": "array", "items": { "type": "string" } }))
                }
                Whole(name) => (name, json!({ "type": "integer" })),
                Number(name) => (name, json!({ "type": "number" })),
                Flag(name) => (name, json!({ "type": "boolean" })),
            };
            if matches!(takes, Needs(_) | NeedsTexts(_)) {
                required.push(*name);
            }
            properties.insert((*name).to_owned(), schema);
        }
        properties.insert("max_tokens".to_owned(), json!({ "type": "integer" }));
        let mut input = json!({ "type": "object", "properties": properties });
        if !required.is_empty() {
            input["required"] = json!(required);
        }
        let output = match (self.kind, self.lists) {
            (Kind::Act, _) => json!({ "type": "object", "properties": { "code": { "type": "string" } } }),
            (_, true) => {
                json!({ "type": "object", "properties": { "rows": { "type": "array" }, "next": { "type": "string" } } })
            }
            _ => json!({ "type": "object" }),
        };
        let reads = self.kind != Kind::Act;
        let hints = ToolAnnotations::new().read_only(reads);
        let hints = if reads { hints } else { hints.destructive(self.name != "stop") };
        Tool::new(self.name, self.what, object(input)).with_raw_output_schema(object(output)).annotate(hints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiktoken_rs::o200k_base_singleton;

    fn tokens(of: impl Fn(&Entry) -> bool) -> usize {
        let tools: Vec<Tool> = ALL.iter().filter(|entry| of(entry)).map(Entry::tool).collect();
        let text = json!({ "tools": tools }).to_string();
        o200k_base_singleton().encode_ordinary(&text).len()
    }

    #[test]
    fn the_list_of_tools_costs_few_tokens() {
        let (all, analysis) = (tokens(|_| true), tokens(|entry| entry.kind == Kind::Analysis));
        assert!(all <= 2_000 && analysis <= 1_000, "{all} in full, {analysis} for analysis");
    }

    #[test]
    fn the_guides_for_assistants_fit() {
        let count = |text: &str| o200k_base_singleton().encode_ordinary(text).len();
        let skill = count(include_str!("../../../packaging/skill/SKILL.md"));
        let guide = count(include_str!("../../../docs/assistants.md"));
        assert!(skill <= 1_500 && guide <= 1_500, "skill {skill}, guide {guide}");
    }

    #[test]
    fn every_tool_has_schemas_a_budget_and_hints() {
        for entry in ALL {
            let tool = serde_json::to_value(entry.tool()).unwrap();
            assert_eq!(tool["inputSchema"]["properties"]["max_tokens"]["type"], "integer", "{tool}");
            assert_eq!(tool["outputSchema"]["type"], "object");
            assert_eq!(tool["annotations"]["readOnlyHint"], entry.kind != Kind::Act);
            assert_eq!(find(entry.name).unwrap().name, entry.name);
        }
    }
}
