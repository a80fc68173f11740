//! `[data]`: what is fetched to the machine before the program is made ready.

use std::collections::BTreeMap;

use lifecycle::spec::{DataSpec, HfRepo, UrlFile};
use serde_json::{Value as Json, json};

use super::field::Field;
use super::problem::Problem;
use super::section::Section;
use super::value::{Node, Value, inline};

const REPO: &str = "[\"org/model\", \"dataset:org/name@v1.0\"]";
const FILE: &str = "[{ url = \"https://host/x.bin\", sha256 = \"...\", to = \"data/x.bin\" }]";

/// What is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Data {
    /// As the run is told.
    pub spec: DataSpec,
}

impl Data {
    /// Variables by which the command would look for the repositories elsewhere.
    pub(super) fn contradictions(&self, env: &BTreeMap<String, String>) -> Vec<Problem> {
        let elsewhere = ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"];
        let set = elsewhere.iter().filter(|name| !self.spec.hf.is_empty() && env.contains_key(**name));
        let problem = |name: &&str| {
            Problem::nowhere(format!(
                "`{name}` stands in [run] env, and [data] hf sets where repositories are"
            ))
            .help("leave the variable out: the command finds them without it")
        };
        set.map(problem).collect()
    }

    fn set_hf(&mut self, field: &mut Field<'_>) {
        let Some(list) = field.strings(REPO) else { return };
        let (mut repos, before) = (Vec::new(), field.problems.len());
        for (text, node) in list {
            match text.parse::<HfRepo>() {
                Ok(repo) => repos.push(repo),
                Err(why) => {
                    let problem =
                        Problem::new(&node.at, format!("`{}` cannot have {text:?}: {why}", field.path));
                    field.problems.push(problem.help(format!("for example: hf = {REPO}")));
                }
            }
        }
        if field.problems.len() == before {
            self.spec.hf = repos;
            self.whole(field);
        }
    }

    fn set_urls(&mut self, field: &mut Field<'_>) {
        let items = match &field.node.value {
            Value::Array(items) => items.clone(),
            Value::Untyped(_) => match inline(&field.node.at.source, field.node.at.span.start) {
                Ok(Node { value: Value::Array(items), .. }) => items,
                Ok(_) => return field.refuse_type("an array of tables", FILE),
                Err(problem) => return field.problems.push(problem),
            },
            _ => return field.refuse_type("an array of tables", FILE),
        };
        let (mut files, before) = (Vec::new(), field.problems.len());
        for node in &items {
            match file(node) {
                Ok(file) => files.push(file),
                Err(wrong) => {
                    let problem = |why| Problem::new(&node.at, format!("`{}`: {why}", field.path));
                    let example = format!("for example: urls = {FILE}");
                    field.problems.extend(wrong.into_iter().map(|why| problem(why).help(example.clone())));
                }
            }
        }
        if field.problems.len() == before {
            self.spec.urls = files;
            self.whole(field);
        }
    }

    fn whole(&self, field: &mut Field<'_>) {
        if let Err(why) = self.spec.check() {
            field.problems.push(Problem::new(&field.node.at, format!("`{}`: {why}", field.path)));
        }
    }
}

/// One file by its URL, or all that is wrong with it.
fn file(node: &Node) -> Result<UrlFile, Vec<String>> {
    let Value::Table(entries) = &node.value else {
        return Err(vec![format!("must hold tables, not {}", node.value.kind())]);
    };
    let mut wrong = Vec::new();
    let mut file = UrlFile { url: String::new(), sha256: String::new(), to: String::new() };
    for (name, node) in entries {
        let Value::String(text) = &node.value else {
            wrong.push(format!("{} must be a string, not {}", name.text, node.value.kind()));
            continue;
        };
        match name.text.as_str() {
            "url" => file.url.clone_from(text),
            "sha256" => file.sha256 = text.to_ascii_lowercase(),
            "to" => file.to.clone_from(text),
            other => wrong.push(format!("unknown key {other:?}; known: url, sha256, to")),
        }
    }
    // Where a key is no string, what is missing would be told twice.
    if wrong.is_empty() {
        wrong.extend(file.check().err());
    }
    if wrong.is_empty() { Ok(file) } else { Err(wrong) }
}

impl Section for Data {
    fn keys(&self) -> &'static [&'static str] {
        &["hf", "urls"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "hf" => self.set_hf(field),
            _ => self.set_urls(field),
        }
    }

    fn get(&self, key: &str) -> Json {
        match key {
            "hf" => json!(self.spec.hf),
            _ => json!(self.spec.urls),
        }
    }
}
