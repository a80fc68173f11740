//! A real S3 server for one test: `moto`, started on a free port and ended
//! with the test.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use artifacts::store::remote::s3::{Credentials, S3Config};
use artifacts::store::remote::{Patience, RemoteStore, Writes, s3};

/// The bucket that is there from the start.
pub(crate) const BUCKET: &str = "bucket";

/// Exit code of the rig where moto cannot be had.
const CANNOT: i32 = 77;

/// Ends the server when dropped: its standard input closes.
pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    pub(crate) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Starts a server; `None`, said by name, where there is none to be had.
pub(crate) fn start(test: &str) -> Option<Server> {
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
    Some(Server { child, input, address: SocketAddr::from(([127, 0, 0, 1], port)) })
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
        credentials: Credentials::new("AKIDEXAMPLE", "a-secret", None),
        patience: Patience { pause: Duration::from_millis(5), ..Patience::default() },
        page: 1000,
    }
}

/// A client of a server at `address`.
pub(crate) fn store(address: SocketAddr, prefix: &str) -> RemoteStore {
    s3::open(config(address, prefix)).expect("a good configuration")
}
