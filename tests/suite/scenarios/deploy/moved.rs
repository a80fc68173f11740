//! A controller that moves: what runs goes on, whatever cuts the move off can
//! be repeated, and never do two controllers run.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::super::carried::give_agent;
use super::super::carried::sshd::Sshd;
use super::super::processes::{processes, signal};
use super::super::stage::{Said, exchange, lines, program, variable, wait};
use super::{Lines, PROGRAM, Pair, SETTINGS, words};

/// Goes no further than its gate, and saves every tenth step.
const GATED: &str = r#"#!/bin/sh
echo start >>"$STARTS"
i=0
while [ "$i" -lt 40 ]; do
  while [ "$i" -ge "$(cat "$GATE")" ]; do sleep 0.05; done
  i=$((i + 1))
  echo "step=$i loss=0.5"
  if [ $((i % 10)) = 0 ]; then
    echo "$i" >"$OUTLAST_CHECKPOINT_DIR/.part"
    mv "$OUTLAST_CHECKPOINT_DIR/.part" "$OUTLAST_CHECKPOINT_DIR/step-$i.txt"
  fi
done
"#;
const GATED_SETTINGS: &str = "[run]\ncommand = [\"sh\", \"gated.sh\"]\n[environment]\nkind = \"none\"\n\
                              [checkpoints]\nquiet = \"1s\"\n";
const CANARY: &str = "c4n4ry-value-of-a-key";

impl Pair {
    /// The program of the tests without debug information, in a file.
    fn slim(&self) -> PathBuf {
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let file = PathBuf::from("agents").join(proto::VERSION).join(target).join("outlast-agent");
        // A test whose machines need an agent has it already.
        if self.laptop.home.join(&file).exists() {
            return self.laptop.home.join(file);
        }
        give_agent(&self.laptop.path("slim"));
        self.laptop.path("slim").join(file)
    }

    /// As if an earlier move had brought the program.
    fn program_is_there(&self) {
        let slim = self.slim();
        let digest = controller::carrier::sha256(&mut File::open(&slim).unwrap()).unwrap();
        let dir = self.other.path(".local/lib/outlast").join(&digest[..16]);
        fs::create_dir_all(&dir).unwrap();
        fs::hard_link(slim, dir.join("outlast")).unwrap();
    }

    fn deploy_words(&self, program: &std::path::Path) -> Vec<String> {
        // Its data directory is the usual one there.
        let words = ["controller", "deploy", "box", "--yes", "--no-service", "--program"].map(str::to_owned);
        words.into_iter().chain([program.display().to_string()]).collect()
    }

    /// A move with the program that is there already.
    fn deploy(&self) -> Said {
        self.laptop.call(&words(&self.deploy_words(&self.slim())))
    }

    /// A run that has ended, so that there is something to move.
    fn history(&self) -> String {
        let root = self.laptop.project("p", &[("program.sh", PROGRAM), ("outlast.toml", SETTINGS)]);
        let run = self.laptop.submit(&root, &[]);
        self.laptop.ends_as(&run, "SUCCEEDED");
        run
    }

    /// What the client does for a remote command with these words.
    fn client_for(&self, remote: &str, instead: &str) {
        let config = self.laptop.path("ssh_config");
        let instead = instead.replace("SSH", &format!("ssh -F {} \"$@\"", config.display()));
        self.client(&format!("case \"$*\" in *'{remote}'*) {instead};; esac"));
    }

    fn mark(&self) -> Option<serde_json::Value> {
        let text = fs::read(self.laptop.home.join("moved.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// A host `lab` whose key and whose host key lie in the data directory.
    fn set_up_host(&self) {
        let (laptop, other) = (&self.laptop, &self.other);
        give_agent(&laptop.home);
        fs::create_dir_all(laptop.home.join("keys")).unwrap();
        fs::set_permissions(laptop.home.join("keys"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::copy(self.server.identity(), laptop.home.join("keys/lab")).unwrap();
        let known = format!("[127.0.0.1]:{} {}", self.server.port, self.server.host_key());
        fs::write(laptop.home.join("keys/lab_known"), known).unwrap();
        let host = format!(
            "[ssh.hosts.lab]\ndestination = \"{}@127.0.0.1\"\nport = {}\nroot = {:?}\nidentity_file = \"keys/lab\"\n\
             known_hosts = \"keys/lab_known\"\n",
            Sshd::user(),
            self.server.port,
            other.path("host"),
        );
        fs::write(laptop.home.join("providers.toml"), host).unwrap();
    }

    /// The laptop's clients that carry a command.
    fn links(&self) -> Vec<i32> {
        let config = self.laptop.path("ssh_config").display().to_string();
        processes(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let has = |text: &[u8]| line.windows(text.len()).any(|part| part == text);
            line.starts_with(b"ssh\0") && has(config.as_bytes()) && has(b"controller link")
        })
    }
}

/// Looks all the time whether both data directories are held, without taking a
/// lock itself.
struct Never {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

/// How many of these are held, as `/proc/locks` says.
fn held_of(locks: &[PathBuf], told: &str) -> usize {
    let is_held = |lock: &&PathBuf| {
        let Ok(meta) = fs::metadata(lock) else { return false };
        let inode = format!(":{} ", meta.ino());
        told.lines().any(|line| line.contains("FLOCK") && line.contains("WRITE") && line.contains(&inode))
    };
    locks.iter().filter(is_held).count()
}

impl Never {
    fn two(pair: &Pair) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let locks = [&pair.laptop, &pair.other].map(|stage| stage.home.join("controller.lock"));
        let thread = std::thread::spawn(move || {
            let mut seen = 0;
            while !asked.load(Ordering::Relaxed) {
                let mut held = fs::read_to_string("/proc/locks").unwrap_or_default();
                let mut both = held_of(&locks, &held);
                if both == 2 {
                    // It is told page by page, and each page is of another moment.
                    held = fs::read_to_string("/proc/locks").unwrap_or_default();
                    both = held_of(&locks, &held);
                }
                assert!(both < 2, "both are held:\n{held}");
                seen += both;
                std::thread::park_timeout(Duration::from_millis(5));
            }
            seen
        });
        Self { stop, thread: Some(thread) }
    }

    fn ran(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.thread.take().unwrap().join().unwrap() > 0, "no controller was ever seen");
    }
}

#[test]
fn a_run_on_a_host_goes_on_through_a_move_and_is_followed_from_the_laptop() {
    let Some(pair) = Pair::new() else { return };
    let canary = [("CANARY_KEY".to_owned(), CANARY.to_owned())];
    let pair = Pair { laptop: pair.laptop.with(canary), ..pair };
    let (laptop, other) = (&pair.laptop, &pair.other);
    pair.set_up_host();
    let root = laptop.project("g", &[("gated.sh", GATED), ("outlast.toml", GATED_SETTINGS)]);
    let (gate, starts) = (laptop.path("gate"), laptop.path("starts"));
    exchange(&gate, "10");
    let settings = [
        "run.provider=ssh".to_owned(),
        variable("GATE", gate.display()),
        variable("STARTS", starts.display()),
    ];
    let run = laptop.submit(&root, &settings.each_ref().map(String::as_str));
    laptop.when_durable(&run, 10);

    let slim = pair.slim();
    let (seen, never) = (Lines::watch(&pair), Never::two(&pair));
    let mut asked = pair.deploy_words(&slim);
    asked.extend(["--env".to_owned(), "CANARY_KEY".to_owned()]);
    let said = laptop.call(&words(&asked)).ends_with(0);
    assert!(said.stderr.contains("1 machines of `ssh` go on"), "{said:?}");
    let key = fs::read_to_string(laptop.home.join("keys/root.key")).unwrap();
    let mut secrets = super::secret_lines(&key);
    secrets.extend(super::secret_lines(pair.remote()["key"].as_str().unwrap()));
    secrets.push(CANARY.to_owned());
    seen.hold_none_of(&pair, &secrets, "controller arrive receive");

    // It runs there, with what it was given, and nothing can start here.
    laptop.no_controller();
    let there = other.one_controller();
    let environ = fs::read(format!("/proc/{there}/environ")).unwrap();
    assert!(environ.split(|b| *b == 0).any(|entry| entry == format!("CANARY_KEY={CANARY}").as_bytes()));
    let mode = fs::metadata(other.home.join("controller.env")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let home = laptop.home.display().to_string();
    for start in [&["controller", "start"][..], &["controller-serve", "--home", &home]] {
        assert_eq!(laptop.call(start).code, 96, "{start:?}");
    }

    // The run never noticed. Whoever follows it follows it over a cut of the way.
    laptop.when(&run, "heard of from there", |detail| detail["run"]["step"].as_u64() >= Some(10));
    let follows = laptop.begin(&["logs", &run, "-f", "--stdout"]);
    wait("its first lines", || follows.shown().contains("step=10 ").then_some(()));
    let cut = pair.links();
    assert!(!cut.is_empty(), "it has a way there");
    exchange(&gate, "20");
    laptop.when(&run, "heard at step 20", |detail| detail["run"]["step"].as_u64() >= Some(20));
    cut.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    exchange(&gate, "100");
    let followed = follows.end().ends_with(0);
    assert_eq!(followed.text().lines().count(), 40, "{followed:?}");
    let detail = laptop.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["run"]["durable_step"], 40, "{detail:#}");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(detail["machines"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(lines(&starts), ["start"]);
    let text = laptop.ok(&["logs", &run, "--stdout"]).text();
    assert_eq!(text.lines().count(), 40, "{text}");
    laptop.verify();
    never.ran();

    // Done is done: asked again it says so, and a logout leaves nothing startable.
    laptop.call(&words(&pair.deploy_words(&slim))).ends_with(0);
    assert_eq!(other.one_controller(), there);
    laptop.ok(&["logout"]);
    let said = laptop.call(&["status"]).ends_with(96);
    assert!(said.stderr.contains("outlast login box"), "{said:?}");
    assert_eq!(laptop.controllers(), Vec::<i32>::new());
    // Another device finds the program by its usual name.
    laptop.ok(&["login", "box"]);
    assert_eq!(laptop.status(&run)["run"]["state"], "SUCCEEDED");
}

#[test]
fn a_move_that_is_killed_at_any_step_is_repeated_and_never_has_two_controllers() {
    let Some(pair) = Pair::new() else { return };
    pair.program_is_there();
    let run = pair.history();
    let never = Never::two(&pair);
    let (before, after) = ("kill -9 $PPID; exit 1", "SSH; kill -9 $PPID; exit 1");
    let during = "head -c 30000 | SSH; kill -9 $PPID; exit 1";
    // What it was given is sent on when nobody is there any more.
    let given = pair.laptop.path("given").display().to_string();
    let beyond = format!("cat >{given}; kill -9 $PPID; SSH <{given}; exit $?");
    let steps = [
        ("uname", before),
        ("version --json", after),
        ("arrive look", after),
        // The controller here has ended.
        ("arrive receive", before),
        ("arrive receive", during),
        // The copy is there, this side not marked.
        ("arrive receive", after),
        // This side is marked, the copy not released.
        ("arrive start", before),
        // It is being started while the next move looks.
        ("arrive start", &beyond),
        // It runs there, and nobody was told.
        ("arrive start", after),
        // Admitted, and not logged in.
        ("controller admit", after),
    ];
    let mut marked = 0;
    for (step, how) in steps {
        pair.client_for(step, how);
        let said = pair.deploy();
        assert_eq!(said.code, 128 + 9, "{step} {how}: {said:?}");
        pair.client("");
        // Nobody waits for what has ended by itself.
        match pair.mark() {
            None => {
                assert_eq!(pair.laptop.status(&run)["run"]["state"], "SUCCEEDED", "{step}: it goes on here");
            }
            Some(_) => {
                marked += 1;
                assert_eq!(pair.laptop.call(&["status", &run]).code, 96, "{step}");
                pair.laptop.no_controller();
            }
        }
    }
    assert_eq!(marked, 4);
    pair.deploy().ends_with(0);
    assert_eq!(pair.laptop.status(&run)["run"]["state"], "SUCCEEDED");
    assert_eq!(pair.laptop.ok(&["logs", &run, "--stdout"]).text(), "hello from the box\n");
    // Nothing was left to do but to say so: killed there, it is said again.
    let mut mark = pair.mark().unwrap();
    assert_eq!(mark["settled"], true);
    mark["settled"] = false.into();
    exchange(&pair.laptop.home.join("moved.json"), &mark.to_string());
    assert_eq!(pair.laptop.status(&run)["run"]["state"], "SUCCEEDED");
    pair.deploy().ends_with(0);
    assert_eq!(pair.mark().unwrap()["settled"], true);
    pair.laptop.verify();
    pair.other.one_controller();
    never.ran();
}

#[test]
fn what_fails_is_undone_where_that_is_certain_and_told_where_it_is_not() {
    let Some(pair) = Pair::new() else { return };
    pair.program_is_there();
    let run = pair.history();
    let never = Never::two(&pair);
    let (laptop, other) = (&pair.laptop, &pair.other);
    let is_here = || assert_eq!(laptop.status(&run)["run"]["state"], "SUCCEEDED");

    // Before the mark: as it was, and its controller runs again.
    pair.client_for("arrive receive", "head -c 30000 | SSH; exit $?");
    let said = pair.deploy();
    assert!(said.code != 0 && said.stderr.contains("its controller runs again"), "{said:?}");
    assert_eq!(pair.mark(), None);
    laptop.one_controller();
    is_here();

    // After it, and no controller began there: that is made certain first.
    pair.client_for("arrive start", "echo error: no room >&2; exit 1");
    let said = pair.deploy();
    assert!(said.code != 0 && said.stderr.contains("cannot be started any more"), "{said:?}");
    assert_eq!(pair.mark(), None);
    laptop.one_controller();
    is_here();
    let copy = other.home.display().to_string();
    assert_eq!(other.call(&["controller-serve", "--home", &copy]).code, 96, "the copy is void");

    // Nor where one began and could not start for what is there.
    let settings = other.home.join("providers.toml");
    let spoil = format!(
        "ssh -F {} box \"echo x >{}\" </dev/null",
        laptop.path("ssh_config").display(),
        settings.display()
    );
    pair.client_for("arrive start", &format!("{spoil}; SSH; exit $?"));
    let said = pair.deploy();
    assert!(said.code != 0 && said.stderr.contains("providers.toml"), "{said:?}");
    assert!(said.stderr.contains("cannot be started any more"), "{said:?}");
    assert_eq!(pair.mark(), None);
    laptop.one_controller();
    other.no_controller();
    is_here();

    // After it, and nobody can be asked: nothing is started anywhere.
    pair.client_for("arrive start", "exit 255");
    pair.client_for("--token", "exit 255");
    let said = pair.deploy();
    assert!(said.code != 0 && said.stderr.contains("not known whether a controller runs"), "{said:?}");
    assert!(said.stderr.contains("go on with: outlast controller deploy box"), "{said:?}");
    assert_eq!(pair.mark().unwrap()["settled"], false);
    assert_eq!(laptop.call(&["status"]).code, 96);
    pair.client("");
    // Another computer is not where it went.
    let mut elsewhere = pair.deploy_words(&pair.slim());
    elsewhere[2] = "other".into();
    assert_eq!(laptop.call(&words(&elsewhere)).code, 96);
    pair.deploy().ends_with(0);
    is_here();
    other.one_controller();
    never.ran();
}

#[test]
fn a_machine_of_this_computer_or_an_installation_there_refuses_a_move() {
    let Some(pair) = Pair::new() else { return };
    pair.program_is_there();
    let (laptop, other) = (&pair.laptop, &pair.other);
    let root = laptop.project("g", &[("gated.sh", GATED), ("outlast.toml", GATED_SETTINGS)]);
    exchange(&laptop.path("gate"), "1");
    let settings = [
        variable("GATE", laptop.path("gate").display()),
        variable("STARTS", laptop.path("starts").display()),
    ];
    let run = laptop.submit(&root, &settings.each_ref().map(String::as_str));
    let detail = laptop.when(&run, "on a machine", |detail| detail["run"]["step"].as_u64() >= Some(1));
    let machine = super::super::stage::machine_of(&detail);
    let before = laptop.one_controller();
    let said = pair.deploy().ends_with(65);
    assert!(said.stderr.contains(&machine), "it is not named: {said:?}");
    assert_eq!(laptop.one_controller(), before, "it was ended");
    exchange(&laptop.path("gate"), "100");
    laptop.ends_as(&run, "SUCCEEDED");

    // A program that does not run there.
    let text = laptop.path("text");
    fs::write(&text, "hello").unwrap();
    let said = laptop.call(&words(&pair.deploy_words(&text))).ends_with(65);
    assert!(said.stderr.contains("does not run there"), "{said:?}");
    let broken = laptop.path("broken");
    let mut bytes = fs::read(program()).unwrap();
    bytes.truncate(1 << 16);
    fs::write(&broken, bytes).unwrap();
    let said = laptop.call(&words(&pair.deploy_words(&broken))).ends_with(65);
    assert!(said.stderr.contains("does not run on box"), "{said:?}");

    // Another installation is there.
    other.ok(&["controller", "start"]);
    let theirs = fs::read(other.home.join("hub.json")).unwrap();
    let said = pair.deploy().ends_with(65);
    assert!(said.stderr.contains("an installation of its own already"), "{said:?}");
    assert_eq!(laptop.one_controller(), before, "it was ended");
    assert_eq!(fs::read(other.home.join("hub.json")).unwrap(), theirs);
    // Nobody is there to be asked.
    let without: Vec<String> =
        pair.deploy_words(&pair.slim()).into_iter().filter(|word| word != "--yes").collect();
    laptop.call(&words(&without)).ends_with(64);
    wait("the controller here", || (laptop.controllers() == [before]).then_some(()));
}

/// What systemd does for a unit, as far as it is needed here: reads it, and has
/// its command run with its environment.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>"$HOME/systemctl.log"
unit=$HOME/.config/systemd/user/outlast-controller.service
if [ "$2" = restart ]; then
  set -a
  . "$(sed -n 's/^EnvironmentFile=-//p' "$unit")"
  set +a
  eval "setsid $(sed -n 's/^ExecStart=//p' "$unit") </dev/null >>\"$HOME/service.log\" 2>&1 &"
fi
"#;

#[test]
fn where_systemd_serves_the_user_it_keeps_the_controller_with_what_it_is_given() {
    let Some(pair) = Pair::new() else { return };
    let odd = "a \"b\" $HOME `c` \\d";
    let pair = Pair { laptop: pair.laptop.with([("ODD_KEY".to_owned(), odd.to_owned())]), ..pair };
    pair.program_is_there();
    let (laptop, other) = (&pair.laptop, &pair.other);
    fs::create_dir_all(other.path("bin")).unwrap();
    for (name, text) in [("systemctl", SYSTEMCTL), ("loginctl", "#!/bin/sh\n")] {
        let file = other.path("bin").join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    laptop.ok(&["controller", "start"]);
    let mut asked = pair.deploy_words(&pair.slim());
    asked.retain(|word| word != "--no-service");
    asked.extend(["--env", "ODD_KEY"].map(str::to_owned));
    let said = laptop.call(&words(&asked)).ends_with(0);
    assert!(said.stderr.contains("kept running by systemd"), "{said:?}");
    let calls = lines(&other.path("systemctl.log"));
    for wanted in ["daemon-reload", "enable outlast-controller.service", "restart outlast-controller.service"]
    {
        assert!(calls.contains(&format!("--user {wanted}")), "{calls:?}");
    }
    // The one that answers is the one that was started for the unit.
    let pid = other.controller().unwrap();
    let of = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap();
    let line = of("cmdline");
    assert!(line.split(|b| *b == 0).skip(1).take(2).eq([&b"controller"[..], b"serve"]), "{line:?}");
    assert!(of("environ").split(|b| *b == 0).any(|entry| entry == format!("ODD_KEY={odd}").as_bytes()));
    assert_eq!(other.controllers(), Vec::<i32>::new(), "another one was started beside it");
    laptop.ok(&["status"]);
}
