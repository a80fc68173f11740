//! Shows a configuration: as TOML that reads back to the same, and as JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::{Loaded, Origin};

impl Loaded {
    /// The whole configuration as TOML, with the origin of every value as a
    /// comment if asked for.
    #[must_use]
    pub fn show(&self, with_origin: bool) -> String {
        let mut out = String::new();
        for (index, (name, section)) in self.config.sections().into_iter().enumerate() {
            let gap = if index > 0 { "\n" } else { "" };
            let _ = writeln!(out, "{gap}[{name}]");
            let mut tables = String::new();
            for (key, value) in section.entries() {
                let path = format!("{name}.{key}");
                match value {
                    Json::Null => {
                        let _ = writeln!(out, "# {key} is not set");
                    }
                    Json::Object(entries) if entries.is_empty() => {}
                    Json::Object(entries) => {
                        let _ = writeln!(tables, "\n[{path}]");
                        for (key, value) in &entries {
                            tables.push_str(&self.line(key, value, &format!("{path}.{key}"), with_origin));
                        }
                    }
                    value => out.push_str(&self.line(&key, &value, &path, with_origin)),
                }
            }
            out.push_str(&tables);
        }
        out
    }

    fn line(&self, key: &str, value: &Json, path: &str, with_origin: bool) -> String {
        let line = format!("{} = {}", name(key), literal(value));
        match self.origins.get(path) {
            Some(origin) if with_origin => {
                let comment = crate::printer::safe(&origin.to_string()).into_owned();
                format!("{line:<40} # {comment}\n")
            }
            _ => format!("{line}\n"),
        }
    }

    /// The whole configuration with its origins.
    #[must_use]
    pub fn show_json(&self) -> Json {
        let mut config = Map::new();
        for (name, section) in self.config.sections() {
            config.insert(name.to_owned(), Json::Object(section.entries().into_iter().collect()));
        }
        let origins: Map<String, Json> =
            self.origins.iter().map(|(path, origin)| (path.clone(), origin_json(origin))).collect();
        json!({ "root": self.root, "file": self.file, "config": config, "origins": origins })
    }
}

fn origin_json(origin: &Origin) -> Json {
    match origin {
        Origin::Default => json!({ "kind": "default" }),
        Origin::UserFile { path, line } => json!({ "kind": "user-file", "path": path, "line": line }),
        Origin::ProjectFile { path, line } => json!({ "kind": "project-file", "path": path, "line": line }),
        Origin::Environment { name } => json!({ "kind": "environment", "name": name }),
        Origin::Flag { name } => json!({ "kind": "flag", "name": name }),
    }
}

/// A key as TOML writes it: in quotes, unless it is a bare word.
fn name(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !key.is_empty() && key.bytes().all(bare) {
        return key.to_owned();
    }
    Json::String(key.to_owned()).to_string()
}

/// A JSON value as TOML writes it.
fn literal(value: &Json) -> String {
    match value {
        Json::String(text) => toml::Value::String(text.clone()).to_string(),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(literal).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{} = {}", name(key), literal(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}
