//! Where a library or an ability may be named. Grouped imports are looked
//! into: `use std::{fs, io}` names `std::fs`.

use super::lexer::{closing, is_word};
use super::tree::SourceFile;

/// What may be named only in some places.
struct Wall {
    /// Paths of names, such as `std::fs`.
    names: &'static [&'static str],
    /// Files and folders, without `.rs`, in which the rule holds; empty is
    /// everywhere.
    within: &'static [&'static str],
    /// Files and folders, without `.rs`, in which it is allowed all the same.
    allowed: &'static [&'static str],
    /// Whether tests must keep the rule too.
    tests: bool,
    /// The reason.
    why: &'static str,
}

/// Where the operating system may be touched directly.
const SYSTEM: [&str; 16] = [
    "agent/src/os",
    "agent/src/keeper",
    "agent/src/guard",
    "agent/src/process",
    "agent/src/environment",
    "agent/src/health",
    "agent/src/spool",
    "cli/src/daemon",
    // Ends the programs that it begins.
    "cli/src/commands/analyze/plugin",
    // Asks a file system for holes.
    "cli/src/commands/analyze/holes",
    "controller/src/provider",
    // Tests only: it ends its own process as the kernel would.
    "controller/src/failpoint",
    "artifacts/examples",
    "curves/examples",
    "tests",
    "examples",
];

const WALLS: [Wall; 7] = [
    Wall {
        names: &["tonic::transport", "rustls", "tokio_rustls"],
        within: &[],
        // A machine without credentials speaks to a store itself (0023).
        allowed: &["proto", "tests", "artifacts/src/store/booklet"],
        tests: false,
        why: "channels, servers and TLS are built in proto only",
    },
    Wall {
        names: &["rusqlite"],
        within: &[],
        // Tracking tools' databases are opened in one place, and only read.
        allowed: &["controller/src/store", "cli/src/commands/analyze/database"],
        tests: false,
        why: "the database stays behind the store",
    },
    Wall {
        names: &["rmcp"],
        within: &[],
        allowed: &["cli/src/mcp"],
        tests: true,
        why: "the protocol of assistants stays behind the server (0057)",
    },
    Wall {
        names: &["nix"],
        within: &[],
        allowed: &SYSTEM,
        tests: false,
        why: "the operating system has its own modules",
    },
    Wall {
        names: &[
            "std::fs",
            "std::net",
            "std::process",
            "std::time::Instant",
            "std::time::SystemTime",
            "Instant::now",
            "SystemTime::now",
            "tokio",
        ],
        within: &["lifecycle/src", "curves/src"],
        allowed: &[],
        tests: false,
        why: "the crate is pure: no disk, no network, no clock, no runtime",
    },
    Wall {
        names: &["tokio::spawn", "tokio::task::spawn"],
        within: &[],
        allowed: &[],
        tests: true,
        why: "every task is owned: spawn it on a JoinSet or TaskTracker",
    },
    Wall {
        names: &["unbounded_channel", "mpsc::unbounded"],
        within: &[],
        allowed: &[],
        tests: true,
        why: "every queue is bounded",
    },
];

/// What is named where it may not be.
pub(super) fn check(files: &[SourceFile]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !file.generated) {
        for wall in &WALLS {
            let held = wall.within.is_empty() || lies_in(&file.path, wall.within);
            if !held || lies_in(&file.path, wall.allowed) {
                continue;
            }
            let code = if wall.tests { &file.code } else { &file.product };
            for name in wall.names {
                for at in named(code, name) {
                    findings.push(format!("{}:{}: {name}: {}", file.path, line(code, at), wall.why));
                }
            }
        }
        if !lies_in(&file.path, &SYSTEM) {
            for at in proc_paths(&file.product_text) {
                let line = line(&file.product_text, at);
                findings.push(format!("{}:{line}: /proc is read in few places only", file.path));
            }
        }
    }
    findings
}

/// Whether a file is one of these modules or lies in their folders.
fn lies_in(path: &str, places: &[&str]) -> bool {
    places
        .iter()
        .any(|place| path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/') || rest == ".rs"))
}

fn line(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Where code names a path such as `std::fs`, also through a grouped import.
fn named(code: &str, path: &str) -> Vec<usize> {
    let (first, rest) = path.split_once("::").unwrap_or((path, ""));
    let rest: Vec<&str> = rest.split("::").filter(|part| !part.is_empty()).collect();
    code.match_indices(first)
        .filter(|(at, _)| {
            let free = *at == 0 || !is_word(code.as_bytes()[at - 1]);
            free && continues(&code[at + first.len()..], &rest, path == first)
        })
        .map(|(at, _)| at)
        .collect()
}

/// Whether the text after a name goes on as the rest of the path does. A name
/// that stands alone must be the head of a path or an imported crate.
fn continues(after: &str, rest: &[&str], alone: bool) -> bool {
    if after.as_bytes().first().is_some_and(|byte| is_word(*byte)) {
        return false;
    }
    let Some((next, further)) = rest.split_first() else {
        return !alone
            || after.starts_with("::")
            || after.starts_with('(')
            || after.starts_with([';', ' ', ',', '}']);
    };
    let Some(after) = after.trim_start().strip_prefix("::") else { return false };
    let after = after.trim_start();
    if after.starts_with('{') {
        let group = &after[1..closing(after, 0).max(1)];
        return items(group)
            .into_iter()
            .any(|item| item.strip_prefix(next).is_some_and(|after| continues(after, further, false)));
    }
    after.strip_prefix(next).is_some_and(|after| continues(after, further, false))
}

/// The items of a group, split at its own commas.
fn items(group: &str) -> Vec<&str> {
    let (mut list, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                list.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    list.push(group[start..].trim());
    list
}

/// Where a text names a path in `/proc`.
fn proc_paths(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    text.match_indices("/proc")
        .map(|(at, _)| at)
        .filter(|at| {
            let starts = *at == 0 || !(is_word(bytes[at - 1]) || bytes[at - 1] == b'.');
            starts && bytes.get(at + 5).is_none_or(|byte| !is_word(*byte) && *byte != b'-')
        })
        .collect()
}

#[cfg(test)]
fn found(path: &str, source: &str) -> usize {
    check(&super::tree::sources(vec![(path.to_owned(), source.to_owned())])).len()
}

#[test]
fn transport_and_tls_stay_in_proto() {
    for bad in [
        "let x = tonic::transport::Server::builder();",
        "use tonic::{Status, transport::Channel};",
        "use tonic::{\n    Status,\n    transport,\n};",
        "let x = rustls::ServerConfig::builder();",
        "use tokio_rustls::TlsAcceptor;",
    ] {
        assert_eq!(found("agent/src/uplink.rs", bad), 1, "{bad}");
        assert_eq!(found("proto/src/tls.rs", bad), 0, "{bad}");
    }
    for good in ["use tonic::{Status, Code};", "// rustls::x", "let a = \"rustls::x\";", "my_rustls::x();"] {
        assert_eq!(found("agent/src/uplink.rs", good), 0, "{good}");
    }
}

#[test]
fn the_database_stays_in_the_store() {
    let bad = "fn open() -> rusqlite::Connection {}";
    assert_eq!(found("controller/src/store/sqlite.rs", bad), 0);
    assert_eq!(found("controller/src/store.rs", bad), 0);
    assert_eq!(found("controller/src/storefront.rs", bad), 1);
    assert_eq!(found("controller/src/plan.rs", "use rusqlite::Connection;"), 1);
}

#[test]
fn the_system_has_its_modules() {
    let bad = "use nix::unistd::Pid;\nfn a() { read(\"/proc/self/stat\") }";
    assert_eq!(found("agent/src/os/tree.rs", bad), 0);
    assert_eq!(found("cli/src/daemon.rs", bad), 0);
    assert_eq!(found("agent/src/uplink.rs", bad), 2);
    assert_eq!(found("agent/src/uplink.rs", "fn a() { open(format!(\"/proc/{pid}\")) }"), 1);
    let good =
        "use std::os::unix::fs; // nix::x and /proc\nfn a() { b(\"/process\", \"/proc-like\", \"x/proc/\") }";
    assert_eq!(found("agent/src/uplink.rs", good), 0);
    let tested = "#[cfg(test)]\nmod tests { use nix::unistd::Pid; }";
    assert_eq!(found("agent/src/uplink.rs", tested), 0);
}

#[test]
fn pure_crates_have_no_world() {
    for bad in [
        "use std::fs;",
        "use std::{fmt, fs::File};",
        "use std::{fmt, time::{Duration, Instant}};",
        "fn a() { std::net::lookup() }",
        "fn a() { SystemTime::now(); }",
        "use tokio::sync::mpsc;",
    ] {
        assert_eq!(found("lifecycle/src/run.rs", bad), 1, "{bad}");
        assert_eq!(found("curves/src/read/csv.rs", bad), 1, "{bad}");
        assert_eq!(found("controller/src/run.rs", bad), 0, "{bad}");
    }
    for good in
        ["use std::fmt;", "use std::{fmt, time::Duration};", "fn a(fs: u8) {}", "use std::fmt::{self};"]
    {
        assert_eq!(found("lifecycle/src/run.rs", good), 0, "{good}");
    }
}

#[test]
fn tasks_are_owned_and_queues_bounded() {
    for bad in [
        "fn a() { tokio::spawn(x); }",
        "use tokio::{spawn, time};",
        "fn a() { tokio::task::spawn(x); }",
        "fn a() { mpsc::unbounded_channel(); }",
        "#[cfg(test)]\nmod tests { fn a() { tokio::spawn(x); } }",
    ] {
        assert_eq!(found("agent/src/app.rs", bad), 1, "{bad}");
    }
    let good = "fn a() { set.spawn(x); tokio::task::spawn_blocking(x); mpsc::channel(8); }";
    assert_eq!(found("agent/src/app.rs", good), 0);
}
