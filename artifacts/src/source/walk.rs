//! Walks a tree and asks of every name whether it belongs. What git tracks
//! belongs, whatever an ignore file says, as for git itself; what is left out
//! is told with its reason. No link is followed.

use std::fs::{DirEntry, FileType};
use std::path::Path;

use super::repository::{Personal, Repository, git_dir};
use super::rules::{Rules, Said};
use super::{Left, MAX_NAMES, NEVER, NEVER_AT_TOP, SourceError};
use crate::glob::GlobSet;
use crate::path::{check_link, check_path};
use crate::publish::is_reserved;

/// Deeper trees cannot travel.
const MAX_DEPTH: usize = 64;
const NOT_UTF8: &str = "has a name that is not UTF-8";
/// So many reasons are told at most.
const MAX_LEFT: usize = 100_000;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) paths: Vec<String>,
    pub(super) skipped: Vec<(String, String)>,
    pub(super) left: Vec<Left>,
}

/// The repository that a directory lies in.
struct Ground {
    repository: Option<Repository>,
    /// Its top, as a full path.
    top: String,
    /// The first frame whose `.gitignore` is one of its own.
    first: usize,
}

/// The ignore files of one directory.
struct Frame {
    git: Rules,
    outlast: Rules,
}

/// Which names a directory gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    /// All but those that are ignored.
    Fit,
    /// Those that are tracked: the directory is ignored.
    Tracked,
}

/// A walk over one source tree.
pub(super) struct Walk<'a> {
    root: &'a Path,
    personal: &'a Personal,
    excluded: &'a GlobSet,
    /// The path of the root within the outermost repository.
    lead: String,
    frames: Vec<Frame>,
    seen: usize,
    found: Found,
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") }
}

/// One name of a directory.
struct Name {
    name: String,
    kind: FileType,
}

/// Chooses below `root`, which is canonical.
pub(super) fn walk(root: &Path, personal: &Personal, excluded: &GlobSet) -> Result<Found, SourceError> {
    let mut walk = Walk {
        root,
        personal,
        excluded,
        lead: String::new(),
        frames: Vec::new(),
        seen: 0,
        found: Found::default(),
    };
    let ground = walk.ground();
    walk.trouble("", &ground);
    walk.directory("", &ground, Take::Fit)?;
    let Found { mut paths, mut skipped, mut left } = walk.found;
    paths.sort_unstable();
    skipped.sort_unstable();
    left.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(Found { paths, skipped, left })
}

impl Walk<'_> {
    /// The repository around the root. Where that ignores the root itself, it
    /// has nothing to say about it: a person named this directory.
    fn ground(&mut self) -> Ground {
        let outside = || Ground { repository: None, top: String::new(), first: 0 };
        for top in self.root.ancestors() {
            let Some(git) = git_dir(top) else { continue };
            let Some(lead) = self.root.strip_prefix(top).ok().and_then(Path::to_str) else {
                return outside();
            };
            let ground = Ground {
                repository: Some(Repository::open(&git, "", self.personal)),
                top: String::new(),
                first: 0,
            };
            let mut above = String::new();
            for part in lead.split('/').filter(|part| !part.is_empty()) {
                self.frames.push(Frame::read(&top.join(&above), &above, true, true));
                above = join(&above, part);
                if self.git_says(&ground, &above, true).is_some_and(|said| said.ignored) {
                    self.frames.clear();
                    return outside();
                }
            }
            lead.clone_into(&mut self.lead);
            return ground;
        }
        outside()
    }

    fn trouble(&mut self, path: &str, ground: &Ground) {
        if let Some(why) = ground.repository.as_ref().and_then(|repository| repository.trouble.as_ref()) {
            let index = join(path, ".git/index");
            self.found.skipped.push((index, format!("{why}: what is tracked but ignored is not known")));
        }
    }

    fn full(&self, path: &str) -> String {
        if path.is_empty() { self.lead.clone() } else { join(&self.lead, path) }
    }

    /// The names of a directory, sorted; what is wrong with one is told.
    fn names(&mut self, path: &str) -> Result<Vec<Name>, SourceError> {
        let listed = match std::fs::read_dir(self.root.join(path)) {
            Ok(listed) => listed,
            Err(error) if path.is_empty() => {
                return Err(SourceError::Walk { root: self.root.to_owned(), detail: error.to_string() });
            }
            Err(error) => {
                self.skip(path, &format!("cannot be read: {error}"));
                return Ok(Vec::new());
            }
        };
        let mut names = Vec::new();
        for entry in listed {
            self.seen += 1;
            if self.seen > MAX_NAMES {
                return Err(SourceError::TooMany { root: self.root.to_owned() });
            }
            let known = entry.and_then(|entry: DirEntry| Ok((entry.file_name(), entry.file_type()?)));
            match known {
                Ok((name, kind)) => match name.into_string() {
                    Ok(name) => names.push(Name { name, kind }),
                    Err(name) => self.skip(&join(path, &name.to_string_lossy()), "the name is not UTF-8"),
                },
                Err(error) => self.skip(path, &error.to_string()),
            }
        }
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    fn directory(&mut self, path: &str, ground: &Ground, take: Take) -> Result<(), SourceError> {
        if path.split('/').count() > MAX_DEPTH {
            self.skip(path, "is deeper than 64 components");
            return Ok(());
        }
        let names = self.names(path)?;
        let has = |wanted: &str| names.iter().any(|name| name.name == wanted);
        let (git, outlast) = (has(".gitignore"), has(".outlastignore"));
        let frame = Frame::read(&self.root.join(path), &self.full(path), git, outlast);
        self.frames.push(frame);
        for Name { name, kind } in &names {
            if name == ".git" || is_reserved(name) {
                continue;
            }
            self.name(path, name, *kind, ground, take)?;
        }
        self.frames.pop();
        Ok(())
    }

    fn name(
        &mut self,
        above: &str,
        name: &str,
        kind: FileType,
        ground: &Ground,
        take: Take,
    ) -> Result<(), SourceError> {
        let (path, directory) = (join(above, name), kind.is_dir());
        if self.excluded.is_match(&path) {
            self.leave(path, directory, "excluded by the settings".into());
            return Ok(());
        }
        let full = self.full(&path);
        let tracked = ground.tracks(&full, directory);
        let own = self.outlast_says(&full, directory);
        if let Some(Said { ignored: true, place }) = own {
            self.leave(path, directory, format!("ignored by {place}"));
            return Ok(());
        }
        let never = NEVER.contains(&name) || directory && above.is_empty() && name == NEVER_AT_TOP;
        let ignored = match take {
            Take::Tracked => Some("ignored with the directory it is in".to_owned()),
            Take::Fit if never => Some("never sent unless it is tracked or included".to_owned()),
            // A pattern of one's own that brings it back outranks git's.
            Take::Fit if own.is_some() => None,
            Take::Fit => {
                let said = self.git_says(ground, &full, directory).filter(|said| said.ignored);
                said.map(|said| format!("ignored by {}", said.place))
            }
        };
        let take = match ignored {
            Some(why) if !tracked => {
                self.leave(path, directory, why);
                return Ok(());
            }
            Some(_) => Take::Tracked,
            None => Take::Fit,
        };
        if !directory {
            self.take(path, kind);
            return Ok(());
        }
        self.enter(&path, ground, take)
    }

    /// A repository within another has rules of its own, and only those.
    fn enter(&mut self, path: &str, ground: &Ground, take: Take) -> Result<(), SourceError> {
        let Some(git) = git_dir(&self.root.join(path)) else { return self.directory(path, ground, take) };
        let top = self.full(path);
        let repository = Some(Repository::open(&git, &top, self.personal));
        let inner = Ground { repository, top, first: self.frames.len() };
        self.trouble(path, &inner);
        self.directory(path, &inner, Take::Fit)
    }

    fn outlast_says(&self, full: &str, directory: bool) -> Option<Said> {
        self.frames.iter().rev().find_map(|frame| frame.outlast.say(full, directory, false))
    }

    fn git_says(&self, ground: &Ground, full: &str, directory: bool) -> Option<Said> {
        let fold = ground.repository.as_ref().is_some_and(|repository| repository.fold);
        let own = self.frames.get(ground.first..).unwrap_or_default();
        let frames = own.iter().rev().map(|frame| &frame.git);
        let last = ground.repository.iter().flat_map(|repository| &repository.last);
        frames.chain(last).find_map(|rules| rules.say(full, directory, fold))
    }

    fn take(&mut self, path: String, kind: FileType) {
        if kind.is_symlink() {
            let target = std::fs::read_link(self.root.join(&path)).ok();
            match target.as_ref().and_then(|target| target.to_str()).map(|target| check_link(&path, target)) {
                Some(Ok(())) => {}
                Some(Err(error)) => return self.skip(&path, error.why),
                None => return self.skip(&path, "is a link whose target cannot be read as UTF-8"),
            }
        } else if !kind.is_file() {
            return self.skip(&path, "is a device, socket or pipe");
        } else if let Err(error) = check_path(&path) {
            return self.skip(&path, error.why);
        }
        self.found.paths.push(path);
    }

    fn skip(&mut self, path: &str, why: &str) {
        self.found.skipped.push((path.to_owned(), why.to_owned()));
    }

    fn leave(&mut self, path: String, directory: bool, why: String) {
        if self.found.left.len() < MAX_LEFT {
            self.found.left.push(Left { path, directory, why });
        }
    }
}

impl Ground {
    fn tracks(&self, full: &str, directory: bool) -> bool {
        let Some(repository) = &self.repository else { return false };
        let below = match self.top.as_str() {
            "" => Some(full),
            top => full.strip_prefix(top).and_then(|rest| rest.strip_prefix('/')),
        };
        let Some(below) = below else { return false };
        if directory { repository.tracked.below(below) } else { repository.tracked.file(below) }
    }
}

impl Frame {
    fn read(dir: &Path, full: &str, git: bool, outlast: bool) -> Self {
        let read = |wanted: bool, name: &str| {
            if wanted { Rules::read(&dir.join(name), full, &join(full, name)) } else { Rules::default() }
        };
        Self { git: read(git, ".gitignore"), outlast: read(outlast, ".outlastignore") }
    }
}

/// Every name below `root` but those called as `without` says and unfinished
/// restores, ignored or not; directories too.
pub(super) fn plain(
    root: &Path,
    without: &[&str],
    each: impl FnMut(&str, FileType) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    plain_telling(root, without, each, |_, _| {})
}

/// The same; `skip` is told the names that cannot travel, and why.
pub(super) fn plain_telling(
    root: &Path,
    without: &[&str],
    mut each: impl FnMut(&str, FileType) -> Result<(), SourceError>,
    mut skip: impl FnMut(&str, &'static str),
) -> Result<(), SourceError> {
    let (mut seen, mut open) = (0, vec![String::new()]);
    while let Some(dir) = open.pop() {
        let listed = match std::fs::read_dir(root.join(&dir)) {
            Ok(listed) => listed,
            Err(error) if dir.is_empty() => {
                return Err(SourceError::Walk { root: root.to_owned(), detail: error.to_string() });
            }
            // Gone since, or not ours to read.
            Err(_) => continue,
        };
        for entry in listed.flatten() {
            seen += 1;
            if seen > MAX_NAMES {
                return Err(SourceError::TooMany { root: root.to_owned() });
            }
            let Ok(kind) = entry.file_type() else { continue };
            let name = match entry.file_name().into_string() {
                Ok(name) => name,
                Err(name) => {
                    skip(&join(&dir, &name.to_string_lossy()), NOT_UTF8);
                    continue;
                }
            };
            let path = join(&dir, &name);
            if without.contains(&name.as_str()) {
                skip(&path, "has a name that is never taken");
                continue;
            }
            if is_reserved(&name) {
                skip(&path, "has a name that is kept for unfinished restores");
                continue;
            }
            if let Err(error) = check_path(&path) {
                skip(&path, error.why);
                continue;
            }
            each(&path, kind)?;
            if kind.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(())
}
