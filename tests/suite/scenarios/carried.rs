//! Machines that cannot reach the controller: it dials them over SSH, brings
//! the agent there, and carries its connections. A real SSH server, the user's
//! own client, and a provider that gives nothing but a login.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use controller::provider::{
    CreateOutcome, CreateRequest, DestroyOutcome, HostKeys, Idempotency, Instance, InstanceState, Listing,
    Presence, Provider, Reach, RouteError, SshAddress, SshRoute,
};
use nix::sys::signal::Signal;

use super::processes::{kill_all, marked, processes, signal};
use super::stage::{Stage, exchange, lines, machine_of, program, variable, wait, wait_or};

mod hosts;
pub(super) mod sshd;

use sshd::Sshd;

/// Says a line for each step, writes what it said elsewhere too, and saves every
/// tenth step. It goes no further than its gate.
const PROGRAM: &str = r#"
import hashlib, os, sys, time
step = 0
with open(os.environ["STARTS"], "a") as file:
    file.write(f"{os.environ['OUTLAST_GENERATION']} {os.getpid()}\n")
with open(os.environ["OUTPUT"], "ab") as output:
    while step < 240:
        while step >= int(open(os.environ["GATE"]).read()):
            time.sleep(0.02)
        step += 1
        noise = hashlib.shake_256(b"%d" % step).digest(700).hex()
        said = f"step={step} loss={1 / step:.4f}\n{noise}\n".encode()
        output.write(said)
        sys.stdout.buffer.write(said)
        sys.stdout.buffer.flush()
        if step % 10 == 0:
            path = os.path.join(os.environ["OUTLAST_CHECKPOINT_DIR"], f"step-{step:06}.weights")
            with open(path + ".tmp", "wb") as file:
                file.write(hashlib.shake_256(b"w%d" % step).digest(300_000))
            os.rename(path + ".tmp", path)
        time.sleep(0.02)
"#;
const SETTINGS: &str = "[run]\ncommand = [\"python3\", \"program.py\"]\n[environment]\nkind = \"none\"\n\
                        [checkpoints]\nquiet = \"1s\"\n";

/// Where [`a_controller_of_another_test`] finds what it needs.
const HOME: &str = "CARRIED_HOME";
const EXE: &str = "CARRIED_EXE";
const PORT: &str = "CARRIED_PORT";
const KEY: &str = "CARRIED_KEY";

/// Machines that are directories with a login: whoever wants something of one
/// must come over SSH.
struct Loopback {
    root: PathBuf,
    port: u16,
    key: PathBuf,
}

impl Loopback {
    fn dir(&self, id: &str) -> PathBuf {
        assert!(!id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()));
        self.root.join(id)
    }
}

#[async_trait]
impl Provider for Loopback {
    fn name(&self) -> &'static str {
        "local"
    }
    fn reach(&self) -> Reach {
        Reach::ControllerDials
    }
    fn idempotency(&self) -> Idempotency {
        Idempotency::ClientChosenName
    }
    fn usd_per_hour(&self) -> f64 {
        0.0
    }
    fn settle_window_ms(&self) -> u64 {
        0
    }
    async fn create(&self, request: &CreateRequest) -> CreateOutcome {
        assert_eq!(request.user_data, "", "a provider of such machines is told no secret");
        let dir = self.dir(&request.machine_id);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("label"), &request.label).unwrap();
        CreateOutcome::Created { instance: request.machine_id.clone() }
    }
    async fn list(&self, label_prefix: &str) -> Listing {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let all = entries.filter_map(|entry| {
            let label = fs::read_to_string(entry.path().join("label")).ok()?;
            let id = entry.file_name().into_string().ok()?;
            label.starts_with(label_prefix).then_some(Instance { id, label, state: InstanceState::Up })
        });
        Listing::Complete(all.collect())
    }
    async fn get(&self, instance: &str) -> Presence {
        if self.dir(instance).exists() { Presence::Present(InstanceState::Up) } else { Presence::Absent }
    }
    async fn destroy(&self, instance: &str) -> DestroyOutcome {
        let (dir, id) = (self.dir(instance), instance.to_owned());
        let end = move || {
            kill_all(|| marked(&id));
            let _ = fs::remove_dir_all(&dir);
        };
        tokio::task::spawn_blocking(end).await.unwrap();
        DestroyOutcome::Accepted
    }
    async fn sabotage(&self, _instance: &str) -> Result<(), String> {
        Err("not here".into())
    }
    async fn route(&self, instance: &str) -> Result<SshRoute, RouteError> {
        Ok(SshRoute {
            address: SshAddress { host: "127.0.0.1".into(), port: Some(self.port), user: Some(Sshd::user()) },
            fallback: None,
            identity: Some(self.key.clone()),
            host_keys: HostKeys::PinFirst {
                known_hosts: self.root.join("known_hosts"),
                name: instance.to_owned(),
            },
            options: vec!["IdentityAgent=none".into()],
            base: self.dir(instance).join("outlast").display().to_string(),
            env: BTreeMap::from([("CUDA_VISIBLE_DEVICES".to_owned(), "3".to_owned())]),
        })
    }
}

/// The process that [`Controller`] starts: the tests' own program, since the
/// provider is in it.
#[test]
#[ignore = "a controller that other tests run in a process of its own"]
fn a_controller_of_another_test() {
    let Some(home) = std::env::var_os(HOME).map(PathBuf::from) else { return };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let exe = PathBuf::from(std::env::var_os(EXE).unwrap());
    let provider: Arc<dyn Provider> = Arc::new(Loopback {
        root: home.join("hosts"),
        port: std::env::var(PORT).unwrap().parse().unwrap(),
        key: std::env::var_os(KEY).unwrap().into(),
    });
    let config = controller::app::Config {
        home,
        build_id: controller::command::build_id(&exe),
        agent_exe: exe,
        clocks: controller::liveness::Clocks::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let more = BTreeMap::from([("local".to_owned(), provider)]);
    runtime.block_on(controller::app::run_with(config, more)).unwrap();
}

/// A controller whose machines are logins.
struct Controller(Child);

impl Controller {
    fn start(stage: &Stage, server: &Sshd) -> Self {
        fs::create_dir_all(&stage.home).unwrap();
        give_agent(&stage.home);
        let log =
            || File::options().create(true).append(true).open(stage.home.join("controller.log")).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "scenarios::carried::a_controller_of_another_test",
            "--exact",
            "--ignored",
            "--nocapture",
        ]);
        command.env(HOME, &stage.home).env(EXE, stage.exe()).env(PORT, server.port.to_string());
        command.env(KEY, server.identity()).env_remove("SSH_AUTH_SOCK");
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        let child = command.spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        wait_or(
            "the controller",
            || (stage.controller() == Some(pid)).then_some(()),
            || fs::read_to_string(stage.home.join("controller.log")).unwrap_or_default(),
        );
        Self(child)
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    /// Its SSH clients.
    fn clients(&self) -> Vec<i32> {
        children(self.pid(), "ssh")
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts an agent for this computer where controllers look for it. Without its
/// debug information, which would only make it slow on its way.
pub(super) fn give_agent(home: &Path) {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let dir = home.join("agents").join(proto::VERSION).join(target);
    let file = dir.join("outlast-agent");
    if file.exists() {
        return;
    }
    fs::create_dir_all(&dir).unwrap();
    let stripped = Command::new("strip").arg("-o").arg(&file).arg(program()).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(program(), &file).unwrap();
    }
}

/// The children of a process whose program has this name.
fn children(parent: i32, name: &str) -> Vec<i32> {
    processes(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((head, rest)) = stat.rsplit_once(')') else { return false };
        let of = rest.split_whitespace().nth(1).and_then(|text| text.parse::<i32>().ok());
        head.split_once('(').is_some_and(|(_, comm)| comm.starts_with(name)) && of == Some(parent)
    })
}

fn step(detail: &serde_json::Value) -> u64 {
    detail["run"]["step"].as_u64().unwrap_or(0)
}

/// The program of a test, held at its gate.
struct Held {
    root: PathBuf,
    gate: PathBuf,
    output: PathBuf,
    starts: PathBuf,
}

impl Held {
    fn new(stage: &Stage) -> Self {
        let root = stage.project("steps", &[("program.py", PROGRAM), ("outlast.toml", SETTINGS)]);
        let held = Self {
            root,
            gate: stage.path("gate"),
            output: stage.path("output"),
            starts: stage.path("starts"),
        };
        held.may_go_to(10);
        held
    }

    fn may_go_to(&self, step: u64) {
        exchange(&self.gate, &step.to_string());
    }

    fn submit(&self, stage: &Stage) -> String {
        let settings = [
            variable("GATE", self.gate.display()),
            variable("OUTPUT", self.output.display()),
            variable("STARTS", self.starts.display()),
        ];
        stage.submit(&self.root, &settings.each_ref().map(String::as_str))
    }

    /// Fails unless the controller has every byte once, of one program.
    #[track_caller]
    fn is_whole(&self, stage: &Stage, run: &str) {
        let (said, wrote) = (stage.ok(&["logs", run, "--stdout"]).stdout, fs::read(&self.output).unwrap());
        let differs = said.iter().zip(&wrote).position(|(a, b)| a != b);
        assert_eq!((said.len(), differs), (wrote.len(), None), "the output differs");
        let starts = lines(&self.starts);
        assert!(starts.len() == 1 && starts[0].starts_with("1 "), "{starts:?}");
    }
}

#[test]
fn a_machine_that_reaches_nothing_trains_to_its_end_through_ten_cuts_and_a_killed_controller() {
    let Some(programs) = sshd::programs() else { return };
    let stage = Stage::new();
    let mut server = Sshd::prepare(&stage, programs);
    server.start();
    let mut controller = Controller::start(&stage, &server);
    let held = Held::new(&stage);
    let run = held.submit(&stage);

    // Cut off while the agent is put there, and once more.
    for _ in 0..2 {
        let clients = wait("a client", || Some(controller.clients()).filter(|found| !found.is_empty()));
        clients.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
        wait("its end", || clients.iter().all(|pid| !controller.clients().contains(pid)).then_some(()));
    }
    let durable = stage.when_durable(&run, 10);
    assert_eq!(durable, 10);
    let machine = machine_of(&stage.status(&run));
    let state = stage.home.join("hosts").join(&machine).join("outlast/machines").join(&machine);
    let told: serde_json::Value =
        serde_json::from_slice(&fs::read(state.join("machine.json")).unwrap()).unwrap();
    assert_eq!((&told["carrier"], &told["endpoints"]), (&"accepted".into(), &serde_json::json!([])));
    assert!(!state.join("join.token").exists(), "a secret that is spent lies around");

    // Eight cuts of everything: on this side and on the machine's in turns.
    let mut gate = 10;
    for cut in 0..8 {
        let side = || if cut % 2 == 0 { controller.clients() } else { children(server.pid(), "sshd") };
        // A link that was just heard over may be dialled anew already.
        let links = wait("a link to cut", || Some(side()).filter(|found| !found.is_empty()));
        links.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
        gate += 10;
        held.may_go_to(gate);
        stage.when(&run, &format!("heard at step {gate}"), |detail| step(detail) >= gate);
    }
    stage.when_durable(&run, gate);

    // Nobody is left behind by a controller that is killed, and the next one
    // comes to the same machine.
    let clients =
        wait("control and bulk, which are apart", || Some(controller.clients()).filter(|all| all.len() >= 2));
    drop(controller);
    gate += 10;
    held.may_go_to(gate);
    wait("the end of the clients", || processes(|pid| clients.contains(&pid)).is_empty().then_some(()));
    controller = Controller::start(&stage, &server);
    stage.when(&run, &format!("heard at step {gate}"), |detail| step(detail) >= gate);
    held.may_go_to(1_000);

    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["run"]["durable_step"], 240, "{detail:#}");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(detail["machines"].as_array().unwrap().len(), 1, "{detail:#}");
    held.is_whole(&stage, &run);
    stage.verify();
    assert_eq!(marked(&machine), Vec::<i32>::new());
    wait("the clients hung up", || controller.clients().is_empty().then_some(()));
}

#[test]
fn a_machine_that_does_not_answer_says_why_and_is_reached_when_it_does() {
    let Some(programs) = sshd::programs() else { return };
    let stage = Stage::new();
    let mut server = Sshd::prepare(&stage, programs);
    let _controller = Controller::start(&stage, &server);
    let held = Held::new(&stage);
    held.may_go_to(1_000);
    let run = held.submit(&stage);
    let reason = |detail: &serde_json::Value| {
        let machines = detail["machines"].as_array().cloned().unwrap_or_default();
        machines.first().and_then(|m| m["reason"].as_str().map(str::to_owned)).unwrap_or_default()
    };
    stage.when(&run, "not reached", |detail| {
        let why = reason(detail);
        why.contains("SSH does not connect") && why.contains("Connection refused")
    });
    server.start();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert!(!reason(&detail).contains("SSH"), "{detail:#}");
    held.is_whole(&stage, &run);
}
