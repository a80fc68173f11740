//! Decides for every file of a tree whether it is here already, is fetched, or
//! stands beside one that a person changed. It only looks; nothing is written
//! but, for a moment, a name that tells whether case counts.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use artifacts::manifest::{Entry, Node};
use artifacts::restore::same_content;
use artifacts::source::Filter;
use artifacts::{Digest, Manifest};
use serde::{Deserialize, Serialize};

use super::Conflict;

const MAX_BYTES: u64 = 256 << 20;
/// The longest name that file systems take.
const MAX_NAME: usize = 255;

/// What earlier pulls put into one directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Had {
    files: BTreeMap<String, Mark>,
}

/// One file: what it held, and how it looked when it was put there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark(String, String);

impl Had {
    fn place(home: &Path, dir: &Path) -> PathBuf {
        let name = Digest::of(dir.as_os_str().as_encoded_bytes()).to_string();
        home.join("pulled").join(format!("{}.json", &name[..32]))
    }

    /// What is known; nothing, if it cannot be read.
    pub(super) fn load(home: &Path, dir: &Path) -> Self {
        let path = Self::place(home, dir);
        let fit = path.metadata().is_ok_and(|meta| meta.len() <= MAX_BYTES);
        let bytes = if fit { fs::read(path).ok() } else { None };
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    pub(super) fn save(&self, home: &Path, dir: &Path) -> io::Result<()> {
        crate::source::write(&Self::place(home, dir), &serde_json::to_vec(self)?)
    }
}

/// What is to be done.
pub(super) struct Plan {
    /// What is fetched, under the names it gets.
    pub(super) fetch: Manifest,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Content of everything that will be there under its own name.
    there: Vec<(String, String)>,
}

impl Plan {
    /// How everything looks now that it is done. What this pull did not ask
    /// for is as it was.
    pub(super) fn had(&self, place: &Path, before: Had) -> Had {
        let look = |(path, content): &(String, String)| {
            let meta = place.join(path).symlink_metadata().ok()?;
            Some((path.clone(), Mark(content.clone(), mark(&meta))))
        };
        let mut had = before;
        had.files.retain(|path, _| place.join(path).symlink_metadata().is_ok());
        had.files.extend(self.there.iter().filter_map(look));
        had
    }
}

fn mark(meta: &Metadata) -> String {
    let (dev, ino, size) = (meta.dev(), meta.ino(), meta.size());
    let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()].map(|n| n.to_string());
    format!("{dev}-{ino}-{size}-{}", times.join("-"))
}

/// What an entry holds, whatever it is called.
fn content(tree: &Manifest, entry: &Entry) -> String {
    let named = Entry { path: "x".into(), node: entry.node.clone() };
    Manifest { entries: vec![named], single_file: false, ..hollow(tree) }.content_digest().to_string()
}

fn hollow(tree: &Manifest) -> Manifest {
    let Manifest { version, kind, step, name, created_ms, .. } = tree;
    let (version, kind, step, created_ms) = (*version, *kind, *step, *created_ms);
    // What chunks are differences to does not change what they are.
    let (name, bases, entries) = (name.clone(), Vec::new(), Vec::new());
    Manifest { version, kind, step, name, single_file: false, created_ms, bases, entries }
}

enum Here {
    /// It is here.
    Same,
    /// Nothing is here, or what an earlier pull put here.
    Free,
    /// Something else is here.
    Taken(&'static str),
}

/// Compares a tree with a directory that exists.
pub(super) fn plan(place: &Path, tree: &Manifest, filter: &Filter, had: &Had) -> io::Result<Plan> {
    plan_where(place, tree, filter, had, || folds(place))
}

/// Whether names that differ in case alone are one name here: tried out, since
/// no system tells it of each directory.
fn folds(place: &Path) -> bool {
    let name = format!(".tmp-outlast-{:08x}", fastrand::u32(..));
    let (small, large) = (place.join(format!("{name}a")), place.join(format!("{name}A")));
    // Where nothing can be made nothing is fetched either.
    if File::create_new(&small).is_err() {
        return true;
    }
    let folds = large.symlink_metadata().is_ok();
    drop(fs::remove_file(&small));
    folds
}

/// As [`plan`]; `folds`: whether names that differ in case alone are one.
pub(super) fn plan_where(
    place: &Path,
    tree: &Manifest,
    filter: &Filter,
    had: &Had,
    folds: impl Fn() -> bool,
) -> io::Result<Plan> {
    let mut plan = Plan { fetch: hollow(tree), conflicts: Vec::new(), files: 0, bytes: 0, there: Vec::new() };
    let mut cases: BTreeMap<String, &str> = BTreeMap::new();
    for entry in tree.entries.iter().filter(|entry| filter.takes(&entry.path)) {
        let path = &entry.path;
        if !matches!(entry.node, Node::Dir { .. }) {
            plan.files += u64::from(matches!(entry.node, Node::File { .. }));
            plan.bytes += entry.bytes();
        }
        let conflict = |kept_as: String, why| Conflict { path: path.clone(), kept_as, why };
        // Results never hold it, and its files are commands for whoever uses
        // git here next.
        if path.split('/').any(|part| part.eq_ignore_ascii_case(".git")) {
            plan.conflicts.push(conflict(String::new(), "it belongs to a git repository"));
            continue;
        }
        if let Some(why) = blocked(place, path) {
            plan.conflicts.push(conflict(String::new(), why));
            continue;
        }
        // Not all file systems tell such names apart; then one would replace
        // the other.
        let is_second = cases.insert(path.to_lowercase(), path).is_some();
        if is_second && !matches!(entry.node, Node::Dir { .. }) && folds() {
            let name = beside(path, &content(tree, entry));
            let why = "differs from another fetched file in case alone";
            plan.conflicts.push(conflict(name.clone(), why));
            add(&mut plan, place, name, entry);
            continue;
        }
        let held = content(tree, entry);
        match here(place, entry, &held, had)? {
            Here::Same => plan.there.push((path.clone(), held)),
            Here::Free => {
                plan.fetch.entries.push(entry.clone());
                plan.there.push((path.clone(), held));
            }
            Here::Taken(why) => {
                let name = beside(path, &held);
                plan.conflicts.push(conflict(name.clone(), why));
                add(&mut plan, place, name, entry);
            }
        }
    }
    plan.fetch.entries.sort_by(|a, b| a.path.cmp(&b.path));
    plan.fetch.entries.dedup_by(|a, b| a.path == b.path);
    Ok(plan)
}

/// Fetches an entry under another name, unless it is there: the name says what
/// it holds.
fn add(plan: &mut Plan, place: &Path, name: String, entry: &Entry) {
    if place.join(&name).symlink_metadata().is_err() {
        plan.fetch.entries.push(Entry { path: name, node: entry.node.clone() });
    }
}

/// What keeps the directory of a path from being one.
fn blocked(place: &Path, path: &str) -> Option<&'static str> {
    path.match_indices('/').find_map(|(at, _)| {
        let meta = place.join(&path[..at]).symlink_metadata().ok()?;
        if meta.is_symlink() {
            return Some("a link is where its directory would be");
        }
        (!meta.is_dir()).then_some("a file is where its directory would be")
    })
}

fn here(place: &Path, entry: &Entry, held: &str, had: &Had) -> io::Result<Here> {
    let local = place.join(&entry.path);
    let meta = match local.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Here::Free),
        other => other?,
    };
    if matches!(entry.node, Node::Dir { .. }) {
        return Ok(if meta.is_dir() { Here::Same } else { Here::Taken("is a file here") });
    }
    if meta.is_dir() {
        return Ok(Here::Taken("is a directory here"));
    }
    if let Some(Mark(before, looked)) = had.files.get(&entry.path)
        && *looked == mark(&meta)
    {
        return Ok(if before == held { Here::Same } else { Here::Free });
    }
    if same_content(&local, &entry.node)? { Ok(Here::Same) } else { Ok(Here::Taken("was changed here")) }
}

/// The name beside a file that is kept.
fn beside(path: &str, held: &str) -> String {
    let tail = format!(".pulled-{}", held.get(..8).unwrap_or(held));
    let (above, leaf) = path.rsplit_once('/').map_or((None, path), |(above, leaf)| (Some(above), leaf));
    let mut end = leaf.len().min(MAX_NAME - tail.len());
    while !leaf.is_char_boundary(end) {
        end -= 1;
    }
    let leaf = format!("{}{tail}", &leaf[..end]);
    above.map_or(leaf.clone(), |above| format!("{above}/{leaf}"))
}
