//! Chooses what to take: the source tree as its ignore files say, and result
//! files by glob. No link is followed, and nothing is left out in silence that
//! a program might miss.

use std::collections::BTreeSet;
use std::fs::FileType;
use std::path::{Path, PathBuf};

use crate::glob::{Glob, GlobSet};
use crate::path::check_link;

mod config;
mod fingerprint;
mod index;
mod repository;
mod rules;
mod walk;
mod wildmatch;

pub use fingerprint::fingerprint;
pub use repository::Personal;

const MAX_NAMES: usize = 1_000_000;
/// No source code, wherever they stand, unless git tracks it.
const NEVER: [&str; 3] = [".venv", "__pycache__", "node_modules"];
/// The same at the top of the tree.
const NEVER_AT_TOP: &str = "outputs";

/// The chosen part of a source tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceSelection {
    /// Files and links, sorted, relative to the root.
    pub paths: Vec<String>,
    /// What cannot travel, and why: links that leave the tree, devices, names
    /// that are not UTF-8.
    pub skipped: Vec<(String, String)>,
    /// What is left out on purpose; of what lies below a directory that is,
    /// nothing is told.
    pub left: Vec<Left>,
}

/// Paths that cannot travel, and why; names that are not UTF-8 as they can be read.
pub type Skipped = Vec<(String, &'static str)>;

/// Something that is left out on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Relative to the root.
    pub path: String,
    /// It is a directory, left out with all below it.
    pub directory: bool,
    /// Which rule says so.
    pub why: String,
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

/// Chooses source files: exactly those that `git ls-files --cached --others
/// --exclude-standard` lists and that are there, and the same in repositories
/// below this one; outside a repository what `.gitignore` files leave. Without
/// `.venv`, `__pycache__`, `node_modules` and a top-level `outputs`, unless git
/// tracks it, and without what `.outlastignore` files name, tracked or not.
///
/// `include` brings back what is left out, except `.git`; `exclude` has the
/// last word. A glob without `/` matches at any depth; one that matches a
/// directory matches all below it.
pub fn select_source(
    root: &Path,
    include: &[String],
    exclude: &[String],
    personal: &Personal,
) -> Result<SourceSelection, SourceError> {
    let root = canonical(root)?;
    let included = globs(include, true)?;
    let excluded = globs(exclude, true)?;
    let walk::Found { mut paths, skipped, mut left } = walk::walk(&root, personal, &excluded)?;
    if !include.is_empty() {
        let mut more: BTreeSet<String> = BTreeSet::from_iter(paths);
        walk::plain(&root, &[".git"], |path, kind| {
            if included.is_match(path) && !excluded.is_match(path) && fit(&root, path, kind) {
                more.insert(path.to_owned());
            }
            Ok(())
        })?;
        left.retain(|left| left.directory || !more.contains(&left.path));
        for left in left.iter_mut().filter(|left| left.directory) {
            let below = format!("{}/", left.path);
            if more.range(below.clone()..).next().is_some_and(|path| path.starts_with(&below)) {
                left.why += ", but for what is included of it";
            }
        }
        paths = more.into_iter().collect();
    }
    Ok(SourceSelection { paths, skipped, left })
}

/// Globs that take paths and globs that leave them out.
#[derive(Debug, Clone)]
pub struct Filter {
    included: Option<GlobSet>,
    excluded: GlobSet,
}

impl Filter {
    /// Without anything to include, everything is; `exclude` has the last
    /// word. A glob means what it means to [`select_source`].
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, SourceError> {
        let included = if include.is_empty() { None } else { Some(globs(include, true)?) };
        Ok(Self { included, excluded: globs(exclude, true)? })
    }

    /// Whether it takes this path.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        self.included.as_ref().is_none_or(|globs| globs.is_match(path)) && !self.excluded.is_match(path)
    }
}

/// Whether something found outside the rules can travel.
fn fit(root: &Path, path: &str, kind: FileType) -> bool {
    !kind.is_dir() && unfit(root, path, kind).is_none()
}

/// Why something that is no directory cannot travel.
pub(crate) fn unfit(root: &Path, path: &str, kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        return None;
    }
    if !kind.is_symlink() {
        return Some("is a device, socket or pipe");
    }
    let target = std::fs::read_link(root.join(path)).ok().and_then(|t| t.into_os_string().into_string().ok());
    match target {
        Some(target) => check_link(path, &target).err().map(|error| error.why),
        None => Some("is a link whose target cannot be read as UTF-8"),
    }
}

/// Files and links below `root` that match, or lie below a directory that
/// matches; sorted. `.git`, `.venv` and unfinished restores are left out.
pub fn select_globs(root: &Path, globs: &[String]) -> Result<Vec<String>, SourceError> {
    Ok(select_results(root, globs)?.0)
}

/// The same, and what matches and cannot travel, with the reasons.
pub fn select_results(root: &Path, globs: &[String]) -> Result<(Vec<String>, Skipped), SourceError> {
    let root = canonical(root)?;
    let wanted = self::globs(globs, false)?;
    let (mut paths, mut unfit) = (Vec::new(), Vec::new());
    let mut never = Vec::new();
    walk::plain_telling(
        &root,
        &[".git", ".venv"],
        |path, kind| {
            if kind.is_dir() || !wanted.is_match(path) {
                return Ok(());
            }
            match self::unfit(&root, path, kind) {
                None => paths.push(path.to_owned()),
                Some(why) => unfit.push((path.to_owned(), why)),
            }
            Ok(())
        },
        |path, why| {
            if wanted.is_match(path) {
                never.push((path.to_owned(), why));
            }
        },
    )?;
    paths.sort_unstable();
    unfit.append(&mut never);
    unfit.sort_unstable();
    Ok((paths, unfit))
}

/// Files and directories below `root` whose own path matches, and nothing
/// below a directory that does: what a checkpoint glob means.
pub fn select_entries(root: &Path, globs: &[String]) -> Result<Vec<String>, SourceError> {
    let root = canonical(root)?;
    let wanted = exact_globs(globs)?;
    let mut found: BTreeSet<String> = BTreeSet::new();
    // A directory is seen before what is in it.
    walk::plain(&root, &[".git", ".venv"], |path, _| {
        let mut above = path.match_indices('/').map(|(at, _)| &path[..at]);
        if wanted.is_match(path) && !above.any(|above| found.contains(above)) {
            found.insert(path.to_owned());
        }
        Ok(())
    })?;
    Ok(found.into_iter().collect())
}

fn canonical(root: &Path) -> Result<PathBuf, SourceError> {
    let failed = |detail: String| SourceError::Walk { root: root.to_owned(), detail };
    let found = root.canonicalize().map_err(|e| failed(e.to_string()))?;
    if found.is_dir() { Ok(found) } else { Err(failed("it is not a directory".into())) }
}

fn one_glob(glob: &str) -> Result<Glob, SourceError> {
    Glob::new(glob).map_err(|e| SourceError::Glob { glob: glob.to_owned(), detail: e.to_string() })
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

/// Matches a path, or anything below a path, that a pattern matches.
fn globs(patterns: &[String], any_depth: bool) -> Result<GlobSet, SourceError> {
    let mut set = GlobSet::default();
    for pattern in patterns {
        let inner = trimmed(pattern)?;
        let anywhere = if any_depth && !inner.contains('/') { "**/" } else { "" };
        set.add(one_glob(&format!("{anywhere}{inner}"))?);
        set.add(one_glob(&format!("{anywhere}{inner}/**"))?);
    }
    Ok(set)
}

fn exact_globs(patterns: &[String]) -> Result<GlobSet, SourceError> {
    patterns.iter().map(|pattern| one_glob(trimmed(pattern)?)).collect()
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
        select_source(dir.path(), &strings(include), &strings(exclude), &Personal::default()).unwrap().paths
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
        fs::write(dir.path().join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
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
        let chosen = || select_source(&sub, &[], &[], &Personal::default()).unwrap().paths;
        assert_eq!(chosen(), ["a.bin", "b.py"]);
        fs::create_dir(dir.path().join(".git")).unwrap();
        assert_eq!(chosen(), ["a.bin", "b.py"], "a directory of that name is no repository");
        fs::write(dir.path().join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        assert_eq!(chosen(), ["b.py"]);
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
        let include = strings(&["data/*.csv"]);
        let left = select_source(dir.path(), &include, &[], &Personal::default()).unwrap().left;
        let why =
            |path: &str| left.iter().find(|left| left.path == path).map(|left| left.why.as_str()).unwrap();
        assert_eq!(why("data"), "ignored by .gitignore:1, but for what is included of it");
        assert!(!why("outputs").contains("included of it"), "nothing of it is sent");
        for bad in ["/etc", "../x", "a/../../b", "", "[", "a{"] {
            assert!(select_source(dir.path(), &strings(&[bad]), &[], &Personal::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn links_stay_links_or_are_reported() {
        let dir = tree(&[("d/a", "x")]);
        symlink("a", dir.path().join("d/inside")).unwrap();
        symlink("/etc/passwd", dir.path().join("d/absolute")).unwrap();
        symlink("../../x", dir.path().join("d/outside")).unwrap();
        symlink("d", dir.path().join("e")).unwrap();
        let found = select_source(dir.path(), &[], &[], &Personal::default()).unwrap();
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

    #[test]
    fn what_matches_and_cannot_travel_is_told() {
        use std::os::unix::ffi::OsStringExt as _;
        let deep = format!("outputs/{}x", "d/".repeat(70));
        let dir = tree(&[("outputs/a", ""), ("outputs/.git/x", ""), (&deep, ""), (".git/HEAD", "")]);
        let at = |path: &str| dir.path().join("outputs").join(path);
        symlink("/etc/passwd", at("absolute")).unwrap();
        symlink("a", at("inside")).unwrap();
        fs::write(at("").join(std::ffi::OsString::from_vec(b"r\xe9sultat".to_vec())), "").unwrap();
        std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let (paths, skipped) = select_results(dir.path(), &strings(&["outputs"])).unwrap();
        assert_eq!(paths, ["outputs/a", "outputs/inside"]);
        let told: Vec<String> = skipped.iter().map(|(path, why)| format!("{path} {why}")).collect();
        let [git, absolute, far, name, socket] = &told[..] else { panic!("{told:?}") };
        assert!(
            git.starts_with("outputs/.git has a name") && absolute.ends_with("an absolute path"),
            "{told:?}"
        );
        assert!(far.ends_with("is deeper than 64 components") && name.contains("r\u{fffd}sultat has a name"));
        assert_eq!(socket, "outputs/socket is a device, socket or pipe");
    }
}
