//! Applies the sources one over the other, lowest first. A bad value in a
//! lower source is reported although a higher one replaces it: it is there to
//! be found, not to wait for the day when the higher one goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::field::Field;
use super::near::nearest;
use super::problem::Problem;
use super::section::Section;
use super::source::{At, Place, Source};
use super::value::{Name, Node, Value, document};
use super::{Config, Origin};

/// What variables that configure begin with.
const PREFIX: &str = "OUTLAST_CONFIG_";

/// The configuration while it is put together.
#[derive(Default)]
pub(super) struct Layers {
    /// What has been read so far.
    pub(super) config: Config,
    /// Who said it.
    pub(super) origins: BTreeMap<String, Origin>,
    /// Where it stands.
    pub(super) places: BTreeMap<String, At>,
    /// What is wrong so far.
    pub(super) problems: Vec<Problem>,
    /// The section of files that counts; all, if none is named.
    pub(super) only: Option<&'static str>,
}

impl Layers {
    /// Applies a file.
    pub(super) fn file(&mut self, source: &Arc<Source>) {
        for (name, node) in document(source, &mut self.problems) {
            if self.only.is_some_and(|only| only != name.text) {
                continue;
            }
            if self.config.section_mut(&name.text).is_none() {
                self.problems.push(unknown_section(&name));
                continue;
            }
            let Value::Table(entries) = &node.value else {
                let section = &name.text;
                let message = format!("`{section}` is a section, not {}", node.value.kind());
                let help = format!("write [{section}] on a line of its own, and the keys below it");
                self.problems.push(Problem::new(&name.at, message).help(help));
                continue;
            };
            for (key, node) in entries {
                self.setting(&name.text, key, node);
            }
        }
    }

    /// Applies every `OUTLAST_CONFIG_` variable.
    pub(super) fn environment(&mut self, env: &BTreeMap<String, String>) {
        for (variable, value) in env {
            let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
            let mut parts = rest.splitn(3, "__");
            let section = parts.next().unwrap_or_default();
            let key = parts.next().unwrap_or_default();
            let place = Place::Environment(variable.clone());
            let upper = !rest.split("__").take(2).any(|part| part.chars().any(|c| c.is_ascii_lowercase()));
            let known = upper.then(|| format!("{section}.{key}").to_lowercase());
            let bare = Bare { place, label: "environment", name: variable, value, tail: parts.next() };
            if !known.is_some_and(|known| self.bare(&known, &bare)) {
                let settings = settings();
                let near = nearest(&rest.replace("__", "."), settings.iter().map(String::as_str));
                let near = near.map(|near| format!("{PREFIX}{}", near.replace('.', "__").to_uppercase()));
                self.problems.push(bare.unknown("variable", near, &format!("{PREFIX}<SECTION>__<KEY>")));
            }
        }
    }

    /// Applies the flags, each naming a setting.
    pub(super) fn flags(&mut self, flags: &[(String, String)]) {
        for (name, value) in flags {
            let mut parts = name.splitn(3, '.');
            let known = format!("{}.{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let place = Place::Flag(name.clone());
            let bare = Bare { place, label: "flags", name, value, tail: parts.next() };
            if !self.bare(&known, &bare) {
                let near = nearest(name, settings().iter().map(String::as_str)).map(str::to_owned);
                self.problems.push(bare.unknown("setting", near, "<section>.<key>"));
            }
        }
    }

    /// Applies one untyped setting; false if there is none of that name.
    fn bare(&mut self, setting: &str, bare: &Bare<'_>) -> bool {
        let Some((section, key)) = setting.split_once('.') else { return false };
        let known = self.config.section_mut(section).is_some_and(|section| section.keys().contains(&key));
        // Only the table of variables has names below its key.
        if !known || bare.tail.is_some() && setting != "run.env" {
            return false;
        }
        let (source, name_end) = bare.source(setting == "run.env");
        let key_at = At::new(&source, 0..name_end);
        let value_at = At::new(&source, name_end + 1..source.text.len());
        let mut node = Node { value: Value::Untyped(bare.value.to_owned()), at: value_at };
        if let Some(tail) = bare.tail {
            let name = Name { text: tail.to_owned(), at: key_at.clone() };
            node = Node { at: node.at.clone(), value: Value::Table(vec![(name, node)]) };
        }
        self.setting(section, &Name { text: key.to_owned(), at: key_at }, &node);
        true
    }

    /// Applies one setting of a known section.
    fn setting(&mut self, section_name: &str, key: &Name, node: &Node) {
        let Some(section) = self.config.section_mut(section_name) else { return };
        if !section.takes_any_key() && !section.keys().contains(&key.text.as_str()) {
            let problem = unknown_key(section_name, section.keys(), key);
            self.problems.push(problem);
            return;
        }
        let before = self.problems.len();
        let path = format!("{section_name}.{}", key.text);
        section.set(&key.text, &mut Field { path: path.clone(), node, problems: &mut self.problems });
        if self.problems.len() > before {
            return;
        }
        match &node.value {
            Value::Table(entries) => {
                for (name, node) in entries {
                    self.remember(format!("{path}.{}", name.text), &node.at);
                }
                // Variables come from many places; other tables from one.
                if path != "run.env" {
                    self.remember(path, &node.at);
                }
            }
            _ => self.remember(path, &node.at),
        }
    }

    fn remember(&mut self, path: String, at: &At) {
        let line = at.line();
        let origin = match &at.source.place {
            Place::UserFile(path) => Origin::UserFile { path: path.clone(), line },
            Place::ProjectFile(path) => Origin::ProjectFile { path: path.clone(), line },
            Place::Environment(name) => Origin::Environment { name: name.clone() },
            Place::Flag(name) => Origin::Flag { name: name.clone() },
        };
        self.places.insert(path.clone(), at.clone());
        self.origins.insert(path, origin);
    }
}

/// A setting given as bare text.
struct Bare<'a> {
    place: Place,
    label: &'static str,
    name: &'a str,
    value: &'a str,
    /// What follows the key, for the table of variables.
    tail: Option<&'a str>,
}

impl Bare<'_> {
    /// The text that a report shows, and where the name ends in it. Values of
    /// the run's own variables may be secrets and are not shown.
    fn source(&self, secret: bool) -> (Arc<Source>, usize) {
        let value = if secret { "..." } else { self.value };
        let text = format!("{}={value}", self.name);
        let source = Source { place: self.place.clone(), label: self.label.to_owned(), text };
        (Arc::new(source), self.name.len())
    }

    fn unknown(&self, noun: &str, near: Option<String>, form: &str) -> Problem {
        let text = self.name.to_owned();
        let source = Arc::new(Source { place: self.place.clone(), label: self.label.to_owned(), text });
        let at = At::new(&source, 0..self.name.len());
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the form is {form}; `outlast config show` lists all settings"),
        };
        Problem::new(&at, format!("unknown {noun} `{}`", self.name)).help(help)
    }
}

/// The names of all settings.
pub(super) fn settings() -> Vec<String> {
    let config = Config::default();
    let name = |(section, part): (&str, &dyn Section)| {
        part.keys().iter().map(|key| format!("{section}.{key}")).collect::<Vec<_>>()
    };
    config.sections().into_iter().flat_map(name).collect()
}

/// The section that has a key, if only one has.
fn home_of(key: &str) -> Option<&'static str> {
    let config = Config::default();
    let mut homes = config.sections().into_iter().filter(|(_, section)| section.keys().contains(&key));
    let (name, _) = homes.next()?;
    homes.next().is_none().then_some(name)
}

fn unknown_section(name: &Name) -> Problem {
    let config = Config::default();
    let names: Vec<&str> = config.sections().iter().map(|(name, _)| *name).collect();
    let problem = Problem::new(&name.at, format!("unknown section or key `{}`", name.text));
    if let Some(near) = nearest(&name.text, names.iter().copied()) {
        problem.help(format!("did you mean [{near}]?"))
    } else if let Some(home) = home_of(&name.text) {
        problem.help(format!("`{}` belongs to [{home}]", name.text))
    } else {
        problem.help(format!("sections: {}", names.join(", ")))
    }
}

fn unknown_key(section: &str, keys: &[&'static str], key: &Name) -> Problem {
    let problem = Problem::new(&key.at, format!("unknown key `{}` in [{section}]", key.text));
    if let Some(near) = nearest(&key.text, keys.iter().copied()) {
        problem.help(format!("did you mean `{near}`?"))
    } else if let Some(home) = home_of(&key.text) {
        problem.help(format!("`{}` belongs to [{home}]", key.text))
    } else {
        problem.help(format!("keys of [{section}]: {}", keys.join(", ")))
    }
}
