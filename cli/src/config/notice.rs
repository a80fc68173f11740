//! `[notice]`: what is done when a provider says that it takes the machine.

use lifecycle::spec::{NoticeSignal, NoticeSource, NoticeSpec};
use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::section::Section;

/// The signals by the words that name them.
const SIGNALS: [(&str, NoticeSignal); 4] = [
    ("usr1", NoticeSignal::Usr1),
    ("usr2", NoticeSignal::Usr2),
    ("hup", NoticeSignal::Hup),
    ("none", NoticeSignal::None),
];

/// The metadata services by the words that name them.
const SOURCES: [(&str, NoticeSource); 5] = [
    ("auto", NoticeSource::Auto),
    ("ec2", NoticeSource::Ec2),
    ("gce", NoticeSource::Gce),
    ("azure", NoticeSource::Azure),
    ("none", NoticeSource::None),
];

/// Where notices come from, and how they reach the program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notice {
    /// As a run's description has it.
    pub spec: NoticeSpec,
}

impl Section for Notice {
    fn keys(&self) -> &'static [&'static str] {
        &["signal", "source", "hook", "file"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "signal" => assign(&mut self.spec.signal, field.choice(&SIGNALS)),
            "source" => assign(&mut self.spec.source, field.choice(&SOURCES)),
            "hook" => assign(&mut self.spec.hook, field.command()),
            "file" => assign(&mut self.spec.file, field.string("\"/run/preempted\"")),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        match key {
            "signal" => json!(self.spec.signal),
            "source" => json!(self.spec.source),
            "hook" if !self.spec.hook.is_empty() => json!(self.spec.hook),
            "file" if !self.spec.file.is_empty() => json!(self.spec.file),
            _ => Json::Null,
        }
    }
}
