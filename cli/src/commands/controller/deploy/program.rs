//! The program that the other computer will run: chosen for what that computer
//! is, put where its digest names it, and believed only once it has run there.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use controller::carrier::{errand, sha256};
use serde::Deserialize;

use crate::app::Context;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{bytes, safe};
use crate::remote::{self, Place};

const SHORT: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(1_800);
/// No program is larger.
const LARGEST: u64 = 2 << 30;
/// What a shell there says begins with this.
const SAID: &str = "outlast-said ";
/// `e_machine` of an ELF file, by what `uname -m` says.
const MACHINES: [(&[&str], u16); 2] = [(&["x86_64", "amd64"], 0x3e), (&["aarch64", "arm64"], 0xb7)];

/// A program's file here, and what is there.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    digest: String,
    bytes: u64,
    is_there: bool,
}

/// What `outlast version --json` says.
#[derive(Deserialize)]
struct Version {
    version: String,
    schema: u32,
}

/// What the other computer is, in its own words.
#[derive(Debug, Default, PartialEq, Eq)]
struct There {
    system: String,
    machine: String,
    digest: Option<String>,
}

fn there_of(answer: &[u8]) -> Option<There> {
    let text = String::from_utf8_lossy(answer);
    let mut there = There::default();
    let mut whole = false;
    for said in text.lines().filter_map(|line| line.split_once(SAID)).map(|(_, said)| said.trim()) {
        let mut words = said.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("system"), Some(system), Some(machine)) => {
                (there.system, there.machine) = (system.to_owned(), machine.to_owned());
            }
            (Some("program"), Some(digest), _) => there.digest = Some(digest.to_owned()),
            (Some("done"), ..) => whole = true,
            _ => {}
        }
    }
    (whole && !there.system.is_empty()).then_some(there)
}

/// Why a file is no program for a computer, as far as that can be seen here.
fn mismatch(head: &[u8], system: &str, machine: &str) -> Option<String> {
    if system != "Linux" {
        return None;
    }
    if head.get(..4) != Some(b"\x7fELF") {
        return Some("it is no program for Linux".to_owned());
    }
    let code = u16::from_le_bytes([*head.get(18)?, *head.get(19)?]);
    let wanted = MACHINES.iter().find(|(names, _)| names.contains(&machine))?.1;
    (code != wanted).then(|| format!("it is for another kind of processor than {}", safe(machine)))
}

/// Whether this program's own file is for such a computer.
fn is_own(system: &str, machine: &str) -> bool {
    let own = match std::env::consts::OS {
        "linux" => "Linux",
        "macos" => "Darwin",
        _ => "",
    };
    let names: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["x86_64", "amd64"],
        "aarch64" => &["aarch64", "arm64"],
        _ => &[],
    };
    system == own && names.contains(&machine)
}

fn directory(digest: &str) -> String {
    format!(".local/lib/outlast/{}", digest.get(..16).unwrap_or(digest))
}

impl Program {
    /// The file for the computer at `place`.
    ///
    /// # Errors
    /// Where it cannot be reached, or no file fits it.
    pub(super) async fn choose(asked: Option<&Path>, place: &Place) -> anyhow::Result<Self> {
        let path = match asked {
            Some(path) => path.to_owned(),
            None => daemon::own_exe().context("cannot find the file of this program")?,
        };
        let unreadable = |error: std::io::Error| {
            Failure::new(ExitCode::BadInput, format!("cannot read {}: {error}", path.display()))
        };
        let mut file = File::open(&path).map_err(unreadable)?;
        let meta = file.metadata().map_err(unreadable)?;
        if !meta.is_file() || meta.len() == 0 || meta.len() > LARGEST {
            let why = format!("{} is no program", path.display());
            return Err(Failure::new(ExitCode::BadInput, why).into());
        }
        let mut head = Vec::new();
        file.by_ref().take(20).read_to_end(&mut head).map_err(unreadable)?;
        let digest = sha256(&mut File::open(&path).map_err(unreadable)?).map_err(unreadable)?;
        let there = Box::pin(look(place, &digest)).await?;
        let shown = format!("{} is {} on {}", place.login, safe(&there.system), safe(&there.machine));
        if asked.is_none() && !is_own(&there.system, &there.machine) {
            let why = format!("{shown}, and this program is for another kind of computer");
            return Err(Failure::new(ExitCode::BadInput, why)
                .help("name a program of this version for it with --program FILE")
                .into());
        }
        if let Some(why) = mismatch(&head, &there.system, &there.machine) {
            let why = format!("{} does not run there: {shown}, and {why}", path.display());
            return Err(Failure::new(ExitCode::BadInput, why).into());
        }
        let is_there = there.digest.as_deref() == Some(digest.as_str());
        Ok(Self { path, bytes: meta.len(), digest, is_there })
    }

    /// Where it is there, below the login's home.
    pub(super) fn there(&self) -> String {
        format!("{}/outlast", directory(&self.digest))
    }

    pub(super) fn told(&self) -> String {
        if self.is_there {
            return format!("the program is there already ({})", self.there());
        }
        format!("the program {} ({}) is copied to {}", self.path.display(), bytes(self.bytes), self.there())
    }

    /// Puts it there, where it is not, and has it run.
    ///
    /// # Errors
    /// Where it does not get there whole, or does not run there.
    pub(super) async fn bring(&self, ctx: &Context, place: &Place) -> anyhow::Result<()> {
        if !self.is_there {
            let script = push(&directory(&self.digest), self.bytes);
            let path = self.path.clone();
            let answer = Box::pin(errand::ask(&place.login, &script, LONG, async move |to| {
                tokio::io::copy(&mut tokio::fs::File::open(&path).await?, to).await.map(drop)
            }))
            .await;
            answer.map_err(|error| place.failure(&error))?;
            let there = Box::pin(look(place, &self.digest)).await?;
            if there.digest.as_deref() != Some(self.digest.as_str()) {
                let why = format!("the program did not get to {} whole", place.login);
                return Err(Failure::new(ExitCode::Unreachable, why).into());
            }
            ctx.printer.note(&format!("the program is on {}", place.login));
        } else {
            // The usual name may still lead to one that was deployed before.
            let script = format!("exec sh -c 'cd && {}'", link(&directory(&self.digest)));
            let answer = Box::pin(errand::ask(&place.login, &script, SHORT, async |_| Ok(()))).await;
            answer.map_err(|error| place.failure(&error))?;
        }
        let at = Place { program: Some(self.there()), home: None, ..place.clone() };
        let said: Result<Version, Failure> =
            Box::pin(at.ask("version --json", SHORT, async |_| Ok(()))).await;
        let version = said.map_err(|failure| {
            let why = format!("{} does not run on {}: {}", self.path.display(), place.login, failure.message);
            Failure::new(ExitCode::BadInput, why)
                .help("name a static program for that computer with --program FILE")
        })?;
        Ok(remote::same_version(&place.login, &version.version, version.schema)?)
    }
}

async fn look(place: &Place, digest: &str) -> Result<There, Failure> {
    let file = format!("{}/outlast", directory(digest));
    let script = format!(
        "exec sh -c 'cd && echo {SAID}system $(uname -sm) && if [ -x {file} ]; then echo {SAID}program \
         $( (sha256sum {file} || shasum -a 256 {file}) 2>/dev/null ); fi; echo {SAID}done'"
    );
    let answer = Box::pin(errand::ask(&place.login, &script, SHORT, async |_| Ok(()))).await;
    let answer = answer.map_err(|error| place.failure(&error))?;
    there_of(&answer).ok_or_else(|| {
        let why = format!("{} does not say what it is: is its login shell a shell?", place.login);
        Failure::new(ExitCode::Unreachable, why)
    })
}

/// Takes the program from standard input.
fn push(dir: &str, size: u64) -> String {
    format!(
        "exec sh -c 'cd && umask 022 && mkdir -p {dir} && t={dir}/part.$$ && cat >$t && [ $(wc -c <$t) -eq {size} ] && \
         chmod 755 $t && mv -f $t {dir}/outlast && {}'",
        link(dir)
    )
}

/// The usual name leads to it where there is none, or a link of ours: one of a
/// program that was deployed before. A person's own program stays.
fn link(dir: &str) -> String {
    format!(
        "mkdir -p .local/bin && l=.local/bin/outlast && case $(readlink $l) in */.local/lib/outlast/*) \
         ln -sfn ../../{dir}/outlast $l ;; *) [ -e $l ] || [ -h $l ] || ln -s ../../{dir}/outlast $l ;; esac"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_computer_says_is_understood_whole_or_not_at_all() {
        let said =
            b"motd\noutlast-said system Linux x86_64\r\noutlast-said program abc x\noutlast-said done\n";
        let there = there_of(said).unwrap();
        assert_eq!((there.system.as_str(), there.machine.as_str()), ("Linux", "x86_64"));
        assert_eq!(there.digest.as_deref(), Some("abc"));
        for bad in [&b""[..], b"outlast-said system Linux x86_64\n", b"outlast-said done\n"] {
            assert_eq!(there_of(bad), None);
        }
    }

    #[test]
    fn a_program_for_another_computer_is_seen_before_it_goes() {
        let mut elf = b"\x7fELF".to_vec();
        elf.resize(18, 0);
        elf.extend(0x3e_u16.to_le_bytes());
        assert_eq!(mismatch(&elf, "Linux", "x86_64"), None);
        assert!(mismatch(&elf, "Linux", "aarch64").unwrap().contains("processor"));
        assert!(mismatch(b"#!/bin/sh\n", "Linux", "x86_64").is_some());
        assert_eq!(mismatch(b"x", "Darwin", "arm64"), None, "it says so itself when it is run");
        assert!(!is_own("Plan9", "x86_64"));
    }

    #[test]
    fn scripts_are_one_quoted_word_for_any_shell() {
        let text = push(&directory(&"a".repeat(64)), 7);
        assert_eq!(text.matches('\'').count(), 2);
        assert!(text.contains(".local/lib/outlast/aaaaaaaaaaaaaaaa/outlast"), "{text}");
    }

    #[test]
    fn the_usual_name_follows_what_is_deployed_and_a_persons_own_program_stays() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let home = tempfile::tempdir().unwrap();
        let name = home.path().join(".local/bin/outlast");
        let deploy = |digit: &str, text: &str| {
            let script = push(&directory(&digit.repeat(64)), 3);
            let mut child = Command::new("sh")
                .args(["-c", &script])
                .env("HOME", home.path())
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success());
        };
        deploy("a", "one");
        assert_eq!(std::fs::read(&name).unwrap(), b"one");
        // That program is gone, and its link is left.
        std::fs::remove_dir_all(home.path().join(directory(&"a".repeat(64)))).unwrap();
        assert!(std::fs::read(&name).is_err());
        deploy("b", "two");
        assert_eq!(std::fs::read(&name).unwrap(), b"two");
        std::fs::remove_file(&name).unwrap();
        std::fs::write(&name, "own").unwrap();
        deploy("c", "new");
        assert_eq!(std::fs::read(&name).unwrap(), b"own");
        std::fs::remove_file(&name).unwrap();
        std::os::unix::fs::symlink("/opt/elsewhere/outlast", &name).unwrap();
        deploy("d", "new");
        assert_eq!(std::fs::read_link(&name).unwrap(), std::path::Path::new("/opt/elsewhere/outlast"));
    }
}
