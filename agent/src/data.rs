//! Brings what `[data]` names to the machine before anything is made ready:
//! repositories of the Hugging Face hub as its own client would have stored
//! them, and files by their URL. Sizes are asked and the disk is looked at first;
//! what broke off is gone on from; nothing is used whose digest is another; and
//! it is fetched once per machine. A branch is resolved once per run.
//!
//! `tree`, `answer` and `sum` decide and touch nothing; `hub` asks, `transfer`
//! fetches one file, `cache` keeps it, `place` puts it where the program looks.
//! What a server says is bounded and checked; a token goes to the hub alone and
//! is never shown.

mod answer;
mod cache;
mod hub;
mod place;
mod sum;
mod transfer;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lifecycle::spec::{DataSpec, HfRepo};
use proto::v1;
use tokio::task::JoinSet;

use crate::booklets::fetcher;
use crate::os;
use crate::secrets::Values;
use crate::world::{Cancelled, Failed, SharedGateway};

use cache::Cache;
use hub::Hub;
use transfer::{Transfer, Wanted};

/// For each answer and each piece of one.
const PATIENCE: Duration = Duration::from_secs(60);
/// Files that are fetched at once.
const AT_ONCE: usize = 4;
/// Between two words of how far it is.
const TELL: Duration = Duration::from_secs(2);
/// Room that is left alone.
const SPARE: u64 = 128 << 20;
/// The token's name among the secrets.
const TOKEN: &str = "HF_TOKEN";
const ENDPOINT: &str = "HF_ENDPOINT";
const HUB: &str = "https://huggingface.co";

/// Says how far it is, for people.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// Where data are fetched to, and with what.
pub struct Job<'a> {
    /// The attempt.
    pub work: &'a v1::Work,
    /// What is fetched.
    pub spec: &'a DataSpec,
    /// The machine's own store of fetched files.
    pub cache: &'a Path,
    /// What becomes `HF_HOME`.
    pub hf_home: &'a Path,
    /// What URLs go below.
    pub source: &'a Path,
    /// Variables of the program, for the hub's address.
    pub env: &'a BTreeMap<String, String>,
    /// Among them the hub's token.
    pub secrets: &'a Values,
    /// Keeps at which commits repositories are taken.
    pub gateway: SharedGateway,
    /// Whether nobody wants it any more.
    pub cancelled: Cancelled,
    /// Hears how far it is.
    pub tell: Tell,
}

/// Where one fetched file goes.
enum Goal {
    /// Into the snapshot of a repository, by its number, under a path.
    Snapshot(usize, String),
    /// Below the source tree.
    Source(String),
}

fn failed(reason: impl Into<String>, transient: bool) -> Failed {
    Failed { reason: format!("[data] {}", reason.into()), transient }
}

fn on_disk(what: &str) -> impl Fn(std::io::Error) -> Failed {
    let what = what.to_owned();
    // A full disk says so in the system's words, which the verdict knows.
    let for_good = |kind| {
        use std::io::ErrorKind as E;
        matches!(
            kind,
            E::NotADirectory | E::IsADirectory | E::InvalidInput | E::StorageFull | E::AlreadyExists
        )
    };
    move |error| failed(format!("{what}: {error}"), !for_good(error.kind()))
}

/// Fetches everything; the variables that the program gets.
///
/// # Errors
/// What could not be fetched and why, and whether another try may help.
pub async fn fetch(job: &Job<'_>) -> Result<BTreeMap<String, String>, Failed> {
    if job.spec.is_empty() {
        return Ok(BTreeMap::new());
    }
    job.spec.check().map_err(|why| failed(why, false))?;
    let fetcher = Arc::new(fetcher(PATIENCE));
    let endpoint = job.env.get(ENDPOINT).map_or(HUB, String::as_str);
    let hub = Hub::new(fetcher, endpoint, job.secrets.get(TOKEN)).map_err(|why| failed(why, false))?;
    let hub = Arc::new(hub);
    let cache = Cache::open(job.cache).map_err(on_disk("the machine's store of data"))?;

    let (mut goals, mut repos) = (Vec::new(), Vec::new());
    for (number, repo) in job.spec.hf.iter().enumerate() {
        let commit = commit_of(job, &hub, repo).await?;
        let tree = patiently(job, || hub.tree(repo, &commit)).await?;
        (job.tell)(&format!(
            "{repo} at commit {}: {} files, {}",
            &commit[..12],
            tree.files.len(),
            size(tree.bytes())
        ));
        for file in tree.files {
            let wanted = Wanted {
                name: format!("{repo}: {}", file.path),
                url: hub.file(repo, &commit, &file.path),
                size: Some(file.size),
                sum: file.sum,
            };
            goals.push((wanted, Goal::Snapshot(number, file.path)));
        }
        repos.push((repo, commit));
    }
    for file in &job.spec.urls {
        let sum = sum::Sum::Sha256(file.sha256.clone());
        let (at, of) = (cache.clone(), sum.clone());
        let here = tokio::task::spawn_blocking(move || at.has(&of).unwrap_or(false)).await.unwrap_or(false);
        // What is here needs nobody's leave: its server may be gone.
        let size = if here { None } else { patiently(job, || hub.size(&file.url)).await? };
        let wanted = Wanted { name: hub::shown(&file.url).to_owned(), url: file.url.clone(), size, sum };
        goals.push((wanted, Goal::Source(file.to.clone())));
    }
    has_room(&cache, &goals)?;
    transfer_all(job, &hub, &cache, &goals).await?;
    place_all(job, &cache, goals, &repos).await?;
    (job.tell)("all data are here");
    let mut variables = BTreeMap::new();
    if !repos.is_empty() {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        variables.insert("HF_HOME".to_owned(), text(job.hf_home.to_owned()));
        variables.insert("HF_HUB_CACHE".to_owned(), text(job.hf_home.join("hub")));
    }
    Ok(variables)
}

/// The commit at which all attempts of the run take a repository.
async fn commit_of(job: &Job<'_>, hub: &Hub, repo: &HfRepo) -> Result<String, Failed> {
    if repo.is_pinned() {
        return Ok(repo.revision.clone());
    }
    let name = repo.to_string();
    let unanswered = |(why, passing)| failed(format!("{name}: its commit: {why}"), passing);
    let known = job.gateway.pin(job.work, &name, "").await.map_err(unanswered)?;
    let stands = if known.is_empty() {
        let newest = patiently(job, || hub.resolve(repo)).await?;
        job.gateway.pin(job.work, &name, &newest).await.map_err(unanswered)?
    } else {
        known
    };
    if lifecycle::spec::is_commit(&stands) {
        Ok(stands)
    } else {
        Err(failed(format!("{name}: the controller named no commit"), true))
    }
}

/// Asks again while what went wrong may pass, a bounded number of times.
async fn patiently<T, F>(job: &Job<'_>, ask: impl Fn() -> F) -> Result<T, Failed>
where
    F: Future<Output = Result<T, answer::Trouble>>,
{
    let mut tries = 0;
    loop {
        let trouble = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(trouble) => trouble,
        };
        let Some(pause) = trouble.pause(tries) else {
            return Err(failed(trouble.why, trouble.passing));
        };
        if job.cancelled.load(Ordering::Relaxed) {
            return Err(failed("it was stopped", true));
        }
        (job.tell)(&format!("{}; asked again in {} s", trouble.why, pause.as_secs_f32()));
        tokio::time::sleep(pause).await;
        tries += 1;
    }
}

/// Fails where what is missing has no room.
fn has_room(cache: &Cache, goals: &[(Wanted, Goal)]) -> Result<(), Failed> {
    let mut sums: Vec<(&sum::Sum, u64)> = goals.iter().map(|(w, _)| (&w.sum, w.size.unwrap_or(0))).collect();
    sums.sort();
    sums.dedup_by(|a, b| a.0 == b.0);
    let missing = sums.iter().map(|(sum, size)| cache.missing(sum, *size));
    let need = missing.fold(0_u64, u64::saturating_add);
    let free = os::free_disk(cache.dir());
    if need == 0 || need.saturating_add(SPARE) <= free {
        return Ok(());
    }
    // The words by which a full disk is known: a larger one is chosen next.
    let why = format!(
        "no space left on device: {} are needed and {} are free at {}",
        size(need),
        size(free),
        cache.dir().display()
    );
    Err(failed(why, false))
}

async fn transfer_all(
    job: &Job<'_>,
    hub: &Arc<Hub>,
    cache: &Cache,
    goals: &[(Wanted, Goal)],
) -> Result<(), Failed> {
    let total = goals.iter().map(|(w, _)| w.size.unwrap_or(0)).fold(0_u64, u64::saturating_add);
    let came = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut wanted: Vec<Wanted> = goals.iter().map(|(wanted, _)| wanted.clone()).collect();
    wanted.reverse();
    let mut under_way = JoinSet::new();
    let mut told = Instant::now();
    loop {
        while under_way.len() < AT_ONCE
            && let Some(wanted) = wanted.pop()
        {
            let transfer = Transfer {
                hub: hub.clone(),
                cache: cache.clone(),
                cancelled: job.cancelled.clone(),
                came: came.clone(),
                tell: job.tell.clone(),
            };
            under_way.spawn(async move { transfer.run(&wanted).await });
        }
        let done = tokio::select! {
            done = under_way.join_next() => Some(done),
            () = tokio::time::sleep(TELL) => None,
        };
        if told.elapsed() >= TELL {
            told = Instant::now();
            (job.tell)(&format!("{} of {}", size(came.load(Ordering::Relaxed).min(total)), size(total)));
        }
        let Some(done) = done else { continue };
        match done {
            None => return Ok(()),
            // Dropped, the others end; what they have is gone on from.
            Some(Ok(done)) => done.map_err(|trouble| failed(trouble.why, trouble.passing))?,
            Some(Err(error)) => return Err(failed(error.to_string(), true)),
        }
    }
}

async fn place_all(
    job: &Job<'_>,
    cache: &Cache,
    goals: Vec<(Wanted, Goal)>,
    repos: &[(&HfRepo, String)],
) -> Result<(), Failed> {
    let hub = job.hf_home.join("hub");
    let repos: Vec<place::Repo> =
        repos.iter().map(|(repo, commit)| place::Repo::new(&hub, repo, commit)).collect();
    let (source, cache) = (job.source.to_owned(), cache.clone());
    let placing = tokio::task::spawn_blocking(move || {
        for (wanted, goal) in goals {
            let from = cache.file(&wanted.sum);
            let done = match &goal {
                Goal::Snapshot(number, path) => repos[*number].add(&from, &wanted.sum, path),
                Goal::Source(to) => place::below(&source, to, &from),
            };
            done.map_err(on_disk(&wanted.name))?;
        }
        repos.iter().try_for_each(place::Repo::finish).map_err(on_disk("the cache of the hub's client"))
    });
    placing.await.map_err(|error| failed(error.to_string(), true))?
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let of = |unit: u64| bytes as f64 / unit as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", of(1_000)),
        1_000_000..1_000_000_000 => format!("{:.1} MB", of(1_000_000)),
        _ => format!("{:.2} GB", of(1_000_000_000)),
    }
}

#[cfg(test)]
mod tests;
