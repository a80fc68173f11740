//! The local store is full, read-only, somebody else's or gone: each has an
//! answer that names it, nothing that was stored suffers, and all goes on once
//! it is mended.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::stage::{Said, Stage, wait};

const CONFIG: &str = "[run]\ncommand = [\"sh\", \"-c\", \"true\"]\n[environment]\nkind = \"none\"\n";

/// A small file system over a directory; taken away when this goes.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// `None` where this user may not mount.
    fn over(place: &'a Path, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(place);
        mount.output().is_ok_and(|done| done.status.success()).then_some(Self(place))
    }

    fn again(&self, options: &str) {
        let how = format!("remount,{options}");
        // A controller has files open until it has ended, which is after it let go.
        wait(&how, || {
            let done = Command::new("mount").args(["-o", &how]).arg(self.0).output().unwrap();
            done.status.success().then_some(())
        });
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[track_caller]
fn names(said: &Said, why: &str) {
    let told = said.stderr.to_lowercase();
    assert!(told.contains(why) && !told.contains("panicked"), "{told}");
}

/// Four megabytes that do not shrink.
fn noise(path: &Path, seed: u8) {
    let mut bytes = vec![0; 4 << 20];
    fastrand::Rng::with_seed(seed.into()).fill(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_full_a_read_only_and_a_lost_store_are_named_and_cost_nothing() {
    let stage = Stage::new();
    let objects = stage.home.join("objects");
    fs::create_dir_all(&objects).unwrap();
    fs::set_permissions(&stage.home, fs::Permissions::from_mode(0o700)).unwrap();
    let Some(disk) = Mounted::over(&objects, "size=6m") else {
        eprintln!(
            "skipped: a_full_a_read_only_and_a_lost_store_...: nothing can be mounted here (not root?)"
        );
        return;
    };
    let root = stage.project("tree", &[("outlast.toml", CONFIG), ("small.txt", "small")]);
    let sync = || stage.call(&["sync", root.to_str().unwrap(), "--json"]);
    let first = sync().ends_with(0).json();
    // Full: said so, and nothing half written is left.
    noise(&root.join("a.bin"), 1);
    noise(&root.join("b.bin"), 2);
    let full = sync().ends_with(73);
    names(&full, "full");
    fs::remove_file(root.join("b.bin")).unwrap();
    disk.again("size=64m");
    sync().ends_with(0);
    noise(&root.join("b.bin"), 2);
    sync().ends_with(0);
    // Read-only, from a start of the controller on, for until then its store
    // keeps the file system from becoming so: what is there is read, and what
    // is new refused until it can be written again.
    stage.ok(&["controller", "stop"]);
    disk.again("ro");
    sync().ends_with(0);
    fs::write(root.join("new.txt"), "new").unwrap();
    let refused = sync();
    assert_ne!(refused.code, 0);
    names(&refused, "read-only");
    disk.again("rw");
    sync().ends_with(0);
    fs::remove_file(root.join("new.txt")).unwrap();
    for left in ["a.bin", "b.bin"] {
        fs::remove_file(root.join(left)).unwrap();
    }
    sync().ends_with(0);
    // A store that lost its objects is not taken at its word of before.
    let key = first["source_key"].as_str().unwrap();
    let manifest = objects.join(key);
    let kept = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    let again = sync().ends_with(0).json();
    assert_ne!(again["source_key"], first["source_key"]);
    fs::write(&manifest, kept).unwrap();
    let run = stage.submit(&root, &[]);
    stage.ends_as(&run, "SUCCEEDED");
}

#[test]
fn a_store_that_is_no_directory_or_may_not_be_written_is_named_at_the_start() {
    let stage = Stage::new();
    fs::create_dir_all(&stage.home).unwrap();
    fs::set_permissions(&stage.home, fs::Permissions::from_mode(0o700)).unwrap();
    let objects = stage.home.join("objects");
    fs::write(&objects, "a file").unwrap();
    let said = stage.call(&["controller", "start"]);
    assert_ne!(said.code, 0);
    names(&said, "objects");
    fs::remove_file(&objects).unwrap();
    stage.ok(&["controller", "start"]);
    stage.ok(&["controller", "stop"]);
    // Root may write everywhere: for it there is no wrong owner.
    if nix::unistd::geteuid().is_root() {
        return;
    }
    fs::set_permissions(&objects, fs::Permissions::from_mode(0o500)).unwrap();
    // It was in use: read all the same, and named to whoever asks.
    stage.ok(&["controller", "start"]);
    let said = stage.call(&["doctor"]);
    fs::set_permissions(&objects, fs::Permissions::from_mode(0o700)).unwrap();
    assert_ne!(said.code, 0);
    names(&said, "permission denied");
    stage.ok(&["controller", "stop"]);
}
