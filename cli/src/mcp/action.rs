//! What costs money, destroys, or runs words of a model here: exactly one
//! description for the person who is asked, for the code that stands for it,
//! and for the doing. It holds no secret's value; those are read when it is done.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lifecycle::RunSpec;
use lifecycle::spec::difference::{Change, apply};
use proto::v1;
use serde::{Deserialize, Serialize};

use crate::app::Context;
use crate::args::ConfigArgs;
use crate::client::{Client, passing, selector};
use crate::commands::{answer, load, preflight, short};
use crate::config::SourceTree;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{money, safe};
use crate::source::{self, Packed};

/// How often a call whose connection broke is made again; its token makes that safe.
const AGAIN: u32 = 3;

/// One action with all that it needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Action {
    /// Begin a run.
    Run {
        /// A `RunSpec` as JSON.
        spec: String,
        /// The project, whose configuration says where secrets are. Its tree is packed
        /// when the run is begun: nothing leaves before it was agreed to.
        root: PathBuf,
        /// Globs of what is taken along although git ignores it, and of what is not.
        include: Vec<String>,
        exclude: Vec<String>,
        /// How much the tree was when it was asked for, in words.
        tree: String,
        reuse: bool,
        /// Where the secrets were to be read, in words.
        secrets: String,
        /// Settings of the asker, as `SECTION.KEY=VALUE`.
        set: Vec<String>,
    },
    /// Begin a run from a checkpoint.
    Fork {
        /// `RUN@STEP`.
        checkpoint: String,
        /// What is changed, as the controller takes it.
        changes: String,
        /// What comes of it, a `RunSpec` as JSON.
        spec: String,
    },
    /// Go on with a run.
    Resume {
        id: String,
        name: String,
        /// Its `RunSpec` as JSON.
        spec: String,
    },
    /// End a run at once.
    DestroyRun { id: String, name: String },
    /// End a machine at once.
    DestroyMachine { id: String, provider: String },
}

/// What an action would cost and do now.
pub(crate) struct Outlook {
    /// Somebody bills for its machines.
    pub(super) paid: bool,
    /// The most it may cost, in dollars.
    pub(super) cap: Option<f64>,
    /// All of it, for a person.
    pub(crate) lines: Vec<String>,
    /// What rents answer; only where it is paid.
    pub(super) price: Option<v1::PreflightReply>,
}

fn read(spec: &str) -> anyhow::Result<RunSpec> {
    serde_json::from_str(spec).context("read the run's description")
}

/// Where secrets are read, in words without their values.
pub(super) fn places(loaded: &crate::config::Loaded) -> String {
    format!("{:?}", loaded.config.secrets.sources)
}

impl Action {
    /// The description of the run that it begins.
    pub(super) fn spec(&self) -> anyhow::Result<Option<RunSpec>> {
        match self {
            Self::Run { spec, .. } | Self::Fork { spec, .. } | Self::Resume { spec, .. } => {
                read(spec).map(Some)
            }
            Self::DestroyRun { .. } | Self::DestroyMachine { .. } => Ok(None),
        }
    }

    /// A name of the deed, the same for an equal call; empty where asking twice
    /// means two deeds, or the controller itself refuses the second.
    ///
    /// # Errors
    /// Where the source tree cannot be looked at.
    pub(super) fn name(&self, ctx: &Context) -> anyhow::Result<String> {
        let mut hash = blake3::Hasher::new();
        match self {
            // Who corrects a file and runs it again means another run.
            Self::Run { root, include, exclude, .. } => {
                let settings = SourceTree { include: include.clone(), exclude: exclude.clone() };
                for path in source::choose(ctx, root, &settings)?.0.paths {
                    let meta = root.join(&path).symlink_metadata().ok();
                    let changed = meta.as_ref().and_then(|meta| meta.modified().ok());
                    hash.update(
                        format!("{path:?} {:?} {changed:?}\n", meta.map(|meta| meta.len())).as_bytes(),
                    );
                }
            }
            Self::Fork { .. } => {}
            _ => return Ok(String::new()),
        }
        hash.update(serde_json::to_string(self)?.as_bytes());
        Ok(hash.finalize().to_hex().to_string())
    }

    /// What it would do and cost, asked now. Nothing is begun.
    ///
    /// # Errors
    /// Where the controller cannot be asked.
    pub(crate) async fn outlook(&self, client: &Client) -> anyhow::Result<Outlook> {
        let Some(spec) = self.spec()? else {
            let what = match self {
                Self::DestroyMachine { id, provider } => {
                    format!("end the machine {} of {} at once", short(id), safe(provider))
                }
                Self::DestroyRun { name, .. } => {
                    format!("end the run {} and its machines at once", safe(name))
                }
                _ => String::new(),
            };
            let lines = vec![what, "what is not saved is lost".to_owned()];
            return Ok(Outlook { paid: false, cap: None, lines, price: None });
        };
        let ask = v1::PreflightRequest { spec_json: serde_json::to_string(&spec)? };
        let reply = answer(client.operator.clone().preflight(ask).await)?;
        let mut lines = vec![match self {
            Self::Fork { checkpoint, .. } => format!("begin a run from {}", safe(checkpoint)),
            Self::Resume { name, .. } => format!("go on with {}", safe(name)),
            _ => format!("begin a run of {}", safe(&spec.project)),
        }];
        if let Self::Fork { changes, .. } = self {
            let changes: Vec<Change> = serde_json::from_str(changes).unwrap_or_default();
            for change in &changes {
                let to = change.to.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
                lines.push(format!("  with      {} = {}", safe(&change.path.join(".")), safe(&to)));
            }
        }
        // Whole: what is agreed to must have been seen.
        lines.push(format!("  runs      {}", safe(&serde_json::to_string(&spec.command)?)));
        if reply.paid {
            lines.extend(preflight::told(&spec, &reply).lines().map(str::to_owned));
        } else {
            let cap = cap(spec.max_usd);
            lines.push(format!("  machine   of {}, which nobody bills; {cap}", safe(&spec.provider)));
            if reply.local_store {
                lines.push(format!("  store     {}", preflight::STORE));
            }
        }
        if !spec.secrets.is_empty() {
            lines.push(format!("  secrets   {} are given to it", spec.secrets.join(", ")));
        }
        if let Self::Run { set, root, tree, .. } = self {
            lines.extend(set.iter().map(|set| format!("  with      {}", safe(set))));
            lines.push(format!("  tree      {}, {}", safe(&root.to_string_lossy()), safe(tree)));
        }
        Ok(Outlook { paid: reply.paid, cap: spec.max_usd, lines, price: reply.paid.then_some(reply) })
    }

    /// Whether the asker changed what is taken along of the project: files that git
    /// ignores are where people keep what is nobody's business.
    pub(super) fn takes_along(&self) -> bool {
        // However the key is written: quoted, spaced, or with a table as its value.
        let of_source = |set: &String| {
            let key = set.split('=').next().unwrap_or_default();
            let first = key.split('.').next().unwrap_or_default();
            first.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')) == "source"
        };
        matches!(self, Self::Run { set, .. } if set.iter().any(of_source))
    }

    /// Puts the tree of a run that it begins into the store; nothing is begun.
    ///
    /// # Errors
    /// Where the tree cannot be read or is too large, or the store cannot take it.
    pub(super) async fn pack(&self, ctx: &Context, client: &Client) -> anyhow::Result<Option<Packed>> {
        let Self::Run { root, include, exclude, .. } = self else { return Ok(None) };
        let settings = SourceTree { include: include.clone(), exclude: exclude.clone() };
        let (chosen, total) = source::choose(ctx, root, &settings)?;
        fits(total)?;
        let store = client.store.clone();
        Ok(Some(Box::pin(source::pack(ctx, &store, root, chosen)).await?))
    }

    /// Does it. With the same token a second time, no second run begins.
    ///
    /// # Errors
    /// As the controller says; and where secrets are not where they were.
    pub(crate) async fn perform(&self, ctx: &Context, client: Client, token: &str) -> anyhow::Result<String> {
        let packed = self.pack(ctx, &client).await?;
        self.begin(ctx, client, token, packed).await
    }

    /// The same with a tree that was packed.
    pub(super) async fn begin(
        &self,
        ctx: &Context,
        client: Client,
        token: &str,
        packed: Option<Packed>,
    ) -> anyhow::Result<String> {
        match self {
            Self::Run { spec, root, reuse, secrets, .. } => {
                let packed = packed.context("the tree was not packed")?;
                let request = v1::SubmitRequest {
                    spec_json: spec.clone(),
                    source_key: packed.key,
                    source_digest: packed.digest,
                    token: token.to_owned(),
                    reuse: *reuse,
                    secrets: values(ctx, root, secrets, spec)?,
                };
                let begun = insisted(ctx, client, &Begin::Submit(request)).await;
                Ok(begun.inspect_err(|_| source::forget(ctx, root))?.name)
            }
            Self::Fork { checkpoint, changes, .. } => {
                let request = v1::ForkRequest {
                    checkpoint: checkpoint.clone(),
                    changes_json: changes.clone(),
                    token: token.to_owned(),
                    ..v1::ForkRequest::default()
                };
                Ok(insisted(ctx, client, &Begin::Fork(request)).await?.name)
            }
            // Asked once: a repeated wish could begin two runs.
            Self::Resume { id, .. } => Ok(answer(client.operator.clone().resume(selector(id)).await)?.name),
            Self::DestroyRun { id, .. } => {
                Ok(answer(client.operator.clone().destroy_run(selector(id)).await)?.name)
            }
            Self::DestroyMachine { id, .. } => {
                let machine = answer(client.operator.clone().destroy_machine(selector(id)).await)?;
                Ok(short(&machine.id).to_owned())
            }
        }
    }
}

/// Refuses a tree that a person had better look at first.
pub(super) fn fits(total: u64) -> Result<(), Failure> {
    if source::is_large(total) {
        let why = "the source tree has more than 1 GiB";
        return Err(Failure::new(ExitCode::BadInput, why)
            .help("leave data out with .outlastignore, or have a person run it: outlast run"));
    }
    Ok(())
}

/// What begins a run; it may be asked again, since it carries a token.
enum Begin {
    Submit(v1::SubmitRequest),
    Fork(v1::ForkRequest),
}

impl Begin {
    async fn ask(&self, client: &Client) -> Result<tonic::Response<v1::RunView>, tonic::Status> {
        let mut operator = client.operator.clone();
        match self {
            Self::Submit(request) => operator.submit(request.clone()).await,
            Self::Fork(request) => operator.fork(request.clone()).await,
        }
    }
}

/// Asks until there is an answer. Once a call broke off, nothing that follows says
/// that nothing was begun.
async fn insisted(ctx: &Context, client: Client, begin: &Begin) -> anyhow::Result<v1::RunView> {
    let unsure = |why: &str| {
        let text = format!("it is not known whether this was begun: {why}");
        Failure::new(ExitCode::Unreachable, text).help("look at the list of runs before asking again")
    };
    let (mut client, mut broke) = (client, false);
    for attempt in 0..=AGAIN {
        match begin.ask(&client).await {
            Err(status) if passing(&status) && attempt < AGAIN => broke = true,
            Err(status) if broke => return Err(unsure(status.message()).into()),
            reply => return Ok(answer(reply)?),
        }
        client = Box::pin(daemon::ensure(ctx, true)).await.map_err(|error| unsure(&error.to_string()))?;
    }
    Err(unsure("no answer").into())
}

/// The values of a run's secrets, from where they were when it was described.
fn values(ctx: &Context, root: &Path, told: &str, spec: &str) -> anyhow::Result<Vec<v1::Secret>> {
    if read(spec)?.secrets.is_empty() {
        return Ok(Vec::new());
    }
    let loaded = load(ctx, root, &ConfigArgs { config: None, set: Vec::new() }, &[])?;
    if places(&loaded) != told {
        let why = "[secrets] in outlast.toml was changed since this was asked for";
        return Err(Failure::new(ExitCode::Denied, why).help("have the assistant ask again").into());
    }
    Ok(crate::secrets::read(&ctx.env, &loaded.config.secrets)?)
}

/// The description that changes make of another one.
pub(super) fn changed(spec: &RunSpec, changes: &[Change]) -> anyhow::Result<RunSpec> {
    Ok(apply(spec, changes)?)
}

/// An amount, or that there is none.
pub(super) fn cap(usd: Option<f64>) -> String {
    usd.map_or_else(|| "no cap".to_owned(), money)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_tree_that_is_sent_is_seen() {
        let run = |set: &[&str]| Action::Run {
            spec: String::new(),
            root: PathBuf::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            tree: String::new(),
            reuse: false,
            secrets: String::new(),
            set: set.iter().map(|set| (*set).to_owned()).collect(),
        };
        assert!(run(&["run.env.A=1", "source.include=[\".env\"]"]).takes_along());
        for set in
            ["source.exclude=[]", "source={include=[\".env\"]}", " \"source\" . include = []", "'source'.x=1"]
        {
            assert!(run(&[set]).takes_along(), "{set}");
        }
        assert!(!run(&["run.env.A=source.include"]).takes_along() && !run(&[]).takes_along());
    }
}
