//! Runs a command of somebody else for a short while: it gets nothing to read,
//! of what it says only the beginning is kept, and it ends with all that it
//! started when its time is over.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::set_nonblocking;

/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(10);

/// Which of what it says is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Its output.
    Stdout,
    /// Its error stream.
    Stderr,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None`: a signal ended it, or its time was over.
    pub code: Option<i32>,
    /// The beginning of what it said.
    pub said: String,
}

/// Runs it for at most `limit` and keeps at most `most` bytes. Blocks.
///
/// # Errors
/// Where it cannot be started.
pub fn run_bounded(
    argv: &[String],
    cwd: &Path,
    env: &BTreeMap<String, String>,
    limit: Duration,
    most: usize,
    kept: Kept,
) -> io::Result<Ended> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(cwd).env_clear().envs(env).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let command = match kept {
        Kept::Stdout => command.stdout(Stdio::piped()),
        Kept::Stderr => command.stderr(Stdio::piped()),
    };
    let mut child = command.spawn()?;
    let ended = watch(&mut child, limit, most);
    // The group is named by its first process, which is not waited for yet
    // where its time was over.
    let group = Pid::from_raw(child.id().cast_signed());
    if !matches!(ended, Ok((Some(_), _))) {
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
    }
    let (status, said) = ended?;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Ok(Ended { code: status.and_then(|status| status.code()), said })
}

type Watched = (Option<std::process::ExitStatus>, Vec<u8>);

fn watch(child: &mut Child, limit: Duration, most: usize) -> io::Result<Watched> {
    let until = Instant::now() + limit;
    // One of the two is piped.
    let stdout = child.stdout.take().map(std::os::fd::OwnedFd::from);
    let pipe = stdout.or_else(|| child.stderr.take().map(std::os::fd::OwnedFd::from));
    let mut pipe = pipe.map(std::fs::File::from);
    if let Some(pipe) = &pipe {
        set_nonblocking(pipe)?;
    }
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let status = child.try_wait()?;
        // All is read, or it would wait for that; little is kept.
        while let Some(got) = pipe.as_mut().and_then(|pipe| pipe.read(&mut buffer).ok()).filter(|n| *n > 0) {
            said.extend(buffer[..got].iter().take(most.saturating_sub(said.len())));
            if Instant::now() >= until {
                break;
            }
        }
        if status.is_some() || Instant::now() >= until {
            return Ok((status, said));
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(line: &str, limit: Duration) -> Ended {
        let argv = ["/bin/sh", "-c", line].map(str::to_owned);
        let env = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
        run_bounded(&argv, Path::new("/"), &env, limit, 10, Kept::Stderr).unwrap()
    }

    #[test]
    fn it_ends_by_itself_or_when_its_time_is_over() {
        let hour = Duration::from_secs(3600);
        assert_eq!(sh("exit 0", hour), Ended { code: Some(0), said: String::new() });
        assert_eq!(sh("echo $A$HOME >&2; exit 3", hour), Ended { code: Some(3), said: "b".into() });
        let loud = sh("head -c 1000000 /dev/zero | tr '\\0' x >&2", hour);
        assert_eq!((loud.code, loud.said.len()), (Some(0), 10));
        // Where its time was over before it had begun, it is given more.
        let said = [50, 1_000, 20_000, 180_000].into_iter().find_map(|ms| {
            let ended = sh("sleep 3600 & echo waits >&2; wait", Duration::from_millis(ms));
            assert_eq!(ended.code, None);
            Some(ended.said).filter(|said| !said.is_empty())
        });
        assert_eq!(said.as_deref(), Some("waits"));
        assert!(
            run_bounded(&["/nowhere".into()], Path::new("/"), &BTreeMap::new(), hour, 1, Kept::Stderr)
                .is_err()
        );
    }
}
