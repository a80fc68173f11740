//! Brings result files into a directory that a person works in. Only files
//! that changed are fetched, each appears whole, and one that was changed here
//! is never overwritten: both are kept.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use artifacts::restore::{RestoreError, restore_over};
use artifacts::source::Filter;
use artifacts::{Manifest, Store};
use proto::v1;
use serde::Serialize;

use crate::app::Context;
use crate::client::{Client, selector};
use crate::exit_code::{ExitCode, Failure};
use crate::link::Link;
use crate::printer::safe;

mod plan;

use plan::{Had, plan};

/// What a pull came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Where the files are.
    pub path: PathBuf,
    /// Files of the tree that were asked for.
    pub files: u64,
    /// How large they are.
    pub bytes: u64,
    /// Files that were fetched.
    pub fetched: u64,
    /// How large those are.
    pub fetched_bytes: u64,
    /// What is not there under its own name.
    pub conflicts: Vec<Conflict>,
}

/// A file that could not take its own name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// Its name.
    pub path: String,
    /// The name it has instead; empty where it was not fetched.
    pub kept_as: String,
    /// What is in the way.
    pub why: &'static str,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = safe(&self.path);
        if self.kept_as.is_empty() {
            write!(f, "{path} was not fetched: {}", self.why)
        } else {
            write!(f, "{path} {}: it stays, and the fetched one is {}", self.why, safe(&self.kept_as))
        }
    }
}

/// Fetches the newest results of a run, unless they are those that `seen`
/// names; `None` if there are no newer ones.
///
/// # Errors
/// Where they cannot be fetched, verified or written.
pub async fn results(
    ctx: &Context,
    link: &mut Link<'_>,
    run: &v1::RunView,
    place: &Path,
    filter: &Filter,
    seen: &mut String,
) -> anyhow::Result<Option<Outcome>> {
    let ask = async |client: Client| client.operator.clone().outputs(selector(&run.id)).await;
    let found = link.ask(ask).await?.into_inner();
    if found.manifest_key.is_empty() || found.manifest_key == *seen {
        return Ok(None);
    }
    let odd = || Failure::new(ExitCode::Internal, format!("the results of {} have no usable key", run.name));
    let key: artifacts::ObjectKey = found.manifest_key.parse().map_err(|_| odd())?;
    let digest = found.manifest_digest.parse().map_err(|_| odd())?;
    let store = link.client().await?.store;
    let work = async {
        let tree = store.open_manifest("", &key, digest).await?;
        Box::pin(fetch(&store, &tree, place, filter, ctx.home().ok().as_deref())).await
    };
    let outcome = work
        .await
        .map_err(|error| refusal(&error))
        .with_context(|| format!("fetch the results of {}", run.name))?;
    *seen = found.manifest_key;
    Ok(Some(outcome))
}

/// Fetches what differs. What was fetched before is known from `home`, if
/// there is one.
async fn fetch(
    store: &dyn Store,
    tree: &Manifest,
    place: &Path,
    filter: &Filter,
    home: Option<&Path>,
) -> Result<Outcome, RestoreError> {
    let io = |source: std::io::Error| RestoreError::Io { what: place.display().to_string(), source };
    let made = || std::fs::create_dir_all(place).and_then(|()| place.canonicalize());
    let place = made().map_err(io)?;
    let had = home.map(|home| Had::load(home, &place)).unwrap_or_default();
    let plan = plan(&place, tree, filter, &had).map_err(io)?;
    if !plan.fetch.entries.is_empty() {
        Box::pin(restore_over(store, &plan.fetch, &place)).await?;
    }
    if let Some(home) = home {
        // Lost, it is made again by comparing what is there.
        drop(plan.had(&place, had).save(home, &place));
    }
    Ok(Outcome {
        files: plan.files,
        bytes: plan.bytes,
        fetched: plan.fetch.files(),
        fetched_bytes: plan.fetch.total_bytes(),
        conflicts: plan.conflicts,
        path: place,
    })
}

/// What could not be read back, with its exit code.
pub fn refusal(error: &RestoreError) -> anyhow::Error {
    let code = match error {
        RestoreError::Full(_) => ExitCode::CannotWrite,
        RestoreError::Remote(_) => ExitCode::Unreachable,
        RestoreError::Exists { .. } | RestoreError::Blocked { .. } | RestoreError::TooLarge { .. } => {
            ExitCode::BadInput
        }
        RestoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            ExitCode::Denied
        }
        RestoreError::Io { .. } => ExitCode::CannotWrite,
        RestoreError::Missing { .. }
        | RestoreError::Corrupt { .. }
        | RestoreError::Unsupported { .. }
        | RestoreError::Sealed { .. }
        | RestoreError::Manifest(_) => ExitCode::Internal,
    };
    Failure::new(code, error.to_string()).into()
}

#[cfg(test)]
mod tests;
