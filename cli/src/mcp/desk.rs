//! What the server works with: where it stands, what a person allowed it, and
//! what it may read. Nothing that a client says changes any of it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::app::Context;
use crate::client::Client;
use crate::commands::analyze::{live, words};
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};

/// Settled at the start.
pub(super) struct Desk {
    /// A printer that writes to stderr alone: stdout belongs to the protocol.
    pub(super) ctx: Context,
    /// The data directory.
    pub(super) home: PathBuf,
    /// Where the server was started; its project is what is run.
    pub(super) project: PathBuf,
    /// That is the process's own directory, so that paths may be told from there.
    pub(super) stands_here: bool,
    /// Directories below which files may be read, without links in them.
    pub(super) roots: Vec<PathBuf>,
    /// Things may be changed.
    pub(super) control: bool,
    /// Micro-dollars a day that need no person.
    pub(super) spend: Option<u64>,
    /// Only tools that read files.
    pub(super) analysis: bool,
    /// A connection that was used before.
    pub(super) line: Mutex<Option<Client>>,
}

impl Desk {
    /// A path as [`Self::path`], or what may be the name of a run: who reads it
    /// asks the controller. A server that only reads files asks nobody.
    pub(super) fn path_or_run(&self, text: &str) -> Result<PathBuf, Failure> {
        match self.path(text) {
            Err(failure)
                if failure.code == ExitCode::NotFound && !self.analysis && live::may_be_run(text) =>
            {
                Ok(PathBuf::from(text))
            }
            path => path,
        }
    }

    /// The connection of before, if it still works.
    async fn kept(&self) -> Option<Client> {
        let kept = self.line.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        kept.view().await.is_ok().then_some(kept)
    }

    fn keep(&self, client: &Client) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
    }

    /// The controller; nothing is started where nothing ever ran.
    pub(super) async fn existing(&self) -> anyhow::Result<Option<Client>> {
        if let Some(kept) = self.kept().await {
            return Ok(Some(kept));
        }
        let found = Box::pin(daemon::existing(&self.ctx)).await?;
        found.iter().for_each(|client| self.keep(client));
        Ok(found)
    }

    /// The controller, for questions about what must be there.
    pub(super) async fn needed(&self) -> anyhow::Result<Client> {
        let none = || {
            let why = "nothing has been run here yet";
            Failure::new(ExitCode::NotFound, why).help("a person can begin a run: outlast run -- COMMAND")
        };
        Ok(self.existing().await?.ok_or_else(none)?)
    }

    /// The controller, started where none runs.
    pub(super) async fn ensured(&self) -> anyhow::Result<Client> {
        if let Some(kept) = self.kept().await {
            return Ok(kept);
        }
        let client = Box::pin(daemon::ensure(&self.ctx, true)).await?;
        self.keep(&client);
        Ok(client)
    }

    /// A path of a client, where it may be read.
    pub(super) fn path(&self, text: &str) -> Result<PathBuf, Failure> {
        let path = self.project.join(text);
        let shown = || words::path(Path::new(text));
        let real = path.canonicalize().map_err(|error| {
            Failure::new(ExitCode::NotFound, format!("{}: {error}", shown()))
                .help("paths are relative to where the server was started")
        })?;
        if self.roots.iter().any(|root| real.starts_with(root)) {
            // Shorter to read; the server stands in its project.
            let here = self.stands_here.then(|| real.strip_prefix(&self.project).ok()).flatten();
            let below = here.map(Path::to_owned);
            return Ok(match below {
                Some(here) if here.as_os_str().is_empty() => PathBuf::from("."),
                Some(below) => below,
                None => real,
            });
        }
        let roots: Vec<String> = self.roots.iter().map(|root| words::path(root)).collect();
        Err(Failure::new(ExitCode::Denied, format!("{} is not below {}", shown(), roots.join(" or ")))
            .help("a person can start the server with --root DIR for more directories"))
    }
}

#[cfg(test)]
impl Desk {
    /// One that reads files below a directory.
    pub(super) fn over(dir: &Path) -> Self {
        use crate::printer::{Output, Printer, Settings, Verbosity};
        let dir = dir.canonicalize().unwrap();
        let settings = Settings {
            verbosity: Verbosity::Quiet,
            stdout: Output::default(),
            stderr: Output::default(),
            width: 80,
        };
        let printer = Printer::to(settings, Box::new(std::io::sink()), Box::new(std::io::sink()));
        Self {
            ctx: Context::new(printer, std::collections::BTreeMap::new()),
            home: dir.join("home"),
            project: dir.clone(),
            stands_here: false,
            roots: vec![dir],
            control: false,
            spend: None,
            analysis: true,
            line: Mutex::default(),
        }
    }
}
