//! Builds the environment a program runs in: packages and setup commands, once
//! per definition, kept by its hash. Blocking: called on a blocking thread. A
//! half-built environment is never used, and nothing outside the cache directory
//! is written except by the setup commands themselves.
#![cfg(target_os = "linux")]

mod build;
mod command;
mod container;
mod definition;
mod diagnosis;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use lifecycle::spec::EnvironmentSpec;

pub use container::{ContainerLaunch, ContainerRequest, contain};

/// What is to be built.
#[derive(Debug, Clone, Copy)]
pub struct EnvironmentRequest<'a> {
    /// The source tree; files are looked for in its root.
    pub source_dir: &'a Path,
    /// Where built environments are kept.
    pub cache_dir: &'a Path,
    /// How to build.
    pub spec: &'a EnvironmentSpec,
    /// The variables to begin with; `PATH` decides which tools are found.
    pub base_env: &'a BTreeMap<String, String>,
    /// The machine, for the marker of its processes.
    pub machine_id: &'a str,
}

/// An environment that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The variables to run with: the base, with the environment switched on.
    pub env: BTreeMap<String, String>,
    /// The BLAKE3 of what defines the environment; `none` where nothing does.
    pub key: String,
    /// Whether nothing had to be built or run.
    pub cached: bool,
    /// What built it: `uv`, `venv`, `conda` or `none`; `podman` or `docker` where
    /// an image is the environment.
    pub tool: String,
}

/// Why there is no environment.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The caller wanted no more of it.
    #[error("building the environment was cancelled")]
    Cancelled,
    /// A tool or a file is not there.
    #[error("{what}; {remedy}")]
    Missing {
        /// What is missing.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// A command failed.
    #[error("`{command}` failed with {exit}{}\n{}", hint.as_ref().map_or(String::new(), |h| format!(" ({h})")), last_lines.join("\n"))]
    Failed {
        /// The command line.
        command: String,
        /// How it ended, in words.
        exit: String,
        /// The end of what it wrote.
        last_lines: Vec<String>,
        /// Whether it looks like the network, so that trying again may help.
        retryable: bool,
        /// What to do, where that is known.
        hint: Option<String>,
    },
    /// A file of the source tree is not usable.
    #[error("{} is not usable: {reason}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The disk or the system failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl EnvironmentError {
    /// Whether the same build may succeed later without any change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Failed { retryable: true, .. })
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

/// Gives the environment that the request defines: from the cache, or built
/// now, with every line of the tools' output handed to `output` as it appears.
/// `cancelled` is asked several times a second.
///
/// # Errors
/// When a tool is missing, a command fails, the disk fails, or it is cancelled.
pub fn prepare(
    req: &EnvironmentRequest<'_>,
    output: &mut dyn FnMut(&[u8]),
    cancelled: &dyn Fn() -> bool,
) -> Result<Prepared, EnvironmentError> {
    if !req.spec.image.is_empty() {
        return container::fetch(req, output, cancelled);
    }
    let source = req
        .source_dir
        .canonicalize()
        .map_err(EnvironmentError::io("open the source tree", req.source_dir))?;
    let definition = definition::Definition::find(req, &source, output)?;
    if definition.is_empty() {
        let env = req.base_env.clone();
        return Ok(Prepared { env, key: "none".to_owned(), cached: true, tool: "none".to_owned() });
    }
    build::Build::new(req, &source, &definition)?.run(output, cancelled)
}

#[cfg(test)]
mod tests;
