//! Puts fetched files where a program looks for them: a repository as the hub's
//! own client keeps it (`models--org--name` with `blobs`, `snapshots` and
//! `refs`), and files below the source tree. Each can be done again, nothing
//! that is a link on the way is followed, and no bytes are copied where the file
//! system can link.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use lifecycle::spec::{HfKind, HfRepo};

use super::sum::Sum;
use crate::os;

/// A repository in the cache of the hub's client.
pub(super) struct Repo {
    dir: PathBuf,
    commit: String,
    /// A branch or tag; `None`: it is named by its commit.
    named: Option<String>,
}

impl Repo {
    pub(super) fn new(hub: &Path, repo: &HfRepo, commit: &str) -> Self {
        let kind = match repo.kind {
            HfKind::Model => "models",
            HfKind::Dataset => "datasets",
        };
        let dir = hub.join(format!("{kind}--{}", repo.id.replace('/', "--")));
        let named = Some(repo.revision.clone()).filter(|revision| revision != commit);
        Self { dir, commit: commit.to_owned(), named }
    }

    /// Adds a file of its snapshot.
    pub(super) fn add(&self, from: &Path, sum: &Sum, path: &str) -> io::Result<()> {
        let blobs = self.dir.join("blobs");
        fs::create_dir_all(&blobs)?;
        let blob = blobs.join(sum.hex());
        link(from, &blob)?;
        let snapshot = self.dir.join("snapshots").join(&self.commit);
        let to = way_below(&snapshot, path)?;
        // From the file's directory up to `snapshots/<commit>`, and on to `blobs`.
        let up = "../".repeat(path.matches('/').count() + 2);
        let target = PathBuf::from(format!("{up}blobs/{}", sum.hex()));
        if fs::read_link(&to).is_ok_and(|found| found == target) {
            return Ok(());
        }
        remove(&to)?;
        symlink(target, to)
    }

    /// Says that all of it is there, under the name by which it is asked for.
    pub(super) fn finish(&self) -> io::Result<()> {
        fs::create_dir_all(self.dir.join("snapshots").join(&self.commit))?;
        let Some(named) = &self.named else { return Ok(()) };
        let to = way_below(&self.dir.join("refs"), named)?;
        os::write_whole(&to, self.commit.as_bytes())
    }
}

/// Puts a file below a directory.
pub(super) fn below(root: &Path, path: &str, from: &Path) -> io::Result<()> {
    link(from, &way_below(root, path)?)
}

/// The place of a path below a directory, whose own directories are made. A
/// link on the way leads elsewhere and is refused.
fn way_below(root: &Path, path: &str) -> io::Result<PathBuf> {
    if !lifecycle::spec::is_inside(path) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} leads out of its tree")));
    }
    fs::create_dir_all(root)?;
    let mut at = root.to_owned();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        if parts.peek().is_none() {
            break;
        }
        match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => {
                let why = format!("{} is no directory, and no link is followed", at.display());
                return Err(io::Error::new(io::ErrorKind::NotADirectory, why));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&at)?,
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

/// Removes a file or link; a directory is somebody's, and stays.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The same file under another name: on another file system, a copy.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    remove(to)?;
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let fresh = to.with_extension("coming");
    remove(&fresh)?;
    fs::copy(from, &fresh)?;
    fs::rename(&fresh, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_as_the_hubs_client_keeps_it() {
        let root = tempfile::tempdir().unwrap();
        let from = root.path().join("from");
        fs::write(&from, "hello\n").unwrap();
        let (commit, sum) = ("a".repeat(40), Sum::Git("b".repeat(40)));
        let repo = Repo::new(root.path(), &"dataset:o/d@refs/pr/1".parse().unwrap(), &commit);
        for _ in 0..2 {
            repo.add(&from, &sum, "x.txt").unwrap();
            repo.add(&from, &sum, "deep/er/x.txt").unwrap();
            repo.finish().unwrap();
        }
        let dir = root.path().join("datasets--o--d");
        assert_eq!(fs::read_to_string(dir.join("refs/refs/pr/1")).unwrap(), commit);
        for path in ["x.txt", "deep/er/x.txt"] {
            let path = dir.join("snapshots").join(&commit).join(path);
            assert_eq!(fs::read_to_string(&path).unwrap(), "hello\n");
            assert!(fs::symlink_metadata(path).unwrap().is_symlink());
        }
        let pinned = Repo::new(root.path(), &format!("o/m@{commit}").parse().unwrap(), &commit);
        pinned.finish().unwrap();
        assert!(!root.path().join("models--o--m/refs").exists());
    }

    #[test]
    fn nothing_leads_out_of_the_tree() {
        let root = tempfile::tempdir().unwrap();
        let (tree, outside, from) =
            (root.path().join("src"), root.path().join("out"), root.path().join("from"));
        fs::create_dir_all(&tree).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(&from, "x").unwrap();
        symlink(&outside, tree.join("data")).unwrap();
        for bad in ["data/x", "../out/x", "/x", "a/../../out/x", ""] {
            assert!(below(&tree, bad, &from).is_err(), "{bad}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        // A link in the place of the file itself is replaced, not followed.
        fs::write(outside.join("kept"), "kept").unwrap();
        symlink(outside.join("kept"), tree.join("y")).unwrap();
        below(&tree, "y", &from).unwrap();
        below(&tree, "deep/er/z", &from).unwrap();
        assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
        assert_eq!(fs::read_to_string(tree.join("y")).unwrap(), "x");
        fs::create_dir(tree.join("dir")).unwrap();
        assert!(below(&tree, "dir", &from).is_err(), "a directory is somebody's");
    }
}
