//! `[run]`: the command and what stands around it.

use std::collections::BTreeMap;
use std::time::Duration;

use lifecycle::spec::CONTRACT;
use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::problem::Problem;
use super::quantity::write_duration;
use super::section::Section;
use super::value::{Name, Node, Value};

/// The providers that machines can come from.
const PROVIDERS: [(&str, &str); 3] = [("local", "local"), ("ssh", "ssh"), ("vast", "vast")];

/// Whether a store on the controller's computer alone is asked about: `true`, it
/// is accepted.
const LOCAL_STORES: [(&str, bool); 2] = [("ask", false), ("accept", true)];

/// What is run, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program and its arguments; empty where the configuration has none.
    pub command: Vec<String>,
    /// The stem of the run's name; the project's name by default.
    pub name: String,
    /// Directory inside the source tree; empty is its root.
    pub workdir: String,
    /// Variables given to the command.
    pub env: BTreeMap<String, String>,
    /// Where machines come from.
    pub provider: &'static str,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Whether the program gets a terminal.
    pub pty: bool,
    /// Whether a finished run that did the same work stands for a new one.
    pub cache: bool,
    /// Whether checkpoints may lie on the controller's computer alone while
    /// machines are elsewhere.
    pub accepts_local_store: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            name: String::new(),
            workdir: String::new(),
            env: BTreeMap::new(),
            provider: "local",
            grace: Duration::from_secs(30),
            pty: false,
            cache: false,
            accepts_local_store: false,
        }
    }
}

/// A provider by the word that names it.
pub(super) fn provider(name: &str) -> &'static str {
    PROVIDERS.iter().find(|(word, _)| *word == name).map_or(PROVIDERS[0].1, |(_, provider)| provider)
}

impl Run {
    /// Takes the variables of a table, each for itself; others stay.
    fn set_env(&mut self, field: &mut Field<'_>) {
        let Some(entries) = field.table("{ SEED = \"1\" }") else { return };
        for (name, node) in entries {
            if let Some(problem) = bad_name(&name) {
                field.problems.push(problem);
                continue;
            }
            let path = format!("{}.{}", field.path, name.text);
            let mut field = Field { path, node: &node, problems: &mut *field.problems };
            if let Some(text) = variable(&mut field, &node) {
                self.env.insert(name.text, text);
            }
        }
    }
}

/// A variable's value; unlike other strings it may be empty.
fn variable(field: &mut Field<'_>, node: &Node) -> Option<String> {
    let text = match &node.value {
        Value::String(text) | Value::Untyped(text) => text.clone(),
        Value::Integer(Some(number)) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        other => {
            let message = format!("must be a string, a number or a boolean, not {}", other.kind());
            return field.refuse(&message, "put the value in quotes");
        }
    };
    if text.contains('\0') {
        return field.refuse("holds a NUL byte", "leave it out: no program could receive it");
    }
    Some(text)
}

/// Why a variable may not be set, if so.
fn bad_name(name: &Name) -> Option<Problem> {
    let text = &name.text;
    if CONTRACT.contains(&text.as_str()) {
        let message = format!("`{text}` is reserved: outlast sets it for every attempt");
        return Some(Problem::new(&name.at, message).help("use another name for your own variable"));
    }
    if text == "OUTLAST_HOME" {
        let message = "`OUTLAST_HOME` is reserved: it says where outlast keeps its own state";
        return Some(Problem::new(&name.at, message).help("use another name for your own variable"));
    }
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    let message = format!("`{text}` cannot be the name of a variable");
    Some(
        Problem::new(&name.at, message)
            .help("a name holds only A-Z, a-z, 0-9 and _, and begins with no digit"),
    )
}

impl Section for Run {
    fn keys(&self) -> &'static [&'static str] {
        &["command", "name", "workdir", "provider", "grace", "pty", "cache", "local_store", "env"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "command" => assign(&mut self.command, field.command()),
            "name" => assign(&mut self.name, field.slug("\"resnet\"")),
            "workdir" => assign(&mut self.workdir, field.directory("\"src\"")),
            "provider" => assign(&mut self.provider, field.choice(&PROVIDERS)),
            "grace" => assign(&mut self.grace, field.seconds(0, "\"30s\"")),
            "pty" => assign(&mut self.pty, field.flag()),
            "cache" => assign(&mut self.cache, field.flag()),
            "local_store" => assign(&mut self.accepts_local_store, field.choice(&LOCAL_STORES)),
            "env" => self.set_env(field),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        match key {
            "command" if self.command.is_empty() => Json::Null,
            "command" => json!(self.command),
            "name" => json!(self.name),
            "workdir" if self.workdir.is_empty() => Json::Null,
            "workdir" => json!(self.workdir),
            "provider" => json!(self.provider),
            "grace" => json!(write_duration(self.grace)),
            "pty" => json!(self.pty),
            "cache" => json!(self.cache),
            "local_store" => {
                json!(
                    LOCAL_STORES
                        .iter()
                        .find(|(_, own)| *own == self.accepts_local_store)
                        .map(|(word, _)| word)
                )
            }
            "env" => json!(self.env),
            _ => Json::Null,
        }
    }
}
