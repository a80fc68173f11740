//! The configuration: found, layered, checked and turned into what a run is
//! asked to be.
//!
//! From the lowest to the highest: built-in defaults, the user's file, the
//! project's `outlast.toml`, `OUTLAST_CONFIG_<SECTION>__<KEY>` variables,
//! flags. Everything that is wrong is reported at once, with its place and the
//! way out; a configuration with a single error yields nothing. Reading it
//! touches no process-wide state: variables and flags are handed in, so every
//! case can be tested. It never guesses: an unknown key is an error, since a
//! misspelt budget is no budget.

mod artifacts;
mod budget;
mod checkpoints;
mod data;
mod discover;
mod early_stop;
mod environment;
mod field;
mod forked;
mod hang;
mod health;
mod layers;
mod limits;
mod local;
mod logs;
mod machine;
mod metrics;
mod near;
mod notice;
mod pattern;
mod problem;
mod project;
mod quantity;
mod retry;
mod run;
mod secrets;
mod section;
mod show;
mod source;
mod source_tree;
mod value;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use lifecycle::spec::{CheckpointSpec, EnvironmentSpec, RestoreMode, RetrySpec, RunSpec};

pub use artifacts::Artifacts;
pub use budget::Budget;
pub use checkpoints::Checkpoints;
pub use data::Data;
pub use discover::user_file;
pub use early_stop::EarlyStop;
pub use environment::Environment;
pub use forked::changes;
pub use hang::Hang;
pub use health::Health;
pub use limits::Limits;
pub use local::Local;
pub use logs::Logs;
pub use machine::Machine;
pub use metrics::{Metrics, Template};
pub use notice::Notice;
pub use problem::ConfigErrors;
pub use project::Project;
pub(crate) use quantity::duration;
pub use retry::Retry;
pub use run::Run;
pub use secrets::{Secret, Secrets};
pub use source_tree::SourceTree;

use layers::Layers;
use problem::Problem;
use section::Section;
use source::Place;

/// Everything that the configuration is read from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Where the search for `outlast.toml` begins.
    pub start_dir: &'a Path,
    /// The user's file; `None` takes the one that [`user_file`] names. It
    /// need not exist.
    pub user_file: Option<&'a Path>,
    /// The environment of the process.
    pub env: &'a BTreeMap<String, String>,
    /// Settings from flags, each by its name: `budget.max_usd`.
    pub flags: &'a [(String, String)],
    /// The project's file, if it is named instead of searched; it must exist.
    pub file: Option<&'a Path>,
}

/// Every setting, checked. One field per section.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// `[project]`
    pub project: Project,
    /// `[run]`
    pub run: Run,
    /// `[secrets]`
    pub secrets: Secrets,
    /// `[data]`
    pub data: Data,
    /// `[source]`
    pub source: SourceTree,
    /// `[environment]`
    pub environment: Environment,
    /// `[limits]`
    pub limits: Limits,
    /// `[checkpoints]`
    pub checkpoints: Checkpoints,
    /// `[artifacts]`
    pub artifacts: Artifacts,
    /// `[retry]`
    pub retry: Retry,
    /// `[budget]`
    pub budget: Budget,
    /// `[machine]`
    pub machine: Machine,
    /// `[logs]`
    pub logs: Logs,
    /// `[health]`
    pub health: Health,
    /// `[hang]`
    pub hang: Hang,
    /// `[notice]`
    pub notice: Notice,
    /// `[early_stop]`
    pub early_stop: EarlyStop,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[local]`
    pub local: Local,
}

/// A configuration with where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The directory of `outlast.toml`, or where the search began: the root
    /// of the source tree.
    pub root: PathBuf,
    /// The project's file, if there is one.
    pub file: Option<PathBuf>,
    /// Who set each setting, by its name.
    pub origins: BTreeMap<String, Origin>,
}

/// Who set a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody: the built-in default.
    Default,
    /// The user's own file.
    UserFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The project's file.
    ProjectFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// The variable.
        name: String,
    },
    /// A flag.
    Flag {
        /// The setting that the flag names.
        name: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::UserFile { path, line } | Self::ProjectFile { path, line } => {
                write!(f, "{}:{line}", path.display())
            }
            Self::Environment { name } => write!(f, "variable {name}"),
            Self::Flag { name } => write!(f, "flag {name}"),
        }
    }
}

impl Config {
    /// The sections by their names, in the order in which they are shown.
    fn sections(&self) -> [(&'static str, &dyn Section); 19] {
        [
            ("project", &self.project),
            ("run", &self.run),
            ("secrets", &self.secrets),
            ("data", &self.data),
            ("source", &self.source),
            ("environment", &self.environment),
            ("limits", &self.limits),
            ("checkpoints", &self.checkpoints),
            ("artifacts", &self.artifacts),
            ("retry", &self.retry),
            ("budget", &self.budget),
            ("machine", &self.machine),
            ("logs", &self.logs),
            ("health", &self.health),
            ("hang", &self.hang),
            ("notice", &self.notice),
            ("early_stop", &self.early_stop),
            ("metrics", &self.metrics),
            ("local", &self.local),
        ]
    }

    fn section_mut(&mut self, name: &str) -> Option<&mut dyn Section> {
        Some(match name {
            "project" => &mut self.project,
            "run" => &mut self.run,
            "secrets" => &mut self.secrets,
            "data" => &mut self.data,
            "source" => &mut self.source,
            "environment" => &mut self.environment,
            "limits" => &mut self.limits,
            "checkpoints" => &mut self.checkpoints,
            "artifacts" => &mut self.artifacts,
            "retry" => &mut self.retry,
            "budget" => &mut self.budget,
            "machine" => &mut self.machine,
            "logs" => &mut self.logs,
            "health" => &mut self.health,
            "hang" => &mut self.hang,
            "notice" => &mut self.notice,
            "early_stop" => &mut self.early_stop,
            "metrics" => &mut self.metrics,
            "local" => &mut self.local,
            _ => return None,
        })
    }
}

/// Reads and checks everything.
///
/// # Errors
///
/// All that is wrong in any of the sources, as one report.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, ConfigErrors> {
    let start = std::path::absolute(sources.start_dir).unwrap_or_else(|_| sources.start_dir.to_owned());
    let home = sources.env.get("HOME").map(Path::new);
    let mut layers = Layers::default();

    let user = sources.user_file.map(Path::to_owned).or_else(|| user_file(sources.env));
    if let Some(path) = user {
        let label = path.display().to_string();
        layers.read(discover::read(Place::UserFile(path), label, false));
    }
    let file = match sources.file {
        Some(path) => Some(start.join(path)),
        None => discover::find(&start, home).unwrap_or_else(|problem| {
            layers.problems.push(problem);
            None
        }),
    };
    if let Some(path) = &file {
        let label = discover::label(path, &start);
        layers.read(discover::read(Place::ProjectFile(path.clone()), label, true));
    }
    layers.environment(sources.env);
    layers.flags(sources.flags);

    let root = file.as_ref().and_then(|file| file.parent()).unwrap_or(&start).to_owned();
    let Layers { mut config, mut origins, places, mut problems, only: _ } = layers;
    if config.checkpoints.restore == RestoreMode::InPlace && config.checkpoints.paths.is_empty() {
        let message = "restore = \"in-place\" needs paths: nothing says where files return to";
        let at = places.get("checkpoints.restore");
        problems.push(
            Problem { message: message.to_owned(), at: at.cloned(), help: Vec::new() }
                .help("name the files in [checkpoints], for example: paths = [\"checkpoints/*.pt\"]"),
        );
    }
    problems.extend(environment::contradiction(&config.environment, &places));
    problems.extend(config.secrets.contradictions(&config.run.env));
    problems.extend(config.data.contradictions(&config.run.env));
    problems.extend(config.machine.contradiction());
    ConfigErrors::check(problems)?;
    name_it(&mut config, &root);
    for setting in layers::settings().into_iter().filter(|setting| setting != "run.env") {
        origins.entry(setting).or_insert(Origin::Default);
    }
    Ok(Loaded { config, root, file, origins })
}

/// What can be made of any text as a project's name; empty if nothing can.
#[must_use]
pub fn project_name(text: &str) -> String {
    project::normalised(text)
}

/// How curves are read: by the file that is named, else by the nearest
/// `outlast.toml` at or above a directory. Nothing else in it counts; of a file
/// that is named all is checked, of one that was found `[metrics]` alone: what is
/// wrong with how a project runs is no reason not to read its logs. One that
/// belongs to somebody else is not read.
///
/// # Errors
///
/// All that is wrong in what is checked, and a file that is no TOML.
pub fn metrics(
    start: &Path,
    named: Option<&Path>,
    home: Option<&Path>,
) -> Result<Option<(Metrics, PathBuf)>, ConfigErrors> {
    let start = std::path::absolute(start).unwrap_or_else(|_| start.to_owned());
    let found = || discover::find(&start, home).ok().flatten();
    let Some(path) = named.map(Path::to_owned).or_else(found) else { return Ok(None) };
    let only = if named.is_some() { None } else { Some("metrics") };
    let mut layers = Layers { only, ..Layers::default() };
    let label = discover::label(&path, &start);
    layers.read(discover::read(Place::ProjectFile(path.clone()), label, true));
    ConfigErrors::check(layers.problems)?;
    Ok(Some((layers.config.metrics, path)))
}

/// Fills in the names that nobody gave.
fn name_it(config: &mut Config, root: &Path) {
    if config.project.name.is_empty() {
        let directory = root.file_name().unwrap_or_default().to_string_lossy();
        config.project.name = project::normalised(&directory);
    }
    if config.project.name.is_empty() {
        config.project.name = "project".to_owned();
    }
    if config.run.name.is_empty() {
        config.run.name.clone_from(&config.project.name);
    }
}

impl Layers {
    fn read(&mut self, source: Result<Option<std::sync::Arc<source::Source>>, Problem>) {
        match source {
            Ok(Some(source)) => self.file(&source),
            Ok(None) => {}
            Err(problem) => self.problems.push(problem),
        }
    }
}

impl Loaded {
    /// What a run is asked to be. A command given on the command line replaces
    /// the configured one.
    ///
    /// # Errors
    ///
    /// When there is no command at all, or the given one cannot be one.
    pub fn run_spec(&self, command_override: &[String]) -> Result<RunSpec, ConfigErrors> {
        let config = &self.config;
        let command = if command_override.is_empty() { &config.run.command } else { command_override };
        if command.iter().any(|word| word.contains('\0')) {
            return Err(ConfigErrors::one(Problem::nowhere("the command holds a NUL byte")));
        }
        if command.first().is_none_or(String::is_empty) {
            return Err(ConfigErrors::one(self.no_command()));
        }
        let checkpoints = &config.checkpoints;
        Ok(RunSpec {
            project: config.project.name.clone(),
            name: config.run.name.clone(),
            command: command.to_vec(),
            workdir: config.run.workdir.clone(),
            env: config.run.env.clone(),
            secrets: config.secrets.names(),
            data: config.data.spec.clone(),
            environment: EnvironmentSpec {
                kind: config.environment.kind,
                setup: config.environment.setup.clone(),
                image: config.environment.image.clone(),
            },
            checkpoints: CheckpointSpec {
                keep: checkpoints.retention(),
                best: checkpoints.best.clone(),
                encrypt: checkpoints.encrypt,
                cadence: checkpoints.cadence,
                paths: checkpoints.paths.clone(),
                restore: checkpoints.restore,
                resume_args: checkpoints.resume_args.clone(),
                quiet_seconds: checkpoints.quiet.as_secs(),
                keep_local: checkpoints.keep_local,
                uplink_percent: checkpoints.uplink_percent,
                marker: checkpoints.marker.clone(),
                check: checkpoints.check.clone(),
            },
            artifacts: config.artifacts.globs.clone(),
            retry: RetrySpec { failures: config.retry.failures, losses: config.retry.losses },
            provider: config.run.provider.to_owned(),
            max_usd: config.budget.max_usd,
            max_usd_per_hour: config.budget.max_usd_per_hour,
            max_usd_project: config.budget.max_usd_project,
            max_usd_day: config.budget.max_usd_day,
            machine: config.machine.spec.clone(),
            usd_per_hour: Some(config.local.usd_per_hour).filter(|usd| *usd > 0.0),
            grace_seconds: config.run.grace.as_secs(),
            spool_bytes: config.logs.spool.unwrap_or(0),
            limits: config.limits.spec(),
            pty: config.run.pty,
            health: config.health.spec(&config.hang),
            notice: config.notice.spec.clone(),
            early_stop: config.early_stop.spec.clone(),
        })
    }

    /// Says how to give a command, with a script that is there if one is.
    fn no_command(&self) -> Problem {
        let directory = self.root.join(&self.config.run.workdir);
        let script = ["train.py", "main.py"].into_iter().find(|name| directory.join(name).is_file());
        let name = script.unwrap_or("train.py");
        let seen = script.map_or_else(String::new, |name| format!(", but there is a {name}"));
        Problem::nowhere(format!("there is no command to run{seen}"))
            .help(format!("give it after two hyphens: outlast run -- python {name}"))
            .help(format!("or write it to [run] in outlast.toml: command = [\"python\", \"{name}\"]"))
    }
}

#[cfg(test)]
mod tests;
