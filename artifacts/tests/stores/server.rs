//! A real S3 server for one test, started on a free port and ended with the
//! test: `moto`, or `s3s-fs`, which checks signatures and keeps its objects on
//! disk, where `OUTLAST_S3S_FS` names its program.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use artifacts::store::remote::s3::{Credentials, S3Config};
use artifacts::store::remote::{Patience, RemoteStore, Writes, s3};

/// The bucket that is there from the start.
pub(crate) const BUCKET: &str = "bucket";

/// Who asks.
const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "a-secret";

/// Exit code of the rig where moto cannot be had.
const CANNOT: i32 = 77;

/// Names the program of the server that checks signatures.
const S3S_FS: &str = "OUTLAST_S3S_FS";

/// Ends the server when dropped.
pub(crate) struct Server {
    child: Child,
    /// One ends when this is closed, the other when it is killed.
    input: Option<ChildStdin>,
    pub(crate) address: SocketAddr,
    /// Where the objects are, if on disk.
    dir: Option<tempfile::TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.input.take().is_none() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// The server that checks signatures and survives a kill; `None`, said by name,
/// where its program is not given.
pub(crate) fn strict(test: &str) -> Option<Server> {
    if !is_strict() {
        println!("skipped: {test}: {S3S_FS} names no program");
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join(BUCKET)).expect("a bucket");
    // Free a moment ago.
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr();
    let address = free.expect("its address");
    let child = spawn_strict(&dir, address);
    Some(Server { child, input: None, address, dir: Some(dir) })
}

fn spawn_strict(dir: &tempfile::TempDir, address: SocketAddr) -> Child {
    let child = Command::new(std::env::var_os(S3S_FS).expect("named"))
        .args(["--access-key", ID, "--secret-key", SECRET, "--host", "127.0.0.1"])
        .arg("--port")
        .arg(address.port().to_string())
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("s3s-fs starts");
    let up = (0..1_000).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        std::net::TcpStream::connect(address).is_ok()
    });
    assert!(up, "s3s-fs does not listen");
    child
}

impl Server {
    /// Kills the server as `kill -9` does, and starts it again over what it
    /// has on disk.
    pub(crate) fn kill_and_restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let dir = self.dir.as_ref().expect("a server with a disk");
        self.child = spawn_strict(dir, self.address);
    }
}

/// Whether servers check signatures.
pub(crate) fn is_strict() -> bool {
    std::env::var_os(S3S_FS).is_some()
}

/// Starts a server; `None`, said by name, where there is none to be had.
pub(crate) fn start(test: &str) -> Option<Server> {
    if is_strict() {
        return strict(test);
    }
    moto(test)
}

/// The server that checks no signatures, knows of a missing bucket, and sees
/// that two create at the same instant.
pub(crate) fn moto(test: &str) -> Option<Server> {
    let rig = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/rigs/s3/serve.py");
    let venv = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("moto");
    let spawned = Command::new("python3")
        .arg("-B")
        .arg(rig)
        .arg("--venv")
        .arg(venv)
        .args(["--bucket", BUCKET])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = spawned else {
        println!("skipped: {test}: there is no python3 here");
        return None;
    };
    let input = child.stdin.take();
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("the rig's answer");
    if line.is_empty() {
        let status = child.wait().expect("the rig ends");
        assert_eq!(status.code(), Some(CANNOT), "the rig failed");
        assert!(
            std::env::var_os("OUTLAST_S3_REQUIRED").is_none(),
            "moto cannot be installed, and is required"
        );
        println!("skipped: {test}: moto cannot be installed here");
        return None;
    }
    let told: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
    let port = told["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
    Some(Server { child, input, address: SocketAddr::from(([127, 0, 0, 1], port)), dir: None })
}

/// How to speak to a server at `address`.
pub(crate) fn config(address: SocketAddr, prefix: &str) -> S3Config {
    S3Config {
        bucket: BUCKET.into(),
        prefix: prefix.into(),
        region: "us-east-1".into(),
        endpoint: Some(format!("http://{address}")),
        path_style: true,
        ca_pem: None,
        allow_http: true,
        writes: Writes::CreateOnly,
        credentials: Credentials::new(ID, SECRET, None),
        patience: Patience { pause: Duration::from_millis(5), ..Patience::default() },
        page: 1000,
    }
}

/// A client of a server at `address`.
pub(crate) fn store(address: SocketAddr, prefix: &str) -> RemoteStore {
    s3::open(config(address, prefix)).expect("a good configuration")
}
