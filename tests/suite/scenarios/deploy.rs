//! A controller on another computer: logged in to over SSH, and moved there.
//! The other computer is a login of a real SSH server with a home of its own;
//! the laptop has the user's real client with a configuration of its own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::carried::sshd::{Sshd, programs};
use super::stage::Stage;

mod moved;

/// Says a line.
const PROGRAM: &str = "#!/bin/sh\necho hello from the box\n";
const SETTINGS: &str = "[run]\ncommand = [\"sh\", \"program.sh\"]\n[environment]\nkind = \"none\"\n";

/// Another computer, and a way to it that only this test's client knows.
pub(super) struct Pair {
    /// The user's computer.
    laptop: Stage,
    /// The other one.
    other: Stage,
    server: Sshd,
}

impl Pair {
    /// Both, and the server between them; `None` where there is none.
    fn new() -> Option<Self> {
        let programs = programs()?;
        // The usual data directory of a login.
        let dir = tempfile::Builder::new().prefix("ol").tempdir_in("/tmp").unwrap();
        let home = dir.path().join(".local/share/outlast");
        let other = Stage::at(dir, home);
        let at = other.path("");
        let at = at.display();
        // A home of its own, and nothing of the user's environment.
        let forced = format!(
            "ForceCommand cd {at} && exec env -i PATH=\"{at}/bin:$PATH\" HOME={at} sh -c \"$SSH_ORIGINAL_COMMAND\""
        );
        let mut server = Sshd::prepare(&other, programs).with(&forced);
        server.start();
        let laptop = Stage::new();
        let script = laptop.path("ssh");
        let laptop = laptop.with([("OUTLAST_SSH".to_owned(), script.display().to_string())]);
        let config = format!(
            "Host box\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             IdentityAgent none\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n",
            server.port,
            Sshd::user(),
            server.identity().display(),
            laptop.path("known").display(),
        );
        fs::write(laptop.path("ssh_config"), config).unwrap();
        let pair = Self { laptop, other, server };
        pair.client("");
        pair.know();
        Some(pair)
    }

    /// The laptop's SSH client, which does something before it begins.
    fn client(&self, before: &str) {
        let config = self.laptop.path("ssh_config");
        let script = format!("#!/bin/sh\n{before}\nexec ssh -F {} \"$@\"\n", config.display());
        let fresh = self.laptop.path("ssh.fresh");
        fs::write(&fresh, script).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(fresh, self.laptop.path("ssh")).unwrap();
    }

    /// The laptop knows the key that the server has now.
    fn know(&self) {
        let line = format!("[127.0.0.1]:{} {}", self.server.port, self.server.host_key());
        fs::write(self.laptop.path("known"), line).unwrap();
    }

    fn login(&self) -> Vec<String> {
        let words = ["login", "box", "--name", "lap", "--remote-home"].map(str::to_owned);
        let more = [self.other.home.display().to_string(), "--remote-program".to_owned()];
        words.into_iter().chain(more).chain([self.other.exe().display().to_string()]).collect()
    }

    fn remote(&self) -> Value {
        serde_json::from_slice(&fs::read(self.laptop.home.join("remote.json")).unwrap()).unwrap()
    }

    /// Who was admitted there, in order.
    fn admitted(&self) -> Vec<(String, String)> {
        let events = self.other.ok(&["events", "--json"]).json();
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let admitted = events.as_array().unwrap().iter().filter(|entry| entry["verb"] == "admitted");
        admitted.map(|entry| (text(entry, "actor"), text(entry, "object"))).collect()
    }
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Sees every command line of the computer that lives for a moment, and surely
/// those of the laptop's SSH clients: each of them is held until it was seen.
struct Lines {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeSet<Vec<u8>>>>,
}

impl Lines {
    fn watch(pair: &Pair) -> Self {
        let held = pair.laptop.path("held");
        fs::create_dir(&held).unwrap();
        let mark = format!("{}/$$", held.display());
        pair.client(&format!("{{ true >{mark}; }} 2>/dev/null\nwhile [ -e {mark} ]; do sleep 0.01; done"));
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !asked.load(Ordering::Relaxed) {
                // Who is here before the look is seen by it.
                let here: Vec<_> = fs::read_dir(&held).unwrap().flatten().map(|mark| mark.path()).collect();
                for entry in fs::read_dir("/proc").unwrap().flatten() {
                    seen.extend(fs::read(entry.path().join("cmdline")));
                }
                here.iter().for_each(|mark| fs::remove_file(mark).unwrap());
                std::thread::park_timeout(Duration::from_millis(10));
            }
            // From now on nobody can be held.
            fs::rename(&held, held.with_extension("over")).unwrap();
            seen
        });
        Self { stop, thread: Some(thread) }
    }

    /// Fails if one of them held one of these, or if none was of `must`.
    fn hold_none_of(mut self, pair: &Pair, secrets: &[String], must: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.take().unwrap().join().unwrap();
        pair.client("");
        let has = |text: &str| {
            seen.iter().find(|line| line.windows(text.len()).any(|part| part == text.as_bytes()))
        };
        assert!(has(must).is_some(), "nothing was seen of {must}");
        for secret in secrets {
            assert!(secret.len() > 8, "too short to be told from other words");
            assert!(has(secret).is_none(), "{:?}", has(secret).map(|line| String::from_utf8_lossy(line)));
        }
    }
}

/// The lines of a key between its marks.
fn secret_lines(pem: &str) -> Vec<String> {
    pem.lines().filter(|line| !line.starts_with('-') && line.len() > 8).map(str::to_owned).collect()
}

#[test]
fn a_device_logs_in_and_every_command_asks_the_other_computer() {
    let Some(pair) = Pair::new() else { return };
    let (laptop, other) = (&pair.laptop, &pair.other);
    other.ok(&["controller", "start"]);
    let lines = Lines::watch(&pair);
    laptop.ok(&words(&pair.login()));
    let remote = pair.remote();
    let secrets = secret_lines(remote["key"].as_str().unwrap());
    lines.hold_none_of(&pair, &secrets, "controller admit --name=lap");
    let mode = fs::metadata(laptop.home.join("remote.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(pair.admitted(), [("operator:local".to_owned(), "operator lap".to_owned())]);

    // A run of the laptop is one of the other computer, and nothing is here.
    let root = laptop.project("p", &[("program.sh", PROGRAM), ("outlast.toml", SETTINGS)]);
    let run = laptop.submit(&root, &[]);
    laptop.ends_as(&run, "SUCCEEDED");
    assert_eq!(laptop.ok(&["logs", &run, "--stdout"]).text(), "hello from the box\n");
    assert_eq!(other.status(&run)["run"]["state"], "SUCCEEDED");
    let submitted = other.events(&run);
    assert!(submitted.iter().any(|entry| entry["actor"] == "operator:lap"), "{submitted:#?}");
    let status = laptop.ok(&["controller", "status", "--json"]).json();
    assert_eq!((&status["running"], &status["at"]), (&true.into(), &"box".into()));
    assert_eq!(laptop.controllers(), Vec::<i32>::new());
    assert!(!laptop.home.join("hub.json").exists(), "an installation was begun here");

    // A device cannot prolong its own right: only the computer there admits.
    let text = |name: &str| remote[name].as_str().unwrap().to_owned();
    let at = controller::home::rendezvous(&other.home).unwrap();
    let own = proto::pki::Credentials { chain_pem: text("chain"), key_pem: text("key") };
    let tls = proto::tls::client(&text("root"), &own, Arc::new(SystemTime::now)).unwrap();
    let name = proto::tls::expected_name(at.hub).unwrap();
    let csr = proto::pki::MachineKey::from_pem(&text("key")).unwrap().request().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = runtime.block_on(async {
        let channel = proto::channel::dial(&[at.operators], tls, name).await.unwrap();
        let ask = proto::v1::AdmitRequest { name: "lap".into(), csr };
        proto::v1::operator_client::OperatorClient::new(channel).admit(ask).await.unwrap_err()
    });
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
    assert_eq!(pair.admitted().len(), 1);

    // What is done on the controller's own computer says where.
    for verb in [
        &["keys", "show"][..],
        &["keys", "recovery", "--out", "k"],
        &["doctor"],
        &["controller", "start"],
        &["controller", "stop"],
        &["controller", "install", "--print"],
        &["controller", "serve"],
        &["controller", "admit", "--name", "other"],
    ] {
        let said = laptop.call(verb);
        // The last one looks for an installation first.
        assert!([96, 66].contains(&said.code), "{verb:?}: {said:?}");
        assert!(said.code == 66 || said.stderr.contains("ssh box"), "{verb:?}: {said:?}");
    }

    // A controller that does not run is started by whoever asks.
    other.kill_controller();
    laptop.ok(&["status"]);
    // One that found the place taken may not have ended yet.
    other.one_controller();

    laptop.ok(&["logout"]);
    assert!(!laptop.home.join("remote.json").exists());
    laptop.ok(&["status"]).text();
    assert_eq!(laptop.call(&["status", &run]).code, 66, "it is the other computer's");
}

/// A certificate for the laptop's key that ran out an hour ago.
fn expire(pair: &Pair) {
    let mut remote = pair.remote();
    let keys = pair.other.home.join("keys");
    let read = |name: &str| fs::read_to_string(keys.join(name)).unwrap();
    let hub = remote["hub"].as_str().unwrap().parse().unwrap();
    let authority = proto::pki::Authority::load(hub, &read("root.pem"), &read("root.key")).unwrap();
    let key = proto::pki::MachineKey::from_pem(remote["key"].as_str().unwrap()).unwrap();
    let began = SystemTime::now() - Duration::from_hours(13);
    let chain =
        authority.sign_device("lap", &key.request().unwrap(), began, Duration::from_hours(12)).unwrap();
    remote["chain"] = chain.into();
    fs::write(pair.laptop.home.join("remote.json"), remote.to_string()).unwrap();
}

#[test]
fn a_certificate_that_ran_out_is_renewed_and_a_changed_host_key_is_an_error() {
    let Some(mut pair) = Pair::new() else { return };
    pair.other.ok(&["controller", "start"]);
    let login = pair.login();
    let login = words(&login);

    // Whose key is not known is not believed.
    fs::write(pair.laptop.path("known"), "").unwrap();
    let said = pair.laptop.call(&login).ends_with(77);
    assert!(said.stderr.contains("host key is not known"), "{said:?}");
    assert!(!pair.laptop.home.join("remote.json").exists());
    pair.know();
    pair.laptop.ok(&login);

    expire(&pair);
    let old = pair.remote()["chain"].clone();
    pair.laptop.ok(&["status"]);
    let fresh = pair.remote();
    assert_ne!(fresh["chain"], old);
    assert_eq!(pair.admitted().len(), 2);
    pair.laptop.ok(&["status"]);
    assert_eq!(pair.remote()["chain"], fresh["chain"], "a good one is kept");

    // What is refused says why.
    let mut elsewhere = login.clone();
    let at = elsewhere.len() - 1;
    elsewhere[at] = "nowhere/outlast";
    let said = pair.laptop.call(&elsewhere).ends_with(69);
    assert!(said.stderr.contains("there is no outlast to run on box"), "{said:?}");
    let empty = pair.other.path("empty").display().to_string();
    let mut elsewhere = login.clone();
    elsewhere[at - 2] = &empty;
    let said = pair.laptop.call(&elsewhere).ends_with(66);
    assert!(said.stderr.contains("there is no installation"), "{said:?}");
    assert!(!Path::new(&empty).exists(), "a mistyped directory became one");

    pair.server.change_host_key();
    pair.server.start();
    for args in [&login[..], &["status"]] {
        let said = pair.laptop.call(args).ends_with(77);
        assert!(said.stderr.contains("host key has CHANGED"), "{said:?}");
    }
    pair.know();
    pair.laptop.ok(&["status"]);
    // A login that the server does not take.
    let key = pair.server.identity().with_file_name("authorized_keys");
    fs::write(key, "").unwrap();
    let said = pair.laptop.call(&["status"]).ends_with(77);
    assert!(said.stderr.contains("refuses the login"), "{said:?}");
}
