//! Secrets of a run: its program has them on every machine, and nothing else
//! ever does. A canary goes through the real programs, and afterwards it is
//! looked for in every file and in every list of arguments.

use std::fs;
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};

use super::losses::lose;
use super::processes::{kill_one, only, processes};
use super::sealed::files;
use super::stage::{Stage, lines, machine_of, touch, wait};

/// Nothing about it looks like a secret.
const CANARY: &str = "quiet yellow bird 7731";
const OTHER: &str = "second small bird";

/// Tells who it is by the sums of what it has, and waits.
const JOB: &str = r#"
sum() { printf %s "$1" | sha256sum | cut -c1-16; }
echo "$OUTLAST_GENERATION $(sum "$MY_SECRET") $(sum "$SECOND")" >> "$SEEN"
while [ ! -e "$GO" ]; do sleep 0.05; done
"#;

fn sum(text: &str) -> String {
    let out = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$X\" | sha256sum | cut -c1-16"])
        .env("X", text)
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn project(stage: &Stage, job: &str, more: &str) -> std::path::PathBuf {
    let settings = format!(
        "[run]\ncommand = [\"sh\", \"job.sh\"]\nenv = {{ SEEN = {:?}, GO = {:?} }}\n[secrets]\n\
         MY_SECRET = {{ env = \"CANARY_IS_HERE\" }}\nSECOND = {{ file = \"~/.second\" }}\n{more}",
        stage.path("seen"),
        stage.path("go")
    );
    fs::write(stage.path(".second"), format!("{OTHER}\n")).unwrap();
    stage.project("p", &[("job.sh", job), ("outlast.toml", &settings)])
}

fn stage() -> Stage {
    Stage::new().with([("CANARY_IS_HERE".to_owned(), CANARY.to_owned())])
}

/// Fails if a file below here holds the canary, as it is or as it is written.
#[track_caller]
fn is_nowhere(dir: &Path) -> usize {
    let forms = [
        CANARY.to_owned(),
        BASE64.encode(CANARY.as_bytes()),
        HEXLOWER.encode(CANARY.as_bytes()),
        OTHER.into(),
    ];
    let all = files(dir);
    for path in &all {
        let Ok(bytes) = fs::read(path) else { continue };
        for form in &forms {
            let found = bytes.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!found, "{} holds {form:?}", path.display());
        }
    }
    all.len()
}

#[track_caller]
fn is_in_no_argument() {
    let holds = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
    };
    assert_eq!(processes(holds), Vec::<i32>::new());
}

#[test]
fn i22_a_secret_reaches_every_attempt_and_is_found_nowhere_else() {
    let stage = stage();
    let marks = stage.path("setups");
    let line = format!(
        "printf '%s\\n' \"$(printf %s \"$MY_SECRET\" | sha256sum | cut -c1-16)\" >> {}",
        marks.display()
    );
    let root = project(&stage, JOB, &format!("[environment]\nkind = \"none\"\nsetup = [{line:?}]\n"));
    let run = stage.submit(&root, &[]);
    let seen = stage.path("seen");
    let first = format!("1 {} {}", sum(CANARY), sum(OTHER));
    wait("the first attempt's secrets", || (lines(&seen) == [first.as_str()]).then_some(()));
    is_in_no_argument();
    assert!(is_nowhere(&stage.home) > 20);
    let lost = lose(&stage, &run);
    let second = format!("2 {} {}", sum(CANARY), sum(OTHER));
    wait("the second attempt's secrets", || {
        (lines(&seen) == [first.as_str(), second.as_str()]).then_some(())
    });
    let machine = machine_of(&stage.status(&run));
    assert_ne!(machine, lost.machine);
    is_in_no_argument();
    touch(&stage.path("go"));
    stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(lines(&marks), [sum(CANARY), sum(CANARY)], "the set-up has it, too");
    for said in [["status", &run, "--json"], ["events", &run, "--json"], ["why", &run, "--json"]] {
        let said = stage.call(&said);
        let text = format!("{}{}", said.text(), said.stderr);
        assert!(!text.contains(CANARY) && !text.contains(OTHER), "{text}");
    }
    assert!(is_nowhere(&stage.home) > 20);
    // What was handed over through memory is gone from there, too.
    let attempts = stage.status(&run)["attempts"].as_array().unwrap().clone();
    for attempt in attempts {
        let begins = format!("outlast-{}", attempt["id"].as_str().unwrap());
        let left = fs::read_dir("/dev/shm").unwrap().flatten();
        assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&begins)).count(), 0);
    }
    stage.verify();
}

#[test]
fn an_agent_that_is_started_again_has_them_again() {
    let stage = stage();
    let (marks, open) = (stage.path("marks"), stage.path("open"));
    let line =
        format!("echo begun >> {}; while [ ! -e {} ]; do sleep 0.05; done", marks.display(), open.display());
    let root = project(&stage, JOB, &format!("[environment]\nkind = \"none\"\nsetup = [{line:?}]\n"));
    let run = stage.submit(&root, &[]);
    wait("the set-up", || (!lines(&marks).is_empty()).then_some(()));
    let machine = machine_of(&stage.status(&run));
    kill_one(only(&machine, "agent"));
    touch(&open);
    touch(&stage.path("go"));
    stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(lines(&stage.path("seen")), [format!("1 {} {}", sum(CANARY), sum(OTHER))]);
    is_nowhere(&stage.home);
}

#[test]
fn a_capsule_hides_what_the_program_printed_and_a_resumed_run_has_the_secret_again() {
    let stage = stage();
    let job = format!("{JOB}\necho \"Error: bad login with $MY_SECRET\" >&2; exit 3\n");
    let root = project(&stage, &job, "[retry]\nfailures = 0\n");
    touch(&stage.path("go"));
    let run = stage.submit(&root, &[]);
    stage.ends_as(&run, "FAILED");
    // Its own output is the user's.
    let logs = stage.ok(&["logs", &run]);
    assert!(format!("{}{}", logs.text(), logs.stderr).contains(CANARY));
    for said in [["status", &run, "--json"], ["why", &run, "--json"], ["events", &run, "--json"]] {
        let text = stage.ok(&said).text();
        assert!(!text.contains(CANARY), "{text}");
    }
    assert!(stage.ok(&["why", &run, "--json"]).text().contains("bad login with [masked]"));
    // It is written beside everything else, also after the end.
    let capsules = wait("the kept capsule", || {
        let mut kept = files(&stage.home.join("runs"));
        kept.retain(|path| path.ends_with("capsule.json"));
        (!kept.is_empty()).then_some(kept)
    });
    for path in &capsules {
        assert!(!fs::read_to_string(path).unwrap().contains(CANARY), "{}", path.display());
    }
    let next = stage.ok(&["resume", &run, "-d"]).text().trim().to_owned();
    stage.ends_as(&next, "FAILED");
    let seen = lines(&stage.path("seen"));
    assert_eq!((seen.len(), &seen[0]), (2, seen.last().unwrap()));
}

#[test]
fn secrets_that_are_not_there_are_told_all_at_once_and_nothing_is_sent() {
    let stage = Stage::new();
    let root = project(&stage, JOB, "THIRD = { keyring = \"service/me\" }\n");
    fs::remove_file(stage.path(".second")).unwrap();
    let said = stage.call(&["run", root.to_str().unwrap(), "-d"]).ends_with(65);
    for part in ["MY_SECRET", "the variable CANARY_IS_HERE", "SECOND", ".second", "THIRD"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    assert!(!stage.home.join("controller.json").exists(), "no controller was even started");
}
