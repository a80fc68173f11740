//! Local machines with small scripts in the guard's place.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::processes::Stamp;
use super::*;
use crate::provider::contract::{self, fresh_id, request, wait_for};

/// Writes itself down as a guard does, then waits.
const GUARD: &str = r#"set -eu
rm -f "$0"
start=$(cut -d ' ' -f 22 /proc/$$/stat)
printf '{"pid":%s,"start_time":%s}' $$ "$start" > guard.json.new
mv guard.json.new guard.json
"#;

fn script(before: &str) -> String {
    format!("{GUARD}{before}\nexec sleep 1000\n")
}

struct Rig {
    home: TempDir,
    provider: LocalProvider,
}

impl Rig {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        let root = home.path().join("machines");
        Self { provider: LocalProvider::new(LocalConfig { root, usd_per_hour: 0.5 }), home }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.home.path().join("machines").join(id)
    }

    async fn up(&self, id: &str, script: &str) {
        let made = self.provider.create(&request(id, "l/x", script)).await;
        assert_eq!(made, CreateOutcome::Created { instance: id.to_owned() });
        wait_for(&self.provider, id, &Presence::Present(InstanceState::Up)).await;
    }
}

impl Drop for Rig {
    /// Ends what a failed test left.
    fn drop(&mut self) {
        let root = self.home.path().join("machines");
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            destroy(&root, &entry.file_name().to_string_lossy());
        }
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(3);
    while !done() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the script has become what it ends as: a process that is just
/// becoming another program shows no marker for that moment.
fn comes_to_rest(id: &str) {
    let is_sleep = |stamp: &Stamp| {
        fs::read_to_string(format!("/proc/{}/comm", stamp.pid)).is_ok_and(|name| name.trim() == "sleep")
    };
    until("the script's last program", || processes::marked(&marker(id)).iter().any(is_sleep));
    until("its marker", || !processes::marked(&marker(id)).is_empty());
}

fn pid_in(path: &Path) -> Option<Stamp> {
    let pid = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    Some(Stamp { pid, start_time: processes::start_time(pid)? })
}

#[tokio::test]
async fn keeps_the_contract() {
    let rig = Rig::new();
    contract::run(&rig.provider, &script("")).await;
}

#[tokio::test]
async fn boots_in_its_own_directory_and_environment() {
    let rig = Rig::new();
    let id = fresh_id();
    let secret = "s3cr3t-join-token";
    let report = format!(
        "# {secret}\nenv > seen.env; pwd > seen.cwd; echo to-stdout; echo to-stderr >&2\n\
         cut -d ' ' -f 5,6 /proc/$$/stat > seen.group; readlink /proc/self/fd/0 > seen.stdin; echo $$ > seen.pid; touch done"
    );
    rig.up(&id, &script(&report)).await;
    let path = rig.path(&id);
    until("the script is done", || path.join("done").exists());
    let read = |name: &str| fs::read_to_string(path.join(name)).unwrap();
    let env = read("seen.env");
    assert!(env.lines().any(|line| line == format!("OUTLAST_MACHINE_ID={id}")));
    // What is planted in every test process, and says whether anything else came along.
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
    let allowed = ["PATH", "HOME", "LANG", "OUTLAST_MACHINE_ID", "PWD", "OLDPWD", "SHLVL", "_"];
    let of_packages = ["PIP_", "UV_", "SSL_CERT_", "REQUESTS_CA_"];
    let names = env.lines().filter_map(|line| line.split('=').next());
    let extra: Vec<_> = names
        .filter(|name| !allowed.contains(name) && !name.to_lowercase().ends_with("_proxy"))
        .filter(|name| !of_packages.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    assert!(extra.is_empty(), "leaked from the controller: {extra:?}");
    assert_eq!(Path::new(read("seen.cwd").trim()), path.canonicalize().unwrap());
    assert_eq!(read("seen.stdin").trim(), "/dev/null");
    assert_eq!(read("boot.log"), "to-stdout\nto-stderr\n");
    let pid = read("seen.pid");
    assert_eq!(read("seen.group").trim(), format!("{0} {0}", pid.trim()), "leads its own group and session");
    assert!(!path.join("first-boot.sh").exists());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let cmdline = fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).unwrap();
    assert!(!cmdline.contains(secret));
    assert!(!format!("{:?}", request(&id, "l", secret)).contains(secret));
    assert_eq!(rig.provider.destroy(&id).await, DestroyOutcome::Accepted);
}

#[tokio::test]
async fn the_script_is_for_its_owner_only() {
    let rig = Rig::new();
    let id = fresh_id();
    let made = rig.provider.create(&request(&id, "l/x", "exec sleep 1000\n")).await;
    assert!(matches!(made, CreateOutcome::Created { .. }));
    let mode = |name: &str| fs::metadata(rig.path(&id).join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("first-boot.sh"), mode("instance.json"), mode("boot.log")), (0o700, 0o600, 0o600));
    assert_eq!(rig.provider.get(&id).await, Presence::Present(InstanceState::Booting));
    assert_eq!(rig.provider.destroy(&id).await, DestroyOutcome::Accepted);
}

#[tokio::test]
async fn destroy_ends_the_whole_tree_however_it_hides() {
    hidden_tree(true).await;
}

#[tokio::test]
async fn the_marker_alone_is_enough_to_end_the_whole_tree() {
    hidden_tree(false).await;
}

async fn hidden_tree(by_provider: bool) {
    let rig = Rig::new();
    let id = fresh_id();
    // A session of its own, a deaf one, one without the marker, one that forks
    // for ever, and a directory that cannot be entered.
    let tree = r#"
setsid sh -c 'echo $$ > a.pid; exec sleep 1000' &
sh -c 'trap "" TERM INT HUP; echo $$ > b.pid; while :; do sleep 1000; done' &
sh -c 'env -i /bin/sh -c "echo \$\$ > c.pid; exec /bin/sleep 1000" & wait' &
sh -c 'echo $$ > d.pid; while :; do sh -c "sleep 0.01" & wait; done' &
mkdir -p closed/inner; touch closed/inner/file; chmod 0 closed/inner closed
"#;
    rig.up(&id, &script(tree)).await;
    let path = rig.path(&id);
    let mut stamps = Vec::new();
    for name in ["a.pid", "b.pid", "c.pid", "d.pid"] {
        until(name, || pid_in(&path.join(name)).is_some());
        stamps.push(pid_in(&path.join(name)).unwrap());
    }
    until("the closed directory", || {
        path.join("closed").metadata().is_ok_and(|m| m.permissions().mode() & 0o777 == 0)
    });
    if !by_provider {
        // As on a host without cgroups.
        assert!(processes::end(&marker(&id), &[]).unwrap() >= 5);
        assert!(stamps.iter().all(|stamp| !processes::alive(stamp)));
    }
    assert_eq!(rig.provider.destroy(&id).await, DestroyOutcome::Accepted);
    assert!(stamps.iter().all(|stamp| !processes::alive(stamp)));
    assert!(processes::marked(&marker(&id)).is_empty());
    let left: Vec<_> =
        fs::read_dir(rig.home.path().join("machines")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, [".lock"]);
    assert!(cgroup::of(&id, None).is_empty());
}

#[tokio::test]
async fn destroy_spares_other_machines_and_strangers() {
    let rig = Rig::new();
    let (a, b) = (fresh_id(), fresh_id());
    rig.up(&a, &script("")).await;
    rig.up(&b, &script("")).await;
    let mut stranger =
        std::process::Command::new("sleep").arg("1000").env(MARKER, format!("{a}2")).spawn().unwrap();
    assert_eq!(rig.provider.destroy(&a).await, DestroyOutcome::Accepted);
    assert_eq!(rig.provider.get(&b).await, Presence::Present(InstanceState::Up));
    assert!(stranger.try_wait().unwrap().is_none(), "a longer name is another name");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_machine_whose_guard_died_is_terminal_and_can_be_cleaned() {
    let rig = Rig::new();
    let id = fresh_id();
    rig.up(&id, &script("setsid sh -c 'echo $$ > trainer.pid; exec sleep 1000' &")).await;
    let path = rig.path(&id);
    until("the trainer runs", || pid_in(&path.join("trainer.pid")).is_some());
    let trainer = pid_in(&path.join("trainer.pid")).unwrap();
    let guard = Directory::new(&rig.home.path().join("machines"), &id).guard().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(guard.pid), nix::sys::signal::SIGKILL).unwrap();
    wait_for(&rig.provider, &id, &Presence::Present(InstanceState::Terminal)).await;
    assert!(processes::alive(&trainer), "nothing else was touched");
    until("the guard is reaped", || !Path::new(&format!("/proc/{}", guard.pid)).exists());
    let again = rig.provider.create(&request(&id, "l/x", "touch started-again")).await;
    assert_eq!(again, CreateOutcome::Created { instance: id.clone() });
    assert_eq!(rig.provider.get(&id).await, Presence::Present(InstanceState::Terminal), "never booted twice");
    assert_eq!(rig.provider.destroy(&id).await, DestroyOutcome::Accepted);
    assert!(!processes::alive(&trainer));
    assert_eq!(rig.provider.get(&id).await, Presence::Absent);
}

#[tokio::test]
async fn processes_without_their_directory_are_not_absent() {
    let rig = Rig::new();
    let id = fresh_id();
    rig.up(&id, &script("")).await;
    comes_to_rest(&id);
    fs::remove_dir_all(rig.path(&id)).unwrap();
    assert_eq!(rig.provider.get(&id).await, Presence::Present(InstanceState::Terminal));
    assert_eq!(rig.provider.destroy(&id).await, DestroyOutcome::Accepted);
    assert_eq!(rig.provider.get(&id).await, Presence::Absent);
}

#[tokio::test]
async fn a_create_cut_short_before_the_boot_is_taken_up() {
    let rig = Rig::new();
    let id = fresh_id();
    let root = rig.home.path().join("machines");
    drop(directory::lock(&root, true).unwrap());
    Directory::new(&root, &id).make("l/x", "exit 1").unwrap();
    assert_eq!(rig.provider.get(&id).await, Presence::Present(InstanceState::Terminal));
    rig.up(&id, &script("")).await;
    assert_eq!(rig.provider.destroy(&id).await, DestroyOutcome::Accepted);
}

#[tokio::test]
async fn a_new_controller_knows_the_machines_of_the_old_one() {
    let rig = Rig::new();
    let id = fresh_id();
    rig.up(&id, &script("")).await;
    let later = LocalProvider::new(LocalConfig { root: rig.home.path().join("machines"), usd_per_hour: 0.0 });
    assert_eq!(later.get(&id).await, Presence::Present(InstanceState::Up));
    let expected = Instance { id: id.clone(), label: "l/x".into(), state: InstanceState::Up };
    assert_eq!(later.list("l/").await, Listing::Complete(vec![expected]));
    assert_eq!(later.destroy(&id).await, DestroyOutcome::Accepted);
}

#[tokio::test]
async fn hostile_names_and_files_lead_nowhere() {
    let rig = Rig::new();
    let victim = rig.home.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("kept"), "").unwrap();
    for name in [
        "../victim",
        "",
        ".",
        "UPPERCASEUPPERCASEUPPERCASE",
        "aaaaaaaaaaaaaaaaaaaaaaaaa/",
        "..aaaaaaaaaaaaaaaaaaaaaaaa",
    ] {
        let made = rig.provider.create(&request(name, "l/x", "true")).await;
        assert!(matches!(made, CreateOutcome::Rejected { .. }), "{name}");
        assert!(matches!(rig.provider.get(name).await, Presence::Error(_)), "{name}");
        assert!(matches!(rig.provider.destroy(name).await, DestroyOutcome::Unknown(_)), "{name}");
        assert!(rig.provider.sabotage(name).await.is_err(), "{name}");
    }
    let id = fresh_id();
    rig.up(&id, &script("")).await;
    let path = rig.path(&id);
    symlink(&victim, path.join("link")).unwrap();
    fs::remove_file(path.join("guard.json")).unwrap();
    nix::unistd::mkfifo(&path.join("guard.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(
        rig.provider.get(&id).await,
        Presence::Present(InstanceState::Booting),
        "a pipe blocks nobody"
    );
    fs::write(path.join("instance.json"), "not json").unwrap();
    assert_eq!(rig.provider.list("l/").await, Listing::Partial(vec![]), "unreadable is not absent");
    assert_eq!(rig.provider.destroy(&id).await, DestroyOutcome::Accepted);
    assert!(victim.join("kept").exists(), "links are not followed");
    let claimed = ["/sys/fs/cgroup/other", "/tmp/outlast-x", "/sys/fs/cgroup/../../tmp/outlast-x"];
    assert!(claimed.iter().all(|path| cgroup::of("x", Some(path.into())).is_empty()));
}

/// It leaves an agent behind that wrote itself down, and ends.
const LEAVES_AN_AGENT: &str = r#"
mkdir agents
sleep 1000 &
start=$(cut -d ' ' -f 22 /proc/$!/stat)
printf '{"pid":%s,"start_time":%s}' $! "$start" > agents/one.json.new
mv agents/one.json.new agents/one.json
exit 0
"#;

#[tokio::test]
async fn a_machine_whose_guard_has_ended_is_up_for_as_long_as_its_agent_runs() {
    let rig = Rig::new();
    let id = fresh_id();
    rig.up(&id, &script(LEAVES_AN_AGENT)).await;
    let stamp = |name: &str| -> Option<Stamp> {
        serde_json::from_slice(&fs::read(rig.path(&id).join(name)).ok()?).ok()
    };
    until("the agent", || stamp("agents/one.json").is_some());
    let guard = stamp("guard.json").unwrap();
    until("the guard's end", || !processes::alive(&guard));
    let up = Presence::Present(InstanceState::Up);
    assert_eq!(rig.provider.get(&id).await, up);
    fs::write(rig.path(&id).join("agents/two.json"), "{").unwrap();
    symlink("one.json", rig.path(&id).join("agents/three.json")).unwrap();
    assert_eq!(rig.provider.get(&id).await, up, "whatever else lies there does no harm");
    let agent = stamp("agents/one.json").unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent.pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for(&rig.provider, &id, &Presence::Present(InstanceState::Terminal)).await;
}

#[tokio::test]
async fn a_script_too_large_is_refused() {
    let rig = Rig::new();
    let large = "#".repeat(MAX_USER_DATA + 1);
    let id = fresh_id();
    let made = rig.provider.create(&request(&id, "l/x", &large)).await;
    assert!(matches!(made, CreateOutcome::Rejected { .. }));
    assert_eq!(rig.provider.get(&id).await, Presence::Absent);
}
