//! `[secrets]`: where the values of secret variables are. Only the places stand
//! in a configuration: a value that somebody wrote there is refused, and never
//! shown in the report of it. Values are read when a run is handed in.

use std::collections::BTreeMap;

use lifecycle::spec::secret::{MOST, check_name};
use serde_json::{Value as Json, json};

use super::field::Field;
use super::problem::Problem;
use super::section::Section;
use super::value::{Name, Node, Value};

const EXAMPLE: &str =
    "{ env = \"HF_TOKEN\" }, { file = \"~/.cache/huggingface/token\" } or { keyring = \"service/name\" }";

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// In a variable of whoever begins the run.
    Env(String),
    /// In a file: an absolute path, or one that begins with `~/`.
    File(String),
    /// In the keyring of the desktop: service and name.
    Keyring(String, String),
    /// With the controller, which has it since the run was begun.
    Kept,
}

/// The secrets by the variables that they become.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Secrets {
    /// By name.
    pub sources: BTreeMap<String, Secret>,
}

impl Secrets {
    /// Those of a run that there is already.
    pub(super) fn of(names: &[String]) -> Self {
        Self { sources: names.iter().map(|name| (name.clone(), Secret::Kept)).collect() }
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.sources.keys().cloned().collect()
    }

    /// Names that are variables of the command, too.
    pub(super) fn contradictions(&self, env: &BTreeMap<String, String>) -> Vec<Problem> {
        let twice = self.sources.keys().filter(|name| env.contains_key(*name));
        let problem = |name: &String| {
            Problem::nowhere(format!("`{name}` stands in [secrets] and in [run] env"))
                .help("leave it out of one of them: a variable of [run] env is kept and shown in the clear")
        };
        twice.map(problem).collect()
    }
}

/// A problem with its line as text: the line itself may hold the secret.
fn unseen(field: &Field<'_>, message: &str) -> Problem {
    let at = &field.node.at;
    let place = if at.is_file() { format!("{}:{}: ", at.source.label, at.line()) } else { String::new() };
    Problem::nowhere(format!("{place}`{}` {message}", field.path)).help(format!("write {EXAMPLE}"))
}

fn source(field: &Field<'_>) -> Result<Secret, Problem> {
    let Value::Table(entries) = &field.node.value else {
        return Err(unseen(field, "must say where its value is, never the value itself"));
    };
    let [(Name { text: kind, .. }, Node { value: Value::String(place), .. })] = entries.as_slice() else {
        return Err(unseen(field, "must name one place as a string"));
    };
    let plain = !place.is_empty() && place.len() <= 4_096 && !place.contains(char::is_control);
    match kind.as_str() {
        _ if !plain => Err(unseen(field, "names a place that is empty or holds odd characters")),
        "env" if place.contains('=') => Err(unseen(field, "must name a variable: a name holds no `=`")),
        "env" => Ok(Secret::Env(place.clone())),
        "file" if place.starts_with('/') || place.starts_with("~/") => Ok(Secret::File(place.clone())),
        "file" => Err(unseen(field, "must name a file by a path that begins with / or ~/")),
        "keyring" => match place.split_once('/') {
            Some((service, name)) if !service.is_empty() && !name.is_empty() => {
                Ok(Secret::Keyring(service.to_owned(), name.to_owned()))
            }
            _ => Err(unseen(field, "must name an item of the keyring as service/name")),
        },
        _ => Err(unseen(field, "must say env, file or keyring")),
    }
}

impl Section for Secrets {
    fn keys(&self) -> &'static [&'static str] {
        &[]
    }

    fn takes_any_key(&self) -> bool {
        true
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        if let Err(why) = check_name(key) {
            let message = format!("`{key:.128}` cannot be the name of a secret: {why}");
            field.problems.push(Problem::nowhere(message).help("a secret becomes a variable of the command"));
            return;
        }
        if self.sources.len() >= MOST && !self.sources.contains_key(key) {
            field.problems.push(Problem::nowhere(format!("[secrets] has more than {MOST} entries")));
            return;
        }
        match source(field) {
            Ok(source) => {
                self.sources.insert(key.to_owned(), source);
            }
            Err(problem) => field.problems.push(problem),
        }
    }

    fn get(&self, key: &str) -> Json {
        match self.sources.get(key) {
            Some(Secret::Env(name)) => json!({ "env": name }),
            Some(Secret::File(path)) => json!({ "file": path }),
            Some(Secret::Keyring(service, name)) => json!({ "keyring": format!("{service}/{name}") }),
            Some(Secret::Kept) | None => Json::Null,
        }
    }

    fn entries(&self) -> Vec<(String, Json)> {
        self.sources.keys().map(|name| (name.clone(), self.get(name))).collect()
    }
}
