//! The scripts that hosts are given: `remote.sh` with values before it and one
//! verb behind it. Values are checked by their makers and quoted here; nothing
//! of them is ever an argument of a program on this computer.

use std::fmt::Write as _;

use super::link::Script;

const REMOTE: &str = include_str!("remote.sh");

/// What a host is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb<'a> {
    /// Says what it holds, and what is left of one machine if one is named.
    Look {
        /// The machine, or nothing.
        machine: &'a str,
        /// Whether GPUs are to be counted.
        count_gpus: bool,
    },
    /// Claims a slot for a machine, unless it has one.
    Claim {
        /// The machine.
        machine: &'a str,
        /// Its label.
        label: &'a str,
        /// The GPUs of each slot; `None`: all that there are.
        shares: &'a [Option<String>],
    },
    /// Ends a machine with all its processes and removes what is left.
    End {
        /// The machine.
        machine: &'a str,
    },
}

/// One word for a POSIX shell, whatever it holds.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The script for one call.
pub(super) fn render(tag: &str, hub: &str, base: &str, verb: Verb<'_>) -> Script {
    let mut text = String::with_capacity(REMOTE.len() + 1024);
    let mut set = |name: &str, value: &str| {
        let _ = writeln!(text, "{name}={}", quote(value));
    };
    set("tag", tag);
    set("hub", hub);
    set("base", base);
    let (machine, label, count, gpus, call) = match verb {
        Verb::Look { machine, count_gpus } => {
            (machine, "", 0, if count_gpus { "auto" } else { "no" }, "look")
        }
        Verb::Claim { machine, label, shares } => (machine, label, shares.len(), "no", "claim"),
        Verb::End { machine } => (machine, "", 0, "no", "end_machine"),
    };
    set("machine", machine);
    set("label", label);
    set("count", &count.to_string());
    set("gpus", gpus);
    if let Verb::Claim { shares, .. } = verb {
        for (slot, share) in shares.iter().enumerate() {
            if let Some(share) = share {
                set(&format!("share_{slot}"), share);
            }
        }
    }
    text.push_str(REMOTE);
    // The last line: a script that came only in part does nothing.
    let _ = writeln!(text, "main {call} </dev/null");
    Script { tag: tag.to_owned(), text }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    /// What a shell makes of the values of a script.
    fn read_back(shell: &[&str], script: &Script, name: &str) -> Vec<u8> {
        let head = script.text.split(REMOTE).next().unwrap();
        let text = format!("{head}\nprintf '%s' \"${name}\"\n");
        let mut child = Command::new(shell[0])
            .args(&shell[1..])
            .arg("-s")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap().stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn values_stay_values(base in "[^\0]{0,40}", share in "[ -~\n]{0,20}") {
            let shares = [None, Some(share.clone())];
            let verb = Verb::Claim { machine: "m", label: "l", shares: &shares };
            let script = render("t", "h", &base, verb);
            prop_assert_eq!(read_back(&["sh"], &script, "base"), base.into_bytes());
            prop_assert_eq!(read_back(&["sh"], &script, "share_1"), share.into_bytes());
        }
    }

    #[test]
    fn a_script_that_came_in_part_does_nothing() {
        let script = render("t", "h", "/nowhere", Verb::Look { machine: "", count_gpus: false });
        let body = script.text.strip_suffix("main look </dev/null\n").unwrap();
        for cut in [body.len(), body.len() / 2, body.len() / 3, 200] {
            let mut child = Command::new("sh")
                .arg("-s")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(&body.as_bytes()[..cut]).unwrap();
            assert!(child.wait_with_output().unwrap().stdout.is_empty(), "{cut}");
        }
    }
}
