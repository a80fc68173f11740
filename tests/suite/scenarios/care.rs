//! Programs that make no progress and disks that fill, under the real agent.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sys::statvfs::statvfs;
use serde_json::Value;
use tempfile::TempDir;

use super::stage::{PATIENCE, Stage, exchange, is_over, lines};

/// Steps and saves; where the file `hangs` holds a number, that many attempts
/// stop moving after step 12, for ever.
const STEPS: &str = r#"
place=$1
step=0
[ -n "$OUTLAST_RESUME_FROM" ] && step=$(cat "$OUTLAST_RESUME_FROM")
echo "from $step on $OUTLAST_MACHINE_ID" >> "$place/starts"
hangs=$(cat "$place/hangs")
while [ "$step" -lt 24 ]; do
  step=$((step + 1))
  echo "step=$step loss=0.$step"
  sleep 0.1
  if [ $((step % 10)) = 0 ]; then
    echo "$step" > "$OUTLAST_CHECKPOINT_DIR/.tmp-$step"
    mv "$OUTLAST_CHECKPOINT_DIR/.tmp-$step" "$OUTLAST_CHECKPOINT_DIR/step-$step.txt"
  fi
  if [ "$step" = 12 ] && [ "$(wc -l < "$place/starts")" -le "$hangs" ]; then
    sleep 3600 &
    wait
  fi
done
"#;

/// How long a step may take before it counts as a hang: longer than a disk that
/// saves and notes go to may stand still.
const AFTER: &str = "12s";

fn hanging(stage: &Stage, action: &str, hangs: u32) -> (String, PathBuf) {
    let place = stage.path("place");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("hangs"), hangs.to_string()).unwrap();
    let settings = format!(
        "[run]\ncommand = [\"sh\", \"train.sh\", {place:?}]\ngrace = \"2s\"\n[environment]\nkind = \"none\"\n\
         [hang]\naction = \"{action}\"\nafter = \"{AFTER}\"\n"
    );
    let root = stage.project("hang", &[("outlast.toml", &settings), ("train.sh", STEPS)]);
    (stage.submit(&root, &[]), place)
}

/// The details of a run's events of one kind, in order.
fn of(events: &[Value], verb: &str) -> Vec<Value> {
    let detail = |event: &Value| serde_json::from_str(event["detail_json"].as_str().unwrap()).unwrap();
    events.iter().filter(|event| event["verb"] == verb).map(detail).collect()
}

#[test]
fn a_program_that_hangs_goes_on_from_its_checkpoint() {
    let stage = Stage::new();
    let (run, place) = hanging(&stage, "restart", 1);
    let detail = stage.ends_as(&run, "SUCCEEDED");
    let attempts = detail["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{detail:#}\n{}", stage.story(&run));
    let starts = std::fs::read_to_string(place.join("starts")).unwrap();
    let from: Vec<&str> = starts.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(from, ["0", "10"]);
    assert_eq!(detail["machines"].as_array().unwrap().len(), 1, "{detail:#}");
    let events = stage.events(&run);
    let alerts = of(&events, "alert");
    let hang = alerts.iter().find(|e| e["name"] == "hang").expect("an alert");
    let text = hang["text"].as_str().unwrap();
    assert!(text.contains("after step 12: it is idle"), "{text}");
    assert_eq!(of(&events, "stopping")[0]["why"], "it makes no progress");
    // What explains it has come, before the end was told.
    let evidence =
        std::fs::read_to_string(stage.home.join("runs").join(&run).join("1/evidence.jsonl")).unwrap();
    let lines: Vec<Value> = evidence.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    for kind in ["machine", "environment", "alert", "stacks", "exit", "sample"] {
        assert!(kinds.contains(&kind), "no {kind} in {kinds:?}");
    }
    let sleeps =
        |line: &Value| line["process"]["name"] == "sleep" && line["process"]["threads"][0]["state"] == "S";
    assert!(lines.iter().any(sleeps), "{evidence}");
    stage.verify();
}

#[test]
fn a_program_that_hangs_twice_at_one_place_is_moved() {
    let stage = Stage::new();
    let (run, place) = hanging(&stage, "move", 2);
    let detail = stage.ends_as(&run, "SUCCEEDED");
    let starts = std::fs::read_to_string(place.join("starts")).unwrap();
    let on: Vec<&str> = starts.lines().map(|line| line.split(' ').nth(3).unwrap()).collect();
    assert_eq!(on.len(), 3, "{starts}");
    assert!(on[0] == on[1] && on[1] != on[2], "{starts}");
    let events = stage.events(&run);
    let left = of(&events, "condemned");
    assert_eq!(left.len(), 1, "{}", stage.story(&run));
    assert!(left[0]["why"].as_str().unwrap().starts_with("it hangs here again"), "{}", left[0]);
    assert_eq!(detail["machines"].as_array().unwrap().len(), 2, "{detail:#}");
    stage.verify();
}

/// A small disk; unmounted when it goes.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may not mount.
    fn mount(place: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(place).unwrap();
        let size = format!("size={megabytes}m,mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(place);
        mount.output().is_ok_and(|done| done.status.success()).then(|| Self(place.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Saves five megabytes at a time, each one when it may, and fails at the first
/// save that the disk refuses.
const SAVES: &str = r#"
cd "$OUTLAST_CHECKPOINT_DIR" || exit 4
n=0
while [ "$n" -lt "$3" ]; do
  while [ "$n" -ge "$(cat "$2/may")" ]; do sleep 0.02; done
  n=$((n + 1))
  { echo "$n"; cat "$1"; } > ".tmp-$n" && mv ".tmp-$n" "step-$n.bin" || exit 3
  echo "step=$n loss=0.5"
  echo "$n" >> "$2/saved"
done
"#;

/// Lets the program save while there is room for another one, at most four
/// ahead of what is durable: on a slow machine, too, it is the product that
/// makes the room, and no save comes before it could.
fn let_save(stage: &Stage, run: &str, disk: &Path, place: &Path) {
    const ROOM: u64 = 8_000_000;
    let (mut last, mut since) = ((0, 0), Instant::now());
    loop {
        let detail = stage.status(run);
        if is_over(&detail) {
            return;
        }
        let saved = lines(&place.join("saved")).len() as u64;
        let durable = detail["run"]["durable_step"].as_u64().unwrap_or(0);
        let about = statvfs(disk).unwrap();
        let free = about.blocks_available() * about.fragment_size();
        if free >= ROOM && saved < durable + 4 {
            exchange(&place.join("may"), &(saved + 1).to_string());
        }
        if (saved, durable) != last {
            (last, since) = ((saved, durable), Instant::now());
        }
        assert!(
            since.elapsed() < PATIENCE,
            "{saved} were saved, {durable} is durable, {free} bytes are free:\n{}",
            stage.story(run)
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_disk_never_fills_while_old_checkpoints_are_durable() {
    let outside: TempDir = tempfile::Builder::new().prefix("ol").tempdir_in("/tmp").unwrap();
    let home = outside.path().join("h");
    let Some(disk) = Disk::mount(&home.join("machines"), 60) else {
        eprintln!("skipped: a_disk_never_fills_...: a disk cannot be mounted here (not root?)");
        return;
    };
    let stage = Stage::at(outside, home);
    let (base, place) = (stage.path("base"), stage.path("place"));
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(&base, bytes).unwrap();
    std::fs::create_dir(&place).unwrap();
    exchange(&place.join("may"), "0");
    let settings = format!(
        "[run]\ncommand = [\"sh\", \"save.sh\", {base:?}, {place:?}, \"30\"]\n[environment]\nkind = \"none\"\n\
         [checkpoints]\nkeep_local = 100\n[retry]\nfailures = 0\n[health]\nforecast = \"0s\"\n"
    );
    let root = stage.project("save", &[("outlast.toml", &settings), ("save.sh", SAVES)]);
    let run = stage.submit(&root, &[]);
    // Half of what is saved does not fit.
    let_save(&stage, &run, &disk.0, &place);
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["run"]["durable_step"], 30, "{detail:#}");
    let events = stage.events(&run);
    let deleted: Vec<String> = of(&events, "note")
        .iter()
        .filter_map(|event| event["text"].as_str().filter(|t| t.contains("was deleted")).map(str::to_owned))
        .collect();
    assert!(deleted.len() >= 18, "{deleted:#?}");
    let step =
        |text: &String| text.split_once("step-").and_then(|(_, t)| t.split('.').next()?.parse::<u32>().ok());
    let steps: Vec<u32> = deleted.iter().filter_map(step).collect();
    let once: std::collections::BTreeSet<u32> = steps.iter().copied().collect();
    assert!(once.len() == steps.len() && !once.contains(&30), "{steps:?}");
    drop(disk);
    stage.verify();
}
