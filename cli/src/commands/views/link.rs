//! `outlast link`: which commit a run was made from and which pull request it
//! belongs to, with the address of both where the remote is of a known host. It asks
//! nobody on the network, and no address that it prints has a password in it.

mod address;

use std::path::Path;
use std::process::{Command, Stdio};

use curves::log::Fact;
use serde_json::json;

use self::address::Remote;
use super::budget::Lines;
use super::notes::{Kind, Notes};
use super::{Answer, load};
use crate::args::LinkArgs;
use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// What a run is tied to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) commit: Option<String>,
    pub(super) commit_url: Option<String>,
    pub(super) request: Option<String>,
}

/// See the module.
///
/// # Errors
/// The run is not there, there is no such commit, what is given is no pull request, or nothing can be written.
pub(crate) fn answer(args: &LinkArgs) -> anyhow::Result<Answer> {
    let mut notes = Notes::of_run(&args.path)?;
    let dir = if args.path.is_dir() { args.path.as_path() } else { args.path.parent().unwrap_or(&args.path) };
    let dir = if dir.as_os_str().is_empty() || notes.is_of_controller() { Path::new(".") } else { dir };
    // All of it is understood before any of it is written.
    let commit = args.commit.as_deref().map(|rev| commit(dir, rev)).transpose()?;
    let logged = load::one(&args.path, None, args.shown.format.as_ref()).ok();
    let fact = |kind| logged.as_ref().and_then(|run| run.data.fact(kind)).map(str::to_owned);
    let remote = remote(dir).or_else(|| fact(Fact::Remote)).as_deref().and_then(Remote::read);
    let request = args.pr.as_deref().map(|text| address::request(text, remote.as_ref())).transpose()?;
    for (kind, text) in [(Kind::Commit, &commit), (Kind::PullRequest, &request)] {
        if let Some(text) = text {
            notes.append(kind, text, remote.as_ref().map(Remote::to_string))?;
        }
    }
    if commit.is_some() || request.is_some() {
        notes = Notes::of_run(&args.path)?;
    }
    let links = Links::of(&notes, fact(Fact::Commit), remote.as_ref());
    let mut lines = Lines::new("");
    lines.push(0, &words::path(notes.run.as_ref()));
    match (&links.commit, &links.commit_url) {
        (Some(commit), Some(url)) => lines.push(1, &format!("  commit {}: {url}", words::name(commit))),
        (Some(commit), None) => lines.push(1, &format!("  commit {}", words::name(commit))),
        (None, _) => lines.push(1, "  no commit: the log has none, and --commit gave none"),
    }
    match &links.request {
        Some(url) => lines.push(1, &format!("  pull request {}", words::name(url))),
        None => lines.push(2, "  no pull request: --pr gives one"),
    }
    let json = json!({
        "file": notes.file, "run": notes.run, "commit": links.commit, "commit_url": links.commit_url,
        "pull_request": links.request,
    });
    Ok(Answer { text: lines.fit(args.shown.tokens as usize), json })
}

impl Links {
    /// What people said counts before what the log says.
    pub(super) fn of(notes: &Notes, logged: Option<String>, remote: Option<&Remote>) -> Self {
        let said = notes.newest(Kind::Commit);
        let theirs = said.and_then(|entry| entry.about.as_deref()).and_then(Remote::read);
        let commit = said.map(|entry| entry.text.clone()).or(logged);
        let commit_url = commit.as_deref().and_then(|sha| theirs.as_ref().or(remote)?.commit(sha));
        let request = notes.newest(Kind::PullRequest).map(|entry| entry.text.clone());
        Self { commit, commit_url, request }
    }

    /// What there is, with its name, and whether it is an address that may be clicked on.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&'static str, &str, bool)> {
        let said = [
            ("Commit", self.commit_url.as_ref().or(self.commit.as_ref())),
            ("Pull request", self.request.as_ref()),
        ];
        // One that was written down is not trusted for having been checked then.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/%".contains(c);
        said.into_iter().filter_map(move |(what, text)| {
            let text = text?.as_str();
            Some((what, text, text.starts_with("https://") && text.chars().all(plain)))
        })
    }

    /// Those of a run, by its notes and its log.
    pub(super) fn known(notes: Option<&Notes>, commit: Option<&str>, remote: Option<&str>) -> Self {
        let remote = remote.and_then(Remote::read);
        let commit = commit.map(str::to_owned);
        match notes {
            Some(notes) => Self::of(notes, commit, remote.as_ref()),
            None => Self { commit, ..Self::default() },
        }
    }
}

/// What git says in one line, in a directory; nothing of the repository's own
/// configuration can start a program here.
fn git(dir: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(dir)
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
        .args(args);
    command.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Where the repository of a directory comes from.
fn remote(dir: &Path) -> Option<String> {
    git(dir, &["config", "--get", "remote.origin.url"])
}

/// The whole hash of what somebody calls a commit.
fn commit(dir: &Path, rev: &str) -> Result<String, Failure> {
    let hash = |text: &str| (40..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let plain = !rev.is_empty() && rev.len() <= 200 && !rev.starts_with('-');
    let known = plain.then(|| git(dir, &["rev-parse", "--verify", "--quiet", &format!("{rev}^{{commit}}")]));
    match known.flatten() {
        Some(found) if hash(&found) => Ok(found),
        // It may be a commit of a repository that is not here.
        _ if hash(rev) => Ok(rev.to_ascii_lowercase()),
        _ => {
            let message = format!("no commit {} in {}", words::quoted(rev), words::path(dir));
            Err(Failure::new(ExitCode::NotFound, message)
                .help("go to the repository the run was made from, or give the whole hash: --commit HASH"))
        }
    }
}
