//! The disk of the data directory is full, and then it is not.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::programs::Training;
use super::stage::{Said, Stage, wait};

/// A small disk; unmounted when it goes.
struct Disk(TempDir);

impl Disk {
    /// `None` where this user may not mount.
    fn mount(megabytes: u32) -> Option<Self> {
        let place = tempfile::Builder::new().prefix("ol").tempdir_in("/tmp").unwrap();
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(place.path());
        mount.output().is_ok_and(|done| done.status.success()).then_some(Self(place))
    }

    /// Takes every byte that is free; how many those were.
    fn fill(&self) -> u64 {
        let path = self.0.path().join(format!("filler{}", std::fs::read_dir(self.0.path()).unwrap().count()));
        let mut file = File::create(path).unwrap();
        let mut taken = 0;
        for size in [1 << 16, 1 << 12] {
            let block = vec![7_u8; size];
            while let Ok(written) = file.write(&block) {
                taken += written as u64;
            }
        }
        taken
    }

    /// Gives it all back.
    fn free(&self) {
        for entry in std::fs::read_dir(self.0.path()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("filler") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// A refusal that a person understands.
#[track_caller]
fn is_clear(said: &Said) {
    let told = said.stderr.to_lowercase();
    assert!(!told.contains("panicked"), "{told}");
    let names_it = told.contains("space") || told.contains("full");
    assert!(said.code == 73 && names_it, "exit code {}:\n{told}", said.code);
}

#[test]
fn a_full_disk_is_told_clearly_and_costs_nothing_once_there_is_room_again() {
    let Some(disk) = Disk::mount(24) else {
        eprintln!("skipped: a_full_disk_is_told_clearly_...: a disk cannot be mounted here (not root?)");
        return;
    };
    let outside = tempfile::Builder::new().prefix("ol").tempdir_in("/tmp").unwrap();
    let stage = Stage::at(outside, disk.0.path().join("h"));
    let training = Training::new(&stage, &[("STEPS", "20"), ("STEP_MS", "40"), ("EVERY", "10")]).gated(20);
    let run = training.submit(&stage);
    stage.when_durable(&run, 20);
    wait("the end of its steps", || (!training.noted("finished").is_empty()).then_some(()));

    let large = "0123456789abcdef\n".repeat(1_000);
    let other = stage.project(
        "other",
        &[
            ("outlast.toml", "[run]\ncommand = [\"true\"]\n[environment]\nkind = \"none\"\n"),
            ("data", &large),
        ],
    );
    assert!(disk.fill() > 0);
    let refused = wait("a refusal", || {
        let said = stage.call(&["run", other.to_str().unwrap(), "-d"]);
        // What the program had kept back for such a moment is used up first.
        disk.fill();
        (said.code != 0).then_some(said)
    });
    is_clear(&refused);
    let said = stage.call(&["status", &run, "--json"]);
    if said.code == 0 {
        assert_eq!(said.json()["run"]["state"], "RUNNING");
    } else {
        is_clear(&said);
    }

    // Not even a controller can begin now; the one after it can.
    let unable = wait("a controller that cannot begin", || {
        stage.kill_controller();
        disk.fill();
        let said = stage.call(&["status", &run, "--json"]);
        // What agents give back meanwhile is room enough for a beginning.
        (said.code != 0).then_some(said)
    });
    is_clear(&unable);

    disk.free();
    training.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(training.starts().len(), 1);
    let next = stage.submit(&other, &[]);
    stage.ends_as(&next, "SUCCEEDED");
    for run in stage.ok(&["status", "--all", "--json"]).json().as_array().unwrap() {
        stage.ends_as(run["id"].as_str().unwrap(), "SUCCEEDED");
    }
    stage.verify();
    is_healthy(&stage.home.join("controller.log"));
}

fn is_healthy(log: &Path) {
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}
