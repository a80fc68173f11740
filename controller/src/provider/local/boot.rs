//! Starts a local machine: its first-boot script in a session of its own, away
//! from the controller's terminal, environment and life.
//!
//! The script waits at a gate until the machine is in its cgroup and written
//! down; if the controller dies before that, it never runs. A wrapper that the
//! owner put before it must become what it starts: the pid is the machine's.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::directory::{BOOT_LOG, BootFile, Directory, SCRIPT};
use super::{MARKER, cgroup, processes};

/// Reads one line, then becomes the script's shell under the same pid.
const GATE: &str = r#"read -r go && [ "$go" = go ] && exec /bin/sh "$0" </dev/null"#;

/// The environment variable with a command that is put before a machine's first
/// process, such as `ip netns exec lab`.
const WRAP: &str = "OUTLAST_LOCAL_WRAP";
/// The longest such command.
const MAX_WRAP: usize = 4096;

/// The words of a wrapper. They are split at spaces, and nothing else is
/// special in them.
fn wrapper(text: &str) -> io::Result<Vec<&str>> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{WRAP} {why}"));
    if text.len() > MAX_WRAP {
        return Err(bad("is longer than 4096 bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(bad("has control characters in it: give one command, its words apart by spaces"));
    }
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    match words.first() {
        Some(first) if first.starts_with('-') || first.contains('=') => {
            Err(bad("must begin with the name or the path of a program"))
        }
        _ => Ok(words),
    }
}

/// Starts it; on an error nothing of it runs.
pub(super) fn start(directory: &Directory) -> io::Result<()> {
    let mut child = spawn(directory)?;
    let opened = open_gate(directory, &mut child);
    if opened.is_err() {
        let _ = child.kill();
    }
    // Somebody has to wait for it, or it stays as a zombie when it ends.
    std::thread::Builder::new().name("reap-machine".into()).spawn(move || child.wait())?;
    opened
}

fn open_gate(directory: &Directory, child: &mut Child) -> io::Result<()> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let start_time = processes::start_time(pid).ok_or_else(|| io::Error::other("it ended at once"))?;
    let cgroup = cgroup::make(directory.id(), pid);
    directory.write_boot(&BootFile { stamp: processes::Stamp { pid, start_time }, cgroup })?;
    let mut gate = child.stdin.take().ok_or_else(|| io::Error::other("no pipe to it"))?;
    gate.write_all(b"go\n")
}

/// What a machine on this computer has of its owner's environment: where home
/// is, the language, and how packages are fetched from here.
/// Never what publishes packages: that is nothing for a machine.
fn is_handed_on(name: &str) -> bool {
    let proxies = ["http_proxy", "https_proxy", "no_proxy", "all_proxy"];
    let prefixes = ["PIP_", "UV_", "SSL_CERT_", "REQUESTS_CA_"];
    ["HOME", "LANG"].contains(&name)
        || proxies.contains(&name.to_lowercase().as_str())
        || (prefixes.iter().any(|prefix| name.starts_with(prefix)) && !name.starts_with("UV_PUBLISH_"))
}

fn spawn(directory: &Directory) -> io::Result<Child> {
    let path = directory.path();
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path.join(BOOT_LOG))?;
    let setsid = ["/usr/bin/setsid", "/bin/setsid"].map(Path::new).into_iter().find(|p| p.is_file());
    let wrap = std::env::var(WRAP).unwrap_or_default();
    let setsid = setsid.map(Path::as_os_str);
    let words = wrapper(&wrap)?.into_iter().chain(["/bin/sh"]).map(OsStr::new);
    let mut words = setsid.into_iter().chain(words);
    let mut command = Command::new(words.next().unwrap_or(OsStr::new("/bin/sh")));
    command.args(words);
    if setsid.is_none() {
        // Without it: at least no signal from the terminal reaches it.
        command.process_group(0);
    }
    command.args(["-c", GATE, &format!("./{SCRIPT}")]).current_dir(&path).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()));
    command.envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_handed_on)));
    command.env(MARKER, directory.id());
    command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).spawn()
}

#[cfg(test)]
mod tests {
    use super::{is_handed_on, wrapper};

    #[test]
    fn a_wrapper_is_words_and_no_shell() {
        assert!(wrapper("").unwrap().is_empty());
        assert_eq!(wrapper("  ip netns  exec lab ").unwrap(), ["ip", "netns", "exec", "lab"]);
        assert_eq!(wrapper("/opt/place $HOME;x").unwrap(), ["/opt/place", "$HOME;x"]);
        for bad in ["ip\nrm -rf", "a\0b", "-c evil", "A=b ip", &"x".repeat(5000)] {
            assert!(wrapper(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_fetches_packages_reaches_a_machine() {
        for name in
            ["HOME", "LANG", "PIP_INDEX_URL", "UV_CACHE_DIR", "https_proxy", "NO_PROXY", "SSL_CERT_FILE"]
        {
            assert!(is_handed_on(name), "{name}");
        }
        for name in
            ["AWS_SECRET_ACCESS_KEY", "UV_PUBLISH_TOKEN", "VAST_API_KEY", "HF_TOKEN", "OUTLAST_HOME", "PIPX"]
        {
            assert!(!is_handed_on(name), "{name}");
        }
    }
}
