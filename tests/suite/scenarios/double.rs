//! A stand-in for somebody's service, as a process of its own on loopback, with
//! a door for the test.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::stage::program;

/// One of them; it ends with this.
pub(super) struct Double {
    child: Child,
    pub(super) port: u16,
}

impl Double {
    /// Starts the program of this name.
    pub(super) fn start<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut child = Command::new(program().with_file_name(name))
            .arg("--until-stdin-closes")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        Self { child, port: u16::try_from(said["port"].as_u64().unwrap()).unwrap() }
    }

    /// Says something at the test's own door, and what came back.
    pub(super) fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, &format!("/control/{path}"), "", body)
    }

    /// Asks as anybody would; `more` are further header lines.
    pub(super) fn ask(&self, method: &str, path: &str, more: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             {more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(text).unwrap()
    }
}

impl Double {
    /// Ends it, as its drop would.
    pub(super) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.end();
    }
}
