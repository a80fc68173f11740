//! What explains an attempt's end, gathered while it runs and when it ends, as
//! JSON lines in one small file that goes to the controller like any output.
//! Append-only, since what was sent is never sent again; the last part of its
//! quota belongs to the end. No secret enters it: what the program was given as
//! one, what is named like one, what looks like one.

use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use lifecycle::mask::Masker;
use serde_json::{Map, Value, json};

use crate::os;
use crate::world::layout::AttemptDir;
use crate::world::materialise::Launch;

mod gather;

pub use gather::begin;

/// Bytes of one attempt's file at most.
pub const QUOTA: u64 = 384 << 10;
/// The part of them that only [`Part::End`] may use.
pub const RESERVED: u64 = 96 << 10;
/// Bytes of one line at most.
pub const LINE: usize = 16 << 10;
/// Characters of the line that tells an error.
const ERROR: usize = 400;
/// Lines of the kernel log that are taken over.
const KERNEL_LINES: usize = 50;

/// What a line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What is seen while it runs: refused once only the end's part is left.
    Course,
    /// What explains the end.
    End,
}

/// The object itself, short enough for a line: long strings are cut, again and
/// again shorter.
fn fit(fields: &Map<String, Value>) -> String {
    fn cut(value: &Value, most: usize) -> Value {
        match value {
            Value::String(text) if text.chars().nth(most).is_some() => {
                json!(text.chars().take(most).chain("...".chars()).collect::<String>())
            }
            Value::Array(list) => list.iter().map(|v| cut(v, most)).collect(),
            Value::Object(map) => {
                map.iter().map(|(k, v)| (k.clone(), cut(v, most))).collect::<Map<_, _>>().into()
            }
            other => other.clone(),
        }
    }
    for most in [LINE, 2_048, 512, 128, 32, 8] {
        let line = cut(&Value::Object(fields.clone()), most).to_string();
        if line.len() < LINE {
            return line;
        }
    }
    let kept = |name: &str| fields.get(name).cloned().unwrap_or_default();
    json!({"at_ms": kept("at_ms"), "kind": kept("kind"), "left_out": "larger than a line may be"}).to_string()
}

/// Knows the secrets of an attempt's program, and which ids are none.
#[must_use]
pub fn masker(dir: &AttemptDir) -> Masker {
    let launch = os::read_bounded(&dir.launch(), 4 << 20).ok();
    let launch = launch.and_then(|bytes| serde_json::from_slice::<Launch>(&bytes).ok());
    let env = launch.map(|launch| launch.env).unwrap_or_default();
    let ids = dir.path().iter().map(|part| part.to_string_lossy().into_owned());
    let told = ["OUTLAST_RUN_ID", "OUTLAST_MACHINE_ID"].iter().filter_map(|name| env.get(*name).cloned());
    Masker::new(&env).knowing(ids.chain(told))
}

/// The last line of an error stream's end that says something, or the rank
/// that failed first where a launcher's summary ends it; without secrets, since
/// it is shown wherever the attempt is.
#[must_use]
pub fn last_line(dir: Option<&AttemptDir>, tail: &str) -> String {
    // All of it: the last line of a secret of several lines tells nothing.
    let text = dir.map(masker).unwrap_or_default().text(tail);
    if let Some(failure) = crate::ranks::root_cause(&text) {
        return failure.to_string().chars().take(ERROR).collect();
    }
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(ERROR).collect()
}

/// Adds a line. `false`: the quota is used up.
///
/// # Errors
/// Where the disk refuses.
pub fn append(dir: &AttemptDir, part: Part, kind: &str, mut fields: Value) -> io::Result<bool> {
    masker(dir).json(&mut fields);
    let mut object =
        Map::from_iter([("at_ms".to_owned(), json!(os::unix_ms())), ("kind".to_owned(), json!(kind))]);
    match fields {
        Value::Object(more) => {
            object.extend(more.into_iter().filter(|(name, _)| name != "at_ms" && name != "kind"));
        }
        other => drop(object.insert("value".to_owned(), other)),
    }
    let mut line = fit(&object);
    line.push('\n');
    // A link in its place is refused: the program may write here.
    let mut file = os::append_nofollow(&dir.evidence())?;
    let len = file.metadata()?.len();
    let most = if part == Part::End { QUOTA } else { QUOTA - RESERVED };
    if len + line.len() as u64 + 1 > most {
        return Ok(false);
    }
    // What a full disk cut short must not swallow the line after it.
    if len > 0 {
        let mut last = [b'\n'];
        file.seek(SeekFrom::Start(len - 1))?;
        file.read_exact(&mut last)?;
        if last != [b'\n'] {
            line.insert(0, '\n');
        }
    }
    file.write_all(line.as_bytes())?;
    Ok(true)
}

/// As [`append`]; a line that cannot be written is left out and said so.
pub fn note(dir: &AttemptDir, part: Part, kind: &str, fields: Value) {
    match append(dir, part, kind, fields) {
        Ok(true) => {}
        Ok(false) => tracing::debug!(kind, "the quota for evidence is used up"),
        Err(error) => tracing::warn!(kind, %error, "evidence could not be written"),
    }
}

/// What is known at the end: how it ended, what the kernel said, the last
/// figures, which rank failed first. `samples` are the newest, oldest first.
pub fn end(dir: &AttemptDir, samples: &[Value], rank: Option<Value>) {
    if !dir.path().is_dir() {
        return;
    }
    for sample in samples {
        note(dir, Part::End, "sample", sample.clone());
    }
    let read = |name: &str| os::read_bounded(&dir.path().join(name), 256 << 10).ok();
    if let Some(record) = read("exit.json").and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()) {
        note(dir, Part::End, "exit", json!({"record": record}));
    }
    let kernel = read("kernel.log").unwrap_or_default();
    let kernel = String::from_utf8_lossy(&kernel).into_owned();
    let lines: Vec<&str> = kernel.lines().filter(|line| !line.trim().is_empty()).collect();
    let newest = &lines[lines.len().saturating_sub(KERNEL_LINES)..];
    if !newest.is_empty() {
        note(dir, Part::End, "kernel", json!({"lines": newest}));
    }
    if let Some(rank) = rank {
        note(dir, Part::End, "rank", rank);
    }
    if let Some((total, free)) = os::disk_room(dir.path()) {
        note(dir, Part::End, "disk", json!({"total_bytes": total, "free_bytes": free}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(dir: &AttemptDir) -> Vec<Value> {
        let text = std::fs::read_to_string(dir.evidence()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or(Value::Null)).collect()
    }

    fn place() -> (tempfile::TempDir, AttemptDir) {
        let root = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(root.path(), "a");
        std::fs::create_dir_all(dir.path()).unwrap();
        (root, dir)
    }

    #[test]
    fn lines_are_bounded_and_the_last_part_belongs_to_the_end() {
        let (_root, dir) = place();
        let long = "x".repeat(100_000);
        assert!(append(&dir, Part::Course, "alert", json!({"text": long, "n": 7, "kind": "other"})).unwrap());
        let many: Vec<String> = (0..5_000).map(|n| format!("{n:09}{}", "y".repeat(40))).collect();
        assert!(append(&dir, Part::Course, "packages", json!({"list": many})).unwrap());
        let all = lines(&dir);
        assert_eq!((all[0]["kind"].as_str(), all[0]["n"].as_u64()), (Some("alert"), Some(7)));
        assert_eq!(all[1]["kind"], "packages");
        assert!(all[1]["left_out"].is_string());
        while append(&dir, Part::Course, "stacks", json!({"text": long})).unwrap() {}
        let course = std::fs::metadata(dir.evidence()).unwrap().len();
        assert!((QUOTA - RESERVED - LINE as u64..=QUOTA - RESERVED).contains(&course), "{course}");
        std::fs::write(dir.path().join("exit.json"), r#"{"exit":{"code":3}}"#).unwrap();
        std::fs::write(dir.path().join("kernel.log"), "a\n\nb\n").unwrap();
        end(&dir, &[json!({"cpu_percent": 3})], Some(json!({"rank": 1})));
        let all = lines(&dir);
        let kinds: Vec<_> = all[all.len() - 5..].iter().map(|l| l["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["sample", "exit", "kernel", "rank", "disk"]);
        assert_eq!(all[all.len() - 3]["lines"], json!(["a", "b"]));
        while append(&dir, Part::End, "stacks", json!({"text": long})).unwrap() {}
        assert!(std::fs::metadata(dir.evidence()).unwrap().len() <= QUOTA);
        assert!(std::fs::read_to_string(dir.evidence()).unwrap().lines().all(|line| line.len() <= LINE));
    }

    #[test]
    fn no_line_holds_a_secret_of_the_program() {
        let (_root, dir) = place();
        let launch =
            json!({"argv": ["x"], "cwd": "", "env": {"DB_PASSWORD": "canary one", "OUTLAST_ATTEMPT": "a"}});
        std::fs::write(dir.launch(), launch.to_string()).unwrap();
        let key = "hf_canaryaBcDeFgHiJkLmNoPqRsTuVwXyZ01";
        let text = format!("f(secret='canary', x=1) with canary one, {key} and https://me:canary@host/");
        append(&dir, Part::Course, "stacks", json!({"text": text, "deep": [{"frames": [text]}]})).unwrap();
        std::fs::write(dir.path().join("exit.json"), json!({"oom": text}).to_string()).unwrap();
        std::fs::write(dir.path().join("kernel.log"), &text).unwrap();
        end(&dir, &[json!({"place": dir.path()})], Some(json!({"text": text})));
        let all = std::fs::read_to_string(dir.evidence()).unwrap();
        assert!(!all.contains("canary"), "{all}");
        let lines = lines(&dir);
        assert_eq!(lines.len(), 6, "{all}");
        let wanted = "f(secret='[masked]', x=1) with [masked], [masked] and https://[masked]@host/";
        assert_eq!((&lines[0]["text"], &lines[0]["deep"][0]["frames"][0]), (&json!(wanted), &json!(wanted)));
        assert_eq!(lines[1]["place"], json!(dir.path()), "where it lies is no secret");
    }

    #[test]
    fn the_last_error_line_is_told_without_secrets() {
        let (_root, dir) = place();
        let launch = json!({"argv": ["x"], "cwd": "", "env": {"DB_PASSWORD": "canary one"}});
        std::fs::write(dir.launch(), launch.to_string()).unwrap();
        let line = |tail: &str| last_line(Some(&dir), tail);
        let tail =
            "Traceback\nKeyError: canary one is no user, token=canary-2, https://me:canary@host/x\n \n";
        let wanted = "KeyError: [masked] is no user, token=[masked], https://[masked]@host/x";
        assert_eq!(line(tail), wanted);
        let pem = "bad key:\n-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\ncanary==\n";
        assert_eq!(line(pem), "[masked]");
        // What lies where a line is cut is masked whole.
        let long = format!("{} hf_canaryAbCdEfGhIjKlMnOp12", "x".repeat(ERROR - 10));
        assert!(!line(&long).contains("canary") && line(&long).ends_with("[masked]"));
        assert_eq!(line(&"x ".repeat(ERROR)).chars().count(), ERROR);
        assert_eq!((line(""), last_line(None, "a\nb\n")), (String::new(), "b".to_owned()));
    }

    #[test]
    fn a_torn_line_does_not_swallow_the_next_and_a_link_is_refused() {
        let (root, dir) = place();
        std::fs::write(dir.evidence(), "{\"kind\":\"ale").unwrap();
        append(&dir, Part::Course, "alert", json!({"n": 1})).unwrap();
        let all = lines(&dir);
        assert_eq!((all.len(), all[0].clone(), all[1]["n"].as_u64()), (2, Value::Null, Some(1)));
        std::fs::remove_file(dir.evidence()).unwrap();
        let victim = root.path().join("victim");
        std::fs::write(&victim, "").unwrap();
        std::os::unix::fs::symlink(&victim, dir.evidence()).unwrap();
        assert!(append(&dir, Part::End, "alert", json!({})).is_err());
        assert_eq!(std::fs::metadata(victim).unwrap().len(), 0);
        // A directory that is gone is not made again.
        end(&AttemptDir::new(root.path(), "gone"), &[json!({})], None);
        assert!(!root.path().join("attempts/gone").exists());
    }
}
