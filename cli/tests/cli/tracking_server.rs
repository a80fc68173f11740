//! `outlast analyze mlflow://...` against replies that a real server of MLflow
//! 3.17.2 gave, and against a real one where there is one: `OUTLAST_TEST_MLFLOW`
//! names the program `mlflow`, else it is looked for on `PATH`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use super::{code, text};
use serde_json::{Value, json};

/// Runs `analyze` with variables of its own.
fn analyze(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.arg("analyze").args(args).current_dir(dir).env_clear().env("HOME", dir);
    command.envs(env.iter().copied()).stdin(Stdio::null()).output().unwrap()
}

fn runs(output: &Output) -> Vec<Value> {
    let found: Result<Value, _> = serde_json::from_slice(&output.stdout);
    found.unwrap_or_else(|_| panic!("{}", text(&output.stderr))).as_array().unwrap().clone()
}

/// A server of recorded replies, which gives histories in two pages.
struct Recorded {
    address: String,
    /// Lines of requests and their credentials.
    heard: Arc<Mutex<Vec<String>>>,
}

impl Recorded {
    fn start() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../curves/tests/data/mlflow-rest.json");
        let replies: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(stream.unwrap(), &replies, &log);
            }
        });
        Self { address, heard }
    }
}

fn answer(stream: TcpStream, replies: &Value, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let (mut length, mut proof) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => proof = value.to_owned(),
            _ => {}
        }
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    log.lock().unwrap().push(format!("{} {proof}", first.trim()));
    let (status, body) = reply(&first, replies);
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn reply(request: &str, replies: &Value) -> (&'static str, String) {
    let target = request.split(' ').nth(1).unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Some(call) = path.strip_prefix("/api/2.0/mlflow/") else {
        return ("404 Not Found", "<html>no page</html>".to_owned());
    };
    let query: Vec<(String, String)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.replace('+', " ").replace("%2F", "/").replace("%26", "&")))
        .collect();
    let asked = |key: &str| query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let key = match call {
        "experiments/get-by-name" => format!("{call}?{}", asked("experiment_name").unwrap()),
        "runs/get" => format!("{call}?{}", asked("run_id").unwrap()),
        "metrics/get-history" => {
            format!("{call}?{}?{}", asked("run_id").unwrap(), asked("metric_key").unwrap())
        }
        call => call.to_owned(),
    };
    // The same experiment under names as Databricks and teams give them.
    let key = match key.as_str() {
        "experiments/get-by-name?/Users/me/digits" | "experiments/get-by-name?team/x" => {
            "experiments/get-by-name?digits & co".to_owned()
        }
        "experiments/get" => "experiments/get-by-name?digits & co".to_owned(),
        _ => key,
    };
    let Some(mut found) = replies.get(&key).cloned() else {
        return (
            "404 Not Found",
            json!({ "error_code": "RESOURCE_DOES_NOT_EXIST", "message": format!("no {key}\u{1b}[2J") })
                .to_string(),
        );
    };
    if found.get("error_code").is_some() {
        return ("404 Not Found", found.to_string());
    }
    if let Some(list) = found.get("metrics").and_then(Value::as_array).cloned() {
        let half = list.len() / 2;
        found = match asked("page_token") {
            None => json!({ "metrics": list[..half], "next_page_token": "second" }),
            Some(_) => json!({ "metrics": list[half..] }),
        };
    }
    ("200 OK", found.to_string())
}

fn check(found: &[Value]) {
    assert_eq!(found.len(), 2);
    let of = |name: &str| found.iter().find(|run| run["facts"]["name"] == name).unwrap();
    for run in found {
        assert_eq!((run["format"].as_str(), run["values"].as_u64()), (Some("mlflow"), Some(66)), "{run}");
        assert_eq!((run["first_step"].as_u64(), run["last_step"].as_u64()), (Some(0), Some(59)));
        assert_eq!(run["facts"]["status"].as_str(), Some("FINISHED"));
    }
    let kinds = |name: &str| of(name)["report"]["findings"].to_string();
    assert!(kinds("run-nan").contains("non_finite") && !kinds("run-ok").contains("non_finite"));
    let metrics = of("run-ok")["report"]["metrics"].as_array().unwrap();
    let last = |name: &str| metrics.iter().find(|metric| metric["name"] == name).unwrap()["last"].as_f64();
    assert_eq!((last("train/loss"), last("val/acc")), (Some(2.0 / (1.0 + 59.0 / 10.0)), Some(0.5)));
}

#[test]
fn an_experiment_and_a_run_are_read_from_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Recorded::start();
    let at = |what: &str| format!("mlflow://{}/{what}", server.address);
    let token = [("MLFLOW_TRACKING_TOKEN", "canary-token")];
    let output = analyze(dir.path(), &[&at("digits%20%26%20co"), "--json"], &token);
    check(&runs(&output));
    let heard = server.heard.lock().unwrap().clone();
    assert!(heard.iter().all(|line| line.ends_with(" Bearer canary-token")), "{heard:?}");
    assert_eq!(heard.iter().filter(|line| line.contains("page_token=second")).count(), 4, "{heard:?}");
    assert!(!text(&output.stdout).contains("canary") && !text(&output.stderr).contains("canary"));
    // One run, by what a browser shows.
    let id = runs(&output)[0]["facts"]["run_id"].as_str().unwrap().to_owned();
    let shown = format!("http://{}/#/experiments/1/runs/{id}", server.address);
    let one = runs(&analyze(dir.path(), &[&shown, "--json"], &[]));
    assert_eq!((one.len(), one[0]["facts"]["run_id"].as_str()), (1, Some(id.as_str())));
    // What is not there is told with what is.
    let output = analyze(dir.path(), &[&at("none")], &[]);
    let said = text(&output.stderr);
    assert!(code(&output) == 66 && said.contains("experiments: ") && said.contains("digits & co"), "{said}");
    let output = analyze(dir.path(), &[&at("0123456789abcdef0123456789abcdef")], &[]);
    let said = text(&output.stderr);
    assert!(code(&output) == 66 && said.contains("answered 404") && !said.contains('\u{1b}'), "{said}");
}

#[test]
fn every_view_reads_a_server_and_names_may_hold_slashes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Recorded::start();
    let view = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.args(args).current_dir(dir.path()).env_clear().env("HOME", dir.path());
        command.env("MLFLOW_TRACKING_TOKEN", "canary-token").stdin(Stdio::null()).output().unwrap()
    };
    for name in ["digits & co", "1", "Users/me/digits", "team/x"] {
        let at = format!("mlflow://{}/{name}", server.address);
        let listed = view(&["runs", &at]);
        let said = text(&listed.stdout);
        assert!(
            code(&listed) == 0 && said.contains("run-ok") && said.contains("run-nan"),
            "{name}: {said}{}",
            text(&listed.stderr)
        );
    }
    let at = format!("mlflow://{}/digits & co", server.address);
    for (args, word) in [
        (["metrics", &at, "--run", "run-ok"], "val/acc"),
        (["settings", &at, "--run", "run-ok"], "lr"),
        (["stats", &at, "--run", "run-ok"], "train/loss"),
        (["history", &at, "--run", "run-ok"], "50,0.5"),
        (["group", &at, "--metric", "train/loss"], "2 runs"),
    ] {
        let output = view(&args);
        let said = text(&output.stdout);
        assert!(code(&output) == 0 && said.contains(word), "{args:?}: {said}{}", text(&output.stderr));
    }
    let heard = server.heard.lock().unwrap().clone();
    assert!(heard.iter().all(|line| line.ends_with(" Bearer canary-token")), "{heard:?}");
    // What is not there is told with what is, wherever the name was looked for.
    let output = view(&["stats", &format!("mlflow://{}/no/such", server.address)]);
    let said = text(&output.stderr);
    assert!(code(&output) == 66 && said.contains("experiments: ") && said.contains("digits & co"), "{said}");
}

#[test]
fn what_proves_who_asks_is_not_given_away() {
    let dir = tempfile::tempdir().unwrap();
    for (address, env, word) in [
        ("http://me:canary@127.0.0.1:1/x", None, "MLFLOW_TRACKING_TOKEN"),
        ("mlflow://192.0.2.1/x", Some(("MLFLOW_TRACKING_TOKEN", "canary")), "in the clear"),
        ("mlflow://192.0.2.1/x", Some(("MLFLOW_TRACKING_PASSWORD", "canary")), "in the clear"),
    ] {
        let output = analyze(dir.path(), &[address], env.as_slice());
        let said = text(&output.stderr);
        assert_eq!(code(&output), 65, "{said}");
        assert!(said.contains(word), "{said}");
        assert!(env.is_none() || !said.contains("canary"), "{said}");
    }
    // A port that is given to nobody who asks for a free one.
    let output = analyze(dir.path(), &["mlflow://127.0.0.1:1/x"], &[]);
    assert!(
        code(&output) == 69 && text(&output.stderr).contains("cannot be reached"),
        "{}",
        text(&output.stderr)
    );
}

/// Ends what it holds.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_server_is_read() {
    let named = std::env::var_os("OUTLAST_TEST_MLFLOW").map(std::path::PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = named
        .or_else(|| std::env::split_paths(&path).map(|dir| dir.join("mlflow")).find(|file| file.is_file()));
    let Some(mlflow) = found else {
        println!("skipped: there is no program mlflow (pip install mlflow)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = format!("sqlite:///{}/m.db", dir.path().display());
    let host = format!("http://127.0.0.1:{port}");
    let mut command = Command::new(&mlflow);
    command.args([
        "server",
        "--backend-store-uri",
        &store,
        "--host",
        "127.0.0.1",
        "--workers",
        "1",
        "--port",
    ]);
    command.arg(port.to_string()).current_dir(dir.path()).env("MLFLOW_DISABLE_TELEMETRY", "true");
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let _server =
        Server(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let script = format!(
        "import time, urllib.request\n\
         for _ in range(600):\n    try:\n        urllib.request.urlopen('{host}/health'); break\n    except Exception: time.sleep(0.2)\n\
         import mlflow\nmlflow.set_tracking_uri('{host}')\nmlflow.set_experiment('digits & co')\n\
         for name in ('run-ok', 'run-nan'):\n    with mlflow.start_run(run_name=name):\n        mlflow.log_params({{'lr': 0.1}})\n        \
         for i in range(60):\n            v = float('nan') if name == 'run-nan' and i == 40 else 2/(1+i/10)\n            \
         mlflow.log_metric('train/loss', v, step=i)\n        for i in range(0, 60, 10): mlflow.log_metric('val/acc', i/100, step=i)\n"
    );
    let python = mlflow.with_file_name("python");
    let python = if python.is_file() { python } else { "python3".into() };
    let filled = Command::new(python).args(["-c", &script]).current_dir(dir.path()).output().unwrap();
    assert!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));
    check(&runs(&analyze(dir.path(), &[&format!("mlflow://127.0.0.1:{port}/digits & co"), "--json"], &[])));
    // The database below the server says the same, while the server has it open.
    check(&runs(&analyze(dir.path(), &["m.db", "--json"], &[])));
}
