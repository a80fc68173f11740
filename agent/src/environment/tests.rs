//! What the parent module promises, tested.

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use lifecycle::spec::EnvironmentKind;

use super::*;

struct Fixture {
    root: tempfile::TempDir,
    spec: EnvironmentSpec,
    env: BTreeMap<String, String>,
}

impl Fixture {
    fn new(kind: EnvironmentKind, setup: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("source")).unwrap();
        let spec = EnvironmentSpec {
            kind,
            setup: setup.iter().map(ToString::to_string).collect(),
            image: String::new(),
        };
        // A PATH with nothing but the system's tools, so that uv is not found.
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        Self { root, spec, env }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.root.path().join("source").join(name), text).unwrap();
    }

    fn source(&self, name: &str) -> PathBuf {
        self.root.path().join("source").join(name)
    }

    fn try_prepare(&self, cancelled: &dyn Fn() -> bool) -> (Result<Prepared, EnvironmentError>, String) {
        let mut text = Vec::new();
        let request = EnvironmentRequest {
            source_dir: &self.root.path().join("source"),
            cache_dir: &self.root.path().join("cache"),
            spec: &self.spec,
            base_env: &self.env,
            machine_id: "machine-1",
        };
        let result = prepare(&request, &mut |line| text.extend_from_slice(line), cancelled);
        (result, String::from_utf8_lossy(&text).into_owned())
    }

    fn prepare(&self) -> (Prepared, String) {
        let (result, text) = self.try_prepare(&|| false);
        (result.unwrap_or_else(|e| panic!("{e}\n{text}")), text)
    }

    fn dir(&self, key: &str) -> PathBuf {
        self.root.path().join("cache").canonicalize().unwrap().join(format!("env-{}", &key[..16]))
    }
}

#[test]
fn nothing_asked_for_is_nothing_done() {
    let fixture = Fixture::new(EnvironmentKind::Auto, &[]);
    let (prepared, text) = fixture.prepare();
    assert_eq!((prepared.tool.as_str(), prepared.cached, text.as_str()), ("none", true, ""));
    assert_eq!(prepared.env, fixture.env);
}

#[test]
fn a_venv_is_built_once_and_found_again_until_its_files_change() {
    let fixture = Fixture::new(EnvironmentKind::Auto, &["python -c 'import sys; print(\"in\", sys.prefix)'"]);
    fixture.write("requirements.txt", "-r more.txt\n");
    fixture.write("more.txt", "# nothing\n");
    let (first, text) = fixture.prepare();
    let dir = fixture.dir(&first.key);
    assert_eq!((first.tool.as_str(), first.cached), ("venv", false));
    assert!(text.contains(&format!("in {}", dir.display())), "setup runs inside the venv: {text}");
    assert!(first.env["PATH"].starts_with(&format!("{}/bin:", dir.display())));
    assert_eq!(first.env["VIRTUAL_ENV"], dir.display().to_string());
    assert!(!first.env.contains_key("OUTLAST_BUILD"));

    let (second, text) = fixture.prepare();
    assert_eq!((second.cached, text.as_str()), (true, ""));
    assert_eq!(second.env, first.env);

    fixture.write("more.txt", "# something else\n");
    let changed = Fixture { spec: EnvironmentSpec { setup: Vec::new(), ..fixture.spec.clone() }, ..fixture };
    let key = {
        let request = EnvironmentRequest {
            source_dir: &changed.root.path().join("source"),
            cache_dir: &changed.root.path().join("cache"),
            spec: &changed.spec,
            base_env: &changed.env,
            machine_id: "machine-1",
        };
        definition::Definition::find(&request, request.source_dir, &mut |_| {}).unwrap().key
    };
    assert_ne!(key, first.key, "a file named by -r is part of the key");
}

#[test]
fn a_broken_build_is_removed_with_its_processes_and_built_anew() {
    let mut fixture = Fixture::new(EnvironmentKind::None, &["test -e ready", "echo run >> runs"]);
    let (failed, _) = fixture.try_prepare(&|| false);
    let error = failed.unwrap_err();
    assert!(
        matches!(&error, EnvironmentError::Failed { command, exit, retryable: false, .. }
        if command.contains("test -e ready") && exit.contains('1')),
        "{error}"
    );
    assert!(!fixture.source("runs").exists());

    fixture.write("ready", "");
    fixture.env.insert("A".to_owned(), "b".to_owned());
    let key = {
        let source = fixture.root.path().join("source");
        let request = EnvironmentRequest {
            source_dir: &source,
            cache_dir: &fixture.root.path().join("cache"),
            spec: &fixture.spec,
            base_env: &fixture.env,
            machine_id: "machine-1",
        };
        let definition = definition::Definition::find(&request, &source, &mut |_| {}).unwrap();
        definition.key
    };
    let dir = fixture.dir(&key);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("half"), b"").unwrap();
    let cache = fixture.root.path().join("cache").canonicalize().unwrap();
    let place = blake3::hash(cache.as_os_str().as_encoded_bytes()).to_hex();
    let marker = format!("{}@{}", &key[..16], &place[..8]);
    let mut left =
        Command::new("sleep").arg("600").env("OUTLAST_BUILD", &marker).stdin(Stdio::null()).spawn().unwrap();
    let tree = crate::os::Tree::marked("OUTLAST_BUILD", &marker);
    while !tree.members().iter().any(|p| p.pid == left.id().cast_signed()) {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }

    let (prepared, _) = fixture.prepare();
    assert!(!prepared.cached);
    assert!(!dir.join("half").exists(), "what was half built is gone");
    assert_eq!(left.wait().unwrap().signal(), Some(9), "its leftover process is ended");
    assert!(fixture.prepare().0.cached);
    assert_eq!(std::fs::read_to_string(fixture.source("runs")).unwrap(), "run\n", "setup ran once");
}

#[test]
fn another_source_tree_gets_the_setup_commands_too() {
    let mut fixture = Fixture::new(EnvironmentKind::None, &["echo run >> runs"]);
    let (first, _) = fixture.prepare();
    std::fs::rename(fixture.root.path().join("source"), fixture.root.path().join("old")).unwrap();
    std::fs::create_dir(fixture.root.path().join("source")).unwrap();
    fixture.env.insert("A".to_owned(), "b".to_owned());
    let (second, _) = fixture.prepare();
    assert_eq!(second.key, first.key);
    assert!(!second.cached);
    assert!(fixture.source("runs").exists());
}

#[test]
fn cancelling_ends_the_command_and_its_children() {
    let fixture = Fixture::new(EnvironmentKind::None, &["sh -c 'echo $$ > pid; exec sleep 600' & wait"]);
    let seen = Cell::new(None);
    let cancelled = || {
        let text = std::fs::read_to_string(fixture.source("pid")).unwrap_or_default();
        seen.set(text.trim().parse::<i32>().ok().and_then(crate::os::ProcessRef::of).or(seen.take()));
        let ready = seen.take();
        let is_ready = ready.is_some();
        seen.set(ready);
        is_ready
    };
    let (result, _) = fixture.try_prepare(&cancelled);
    assert!(matches!(result, Err(EnvironmentError::Cancelled)));
    assert!(!seen.take().unwrap().is_alive());
}

#[test]
fn a_missing_ensurepip_names_the_package() {
    let mut fixture = Fixture::new(EnvironmentKind::Venv, &[]);
    let bin = fixture.root.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let script = "#!/bin/sh\ncase $1 in -c) echo 3;; *) echo 'ensurepip is not available'; exit 1;; esac\n";
    std::fs::write(bin.join("python3"), script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bin.join("python3"), mode).unwrap();
    fixture.env.insert("PATH".to_owned(), format!("{}:/usr/bin:/bin", bin.display()));
    let error = fixture.try_prepare(&|| false).0.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("apt-get install python3-venv"), "{text}");
    assert!(text.contains("-m venv") && text.contains("exit status: 1"), "{text}");
    assert!(!error.is_retryable());
}

#[test]
fn a_failure_of_the_network_may_be_tried_again() {
    let fixture =
        Fixture::new(EnvironmentKind::None, &["echo 'Temporary failure in name resolution' >&2; exit 7"]);
    let (result, text) = fixture.try_prepare(&|| false);
    assert!(result.unwrap_err().is_retryable());
    assert!(text.contains("name resolution\n"));
}

#[test]
fn conda_without_its_file_says_what_to_do() {
    let fixture = Fixture::new(EnvironmentKind::Conda, &[]);
    let error = fixture.try_prepare(&|| false).0.unwrap_err();
    assert!(matches!(error, EnvironmentError::Missing { .. }), "{error}");
}
