//! What a project says of its runs: `outlast init`, `[metrics]` in the views,
//! stages, and the commits and requests that runs are tied to.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::views::{json, refused, said};

const STAGES: &str = "[metrics]\nprimary = \"speed\"\nstages = [{ name = \"easy\", from = 0 }, { name = \"hard\", from = 10 }]\n\
                      [metrics.keys]\nspeed = { direction = \"higher\" }\n";

/// Two runs of twenty steps: one gains early, the other late.
fn curriculum(dir: &Path) {
    let rows = |gain: &dyn Fn(u32) -> f64| {
        let rows = (0..20).map(|step| format!("{step},{},{}\n", 4.0 - gain(step), gain(step)));
        format!("step,loss,speed\n{}", rows.collect::<String>())
    };
    fs::write(dir.join("a.csv"), rows(&|step| f64::from(step.min(9)) / 9.0 * 2.0)).unwrap();
    fs::write(dir.join("b.csv"), rows(&|step| f64::from(step.saturating_sub(10)) / 9.0)).unwrap();
    fs::write(dir.join("outlast.toml"), STAGES).unwrap();
}

#[test]
fn runs_are_compared_by_stage_and_at_the_end_of_one() {
    let dir = tempfile::tempdir().unwrap();
    curriculum(dir.path());
    let told = said(dir.path(), &["compare", "a.csv", "b.csv", "--tokens", "1000"]);
    assert!(told.contains("stage easy, steps 0 to 9, loss: A 4 to 2 (-50%), B 4 to 4 (+0%)"), "{told}");
    assert!(told.contains("stage hard, steps 10 to 19, loss: A 2 to 2 (+0%), B 4 to 3 (-25%)"), "{told}");
    let found = json(dir.path(), &["compare", "a.csv", "b.csv", "-m", "loss"]);
    assert_eq!(found["stages"].as_array().unwrap().len(), 2, "{found:#}");
    assert_eq!(found["stages"][1]["runs"][1]["last"], 3.0);
    let easy = said(dir.path(), &["compare", "a.csv", "b.csv", "-m", "loss", "--stage", "easy", "--csv"]);
    assert_eq!(
        easy,
        "metric,run,step,value,how,change_percent\nloss,a.csv,9,2,exact,0\nloss,b.csv,9,4,exact,100\n"
    );
    let unknown = refused(dir.path(), &["compare", "a.csv", "b.csv", "--stage", "harder"], 66);
    assert!(
        unknown.contains("there are \"easy\", \"hard\"") || unknown.contains("there are easy, hard"),
        "{unknown}"
    );
    fs::remove_file(dir.path().join("outlast.toml")).unwrap();
    let none = refused(dir.path(), &["compare", "a.csv", "b.csv", "--stage", "easy"], 66);
    assert!(none.contains("the first run has none") && none.contains("[metrics] stages"), "{none}");
}

#[test]
fn views_heed_what_a_project_says_of_its_metrics() {
    let dir = tempfile::tempdir().unwrap();
    curriculum(dir.path());
    // By its names alone the loss would be what they are judged by.
    for verb in [&["runs", "."][..], &["report", "."]] {
        let found = json(dir.path(), verb);
        let rows = found["runs"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["primary"]["name"] == "speed"), "{verb:?} {found:#}");
    }
    let best = json(dir.path(), &["runs", ".", "--best", "speed"]);
    assert!(best["runs"][0]["path"].as_str().unwrap().ends_with("a.csv"), "higher is better: {best:#}");
    // What is wrong in the file is told, all of it.
    fs::write(dir.path().join("outlast.toml"), "[metrics]\nprimry = 1\nsensitivity = \"x\"\n").unwrap();
    let wrong = refused(dir.path(), &["runs", "."], 78);
    assert!(wrong.contains("primry") && wrong.contains("sensitivity"), "{wrong}");
}

fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(["-c", "user.name=A", "-c", "user.email=a@example.org"]).args(args);
    let output = command.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_run_is_tied_to_its_commit_and_its_pull_request() {
    let dir = tempfile::tempdir().unwrap();
    curriculum(dir.path());
    let unknown = said(dir.path(), &["link", "a.csv"]);
    assert!(unknown.contains("no commit") && unknown.contains("no pull request"), "{unknown}");
    git(dir.path(), &["init", "-q"]);
    git(dir.path(), &["commit", "-q", "--allow-empty", "-m", "one"]);
    git(dir.path(), &["remote", "add", "origin", "https://me:ghp_secret@github.com/o/r.git"]);
    let head = git(dir.path(), &["rev-parse", "HEAD"]);
    let linked = json(dir.path(), &["link", "a.csv", "--commit", "--pr", "17"]);
    assert_eq!(linked["commit"], head.as_str());
    assert_eq!(linked["commit_url"], format!("https://github.com/o/r/commit/{head}"));
    assert_eq!(linked["pull_request"], "https://github.com/o/r/pull/17");
    // It is found by that, and a report leads there.
    let found = json(dir.path(), &["runs", ".", &format!("commit:{head}")]);
    assert_eq!(found["runs"].as_array().unwrap().len(), 1, "{found:#}");
    let report = said(dir.path(), &["report", "a.csv", "--tokens", "3000"]);
    assert!(report.contains(&format!("Commit: <https://github.com/o/r/commit/{head}>")), "{report}");
    said(dir.path(), &["report", "a.csv", "--out", "r.html"]);
    let page = fs::read_to_string(dir.path().join("r.html")).unwrap();
    assert!(page.contains("href=\"https://github.com/o/r/pull/17\""), "{page}");
    // No password goes anywhere, and what is no commit ties nothing.
    let kept = fs::read_to_string(dir.path().join(".outlast-notes.jsonl")).unwrap();
    assert!(!kept.contains("secret") && !report.contains("secret") && !page.contains("secret"), "{kept}");
    assert!(refused(dir.path(), &["link", "a.csv", "--commit=--help"], 66).contains("no commit"));
    let both = refused(dir.path(), &["link", "b.csv", "--commit", "--pr", "http://example.org/1"], 65);
    assert!(both.contains("no pull request"), "{both}");
    assert_eq!(
        fs::read_to_string(dir.path().join(".outlast-notes.jsonl")).unwrap(),
        kept,
        "nothing by halves"
    );
}

#[test]
fn a_project_is_begun_with_what_lies_there_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("My Project");
    fs::create_dir(&project).unwrap();
    fs::write(project.join("train.py"), "").unwrap();
    fs::write(project.join("requirements.txt"), "torch\ntransformers>=4\n").unwrap();
    let made = json(&project, &["init"]);
    assert_eq!(
        (&made["name"], &made["template"]),
        (&"my-project".into(), &"transformers".into()),
        "{made:#}"
    );
    let config = json(&project, &["config", "show"]).to_string();
    assert!(config.contains("my-project") && config.contains("train.py"), "{config}");
    let before = fs::read_to_string(project.join("outlast.toml")).unwrap();
    let refused_again = refused(&project, &["init", "--name", "other"], 73);
    assert!(
        refused_again.contains("is there already") && refused_again.contains("--force"),
        "{refused_again}"
    );
    assert_eq!(fs::read_to_string(project.join("outlast.toml")).unwrap(), before);
    said(&project, &["init", "--name", "other", "--force", "--", "sh", "-c", "echo \"$HOME\""]);
    let config = json(&project, &["config", "show"]).to_string();
    assert!(config.contains("\"other\"") && config.contains("$HOME"), "{config}");
    assert!(refused(&project, &["init", "--name", "No Name", "--force"], 64).contains("no-name"));
    assert!(refused(&project, &["init", "nowhere"], 66).contains("nowhere"));
}
