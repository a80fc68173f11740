//! Chooses what to take: the source tree as its ignore files say, and result
//! files by glob. No link is followed, and nothing is left out in silence that
//! a program might miss.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::{DirEntry, WalkBuilder};

use crate::path::{check_link, check_path};
use crate::publish::is_reserved;

const MAX_NAMES: usize = 1_000_000;
/// Never source code, wherever they stand.
const NEVER: [&str; 4] = [".git", ".venv", "__pycache__", "node_modules"];
/// Never source code at the top of the tree.
const NEVER_AT_TOP: &str = "outputs";

/// The chosen part of a source tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceSelection {
    /// Files and links, sorted, relative to the root.
    pub paths: Vec<String>,
    /// What cannot travel, and why: links that leave the tree, devices, names
    /// that are not UTF-8.
    pub skipped: Vec<(String, String)>,
}

/// Why nothing could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A pattern that is no glob, or that points out of the tree.
    #[error("glob `{glob}`: {detail}")]
    Glob {
        /// Which.
        glob: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The tree could not be read.
    #[error("read the tree at {}: {detail}", root.display())]
    Walk {
        /// Its root.
        root: PathBuf,
        /// What failed.
        detail: String,
    },
    /// More names than any tree may have.
    #[error("{} holds more than {MAX_NAMES} names: exclude data with .outlastignore", root.display())]
    TooMany {
        /// Its root.
        root: PathBuf,
    },
}

/// Chooses source files: everything but `.git`, `.venv`, `__pycache__`,
/// `node_modules`, a top-level `outputs`, and what `.gitignore` (nested, and
/// outside a repository too), `.git/info/exclude` and `.outlastignore` name.
///
/// `include` brings ignored files back, except `.git`; `exclude` has the last
/// word. A glob without `/` matches at any depth; one that matches a
/// directory matches all below it.
pub fn select_source(
    root: &Path,
    include: &[String],
    exclude: &[String],
) -> Result<SourceSelection, SourceError> {
    let root = canonical(root)?;
    let included = globs(include, true)?;
    let excluded = globs(exclude, true)?;
    let mut chosen = Chosen::new(&root);
    let mut walk = WalkBuilder::new(&root);
    walk.hidden(false)
        .ignore(false)
        .git_global(false)
        .git_ignore(true)
        .git_exclude(true)
        .require_git(false)
        // Above a tree that is no repository, ignore files are none of ours.
        .parents(root.ancestors().any(|above| above.join(".git").exists()))
        .add_custom_ignore_filename(".outlastignore")
        .filter_entry(|entry| {
            let name = entry.file_name().to_str().unwrap_or_default();
            let at_top = entry.depth() == 1 && name == NEVER_AT_TOP && is_dir(entry);
            entry.depth() == 0 || !(at_top || NEVER.contains(&name) || is_reserved(name))
        });
    chosen.walk(&walk, |path| !excluded.is_match(path))?;
    if !include.is_empty() {
        let walk = plain(&root, &[".git"]);
        chosen.walk(&walk, |path| included.is_match(path) && !excluded.is_match(path))?;
    }
    Ok(SourceSelection {
        paths: chosen.paths.into_iter().collect(),
        skipped: chosen.skipped.into_iter().collect(),
    })
}

/// Files and links below `root` that match, or lie below a directory that
/// matches; sorted. `.git`, `.venv` and unfinished restores are left out.
pub fn select_globs(root: &Path, globs: &[String]) -> Result<Vec<String>, SourceError> {
    let root = canonical(root)?;
    let wanted = self::globs(globs, false)?;
    let mut chosen = Chosen::new(&root);
    chosen.walk(&plain(&root, &[".git", ".venv"]), |path| wanted.is_match(path))?;
    Ok(chosen.paths.into_iter().collect())
}

/// Files and directories below `root` whose own path matches, and nothing
/// below a directory that does: what a checkpoint glob means.
pub fn select_entries(root: &Path, globs: &[String]) -> Result<Vec<String>, SourceError> {
    let root = canonical(root)?;
    let wanted = exact_globs(globs)?;
    let mut found: BTreeSet<String> = BTreeSet::new();
    let walk = plain(&root, &[".git", ".venv"]);
    let mut seen = 0;
    for entry in walk.build() {
        count(&mut seen, &root)?;
        let Ok(entry) = entry else { continue };
        let Ok(relative) = entry.path().strip_prefix(&root) else { continue };
        let Some(path) = relative.to_str().filter(|path| check_path(path).is_ok()) else { continue };
        let mut above = path.match_indices('/').map(|(at, _)| &path[..at]);
        if wanted.is_match(path) && !above.any(|above| found.contains(above)) {
            found.insert(path.to_owned());
        }
    }
    Ok(found.into_iter().collect())
}

fn canonical(root: &Path) -> Result<PathBuf, SourceError> {
    let failed = |detail: String| SourceError::Walk { root: root.to_owned(), detail };
    let found = root.canonicalize().map_err(|e| failed(e.to_string()))?;
    if found.is_dir() { Ok(found) } else { Err(failed("it is not a directory".into())) }
}

/// A walk that ignores no ignored file, only the directories named.
fn plain(root: &Path, without: &'static [&'static str]) -> WalkBuilder {
    let mut walk = WalkBuilder::new(root);
    walk.standard_filters(false).filter_entry(move |entry| {
        let name = entry.file_name().to_str().unwrap_or_default();
        entry.depth() == 0 || !(without.contains(&name) || is_reserved(name))
    });
    walk
}

fn is_dir(entry: &DirEntry) -> bool {
    entry.file_type().is_some_and(|kind| kind.is_dir())
}

fn count(seen: &mut usize, root: &Path) -> Result<(), SourceError> {
    *seen += 1;
    if *seen > MAX_NAMES { Err(SourceError::TooMany { root: root.to_owned() }) } else { Ok(()) }
}

struct Chosen<'a> {
    root: &'a Path,
    paths: BTreeSet<String>,
    skipped: BTreeSet<(String, String)>,
}

impl<'a> Chosen<'a> {
    fn new(root: &'a Path) -> Self {
        Self { root, paths: BTreeSet::new(), skipped: BTreeSet::new() }
    }

    fn walk(&mut self, walk: &WalkBuilder, wanted: impl Fn(&str) -> bool) -> Result<(), SourceError> {
        let mut seen = 0;
        for entry in walk.build() {
            count(&mut seen, self.root)?;
            match entry {
                Ok(entry) => self.take(&entry, &wanted),
                // The root itself: then there is no tree to speak of.
                Err(error) if seen == 1 => {
                    return Err(SourceError::Walk { root: self.root.to_owned(), detail: error.to_string() });
                }
                Err(error) => {
                    self.skipped.insert((String::new(), error.to_string()));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, entry: &DirEntry, wanted: impl Fn(&str) -> bool) {
        let Ok(relative) = entry.path().strip_prefix(self.root) else { return };
        let Some(path) = relative.to_str() else {
            self.skip(&relative.to_string_lossy(), "the name is not UTF-8");
            return;
        };
        let Some(kind) = entry.file_type().filter(|kind| !kind.is_dir() && !path.is_empty()) else { return };
        if !wanted(path) {
            return;
        }
        if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).ok();
            match target.as_ref().and_then(|target| target.to_str()).map(|target| check_link(path, target)) {
                Some(Ok(())) => {}
                Some(Err(error)) => return self.skip(path, error.why),
                None => return self.skip(path, "is a link whose target cannot be read as UTF-8"),
            }
        } else if !kind.is_file() {
            return self.skip(path, "is a device, socket or pipe");
        } else if let Err(error) = check_path(path) {
            return self.skip(path, error.why);
        }
        self.paths.insert(path.to_owned());
    }

    fn skip(&mut self, path: &str, why: &str) {
        self.skipped.insert((path.to_owned(), why.to_owned()));
    }
}

fn one_glob(glob: &str, add: &mut GlobSetBuilder) -> Result<(), SourceError> {
    let built = GlobBuilder::new(glob).literal_separator(true).backslash_escape(true).build();
    add.add(built.map_err(|e| SourceError::Glob { glob: glob.to_owned(), detail: e.kind().to_string() })?);
    Ok(())
}

/// The pattern without `./` before and `/` behind, if it stays in the tree.
fn trimmed(glob: &str) -> Result<&str, SourceError> {
    let refuse = |detail: &str| SourceError::Glob { glob: glob.to_owned(), detail: detail.to_owned() };
    let inner = glob.trim_start_matches("./").trim_end_matches('/');
    if inner.is_empty() {
        return Err(refuse("is empty"));
    }
    if inner.starts_with('/') || inner.split('/').any(|part| part == "..") {
        return Err(refuse("must be relative and without `..`"));
    }
    Ok(inner)
}

fn build(set: &GlobSetBuilder) -> Result<GlobSet, SourceError> {
    set.build().map_err(|e| SourceError::Glob {
        glob: e.glob().unwrap_or_default().to_owned(),
        detail: e.kind().to_string(),
    })
}

/// Matches a path, or anything below a path, that a pattern matches.
fn globs(patterns: &[String], any_depth: bool) -> Result<GlobSet, SourceError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let inner = trimmed(pattern)?;
        let anywhere = if any_depth && !inner.contains('/') { "**/" } else { "" };
        one_glob(&format!("{anywhere}{inner}"), &mut set)?;
        one_glob(&format!("{anywhere}{inner}/**"), &mut set)?;
    }
    build(&set)
}

fn exact_globs(patterns: &[String]) -> Result<GlobSet, SourceError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        one_glob(trimmed(pattern)?, &mut set)?;
    }
    build(&set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn source(dir: &tempfile::TempDir, include: &[&str], exclude: &[&str]) -> Vec<String> {
        select_source(dir.path(), &strings(include), &strings(exclude)).unwrap().paths
    }

    #[test]
    fn ignore_files_are_honoured_also_outside_a_repository() {
        let dir = tree(&[
            ("train.py", ""),
            (".gitignore", "*.log\n/data/\n"),
            ("a.log", ""),
            ("data/big.bin", ""),
            ("pkg/data/keep.py", ""),
            ("pkg/.gitignore", "!keep.log\nsecret\n"),
            ("pkg/keep.log", ""),
            ("pkg/secret", ""),
            (".outlastignore", "notes/\n"),
            ("notes/x.md", ""),
            (".env", ""),
            (".venv/bin/python", ""),
            ("venv/x", ""),
            ("pkg/__pycache__/m.pyc", ""),
            ("node_modules/m.js", ""),
            ("outputs/r.json", ""),
            ("pkg/outputs/code.py", ""),
            ("target/x", ""),
        ]);
        let expected = [
            ".env",
            ".gitignore",
            ".outlastignore",
            "pkg/.gitignore",
            "pkg/data/keep.py",
            "pkg/keep.log",
            "pkg/outputs/code.py",
            "target/x",
            "train.py",
            "venv/x",
        ];
        assert_eq!(source(&dir, &[], &[]), expected);
        fs::create_dir_all(dir.path().join(".git/info")).unwrap();
        fs::write(dir.path().join(".git/info/exclude"), "train.py\n").unwrap();
        fs::write(dir.path().join(".git/config"), "").unwrap();
        assert_eq!(
            source(&dir, &[], &[]),
            expected[..8].iter().chain(&expected[9..]).copied().collect::<Vec<_>>()
        );
    }

    #[test]
    fn ignore_files_above_count_only_inside_a_repository() {
        let dir = tree(&[(".gitignore", "*.bin\n"), ("sub/a.bin", ""), ("sub/b.py", "")]);
        let sub = dir.path().join("sub");
        assert_eq!(select_source(&sub, &[], &[]).unwrap().paths, ["a.bin", "b.py"]);
        fs::create_dir(dir.path().join(".git")).unwrap();
        assert_eq!(select_source(&sub, &[], &[]).unwrap().paths, ["b.py"]);
    }

    #[test]
    fn include_wins_over_ignores_and_exclude_over_include() {
        let dir = tree(&[
            (".gitignore", "data\n*.bin\n"),
            ("data/small.csv", ""),
            ("data/deep/x.csv", ""),
            ("data/huge.csv", ""),
            ("w.bin", ""),
            ("outputs/r.json", ""),
            (".git/config", ""),
            ("a.py", ""),
        ]);
        assert_eq!(
            source(&dir, &["data", "outputs/", ".git", "*.bin"], &["huge.*"]),
            [".gitignore", "a.py", "data/deep/x.csv", "data/small.csv", "outputs/r.json", "w.bin"]
        );
        assert_eq!(
            source(&dir, &["data/*.csv"], &["a.py"]),
            [".gitignore", "data/huge.csv", "data/small.csv"]
        );
        for bad in ["/etc", "../x", "a/../../b", "", "[", "a{"] {
            assert!(select_source(dir.path(), &strings(&[bad]), &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn links_stay_links_or_are_reported() {
        let dir = tree(&[("d/a", "x")]);
        symlink("a", dir.path().join("d/inside")).unwrap();
        symlink("/etc/passwd", dir.path().join("d/absolute")).unwrap();
        symlink("../../x", dir.path().join("d/outside")).unwrap();
        symlink("d", dir.path().join("e")).unwrap();
        let found = select_source(dir.path(), &[], &[]).unwrap();
        assert_eq!(found.paths, ["d/a", "d/inside", "e"]);
        let skipped: Vec<&str> = found.skipped.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(skipped, ["d/absolute", "d/outside"]);
    }

    #[test]
    fn result_globs_take_files_and_checkpoint_globs_take_entries() {
        let dir = tree(&[
            ("outputs/a.json", ""),
            ("outputs/sub/b.png", ""),
            ("ckpt/checkpoint-10/model.safetensors", ""),
            ("ckpt/checkpoint-20/model.safetensors", ""),
            ("ckpt/step-1.pt", ""),
            (".gitignore", "outputs\n"),
            (".venv/outputs/x", ""),
            ("m.pt", ""),
        ]);
        let globs = |list: &[&str]| select_globs(dir.path(), &strings(list)).unwrap();
        assert_eq!(globs(&["outputs"]), ["outputs/a.json", "outputs/sub/b.png"]);
        assert_eq!(globs(&["outputs/*.json", "*.pt"]), ["m.pt", "outputs/a.json"]);
        assert_eq!(globs(&["**/*.pt"]), ["ckpt/step-1.pt", "m.pt"]);
        let entries = |list: &[&str]| select_entries(dir.path(), &strings(list)).unwrap();
        assert_eq!(entries(&["ckpt/*"]), ["ckpt/checkpoint-10", "ckpt/checkpoint-20", "ckpt/step-1.pt"]);
        assert_eq!(entries(&["ckpt/checkpoint-*"]), ["ckpt/checkpoint-10", "ckpt/checkpoint-20"]);
        assert_eq!(entries(&["ckpt/**"]), ["ckpt/checkpoint-10", "ckpt/checkpoint-20", "ckpt/step-1.pt"]);
        assert!(select_globs(dir.path(), &strings(&["../*"])).is_err());
    }
}
