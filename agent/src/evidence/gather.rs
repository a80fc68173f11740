//! What an attempt starts with: its variables, its interpreter and packages,
//! its machine. Read from files alone: no program is started for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{LINE, Part, masker, note};
use crate::os;
use crate::world::layout::AttemptDir;
use crate::world::materialise::Launch;

const PACKAGES: usize = 2_000;
const NAME: usize = 120;
const VALUE: usize = 1_000;

/// Lines of at most so many bytes: room is left for the line's own fields.
fn chunks<T>(items: impl IntoIterator<Item = T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut all: Vec<Vec<T>> = Vec::new();
    let mut used = usize::MAX;
    for item in items {
        let bytes = size(&item);
        if used.saturating_add(bytes) > LINE / 2 {
            all.push(Vec::new());
            used = 0;
        }
        used += bytes;
        if let Some(last) = all.last_mut() {
            last.push(item);
        }
    }
    all
}

fn clip(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// Notes what the attempt in this directory starts with, once. `gpus` as the
/// newest sample names them.
pub fn begin(dir: &AttemptDir, gpus: &Value) {
    if std::fs::metadata(dir.evidence()).is_ok_and(|m| m.len() > 0) {
        return;
    }
    note(dir, Part::Course, "machine", machine(gpus));
    let launch = os::read_bounded(&dir.launch(), 4 << 20).ok();
    let Some(launch) = launch.and_then(|bytes| serde_json::from_slice::<Launch>(&bytes).ok()) else { return };
    let mask = masker(dir);
    let variables =
        launch.env.iter().map(|(name, value)| (clip(name, NAME), clip(&mask.value(name, value), VALUE)));
    for part in chunks(variables, |(name, value)| name.len() + value.len() + 8) {
        let part: Map<String, Value> = part.into_iter().map(|(name, value)| (name, json!(value))).collect();
        note(dir, Part::Course, "environment", json!({"variables": part}));
    }
    let (python, packages) = python(&launch.env);
    for part in chunks(packages, |name| name.len() + 4) {
        note(dir, Part::Course, "packages", json!({"python": python, "packages": part}));
    }
}

fn machine(gpus: &Value) -> Value {
    let memory = sysinfo::System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_bytes": memory,
        "kernel": sysinfo::System::kernel_version().ok(),
        "system": sysinfo::System::long_os_version().ok(),
        "architecture": std::env::consts::ARCH,
        "gpus": gpus,
    })
}

/// The version of the interpreter that a program finds first, as its place
/// tells, and what is installed for it: `name==version`.
fn python(env: &BTreeMap<String, String>) -> (String, Vec<String>) {
    let named = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().find_map(|name| env.get(*name));
    let first = || {
        let path = env.get("PATH")?;
        let program = ["python3", "python"].iter().find_map(|name| os::find_in_path(path, name))?;
        program.parent()?.parent().map(Path::to_owned)
    };
    let Some(prefix) = named.map(PathBuf::from).filter(|p| p.is_absolute()).or_else(first) else {
        return (String::new(), Vec::new());
    };
    let mut version = String::new();
    let mut packages = Vec::new();
    for lib in entries(&prefix.join("lib")) {
        let Some(short) = file_name(&lib).strip_prefix("python").map(str::to_owned) else { continue };
        if short.chars().filter(|c| *c == '.').count() == 1 && version.is_empty() {
            version = short;
        }
        for place in ["site-packages", "dist-packages"] {
            packages.extend(entries(&lib.join(place)).iter().filter_map(|path| package(&file_name(path))));
        }
    }
    if let Ok(text) = os::read_bounded(&prefix.join("pyvenv.cfg"), 64 << 10) {
        let text = String::from_utf8_lossy(&text).into_owned();
        let told = text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            matches!(key.trim(), "version" | "version_info").then(|| clip(value.trim(), 40))
        });
        version = told.unwrap_or(version);
    }
    packages.sort();
    packages.dedup();
    packages.truncate(PACKAGES);
    (version, packages)
}

/// `numpy-1.26.4.dist-info` is `numpy==1.26.4`.
fn package(directory: &str) -> Option<String> {
    let stem = directory.strip_suffix(".dist-info").or_else(|| directory.strip_suffix(".egg-info"))?;
    let (name, version) = stem.split_once('-')?;
    Some(format!("{}=={}", clip(name, NAME), clip(version, 60)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(dir) else { return Vec::new() };
    found.filter_map(Result::ok).map(|entry| entry.path()).take(20_000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_begins_with_what_explains_it_and_without_its_secrets() {
        let root = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(root.path(), "a");
        let venv = root.path().join("venv");
        let site = venv.join("lib/python3.11/site-packages");
        for name in
            ["numpy-1.26.4.dist-info", "torch-2.5.1+cu121.dist-info", "numpy", "old-1.0.egg-info", "x.pth"]
        {
            std::fs::create_dir_all(site.join(name)).unwrap();
        }
        std::fs::write(venv.join("pyvenv.cfg"), "home = /usr/bin\nversion = 3.11.2\n").unwrap();
        std::fs::create_dir_all(dir.path()).unwrap();
        let mut env: BTreeMap<String, String> =
            (0..2_000).map(|n| (format!("FILLER_{n}"), "z".repeat(60))).collect();
        env.insert("VIRTUAL_ENV".into(), venv.display().to_string());
        env.insert("API_TOKEN".into(), "canary-9d8f7a6b5c4d3e2f1a0b".into());
        env.insert("SOMETHING".into(), "sk-canary0aB1cD2eF3gH4iJ5kL6mN7".into());
        let launch = json!({"argv": ["x"], "cwd": "", "env": env});
        std::fs::write(dir.launch(), launch.to_string()).unwrap();
        begin(&dir, &json!([{"name": "H100"}]));
        let text = std::fs::read_to_string(dir.evidence()).unwrap();
        assert!(!text.contains("canary"), "a secret is in it");
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let of = |kind: &str| lines.iter().filter(|l| l["kind"] == kind).collect::<Vec<_>>();
        assert_eq!(of("machine")[0]["gpus"][0]["name"], "H100");
        assert!(of("machine")[0]["kernel"].is_string());
        assert_eq!(of("packages")[0]["python"], "3.11.2");
        assert_eq!(of("packages")[0]["packages"], json!(["numpy==1.26.4", "old==1.0", "torch==2.5.1+cu121"]));
        let environment = of("environment");
        assert!(environment.len() > 5);
        assert!(environment.iter().any(|l| l["variables"]["API_TOKEN"] == "[masked]"));
        // A second agent adds nothing to what is there.
        begin(&dir, &json!([]));
        assert_eq!(std::fs::read_to_string(dir.evidence()).unwrap(), text);
    }
}
