//! Runs of W&B's service, or of a private server of it: what its own public
//! client could ask for is copied into files, which every view then reads as it
//! reads any run's.
//!
//! It only asks: nothing at the server changes. The key comes from the
//! environment or from where `wandb login` put it, goes to that one server and
//! stands in no file, message or argument. What the server answers is data.

mod address;
mod answers;
mod client;
mod copies;
mod key;
mod pages;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{find, words};
use crate::app::Context;
use crate::exit_code::{ExitCode, Failure};
pub(crate) use address::{Address, shown};
use answers::Node;
use client::Api;
pub(crate) use copies::{ABOUT, Listed, PROJECT};
use copies::{Adding, Copy, Held, Plan};
use pages::{Pages, SURE_ROWS};

/// Bytes that are kept of one run's history.
const MAX_RUN: u64 = 1 << 30;
/// Questions for one run's history, however many steps a server says there are.
const MAX_PAGES: usize = 5_000;
/// Questions that the sure way may take.
const MAX_SURE: u64 = 2_000;
/// Runs of one page of a list; fewer, where the answer would be too long.
const PER_PAGE: u64 = 50;
/// Pages of a list that are asked for.
const MAX_LISTS: usize = 1_000;
/// Runs that are asked for at the same time.
const AT_ONCE: usize = 4;

/// Where a copy is, and how the run stood.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// A directory.
    pub(crate) dir: PathBuf,
    /// The state of one run that has ended.
    pub(crate) ended: Option<String>,
}

/// Copies what a path names at W&B; `None`: it names something else.
///
/// # Errors
/// Where there is no key or no such run, or the server cannot be asked.
pub(crate) async fn fetched(ctx: &Context, path: &Path) -> Result<Option<Fetched>, Failure> {
    let Some(address) = Address::of(path, &ctx.env) else { return Ok(None) };
    let fail = |error: io::Error| failure(path, &error);
    let address = address.map_err(fail)?;
    let copies = ctx.home()?.join("cache/wandb");
    let server = Server {
        api: Api::new(&address, &ctx.env).map_err(fail)?,
        address,
        copies,
        taken: AtomicU64::new(0),
    };
    ctx.printer.progress(&format!("asking {}", server.address.host()));
    copies::forget(&server.copies);
    let found = match server.address.run.clone() {
        Some(run) => server.one(&run).await,
        None => Arc::new(server).all(ctx).await,
    };
    ctx.printer.clear_progress();
    Ok(Some(found.map_err(fail)?))
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::NotFound => ExitCode::NotFound,
        io::ErrorKind::PermissionDenied => ExitCode::Denied,
        io::ErrorKind::NotConnected | io::ErrorKind::TimedOut => ExitCode::Unreachable,
        io::ErrorKind::StorageFull | io::ErrorKind::ReadOnlyFilesystem => ExitCode::CannotWrite,
        _ => ExitCode::BadInput,
    };
    let failure = Failure::new(code, format!("{}: {error}", words::path(path)));
    match code {
        ExitCode::Denied => failure
            .help("export WANDB_API_KEY, or run `wandb login`; https://wandb.ai/authorize shows the key")
            .help("WANDB_BASE_URL names a private server"),
        ExitCode::NotFound => {
            failure.help("write wandb://ENTITY/PROJECT or wandb://ENTITY/PROJECT/RUN, the run by its id")
        }
        _ => failure,
    }
}

/// A server, what is wanted of it, and where copies are.
struct Server {
    api: Api,
    address: Address,
    copies: PathBuf,
    /// Bytes of history that came, of all runs together.
    taken: AtomicU64,
}

impl Server {
    /// Copies one run.
    async fn one(&self, run: &str) -> io::Result<Fetched> {
        let Address { entity, project, .. } = &self.address;
        let variables = json!({ "entity": entity, "project": project, "name": run });
        let data = self.api.ask(&answers::run_query(), &variables).await?;
        let node = Node::of(answers::run(&data, entity, project, run)?.clone())?;
        let dir = self.copy(&node).await?;
        let ended = !node.goes_on() && !node.state().is_empty();
        Ok(Fetched { dir, ended: ended.then(|| node.state().to_owned()) })
    }

    /// Copies the runs of a project, the newest first.
    async fn all(self: Arc<Self>, ctx: &Context) -> io::Result<Fetched> {
        let dir = self.address.place(&self.copies);
        let (nodes, more) = self.list().await?;
        let (count, mut listed, mut done) = (nodes.len(), Listed::default(), 0);
        let (mut nodes, mut copying) = (nodes.into_iter(), JoinSet::new());
        let mut copied = Vec::new();
        loop {
            while copying.len() < AT_ONCE
                && let Some(node) = nodes.next()
            {
                let server = Arc::clone(&self);
                copying.spawn(async move {
                    let copied = match Node::of(node.clone()) {
                        Ok(node) => server.copy(&node).await,
                        Err(error) => Err(error),
                    };
                    (node, copied)
                });
            }
            let Some(joined) = copying.join_next().await else { break };
            let (node, result) = joined.map_err(io::Error::other)?;
            let name = node.get("name").and_then(Value::as_str).unwrap_or("?").to_owned();
            done += 1;
            ctx.printer.progress(&format!("{}: {done} of {count} runs", self.address.host()));
            match result {
                Ok(_) => copied.push(address::encoded(&name)),
                Err(error) if is_everywhere(&error) => return Err(error),
                Err(error) => listed.passed.push((address::encoded(&name), error.to_string())),
            }
        }
        copied.sort();
        copied.dedup();
        listed.runs = copied;
        if more {
            let why = format!("more than {} runs: the newest were read", find::MAX_RUNS);
            listed.passed.push((address::encoded("..."), why));
        }
        if listed.runs.is_empty() {
            let why = listed.passed.first().map_or("the project has no runs".to_owned(), |(name, why)| {
                format!("no run could be read: {}: {why}", words::name(name))
            });
            let kind = if count == 0 { io::ErrorKind::NotFound } else { io::ErrorKind::InvalidData };
            return Err(io::Error::new(kind, why));
        }
        listed.write(&dir)?;
        Ok(Fetched { dir, ended: None })
    }

    /// The newest runs of the project, and whether there are more.
    async fn list(&self) -> io::Result<(Vec<Value>, bool)> {
        let Address { entity, project, .. } = &self.address;
        let (mut runs, mut cursor, mut per_page) = (Vec::new(), None::<String>, PER_PAGE);
        let mut names = BTreeSet::new();
        for _ in 0..MAX_LISTS {
            let variables = json!({
                "entity": entity, "project": project, "cursor": cursor, "perPage": per_page,
                "order": "-created_at",
            });
            let data = match self.api.ask(&answers::runs_query(), &variables).await {
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge && per_page > 1 => {
                    per_page = (per_page / 8).max(1);
                    continue;
                }
                data => data?,
            };
            let page = answers::page(&data, entity, project)?;
            // A list without end says the same again.
            let name = |run: &Value| run.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let before = runs.len();
            runs.extend(page.runs.into_iter().filter(|run| names.insert(name(run))));
            cursor = page.next.filter(|_| runs.len() > before);
            if runs.len() > find::MAX_RUNS || cursor.is_none() {
                break;
            }
        }
        let more = runs.len() > find::MAX_RUNS || cursor.is_some();
        runs.truncate(find::MAX_RUNS);
        Ok((runs, more))
    }

    /// Brings the copy of a run up to date.
    async fn copy(&self, node: &Node) -> io::Result<PathBuf> {
        if !address::fits(&node.name) || node.name == PROJECT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a run's name is none that W&B can have"));
        }
        let dir = self.address.place(&self.copies).join(address::encoded(&node.name));
        let mut copy = Copy::open(dir.clone()).await.map_err(|error| {
            let why = format!("its copy cannot be kept in {}: {error}", words::path(&dir));
            io::Error::new(io::ErrorKind::ReadOnlyFilesystem, why)
        })?;
        self.history(&mut copy, node).await?;
        if self.machine(&copy, node).await? {
            let held =
                Held { machine: Some(node.heard().to_owned()), ..copy.held.clone().unwrap_or_default() };
            copy.remember(held)?;
        }
        let lost = copy.held.as_ref().map_or(0, |held| held.lost);
        copy.about(&node.lines(&self.address.entity, &self.address.project, lost))?;
        Ok(dir)
    }

    /// Fetches the rows that are not here.
    async fn history(&self, copy: &mut Copy, node: &Node) -> io::Result<()> {
        let end = node.last_step().map_or(0, |last| last + 1);
        let held = copy.held.clone().unwrap_or_default();
        match copies::plan(copy.held.as_ref(), node) {
            Plan::Keep => copy.remember(Held { counted: node.rows(), ..held })?,
            Plan::From(next) => {
                let adding = copy.add(held)?;
                self.rows(copy, adding, node, Pages::new(next, end)).await?;
            }
            Plan::Anew => {
                let adding = copy.anew(node.created())?;
                self.rows(copy, adding, node, Pages::new(0, end)).await?;
            }
        }
        let missing =
            |held: &Held| node.rows().unwrap_or(0).saturating_sub(held.rows.saturating_add(held.lost));
        let held = copy.held.clone().unwrap_or_default();
        if missing(&held) == 0 || node.goes_on() || held.sure == node.rows() {
            return Ok(());
        }
        // The server counts more rows than came. W&B's own client would ask for
        // a thousand steps at a time: what that does not give is told as lost.
        if end / SURE_ROWS <= MAX_SURE {
            let mut adding = copy.anew(node.created())?;
            adding.held.sure = node.rows();
            self.rows(copy, adding, node, Pages::sure(0, end)).await?;
        }
        let held = copy.held.clone().unwrap_or_default();
        copy.remember(Held { sure: node.rows(), lost: held.lost + missing(&held), ..held })
    }

    /// Fetches rows; those that came are kept whatever happens then.
    async fn rows(&self, copy: &mut Copy, mut adding: Adding, node: &Node, pages: Pages) -> io::Result<()> {
        let fetched = self.pages(&mut adding, node, pages).await;
        if fetched.is_ok() {
            adding.held.counted = node.rows();
        } else {
            adding.held.sure = None;
        }
        // What was here is worth more than the beginning of a new one.
        if fetched.is_ok() || copy.held.as_ref().is_none_or(|held| held.rows <= adding.held.rows) {
            copy.keep(adding)?;
        }
        fetched
    }

    async fn pages(&self, adding: &mut Adding, node: &Node, mut pages: Pages) -> io::Result<()> {
        let Address { entity, project, .. } = &self.address;
        let mut asked = 0;
        while let Some(ask) = pages.ask() {
            asked += 1;
            if asked > MAX_PAGES {
                let why =
                    "the run has more history than is read at once: what came is kept, ask again to go on";
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
            }
            if self.taken.load(Ordering::Relaxed) > copies::MOST {
                let why = "more history than is copied at once: name single runs";
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
            }
            if adding.held.bytes > MAX_RUN {
                adding.held.lost = node.rows().unwrap_or(0).saturating_sub(adding.held.rows).max(1);
                adding.held.next = node.last_step().map_or(0, |last| last + 1);
                return Ok(());
            }
            let variables = json!({
                "entity": entity, "project": project, "run": node.name,
                "minStep": ask.from, "maxStep": ask.to, "pageSize": ask.rows,
            });
            let data = match self.api.ask(answers::HISTORY_QUERY, &variables).await {
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                    if !pages.smaller(1) {
                        adding.held.lost += 1;
                        pages.pass();
                        adding.held.next = ask.to;
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut && pages.smaller(SURE_ROWS) => continue,
                data => data?,
            };
            let run = answers::run(&data, entity, project, &node.name)?;
            let rows = answers::history(run, ask.from..ask.to)?;
            if pages.came(rows.came) {
                adding.lines(&rows.lines, rows.taken)?;
                self.taken.fetch_add(rows.lines.len() as u64, Ordering::Relaxed);
                adding.held.lost += rows.broken;
                adding.held.next = ask.to;
            }
        }
        Ok(())
    }

    /// Fetches what was measured of the machine: whether it was not here.
    async fn machine(&self, copy: &Copy, node: &Node) -> io::Result<bool> {
        if copy.held.as_ref().is_some_and(|held| held.machine.as_deref() == Some(node.heard())) {
            return Ok(false);
        }
        let Address { entity, project, .. } = &self.address;
        let variables = json!({
            "entity": entity, "project": project, "name": node.name, "samples": answers::SAMPLES,
        });
        let data = self.api.ask(answers::EVENTS_QUERY, &variables).await?;
        copy.machine(&answers::events(answers::run(&data, entity, project, &node.name)?)?)?;
        Ok(true)
    }
}

/// Whether other runs would fare no better.
fn is_everywhere(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::NotConnected
            | Kind::TimedOut
            | Kind::PermissionDenied
            | Kind::StorageFull
            | Kind::ReadOnlyFilesystem
    )
}
