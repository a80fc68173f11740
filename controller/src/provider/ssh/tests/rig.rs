//! A real sshd on loopback with keys of its own, and a stand-in for the guard.
//! Nothing of the user's own SSH settings is used or changed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::*;
use crate::provider::route::SshAddress;

/// The servers that are looked for, the first that is there.
fn server() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp/sshd/usr/sbin/sshd");
    let named = std::env::var_os("OUTLAST_SSHD").map(PathBuf::from);
    let usual = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/lib/ssh/sshd"].map(PathBuf::from);
    named.into_iter().chain(usual).chain([own]).find(|path| path.is_file())
}

/// A server with one user who may log in by one key. What a login runs is
/// `wrap`, which tests exchange.
pub(super) struct Sshd {
    pub(super) dir: TempDir,
    pub(super) port: u16,
    server: PathBuf,
    child: Option<Child>,
}

fn run(command: &mut Command) {
    let done = command.stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

pub(super) fn executable(path: &Path, text: &str) {
    let draft = path.with_extension("new");
    fs::write(&draft, text).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(draft, path).unwrap();
}

pub(super) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !done() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Sshd {
    /// `None` where there is no server here; said by the test's name.
    pub(super) fn start() -> Option<Self> {
        let Some(server) = server() else {
            let name = std::thread::current().name().unwrap_or("?").to_owned();
            eprintln!(
                "SKIPPED {name}: there is no sshd (install openssh-server, or name one in OUTLAST_SSHD)"
            );
            return None;
        };
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["host", "user", "other"] {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(name)));
        }
        let user = fs::read_to_string(at("user.pub")).unwrap();
        fs::write(at("authorized"), format!("command=\"{}\" {user}", at("wrap").display())).unwrap();
        let mut sshd = Self { dir, port: 0, server, child: None };
        sshd.plain_logins();
        // What was free a moment ago may be another's by now.
        until("a port of its own", || {
            sshd.port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            sshd.comes_up()
        });
        sshd.know(&fs::read_to_string(sshd.dir.path().join("host.pub")).unwrap());
        Some(sshd)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes down a key as the host's own.
    pub(super) fn know(&self, key: &str) {
        let port = self.port;
        fs::write(self.path("known"), format!("[127.0.0.1]:{port} {key}")).unwrap();
    }

    /// What every login runs from now on.
    pub(super) fn wrap(&self, text: &str) {
        executable(&self.path("wrap"), &format!("#!/bin/sh\n{text}\n"));
    }

    pub(super) fn plain_logins(&self) {
        self.wrap("exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"");
    }

    /// At the port of before, which may have been another's meanwhile.
    pub(super) fn up(&mut self) {
        until("its port is free again", || self.comes_up());
    }

    /// Starts the server; `false` where its port is another's.
    fn comes_up(&mut self) -> bool {
        if fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0) {
            // Where root's server goes before anybody is known.
            let _ = fs::create_dir_all("/run/sshd");
        }
        let at = |name: &str| self.path(name).display().to_string();
        let session = self.server.with_file_name("../lib/openssh/sshd-session");
        let beside = if session.is_file() {
            format!("SshdSessionPath {}\n", session.display())
        } else {
            String::new()
        };
        let settings = format!(
            "ListenAddress 127.0.0.1\nPort {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             MaxStartups 200\nLogLevel INFO\nPrintMotd no\n{beside}",
            self.port,
            at("host"),
            at("authorized"),
        );
        fs::write(self.path("settings"), settings).unwrap();
        let log = fs::File::create(self.path("log")).unwrap();
        let mut child = Command::new(&self.server)
            .args(["-D", "-e", "-f"])
            .arg(self.path("settings"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let log = self.path("log");
        let mut is_listening = false;
        // It says so itself: who answers at the port might be somebody else.
        until("the server listens", || {
            let has_ended = child.try_wait().unwrap().is_some();
            let text = fs::read_to_string(&log).unwrap_or_default();
            is_listening = text.contains("Server listening on");
            assert!(!has_ended || text.contains("Cannot bind"), "{text}");
            is_listening || has_ended
        });
        self.child = is_listening.then_some(child);
        is_listening
    }

    /// Whether a login is under way, or something runs that one began: where its
    /// client was killed neither ends at once.
    pub(super) fn is_serving(&self) -> bool {
        let server = self.child.as_ref().map(|child| child.id().to_string());
        let port = format!(" {}", self.port);
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut processes = entries.filter(|entry| entry.path().join("stat").exists());
        processes.any(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let mut words = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
            let (state, parent) = (words.next(), words.next());
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            let began = environ.split(|byte| *byte == 0).any(|variable| {
                variable.starts_with(b"SSH_CONNECTION=") && variable.ends_with(port.as_bytes())
            });
            state.is_some_and(|state| state != "Z") && (began || parent == server.as_deref())
        })
    }

    pub(super) fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The host as settings would have it, with everything below `base`.
    pub(super) fn host(&self, name: &str, slots: u32) -> SshHost {
        SshHost {
            name: name.into(),
            address: SshAddress { host: "127.0.0.1".into(), port: Some(self.port), user: None },
            slots,
            gpus: Gpus::Auto,
            root: self.path("base").display().to_string(),
            usd_per_hour: 0.5,
            identity_file: Some(self.path("user")),
            known_hosts: Some(self.path("known")),
        }
    }

    pub(super) fn provider(&self, slots: u32) -> SshProvider {
        provider("hub-a", vec![self.host("box", slots)])
    }

    /// The machines that hold a slot below `base`.
    pub(super) fn claims(&self) -> Vec<String> {
        let files = fs::read_dir(self.path("base/slots")).into_iter().flatten().flatten();
        let claims =
            files.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "claim"));
        let machine =
            |text: String| text.lines().find_map(|line| line.strip_prefix("machine ")).map(str::to_owned);
        claims.filter_map(|path| machine(fs::read_to_string(path).ok()?)).collect()
    }
}

impl Drop for Sshd {
    /// Ends what a failed test left.
    fn drop(&mut self) {
        self.down();
        let names = fs::read_dir(self.path("base/machines")).into_iter().flatten().flatten();
        for id in
            names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|id| is_machine_id(id))
        {
            for pid in marked(&id) {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

pub(super) fn config(hub: &str, hosts: Vec<SshHost>) -> SshConfig {
    let patience = Patience {
        // Only what tests wait for the end of sets less.
        connect: Duration::from_mins(3),
        answer: Duration::from_mins(3),
        look: Duration::ZERO,
        change: Duration::ZERO,
    };
    SshConfig { hub: hub.into(), client: "ssh".into(), hosts, patience }
}

pub(super) fn provider(hub: &str, hosts: Vec<SshHost>) -> SshProvider {
    SshProvider::new(config(hub, hosts))
}

/// The processes with a machine's mark.
pub(super) fn marked(machine: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let marker = format!("{MARKER}={machine}");
    let carries = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes())
    };
    pids.filter(carries).collect()
}

/// Takes the slot's lock and writes itself down, as a guard does: it waits a
/// while, for whoever looks holds the lock for a moment. A second one ends.
const GUARD: &str = r#"
exec 8>>"$OUTLAST_SLOT_LOCK"
flock -w 10 8 || exit 0
start=$(cut -d ' ' -f 22 /proc/$$/stat)
printf '{"pid":%s,"start_time":%s}' $$ "$start" > guard.json.new
mv guard.json.new guard.json
"#;

/// Starts a machine as its bring-up would, with what its route says.
pub(super) async fn bring_up(provider: &SshProvider, instance: &str, script: &str) {
    let route = provider.route(instance).await.unwrap();
    let machine = instance.rsplit('/').next().unwrap();
    let state = route.state_dir(machine);
    let mut child = Command::new("setsid")
        .args(["sh", "-c", &format!("{GUARD}{script}\nexec sleep 1000")])
        .current_dir(state)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs(route.env)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::spawn(move || child.wait());
}

/// Waits until the stand-in has become what it ends as: a process that is just
/// becoming another program shows no mark for that moment.
pub(super) fn comes_to_rest(machine: &str) {
    let is_sleep =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep");
    until("the stand-in sleeps", || marked(machine).iter().any(is_sleep));
    until("it has its mark", || !marked(machine).is_empty());
}

/// A provider whose machines come up as soon as they are made.
pub(super) struct Booted(pub(super) SshProvider);

#[async_trait]
impl Provider for Booted {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn reach(&self) -> Reach {
        self.0.reach()
    }

    fn idempotency(&self) -> Idempotency {
        self.0.idempotency()
    }

    fn usd_per_hour(&self) -> f64 {
        self.0.usd_per_hour()
    }

    fn settle_window_ms(&self) -> u64 {
        self.0.settle_window_ms()
    }

    async fn create(&self, request: &CreateRequest) -> CreateOutcome {
        let outcome = self.0.create(request).await;
        if let CreateOutcome::Created { instance } = &outcome {
            bring_up(&self.0, instance, &request.user_data).await;
        }
        outcome
    }

    async fn list(&self, label_prefix: &str) -> Listing {
        self.0.list(label_prefix).await
    }

    async fn get(&self, instance: &str) -> Presence {
        self.0.get(instance).await
    }

    async fn destroy(&self, instance: &str) -> DestroyOutcome {
        self.0.destroy(instance).await
    }

    async fn sabotage(&self, instance: &str) -> Result<(), String> {
        self.0.sabotage(instance).await
    }
}
