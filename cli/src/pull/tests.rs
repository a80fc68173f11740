//! Pulls into directories that people work in.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use artifacts::index::MemoryIndex;
use artifacts::publish::{About, publish_bytes};
use artifacts::store::MemoryStore;
use artifacts::{KeySpace, Kind};

use super::*;

struct Pulls {
    store: MemoryStore,
    home: tempfile::TempDir,
    dir: tempfile::TempDir,
    number: u64,
}

impl Pulls {
    fn new() -> Self {
        let dir = || tempfile::tempdir().unwrap();
        Self { store: MemoryStore::default(), home: dir(), dir: dir(), number: 0 }
    }

    async fn tree(&mut self, files: &[(&str, &str)]) -> Manifest {
        self.number += 1;
        let mut keys =
            KeySpace { scope: "run".into(), generation: self.number, pack_seq: 0, manifest_seq: 0 };
        let about =
            About { kind: Kind::Outputs, step: None, name: String::new(), single_file: false, created_ms: 1 };
        let files: Vec<_> =
            files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        let published = publish_bytes(&files, &about, &mut keys, &self.store, &MemoryIndex::default()).await;
        published.unwrap().manifest
    }

    async fn pull(&self, tree: &Manifest, include: &[&str], exclude: &[&str]) -> Outcome {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let filter = Filter::new(&strings(include), &strings(exclude)).unwrap();
        fetch(&self.store, tree, self.dir.path(), &filter, Some(self.home.path())).await.unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

#[tokio::test]
async fn only_what_changed_is_fetched() {
    let mut pulls = Pulls::new();
    let first = pulls.tree(&[("a", "1"), ("d/b", "2"), ("log.txt", "x")]).await;
    let found = pulls.pull(&first, &[], &["*.txt"]).await;
    assert_eq!((found.files, found.fetched, found.conflicts.len()), (2, 2, 0));
    assert!(!pulls.path("log.txt").exists());
    let inode = pulls.path("a").metadata().unwrap().ino();
    let second = pulls.tree(&[("a", "1"), ("d/b", "two"), ("log.txt", "x")]).await;
    let found = pulls.pull(&second, &["d"], &[]).await;
    assert_eq!((found.files, found.fetched, found.fetched_bytes), (1, 1, 3));
    // What a narrower pull did not ask for is still known as fetched.
    let third = pulls.tree(&[("a", "one"), ("d/b", "two"), ("log.txt", "x")]).await;
    let found = pulls.pull(&third, &[], &[]).await;
    assert_eq!((found.files, found.fetched, found.conflicts), (3, 2, vec![]));
    assert_eq!((pulls.read("a"), pulls.read("d/b")), ("one".into(), "two".into()));
    assert_ne!(pulls.path("a").metadata().unwrap().ino(), inode, "replaced by rename, never written into");
    assert_eq!(pulls.pull(&third, &[], &[]).await.fetched, 0);
}

#[tokio::test]
async fn a_file_that_was_changed_here_is_never_overwritten() {
    let mut pulls = Pulls::new();
    let first = pulls.tree(&[("a", "1"), ("b", "1"), ("c", "1")]).await;
    pulls.pull(&first, &[], &[]).await;
    fs::write(pulls.path("a"), "mine").unwrap();
    fs::remove_file(pulls.path("b")).unwrap();
    fs::write(pulls.path("c"), "2").unwrap();
    fs::write(pulls.path("new"), "also mine").unwrap();
    let second = pulls.tree(&[("a", "2"), ("b", "2"), ("c", "2"), ("new", "theirs")]).await;
    let found = pulls.pull(&second, &[], &[]).await;
    let names: Vec<&str> = found.conflicts.iter().map(|conflict| conflict.path.as_str()).collect();
    assert_eq!(names, ["a", "new"], "c is the same here and there, b was only removed");
    assert_eq!((pulls.read("a"), pulls.read("new")), ("mine".into(), "also mine".into()));
    assert_eq!(pulls.read(&found.conflicts[0].kept_as), "2");
    assert_eq!(pulls.read(&found.conflicts[1].kept_as), "theirs");
    assert_eq!(pulls.read("b"), "2");
    // Asked again it is said again, and nothing is fetched twice or replaced.
    fs::write(pulls.path(&found.conflicts[0].kept_as), "edited").unwrap();
    let again = pulls.pull(&second, &[], &[]).await;
    assert_eq!((again.fetched, &again.conflicts), (0, &found.conflicts));
    assert_eq!(pulls.read(&found.conflicts[0].kept_as), "edited");
    // Without a memory nothing is taken for ours.
    let third = pulls.tree(&[("b", "3")]).await;
    fs::remove_dir_all(pulls.home.path().join("pulled")).unwrap();
    assert_eq!(pulls.pull(&third, &[], &[]).await.conflicts.len(), 1);
    assert_eq!(pulls.read("b"), "2");
}

#[tokio::test]
async fn what_stands_in_the_way_is_told_and_left_alone() {
    let mut pulls = Pulls::new();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), pulls.path("link")).unwrap();
    symlink("/etc/passwd", pulls.path("file")).unwrap();
    fs::write(pulls.path("d"), "a file").unwrap();
    fs::create_dir(pulls.path("e")).unwrap();
    let long = "x".repeat(255);
    fs::write(pulls.path(&long), "mine").unwrap();
    let tree = pulls
        .tree(&[
            ("link/x", "1"),
            ("file", "2"),
            ("d/deep/y", "3"),
            ("e", "4"),
            (&long, "5"),
            ("Case", "6"),
            (".GIT/hooks/x", "9"),
            ("x/.git/config", "9"),
            ("case", "7"),
            ("ok", "8"),
        ])
        .await;
    let found = pulls.pull(&tree, &[], &[]).await;
    assert_eq!(pulls.read("ok"), "8");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "nothing went through the link");
    assert_eq!(fs::read_link(pulls.path("file")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!((pulls.read("d"), pulls.read(&long)), ("a file".into(), "mine".into()));
    let of = |path: &str| found.conflicts.iter().find(|conflict| conflict.path == path).unwrap().clone();
    assert!(!pulls.path(".GIT").exists() && !pulls.path("x").exists(), "{:?}", of(".GIT/hooks/x"));
    assert_eq!((of("link/x").kept_as, of("d/deep/y").kept_as), (String::new(), String::new()));
    for (path, text) in [("file", "2"), ("e", "4"), (long.as_str(), "5")] {
        assert_eq!(pulls.read(&of(path).kept_as), text, "{path}");
    }
    assert_eq!(pulls.read("Case"), "6");
    if pulls.path("CASE").exists() {
        assert_eq!(pulls.read(&of("case").kept_as), "7");
    } else {
        assert_eq!(pulls.read("case"), "7", "where both fit there is nothing to tell");
        assert!(found.conflicts.iter().all(|conflict| conflict.path != "case"));
    }
    assert!(!of("e").to_string().contains('\n'));
    let shown = Conflict { path: "a\u{1b}]0;x\n".into(), kept_as: String::new(), why: "w" }.to_string();
    assert!(!shown.contains(['\u{1b}', '\n']), "{shown}");
}

#[tokio::test]
async fn where_case_does_not_count_the_second_name_stands_beside() {
    let mut pulls = Pulls::new();
    let tree = pulls.tree(&[("Case", "6"), ("case", "7")]).await;
    let filter = Filter::new(&[], &[]).unwrap();
    let planned = |folds: bool| {
        let plan =
            plan::plan_where(pulls.dir.path(), &tree, &filter, &plan::Had::default(), || folds).unwrap();
        let names: Vec<String> = plan.fetch.entries.into_iter().map(|entry| entry.path).collect();
        (names, plan.conflicts.len())
    };
    assert_eq!(planned(false), (vec!["Case".to_owned(), "case".to_owned()], 0));
    let (names, conflicts) = planned(true);
    assert!(names[1].starts_with("case.pulled-") && names[0] == "Case" && conflicts == 1, "{names:?}");
    assert_eq!(fs::read_dir(pulls.dir.path()).unwrap().count(), 0, "trying it out leaves nothing");
}
