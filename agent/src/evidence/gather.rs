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
    let (python, packages) = match &launch.container {
        // What the image holds is not on the machine's disk in a form that can be read.
        Some(_) => ("unknown: the program runs in an image".to_owned(), Vec::new()),
        None => python(&launch.env, Path::new("/")),
    };
    if packages.is_empty() && !python.is_empty() {
        note(dir, Part::Course, "packages", json!({"python": python, "packages": []}));
    }
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

/// Where the interpreter that `program` is stands, where it is one of pyenv's
/// stand-ins, which starts another.
fn behind_shim(program: &Path, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let shims = program.parent().filter(|dir| file_name(dir) == "shims")?;
    let root = shims.parent()?;
    let chosen = env.get("PYENV_VERSION").cloned().or_else(|| {
        let text = os::read_bounded(&root.join("version"), 4 << 10).ok()?;
        String::from_utf8_lossy(&text).lines().next().map(|line| line.trim().to_owned())
    })?;
    // One component: a name with a separator could lead anywhere.
    let name = chosen.split(':').next().filter(|name| !name.is_empty() && !name.contains(['/', '\0']))?;
    Some(root.join("versions").join(name)).filter(|prefix| name != ".." && prefix.is_dir())
}

/// The version of the interpreter that a program finds first, as its place
/// tells, and what is installed for it: `name==version`. `root` is `/`.
fn python(env: &BTreeMap<String, String>, root: &Path) -> (String, Vec<String>) {
    let named = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().find_map(|name| env.get(*name));
    let first = || {
        let path = env.get("PATH")?;
        let program = ["python3", "python"].iter().find_map(|name| os::find_in_path(path, name))?;
        behind_shim(&program, env).or_else(|| program.parent()?.parent().map(Path::to_owned))
    };
    let Some(prefix) = named.map(PathBuf::from).filter(|p| p.is_absolute()).or_else(first) else {
        return (String::new(), Vec::new());
    };
    // Debian's interpreter also has what pip put beside the distribution's own.
    let is_of_system = prefix == root.join("usr") || prefix == root;
    let beside = is_of_system.then(|| root.join("usr/local/lib"));
    let own = env.get("HOME").map(PathBuf::from).filter(|home| home.is_absolute() && named.is_none());
    let mut version = String::new();
    let mut packages = Vec::new();
    let libs = [Some(prefix.join("lib")), beside, own.map(|home| home.join(".local/lib"))];
    for lib in libs.iter().flatten().flat_map(|lib| entries(lib)) {
        let Some(short) = file_name(&lib).strip_prefix("python").map(str::to_owned) else { continue };
        let is_whole = short.chars().filter(|c| *c == '.').count() == 1;
        if is_whole && version.is_empty() {
            version = short;
        } else if is_whole && short != version {
            // Of another interpreter.
            continue;
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

    /// Names of packages in a place.
    fn installed(place: &Path, names: &[&str]) {
        for name in names {
            std::fs::create_dir_all(place.join(format!("{name}.dist-info"))).unwrap();
        }
    }

    #[test]
    fn packages_of_debian_of_the_user_and_of_pyenv_are_found() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        installed(&at("usr/lib/python3/dist-packages"), &["six-1.16.0"]);
        std::fs::create_dir_all(at("usr/lib/python3.11")).unwrap();
        installed(&at("usr/local/lib/python3.11/dist-packages"), &["torch-2.5.1"]);
        installed(&at("usr/local/lib/python3.9/dist-packages"), &["torch-1.0"]);
        installed(&at("home/.local/lib/python3.11/site-packages"), &["wandb-0.16.6"]);
        let program = |path: &str| {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), "#!/bin/sh\n").unwrap();
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(at(path), std::fs::Permissions::from_mode(0o755)).unwrap();
            at(path).parent().unwrap().display().to_string()
        };
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), program("usr/bin/python3")),
            ("HOME".to_owned(), at("home").display().to_string()),
        ]);
        let (version, packages) = python(&env, root.path());
        assert_eq!(version, "3.11");
        assert_eq!(packages, ["six==1.16.0", "torch==2.5.1", "wandb==0.16.6"]);

        installed(&at("pyenv/versions/3.12.1/lib/python3.12/site-packages"), &["jax-0.10.2"]);
        std::fs::write(at("pyenv/version"), "3.12.1\n").unwrap();
        env.insert("PATH".into(), program("pyenv/shims/python3"));
        assert_eq!(python(&env, root.path()), ("3.12".into(), vec!["jax==0.10.2".to_owned()]));
        env.insert("PYENV_VERSION".into(), "../../elsewhere".into());
        assert!(python(&env, root.path()).1.iter().all(|name| !name.starts_with("jax")));
    }
}
