//! `[machine]`: what a rented machine must be.

use std::time::Duration;

use lifecycle::spec::filter::FIELDS;
use lifecycle::spec::{Filter, MachineSpec, Market, WhenStopped};
use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::problem::Problem;
use super::quantity::{write_duration, write_size};
use super::section::Section;

/// Names in one list at most.
const NAMES_MAX: usize = 32;
/// Longest name taken.
const NAME_MAX: usize = 64;
/// Longest name of an image that registries take (OCI distribution, with tag
/// and digest).
const IMAGE_MAX: usize = 512;
const LEAST_DISK: u64 = 10_000_000_000;
/// Silence that makes a machine suspect, in seconds: nothing is done before.
const LEAST_SILENCE: u64 = 3;
/// A lease of a machine with its drift margin, rounded up to five seconds: no
/// machine is given up while its program may be started.
const LEASE: u64 = 25;
const MOST_SILENCE: u64 = 86_400;
const MARKETS: [(&str, Market); 2] =
    [("on-demand", Market::OnDemand), ("interruptible", Market::Interruptible)];
const STOPPED: [(&str, WhenStopped); 3] =
    [("decide", WhenStopped::Decide), ("return", WhenStopped::Return), ("leave", WhenStopped::Leave)];

/// What is asked of a machine.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Machine {
    /// As the controller takes it.
    pub spec: MachineSpec,
}

impl Machine {
    fn reliability(field: &mut Field<'_>) -> Option<f64> {
        let part = field.number("0.98")?;
        if (0.0..=1.0).contains(&part) {
            return Some(part + 0.0);
        }
        field.refuse("must be from 0 to 1", "for example: reliability = 0.98")
    }

    fn names(field: &mut Field<'_>, example: &str) -> Option<Vec<String>> {
        let list: Vec<String> =
            field.strings(example)?.into_iter().map(|(text, _)| text.trim().to_owned()).collect();
        let odd =
            |text: &String| text.is_empty() || text.len() > NAME_MAX || text.chars().any(char::is_control);
        if list.len() > NAMES_MAX || list.iter().any(odd) {
            let help =
                format!("at most {NAMES_MAX} names of 1 to {NAME_MAX} characters, for example: {example}");
            return field.refuse("holds no usable names", help);
        }
        Some(list)
    }

    /// A country by its two letters.
    fn regions(field: &mut Field<'_>) -> Option<Vec<String>> {
        let list = Self::names(field, "[\"NO\", \"SE\"]")?;
        if list.iter().any(|code| code.len() != 2 || !code.chars().all(|c| c.is_ascii_alphabetic())) {
            let help = "countries by their two letters (ISO 3166), for example: regions = [\"NO\", \"SE\"]";
            return field.refuse("holds no country's code", help);
        }
        Some(list.iter().map(|code| code.to_ascii_uppercase()).collect())
    }

    /// Wishes for the vendor's search.
    fn filter(field: &mut Field<'_>) -> Option<Vec<Filter>> {
        let example = "[\"cuda_max_good >= 12.4\", \"inet_down >= 500\"]";
        let mut list = Vec::new();
        for text in Self::names(field, example)? {
            match text.parse::<Filter>() {
                Ok(filter) => list.push(filter),
                Err(why) => {
                    let help = format!("for example: filter = {example}; fields: {}", FIELDS.join(", "));
                    return field.refuse(&format!("holds no filter: {why}"), help);
                }
            }
        }
        Some(list)
    }

    /// Numbers of machines, and of hosts with all their machines.
    fn avoid(field: &mut Field<'_>) -> Option<Vec<String>> {
        let example = "[\"10034\", \"host:5\"]";
        let list = Self::names(field, example)?;
        let number = |text: &String| {
            let digits = text.strip_prefix("host:").unwrap_or(text);
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        };
        if list.iter().all(number) {
            return Some(list);
        }
        let help = format!(
            "numbers as `outlast offers` shows them (HOST), or host:NUMBER, for example: avoid = {example}"
        );
        field.refuse("holds no number of a machine or host", help)
    }

    /// Seconds for which a machine may be silent.
    fn silence(field: &mut Field<'_>, least: u64, example: &str) -> Option<u64> {
        let seconds = field.seconds(least, example)?.as_secs();
        if seconds <= MOST_SILENCE {
            return Some(seconds);
        }
        field.refuse("must be at most a day", format!("for example: {example}"))
    }

    /// A replacement that may be made early is made before it is wanted anyway.
    pub(super) fn contradiction(&self) -> Option<Problem> {
        let spec = &self.spec;
        let (early, lost) = (spec.speculate_after_seconds, spec.lost_after_seconds);
        (spec.speculate && early >= lost).then(|| {
            Problem::nowhere(format!(
                "machine.speculate_after ({early}s) must be less than machine.lost_after ({lost}s)"
            ))
            .help("after lost_after another machine is made anyway")
        })
    }

    fn image(field: &mut Field<'_>) -> Option<String> {
        let image = field.string("\"pytorch/pytorch:latest\"")?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | ':' | '@');
        if image.len() <= IMAGE_MAX && image.chars().all(fits) && !image.starts_with('-') {
            return Some(image);
        }
        field.refuse("is not the name of an image", "for example: image = \"pytorch/pytorch:latest\"")
    }
}

impl Section for Machine {
    fn keys(&self) -> &'static [&'static str] {
        &[
            "gpus",
            "gpu_count",
            "gpu_memory",
            "memory",
            "cpus",
            "disk",
            "regions",
            "reliability",
            "image",
            "market",
            "when_stopped",
            "filter",
            "avoid",
            "speculate",
            "speculate_after",
            "lost_after",
        ]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        let spec = &mut self.spec;
        match key {
            "gpus" => assign(&mut spec.gpus, Self::names(field, "[\"RTX_4090\", \"RTX_3090\"]")),
            "gpu_count" => assign(&mut spec.gpu_count, field.count(1, "1")),
            "gpu_memory" => assign(&mut spec.gpu_memory_bytes, field.size(1, "\"24GB\"")),
            "memory" => assign(&mut spec.memory_bytes, field.size(1, "\"64GB\"")),
            "cpus" => assign(&mut spec.cpus, field.count(1, "8")),
            "disk" => assign(&mut spec.disk_bytes, field.size(LEAST_DISK, "\"40GB\"")),
            "regions" => assign(&mut spec.regions, Self::regions(field)),
            "reliability" => assign(&mut spec.min_reliability, Self::reliability(field)),
            "image" => assign(&mut spec.image, Self::image(field)),
            "market" => assign(&mut spec.market, field.choice(&MARKETS)),
            "when_stopped" => assign(&mut spec.when_stopped, field.choice(&STOPPED)),
            "filter" => assign(&mut spec.filter, Self::filter(field)),
            "avoid" => assign(&mut spec.avoid, Self::avoid(field)),
            "speculate" => assign(&mut spec.speculate, field.flag()),
            "speculate_after" => {
                assign(&mut spec.speculate_after_seconds, Self::silence(field, LEAST_SILENCE, "\"15s\""));
            }
            "lost_after" => assign(&mut spec.lost_after_seconds, Self::silence(field, LEASE, "\"30s\"")),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        let spec = &self.spec;
        let size = |bytes: u64| if bytes == 0 { Json::Null } else { json!(write_size(bytes)) };
        match key {
            "gpus" => json!(spec.gpus),
            "gpu_count" => json!(spec.gpu_count),
            "gpu_memory" => size(spec.gpu_memory_bytes),
            "memory" => size(spec.memory_bytes),
            "cpus" if spec.cpus == 0 => Json::Null,
            "cpus" => json!(spec.cpus),
            "disk" => size(spec.disk_bytes),
            "regions" => json!(spec.regions),
            "reliability" => json!(spec.min_reliability),
            "image" if spec.image.is_empty() => Json::Null,
            "image" => json!(spec.image),
            "filter" => json!(spec.filter),
            "avoid" => json!(spec.avoid),
            "speculate" => json!(spec.speculate),
            "speculate_after" => json!(write_duration(Duration::from_secs(spec.speculate_after_seconds))),
            "lost_after" => json!(write_duration(Duration::from_secs(spec.lost_after_seconds))),
            "when_stopped" => {
                json!(STOPPED.iter().find(|(_, wish)| *wish == spec.when_stopped).map(|(word, _)| word))
            }
            _ => json!(MARKETS.iter().find(|(_, market)| *market == spec.market).map(|(word, _)| word)),
        }
    }
}
