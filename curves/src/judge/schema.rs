//! What a metric is, from its name alone or from what the caller says of it.
//!
//! Units are never guessed from a value: a loss of 0.29 is not 29 %. A name
//! that says nothing is left without a direction rather than given one.

mod name;
mod resource;
mod vocabulary;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use name::{Traits, nearest, read_name};
pub(super) use name::{is_part, is_return, is_share, is_whole};
pub(super) use resource::{Fill, fill, is_filled, total_of};

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What training makes small: loss, perplexity, squared error.
    Loss,
    /// A share or count of mistakes that is not what is trained on.
    Error,
    /// What should become large: accuracy, F1, reward.
    Score,
    /// The optimizer's learning rate.
    LearningRate,
    /// Length of the gradient.
    GradientNorm,
    /// Work per time.
    Throughput,
    /// Time per work.
    StepTime,
    /// The factor of mixed precision.
    LossScale,
    /// Step, epoch, samples seen: it says where the run is.
    Counter,
    /// A clock or a duration.
    Time,
    /// Memory, temperature, use of a device.
    Resource,
    /// Nothing that its name says.
    Other,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Lower is better.
    Lower,
    /// Higher is better.
    Higher,
    /// Neither, or unknown.
    Unknown,
}

/// On which data a metric was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// On what is trained on.
    Train,
    /// On what is held out: validation, evaluation, test.
    Validation,
    /// The name does not say.
    Unsaid,
}

/// What the caller says of one metric; what is left out is read from the name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricSpec {
    /// What it measures.
    pub role: Option<Role>,
    /// Which way is better.
    pub direction: Option<Direction>,
    /// On which data.
    pub split: Option<Split>,
    /// How to call it.
    pub display: Option<String>,
    /// Its unit, for display alone.
    pub unit: Option<String>,
    /// The group it is shown in.
    pub group: Option<String>,
    /// For a validation metric, the training metric it belongs to.
    pub pair: Option<String>,
    /// A value that is waited for: the report says when it is reached. It needs a
    /// direction.
    pub target: Option<f64>,
    /// 1 by default; thresholds are divided by it, 0 turns its detectors off.
    pub sensitivity: Option<f64>,
    /// Share of the planned length that must be flat for a plateau; 0.15 by
    /// default.
    pub plateau_window: Option<f64>,
    /// Share of the progress so far that a flat stretch may still gain; 0.01 by
    /// default.
    pub plateau_threshold: Option<f64>,
}

/// A named part of a run, such as one of a curriculum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Its first step; it ends where the next begins.
    pub from_step: u64,
}

/// What the caller says of a run's metrics.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schema {
    /// The name under which the program logs its step.
    pub step: Option<String>,
    /// The metric that a run is judged by.
    pub primary: Option<String>,
    /// By the metric's name.
    pub metrics: BTreeMap<String, MetricSpec>,
    /// Parts of the run, in order of their steps.
    pub stages: Vec<Stage>,
}

/// What is wrong with a schema.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SchemaError {
    /// A number that must lie within bounds does not.
    #[error("metrics.{metric}.{key} is {value}; it must be from {from} to {to}")]
    OutOfBounds {
        /// The metric.
        metric: String,
        /// The key.
        key: &'static str,
        /// What it is.
        value: f64,
        /// Smallest allowed.
        from: f64,
        /// Largest allowed.
        to: f64,
    },
    /// Stages must follow one another.
    #[error("stage {name} begins at step {from_step}, not after the stage before it")]
    StageOrder {
        /// The later stage.
        name: String,
        /// Where it begins.
        from_step: u64,
    },
    /// A name that the run did not log.
    #[error("{key} names {name}, which the run did not log{}", nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    NotLogged {
        /// The key of the schema.
        key: String,
        /// The name.
        name: String,
        /// The most similar name that was logged.
        nearest: Option<String>,
    },
}

impl Schema {
    /// All that is wrong with it, whatever was logged.
    #[must_use]
    pub fn check(&self) -> Vec<SchemaError> {
        let mut errors = Vec::new();
        for (metric, spec) in &self.metrics {
            let bounded = [
                ("sensitivity", spec.sensitivity, 0.0, 100.0),
                ("plateau_window", spec.plateau_window, 0.01, 1.0),
                ("plateau_threshold", spec.plateau_threshold, 1e-6, 1.0),
                ("target", spec.target, f64::MIN, f64::MAX),
            ];
            for (key, value, from, to) in bounded {
                if let Some(value) = value.filter(|v| !(from..=to).contains(v)) {
                    errors.push(SchemaError::OutOfBounds { metric: metric.clone(), key, value, from, to });
                }
            }
        }
        for pair in self.stages.windows(2) {
            if pair[1].from_step <= pair[0].from_step {
                let Stage { name, from_step } = pair[1].clone();
                errors.push(SchemaError::StageOrder { name, from_step });
            }
        }
        errors
    }

    /// All that is wrong with it for a run that logged `names`.
    #[must_use]
    pub fn check_against<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<SchemaError> {
        let logged: Vec<&str> = names.into_iter().collect();
        let mut errors = self.check();
        let named = self.primary.iter().map(|n| ("primary".to_owned(), n));
        let keys = self.metrics.keys().map(|n| (format!("metrics.{n}"), n));
        let pairs =
            self.metrics.iter().filter_map(|(n, s)| Some((format!("metrics.{n}.pair"), s.pair.as_ref()?)));
        for (key, name) in named.chain(keys).chain(pairs) {
            if !logged.contains(&name.as_str()) {
                let nearest = name::nearest(name, &logged).map(str::to_owned);
                errors.push(SchemaError::NotLogged { key, name: name.clone(), nearest });
            }
        }
        errors
    }

    /// A schema that says what the names say, to be edited by hand.
    #[must_use]
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut schema = Self::default();
        for name in names {
            let traits = read_name(name);
            if traits.role == Role::Counter && schema.step.is_none() && traits.stem.contains("step") {
                schema.step = Some(name.to_owned());
                continue;
            }
            let spec = MetricSpec {
                role: Some(traits.role),
                direction: Some(traits.direction),
                split: Some(traits.split),
                group: name.split_once('/').map(|(group, _)| group.to_owned()),
                ..MetricSpec::default()
            };
            schema.metrics.insert(name.to_owned(), spec);
        }
        schema.primary =
            primary(schema.metrics.keys().map(|n| (n.as_str(), read_name(n)))).map(str::to_owned);
        schema
    }

    /// What is known of `name`: the caller's word before the name's.
    #[must_use]
    pub fn traits(&self, name: &str) -> Traits {
        let mut traits = read_name(name);
        if self.step.as_deref() == Some(name) {
            traits.role = Role::Counter;
        }
        let Some(spec) = self.metrics.get(name) else { return traits };
        traits.role = spec.role.unwrap_or(traits.role);
        traits.split = spec.split.unwrap_or(traits.split);
        if let Some(role) = spec.role {
            traits.direction = name::direction_of(role);
            "the schema gives its role".clone_into(&mut traits.reason);
        }
        if let Some(direction) = spec.direction {
            traits.direction = direction;
            // With a direction there is something to judge.
            traits.role = match (traits.role, direction) {
                (Role::Other, Direction::Higher) if spec.role.is_none() => Role::Score,
                (Role::Other, Direction::Lower) if spec.role.is_none() => Role::Error,
                (role, _) => role,
            };
            "the schema says so".clone_into(&mut traits.reason);
        }
        traits
    }
}

/// The metric to judge a run by: a validation loss before a validation score,
/// then what an agent earns, then training ones, and parts of an objective last.
/// Among equals the plainly named loss, else the shortest name.
pub(super) fn primary<'a>(metrics: impl IntoIterator<Item = (&'a str, Traits)>) -> Option<&'a str> {
    let rank = |t: &Traits| {
        Some(match (t.role, t.split) {
            (Role::Loss, _) if is_part(t) => 5,
            (Role::Loss, Split::Validation) => 0,
            (Role::Score | Role::Error, Split::Validation) => 1,
            (Role::Score, _) if is_return(t) => 2,
            (Role::Loss, Split::Train | Split::Unsaid) => 3,
            (Role::Score | Role::Error, Split::Train | Split::Unsaid) => 4,
            _ => return None,
        })
    };
    let ranked = metrics.into_iter().filter_map(|(n, t)| Some((rank(&t)?, !is_whole(&t), n.len(), n)));
    ranked.min().map(|(.., name)| name)
}

/// For each validation metric the training metric it is measured against: the
/// one the schema names, the same stem, else the only one of its role.
pub(super) fn pair<'a, 'b>(
    of: (&str, &Traits),
    schema: &Schema,
    metrics: impl IntoIterator<Item = (&'a str, &'b Traits)>,
) -> Option<&'a str> {
    if of.1.split != Split::Validation {
        return None;
    }
    let wanted = schema.metrics.get(of.0).and_then(|spec| spec.pair.as_deref());
    let candidates: Vec<_> = metrics
        .into_iter()
        .filter(|(name, t)| match wanted {
            Some(wanted) => *name == wanted,
            None => t.role == of.1.role && t.split != Split::Validation,
        })
        .collect();
    let same = |split: Option<Split>| {
        candidates
            .iter()
            .filter(|(_, t)| t.stem == of.1.stem && split.is_none_or(|s| t.split == s))
            .map(|(n, _)| *n)
            .min_by_key(|n| n.len())
    };
    if wanted.is_some() || candidates.len() == 1 {
        return candidates.first().map(|(name, _)| *name);
    }
    same(Some(Split::Train)).or_else(|| same(None))
}

#[cfg(test)]
mod tests;
