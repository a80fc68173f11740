//! Programs in containers, by a real podman and an image made here of a single
//! static program. Where podman cannot start a container, the test says so by
//! its name and why.

use std::process::Output;

use agent::environment::{ContainerRequest, contain};

use super::*;

const IMAGE: &str = "localhost/outlast-test:1";
/// Where version 2 is mounted beside version 1.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// A podman with a store of its own, below a directory of this test.
struct Podman {
    root: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

/// Why containers cannot be tested here.
type Reason = String;

fn run(env: &BTreeMap<String, String>, args: &[&str]) -> std::io::Result<Output> {
    // A tool that hangs must not hang the test.
    Command::new("timeout").arg("180").args(args).env_clear().envs(env).stdin(Stdio::null()).output()
}

fn said(what: &str, output: &Output) -> Reason {
    let words = String::from_utf8_lossy(&output.stderr);
    format!("{what} ended with {}: {}", output.status, words.lines().last().unwrap_or_default())
}

/// Where both versions of cgroups are mounted, crun refuses to run: podman is
/// then run in a mount namespace of its own in which only the old one is seen.
fn wrap_podman(dir: &Path) -> std::io::Result<()> {
    fs::create_dir(dir)?;
    let is_root = fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if !is_root || !Path::new(UNIFIED).exists() {
        return Ok(());
    }
    let hide = format!("mount --make-rprivate / && mount -t tmpfs none {UNIFIED}");
    let run = format!("{hide} && PATH=\"${{PATH#*:}}\" && exec podman \"$@\"");
    let script = format!("#!/bin/sh\nexec unshare --mount sh -c '{run}' sh \"$@\"\n");
    fs::write(dir.join("podman"), script)?;
    fs::set_permissions(dir.join("podman"), fs::Permissions::from_mode(0o755))
}

impl Podman {
    fn new() -> Result<Self, Reason> {
        let root = tempfile::tempdir().map_err(|e| e.to_string())?;
        let at = |name: &str| root.path().join(name).display().to_string();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            at("graph"),
            at("run")
        );
        fs::write(at("storage.conf"), storage).map_err(|e| e.to_string())?;
        // What podman remembers of running containers is each test's own too.
        let engine =
            format!("[engine]\ntmp_dir = \"{}\"\nstatic_dir = \"{}\"\n", at("tmp"), at("graph/libpod"));
        fs::write(at("containers.conf"), engine).map_err(|e| e.to_string())?;
        fs::create_dir(at("home")).map_err(|e| e.to_string())?;
        let path = format!("{}:{}", at("tools"), std::env::var("PATH").unwrap_or_default());
        wrap_podman(&root.path().join("tools")).map_err(|e| e.to_string())?;
        let env = BTreeMap::from([
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), at("home")),
            ("XDG_RUNTIME_DIR".to_owned(), at("home")),
            ("CONTAINERS_STORAGE_CONF".to_owned(), at("storage.conf")),
            ("CONTAINERS_CONF".to_owned(), at("containers.conf")),
        ]);
        let podman = Self { root, env };
        podman.import()?;
        podman.probe()?;
        Ok(podman)
    }

    fn podman(&self, args: &[&str]) -> Result<Output, Reason> {
        run(&self.env, &[&["podman"], args].concat()).map_err(|e| format!("podman cannot be run: {e}"))
    }

    /// An image of one static busybox.
    fn import(&self) -> Result<(), Reason> {
        let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
        let busybox = busybox.ok_or("there is no busybox: apt-get install busybox-static")?;
        let bin = self.root.path().join("image/bin");
        fs::create_dir_all(&bin).map_err(|e| e.to_string())?;
        fs::create_dir_all(self.root.path().join("image/tmp")).map_err(|e| e.to_string())?;
        fs::copy(busybox, bin.join("busybox")).map_err(|e| e.to_string())?;
        for name in ["sh", "sleep", "echo", "cat", "env", "id", "kill", "setsid", "touch"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).map_err(|e| e.to_string())?;
        }
        let tar = self.root.path().join("image.tar").display().to_string();
        let image = self.root.path().join("image").display().to_string();
        let made = run(&self.env, &["tar", "--owner=0", "--group=0", "-C", &image, "-cf", &tar, "."])
            .map_err(|e| e.to_string())?;
        if !made.status.success() {
            return Err(said("tar", &made));
        }
        let imported = self.podman(&["import", &tar, IMAGE])?;
        imported.status.success().then_some(()).ok_or_else(|| said("podman import", &imported))
    }

    /// Whether anything runs here at all, asked as the product asks.
    fn probe(&self) -> Result<(), Reason> {
        let launch = self.launch("probe", &["true"], &BTreeMap::new(), &[], false);
        let argv: Vec<&str> = launch.0.iter().map(String::as_str).collect();
        let probed = run(&self.env, &argv).map_err(|e| e.to_string())?;
        let _ = self.podman(&["rm", "-f", "outlast-probe"]);
        probed.status.success().then_some(()).ok_or_else(|| said("podman run", &probed))
    }

    fn launch(
        &self,
        attempt: &str,
        command: &[&str],
        env: &BTreeMap<String, String>,
        mounts: &[PathBuf],
        pty: bool,
    ) -> (Vec<String>, agent::keeper::ContainerRef, BTreeMap<String, String>) {
        let command: Vec<String> = match command {
            ["true"] => ["/bin/busybox", "true"].map(str::to_owned).into(),
            words => words.iter().map(|w| (*w).to_owned()).collect(),
        };
        let dir = self.root.path().join(attempt);
        fs::create_dir_all(&dir).unwrap();
        let workdir = mounts.first().cloned().unwrap_or_else(|| "/".into());
        let launch = contain(&ContainerRequest {
            image: IMAGE,
            setup: &[],
            command: &command,
            workdir: &workdir,
            mounts,
            env,
            secrets: &[],
            base_env: &self.env,
            attempt_dir: &dir,
            attempt_id: attempt,
            pty,
            limits: &LimitSpec::default(),
        })
        .unwrap();
        (launch.argv, launch.container, launch.env)
    }

    /// The spec that runs a script of the image's shell.
    fn spec(&self, machine: &mut Machine, script: &str, env: &BTreeMap<String, String>) -> KeeperSpec {
        let mut spec = machine.spec("");
        let mounts = [machine.state.clone()];
        let (argv, container, tool_env) =
            self.launch(&spec.attempt_id, &["/bin/sh", "-c", script], env, &mounts, false);
        (spec.argv, spec.container, spec.env) = (argv, Some(container), tool_env);
        spec
    }

    fn nothing_is_left(&self) {
        let listed = self.podman(&["ps", "--all", "--quiet"]).unwrap();
        assert!(listed.stdout.is_empty(), "a container is left: {}", String::from_utf8_lossy(&listed.stdout));
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.podman(&["rm", "-f", "--all"]);
        // Without root, files of the store belong to users that only podman can be.
        let graph = self.root.path().join("graph").display().to_string();
        let _ = self.podman(&["unshare", "rm", "-rf", &graph]);
        // And a process of its own keeps their namespace.
        for place in ["tmp", "home/libpod/tmp", "home/libpod"] {
            let text = fs::read_to_string(self.root.path().join(place).join("pause.pid")).unwrap_or_default();
            if let Ok(pid) = text.trim().parse::<i32>() {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
    }
}

/// A podman, or the test's name and the reason for passing it over.
fn podman_for(test: &str) -> Option<Podman> {
    match Podman::new() {
        Ok(podman) => Some(podman),
        Err(reason) => {
            println!("{test} is skipped: containers do not run here: {reason}");
            None
        }
    }
}

#[test]
fn a_program_in_a_container_is_kept_like_any_other() {
    let Some(podman) = podman_for("a_program_in_a_container_is_kept_like_any_other") else { return };
    let mut machine = Machine::new();
    let secret = BTreeMap::from([
        ("TOKEN".to_owned(), "s3cret-value".to_owned()),
        ("LINES2".to_owned(), "a\nb \"c\"".to_owned()),
    ]);

    // Output, code, variables and files are the program's.
    let spec = podman.spec(
        &mut machine,
        "echo $TOKEN; echo \"$LINES2\"; echo bad >&2; echo made > made; exit 3",
        &secret,
    );
    assert!(!spec.argv.join(" ").contains("s3cret"), "no value stands in an argument");
    let record = end_of(&machine.start_spec(&spec));
    let dir = machine.dir(&spec);
    let stderr = String::from_utf8_lossy(&output(&dir, Stream::Stderr).0).into_owned();
    assert_eq!(record.exit, Exit::Code { code: 3 }, "{stderr}");
    assert_eq!(output(&dir, Stream::Stdout).0, b"s3cret-value\na\nb \"c\"\n");
    assert_eq!(stderr, "bad\n");
    assert_eq!(fs::read_to_string(machine.state.join("made")).unwrap(), "made\n");
    podman.nothing_is_left();

    // The program's own 125 to 127 are its own; a command that is not in the
    // image is not started.
    let spec = podman.spec(&mut machine, "echo Error: mine >&2; exit 126", &secret);
    assert_eq!(end_of(&machine.start_spec(&spec)).exit, Exit::Code { code: 126 });
    let mut spec = podman.spec(&mut machine, "", &secret);
    let at = spec.argv.iter().position(|word| word == "/bin/sh").unwrap();
    spec.argv.truncate(at);
    spec.argv.push("/no/such/program".to_owned());
    let record = end_of(&machine.start_spec(&spec));
    let Exit::NotStarted { reason } = &record.exit else { panic!("{record:?}") };
    assert!(reason.contains("podman did not start the command"), "{reason}");
    podman.nothing_is_left();
}

#[test]
fn a_container_is_stopped_by_term_and_never_left() {
    let Some(podman) = podman_for("a_container_is_stopped_by_term_and_never_left") else { return };
    let mut machine = Machine::new();
    let none = BTreeMap::new();

    // TERM reaches the program once.
    let script = "n=0; trap 'n=$((n+1)); echo term $n' TERM; echo up > up; \
                  while [ $n = 0 ]; do sleep 0.05; done; sleep 0.5; exit 5";
    let spec = podman.spec(&mut machine, script, &none);
    let client = machine.start_spec(&spec);
    file_in(&machine.state, "up");
    stop(&client, LONG);
    let record = end_of(&client);
    assert_eq!((&record.exit, record.stopped_by), (&Exit::Code { code: 5 }, Some(StopKind::Term)));
    assert_eq!(output(&machine.dir(&spec), Stream::Stdout).0, b"term 1\n");
    podman.nothing_is_left();

    // One that ignores it, with a process that hides, is killed and removed.
    fs::remove_file(machine.state.join("up")).unwrap();
    let script = "trap '' TERM; setsid sleep 600 & echo up > up; while :; do sleep 0.05; done";
    let spec = podman.spec(&mut machine, script, &none);
    let client = machine.start_spec(&spec);
    file_in(&machine.state, "up");
    stop(&client, Duration::from_millis(300));
    let record = end_of(&client);
    assert_eq!(record.stopped_by, Some(StopKind::TermThenKill));
    assert_eq!(record.unkillable, 0);
    assert!(Tree::marked("OUTLAST_ATTEMPT", &spec.attempt_id).members().is_empty());
    podman.nothing_is_left();

    // Also where the keeper is gone.
    fs::remove_file(machine.state.join("up")).unwrap();
    let spec =
        podman.spec(&mut machine, "trap '' TERM PIPE; echo up > up; while :; do sleep 0.05; done", &none);
    let client = machine.start_spec(&spec);
    file_in(&machine.state, "up");
    os::send_kill(&keeper_of(&machine.dir(&spec)));
    until("the keeper's end", || (client.state() == KeeperState::Vanished).then_some(()));
    kill(&client);
    let left = Tree::marked("OUTLAST_ATTEMPT", &spec.attempt_id);
    until("the program's end", || left.members().is_empty().then_some(()));
    podman.nothing_is_left();
}

#[test]
fn a_container_gets_a_terminal_where_one_is_asked_for() {
    let Some(podman) = podman_for("a_container_gets_a_terminal_where_one_is_asked_for") else { return };
    let mut machine = Machine::new();
    let mut spec = machine.spec("");
    let mounts = [machine.state.clone()];
    let script = "[ -t 1 ] && echo terminal; exit 2";
    let (argv, container, env) =
        podman.launch(&spec.attempt_id, &["/bin/sh", "-c", script], &BTreeMap::new(), &mounts, true);
    (spec.argv, spec.container, spec.env, spec.pty) = (argv, Some(container), env, true);
    let record = end_of(&machine.start_spec(&spec));
    let text = String::from_utf8(output(&machine.dir(&spec), Stream::Stdout).0).unwrap();
    assert_eq!(record.exit, Exit::Code { code: 2 }, "{text}");
    assert_eq!(text.trim_end(), "terminal");
}

/// Of somebody who is in no table of users: podman then maps that one user alone.
const SOMEBODY: &str = "54321";

/// The tests above once more without root, where this is root: what the keeper
/// relies on (processes below the tool, cgroups, who owns files) differs there.
#[test]
fn the_same_holds_for_a_podman_without_root() {
    const NAME: &str = "the_same_holds_for_a_podman_without_root";
    if !nix::unistd::geteuid().is_root() {
        // They ran without it already.
        return;
    }
    let place = tempfile::Builder::new().prefix("rl").tempdir_in("/tmp").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("machine");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let own = place.path().join("own");
    fs::create_dir(&own).unwrap();
    let number: u32 = SOMEBODY.parse().unwrap();
    std::os::unix::fs::chown(&own, Some(number), Some(number)).unwrap();
    // As `wrap_podman` does it, which needs root.
    let hide =
        format!("[ ! -e {UNIFIED} ] || {{ mount --make-rprivate / && mount -t tmpfs none {UNIFIED}; }}");
    let become_it = format!("exec setpriv --reuid {SOMEBODY} --regid {SOMEBODY} --clear-groups \"$@\"");
    let began = Command::new("timeout")
        .args(["600", "unshare", "--mount", "sh", "-c", &format!("{hide}; {become_it}"), "sh"])
        .arg(&program)
        .args(["--nocapture", "--test-threads=1", "containers::a_"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("HOME", &own), ("TMPDIR", &own), ("XDG_RUNTIME_DIR", &own)])
        .stdin(Stdio::null())
        .output();
    let done = match began {
        Ok(done) if done.status.code() == Some(127) => {
            println!("{NAME} is skipped: unshare or setpriv is not here");
            return;
        }
        done => done.unwrap(),
    };
    let said = String::from_utf8_lossy(&done.stdout);
    let mut skipped = said.lines().filter(|line| line.contains("is skipped: "));
    if let Some(line) = skipped.next() {
        println!("{NAME}: {line}");
    }
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains("3 passed"), "other tests than those of containers ran: {said}");
}
