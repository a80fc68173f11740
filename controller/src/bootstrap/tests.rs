//! The rendered script is run; hostile values are offered.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const ID: &str = "abcdefghijklmnopqrstuvwx23";
const HUB: &str = "hubhubhubhubhubhubhubhub77";
const SECRET: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQ_-";
const PIN: &str = "aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55";

struct Values {
    endpoints: Vec<String>,
    join: Vec<String>,
    agent: PathBuf,
    cache: PathBuf,
    state: Option<PathBuf>,
    health: Option<&'static str>,
}

impl Values {
    fn new() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:7000".into(), "[::1]:7000".into()],
            join: vec!["hub.example.org:7001".into()],
            agent: "/opt/outlast/outlast-agent".into(),
            cache: "/var/cache/outlast".into(),
            state: None,
            health: None,
        }
    }

    fn boot(&self) -> FirstBoot<'_> {
        FirstBoot {
            machine_id: ID,
            hub_id: HUB,
            endpoints: &self.endpoints,
            join_endpoints: &self.join,
            join_secret: SECRET,
            ca_spki_sha256: PIN,
            agent_exe: &self.agent,
            cache_dir: &self.cache,
            state_dir: self.state.as_deref(),
            health_listen: self.health,
        }
    }
}

/// An agent that only writes down how it was called.
fn fake_agent(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "#!/bin/sh\nfor word in \"$@\"; do printf '%s\\n' \"$word\"; done > called\n").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

const NASTY: &str = "it's a \"dir\" $(touch pwned) `touch pwned` ; \\ @{STATE} % ü";

#[test]
fn the_script_leaves_its_files_and_becomes_the_guard() {
    for state in [None, Some("st'ate $HOME")] {
        let home = TempDir::new().unwrap();
        let machine = home.path().join(NASTY);
        fs::create_dir(&machine).unwrap();
        let mut values = Values::new();
        values.agent = home.path().join("bin's dir").join(NASTY);
        values.cache = home.path().join(NASTY).join("cache");
        values.state = state.map(|name| home.path().join(name));
        fake_agent(&values.agent);
        let script = machine.join("first-boot.sh");
        fs::write(&script, render(&values.boot()).unwrap()).unwrap();
        let done = Command::new("/bin/sh").arg("./first-boot.sh").current_dir(&machine).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(!script.exists(), "the script removes itself");
        let state = values.state.clone().unwrap_or_else(|| machine.clone());
        let called = fs::read_to_string(state.join("called")).unwrap();
        let physical = state.canonicalize().unwrap();
        assert_eq!(called, format!("guard\n--state\n{}\n", physical.display()));
        for name in ["machine.json", "join.token"] {
            let mode = fs::metadata(state.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::read_to_string(state.join("join.token")).unwrap().trim_end(), SECRET);
        let file: Value = serde_json::from_slice(&fs::read(state.join("machine.json")).unwrap()).unwrap();
        let expected = json!({
            "machine_id": ID,
            "hub_id": HUB,
            "endpoints": values.endpoints,
            "join_endpoints": values.join,
            "ca_spki_sha256": PIN,
            "cache_dir": values.cache.to_str().unwrap(),
        });
        assert_eq!(file, expected);
        let ran = fs::read_dir(&machine).unwrap().flatten().any(|e| e.file_name() == "pwned");
        assert!(!ran && !state.join("pwned").exists(), "a path became a command");
    }
}

#[test]
fn hostile_values_are_refused() {
    let bad = |change: &dyn Fn(&mut Values)| {
        let mut values = Values::new();
        change(&mut values);
        let script = render(&values.boot()).unwrap_err();
        assert_eq!(render_cloud_config(&values.boot()).unwrap_err(), script);
        script
    };
    let paths = [
        "relative/agent",
        "",
        "/a/../b",
        "/line\nbreak",
        "/nul\0",
        "/esc\u{1b}[0m",
        "/nel\u{85}",
        "/ls\u{2028}",
    ];
    for path in paths {
        bad(&|v| v.agent = path.into());
        bad(&|v| v.cache = path.into());
        bad(&|v| v.state = Some(path.into()));
    }
    bad(&|v| v.agent = format!("/{}", "a".repeat(MAX_PATH)).into());
    let not_text = std::ffi::OsString::from_vec(b"/\xff".to_vec());
    bad(&|v| v.agent = PathBuf::from(not_text.clone()));
    let addresses = [
        "",
        "localhost",
        ":7",
        "host:",
        "host:0",
        "host:65536",
        "host:+7",
        "-o:7",
        "a b:7",
        "a'b:7",
        "$(x):7",
        "[::1:7",
        "[x]:7",
        "::1:7",
        "host:7\n",
    ];
    for address in addresses {
        bad(&|v| v.endpoints.push(address.into()));
        bad(&|v| v.join = vec![address.into()]);
    }
    for address in
        ["", "localhost:0", "127.0.0.1", "127.0.0.1:x", "0:0\nOUTLAST_END_OF_FILE", "127.0.0.1:65536"]
    {
        bad(&|v| v.health = Some(address));
    }
    bad(&|v| v.endpoints.clear());
    bad(&|v| v.join = vec!["h:1".into(); MAX_ENDPOINTS + 1]);
    let values = Values::new();
    for text in
        ["", "x", "ABCDEFGHIJKLMNOPQRSTUVWX23", "abcdefghijklmnopqrstuvwx2'", "abcdefghijklmnopqrstuvwx289"]
    {
        assert!(render(&FirstBoot { machine_id: text, ..values.boot() }).is_err());
        assert!(render(&FirstBoot { hub_id: text, ..values.boot() }).is_err());
    }
    for text in
        ["short", "0123456789abcdef\nOUTLAST_END_OF_FILE", "0123456789abcdef'", "0123456789abcdef $(x)"]
    {
        let refused = render(&FirstBoot { join_secret: text, ..values.boot() }).unwrap_err();
        assert!(!refused.to_string().contains(text), "a refused secret is not shown");
        assert!(render(&FirstBoot { ca_spki_sha256: text, ..values.boot() }).is_err());
    }
}

/// The JSON string behind the first `key: ` after a line with `after`.
fn yaml_string(text: &str, after: &str, key: &str) -> String {
    let rest = &text[text.find(after).unwrap()..];
    let line = rest.lines().find_map(|line| line.trim_start().strip_prefix(key)).unwrap();
    serde_json::from_str(line.trim()).unwrap()
}

#[test]
fn the_cloud_config_writes_the_same_files() {
    let mut values = Values::new();
    values.agent = format!("/opt/{NASTY}/agent").into();
    values.state = Some(format!("/srv/{NASTY}").into());
    let text = render_cloud_config(&values.boot()).unwrap();
    assert!(text.starts_with("#cloud-config\n"));
    let script = render(&values.boot()).unwrap();
    let machine = yaml_string(&text, "machine.json", "content:");
    assert!(script.contains(&machine), "both carry the same machine file");
    assert_eq!(yaml_string(&text, "join.token", "content:"), format!("{SECRET}\n"));
    assert_eq!(yaml_string(&text, "write_files", "- path:"), format!("/srv/{NASTY}/machine.json"));
    assert_eq!(yaml_string(&text, "join.token", "permissions:"), "0600");
    assert_eq!(text.matches(SECRET).count(), 1);
    values.state = None;
    assert!(render_cloud_config(&values.boot()).unwrap().contains("\"/var/lib/outlast/join.token\""));
}

#[test]
fn the_machine_file_says_where_to_answer_for_its_health_only_where_that_is_wanted() {
    let mut values = Values::new();
    let file = |values: &Values| -> Value {
        let script = render(&values.boot()).unwrap();
        let rest = script.split("cat > machine.json <<'OUTLAST_END_OF_FILE'\n").nth(1).unwrap();
        serde_json::from_str(rest.lines().next().unwrap()).unwrap()
    };
    assert!(file(&values).get("health_listen").is_none(), "an older agent knows no such key");
    values.health = Some("127.0.0.1:0");
    assert_eq!(file(&values)["health_listen"], "127.0.0.1:0");
}

#[test]
fn the_guard_of_a_vm_is_started_with_its_words_intact() {
    let home = TempDir::new().unwrap();
    let mut values = Values::new();
    values.agent = home.path().join(NASTY).join("agent");
    values.state = Some(home.path().join("state of it's own"));
    fake_agent(&values.agent);
    let state = values.state.clone().unwrap();
    fs::create_dir(&state).unwrap();
    let text = render_cloud_config(&values.boot()).unwrap();
    let start = yaml_string(&text, "start-guard", "content:");
    let done = Command::new("/bin/sh").arg("-c").arg(start).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let called = fs::read_to_string(state.join("called")).unwrap();
    assert_eq!(called, format!("guard\n--state\n{}\n", state.display()));
}

#[test]
fn secrets_are_not_shown() {
    assert!(!format!("{:?}", Values::new().boot()).contains(SECRET));
}

#[test]
fn a_template_with_an_unknown_name_is_refused() {
    assert_eq!(fill("a @{X} b", &|_| None), Err(BootstrapError::Template("X} b".into())));
    let twice = fill("@{X}-@{X}", &|_| Some("@{X}".into()));
    assert_eq!(twice.as_deref(), Ok("@{X}-@{X}"), "values are not searched");
}
