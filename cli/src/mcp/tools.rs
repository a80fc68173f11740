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
    /// What is needed mostly; a tool takes rarer ones too, and names all in refusing
    /// what it does not take.
    takes: &'static [Takes],
    form: Form,
}

/// What its answer is besides text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Numbers and names as an object.
    Object,
    /// Nothing: it is lines that a program wrote, or a drawing.
    Text,
}

const fn entry(
    name: &'static str,
    kind: Kind,
    what: &'static str,
    takes: &'static [Takes],
    form: Form,
) -> Entry {
    Entry { name, what, kind, takes, form }
}

/// All of them.
pub(super) const ALL: &[Entry] = &[
    entry(
        "analyze",
        Kind::Analysis,
        "Judge training curves in files: health, problems, advice",
        &[NeedsTexts("paths"), Texts("metrics")],
        Form::Object,
    ),
    entry(
        "anomalies",
        Kind::Analysis,
        "Only problems, with steps and advice",
        &[NeedsTexts("paths")],
        Form::Object,
    ),
    entry(
        "history",
        Kind::Analysis,
        "Values by step, extremes kept",
        &[Needs("path"), Text("run"), Texts("metrics"), Whole("from"), Whole("to")],
        Form::Object,
    ),
    entry(
        "stats",
        Kind::Analysis,
        "Min, max, mean, last, trend",
        &[Needs("path"), Text("run")],
        Form::Object,
    ),
    entry("metrics", Kind::Analysis, "What a run logged", &[Needs("path")], Form::Object),
    entry("settings", Kind::Analysis, "Its config", &[Needs("path"), Text("run")], Form::Object),
    entry(
        "compare",
        Kind::Analysis,
        "Runs at one step; PATH or PATH@STEP",
        &[NeedsTexts("runs"), Whole("at")],
        Form::Object,
    ),
    entry("config_diff", Kind::Analysis, "Settings that differ", &[NeedsTexts("runs")], Form::Object),
    entry(
        "find",
        Kind::Analysis,
        "Runs (no path: the controller's), such as val_acc > 0.8 and state == finished",
        &[Text("path"), Text("filter"), Text("best"), Whole("top")],
        Form::Object,
    ),
    entry(
        "group",
        Kind::Analysis,
        "Compare arms over seeds",
        &[NeedsTexts("paths"), Text("metric"), Text("by")],
        Form::Object,
    ),
    entry("plot", Kind::Analysis, "Draw in ASCII", &[NeedsTexts("paths"), Texts("metrics")], Form::Text),
    entry("notes", Kind::Analysis, "People's notes", &[Needs("path")], Form::Object),
    entry(
        "watch",
        Kind::Analysis,
        "Wait for news of a run or files",
        &[Text("run"), Text("path"), Whole("seconds")],
        Form::Object,
    ),
    entry("list", Kind::Look, "List runs", &[Flag("all"), Text("cursor")], Form::Object),
    entry("status", Kind::Look, "State, step, cost, question", &[Needs("run")], Form::Object),
    entry(
        "logs",
        Kind::Look,
        "Last lines; cursor goes back",
        &[Needs("run"), Whole("lines"), Text("grep"), Text("cursor")],
        Form::Text,
    ),
    entry("why", Kind::Look, "Why it ended, what to try", &[Needs("run")], Form::Object),
    entry("events", Kind::Look, "Journal", &[Text("run"), Text("cursor")], Form::Object),
    entry("checkpoints", Kind::Look, "Checkpoints", &[Needs("run")], Form::Object),
    entry("cost", Kind::Look, "What runs cost", &[Text("run")], Form::Object),
    entry("offers", Kind::Look, "Machines to rent now", &[Text("provider")], Form::Object),
    entry(
        "run",
        Kind::Act,
        "Begin a run; dry_run shows price and cap",
        &[
            Texts("command"),
            Text("name"),
            Texts("set"),
            Number("max_usd"),
            Number("max_usd_per_hour"),
            Flag("dry_run"),
        ],
        Form::Object,
    ),
    entry("stop", Kind::Act, "Save and end", &[Needs("run")], Form::Object),
    entry("destroy", Kind::Act, "End at once, unsaved", &[Needs("target")], Form::Object),
    entry(
        "fork",
        Kind::Act,
        "New run from RUN@STEP or RUN@best; set key=value",
        &[Needs("checkpoint"), Texts("set"), Flag("dry_run")],
        Form::Object,
    ),
    entry("resume", Kind::Act, "Go on with a run", &[Needs("run"), Flag("dry_run")], Form::Object),
    entry(
        "note",
        Kind::Act,
        "Write down; kind: note, tag, untag, favorite, hypothesis, decision",
        &[Needs("path"), Needs("kind"), Text("text"), Text("why")],
        Form::Object,
    ),
];

/// Those that take nothing away.
const HARMLESS: [&str; 2] = ["stop", "note"];

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
    /// Its arguments in words.
    pub(super) fn usage(&self) -> String {
        let said = |takes: &Takes| match takes {
            Needs(name) | NeedsTexts(name) => format!("{name} (needed)"),
            Text(name) | Texts(name) | Whole(name) | Number(name) | Flag(name) => (*name).to_owned(),
        };
        let mut all: Vec<String> = self.takes.iter().map(said).collect();
        all.push("max_tokens".to_owned());
        format!("{} takes {}", self.name, all.join(", "))
    }

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
        let reads = self.kind != Kind::Act;
        let hints = ToolAnnotations::new().read_only(reads);
        // Of what is not read-only a client takes for granted that it may destroy.
        let harmless = HARMLESS.contains(&self.name);
        let hints = if harmless { hints.destructive(false) } else { hints };
        let tool = Tool::new(self.name, self.what, object(input)).annotate(hints);
        match self.form {
            Form::Object => tool.with_raw_output_schema(object(json!({ "type": "object" }))),
            Form::Text => tool,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::model::ListToolsResult;
    use tiktoken_rs::o200k_base_singleton;

    fn tokens(of: impl Fn(&Entry) -> bool) -> usize {
        let tools: Vec<Tool> = ALL.iter().filter(|entry| of(entry)).map(Entry::tool).collect();
        // As it is sent: a `Value` would put the keys in an order that costs less.
        let text = serde_json::to_string(&ListToolsResult::with_all_items(tools)).unwrap();
        o200k_base_singleton().encode_ordinary(&text).len()
    }

    #[test]
    fn the_list_of_tools_costs_few_tokens() {
        let (all, analysis) = (tokens(|_| true), tokens(|entry| entry.kind == Kind::Analysis));
        assert!(all <= 1_950 && analysis <= 975, "{all} in full, {analysis} for analysis");
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
            let form = if entry.form == Form::Object { json!("object") } else { Value::Null };
            assert_eq!(tool["outputSchema"]["type"], form, "{tool}");
            assert_eq!(tool["annotations"]["readOnlyHint"], entry.kind != Kind::Act);
            assert_eq!(find(entry.name).unwrap().name, entry.name);
        }
    }
}
