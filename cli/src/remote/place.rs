//! A program `outlast` on another computer as a place: how it is called there
//! through any login shell, and what its failures mean for a person. Nothing that
//! stands in such a command line is ever a secret, another option or another
//! command.

use std::io;
use std::time::Duration;

use controller::carrier::errand::{self, ErrandError, Login, Pipe};
use serde::de::DeserializeOwned;

use crate::exit_code::{ExitCode, Failure};

/// A program `outlast` on another computer, and its data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub login: Login,
    /// Its data directory; `None`: the usual one there.
    pub home: Option<String>,
    /// The program; `None`: the one that is found there.
    pub program: Option<String>,
}

/// A path that is the same word for every shell. `~/` is where a login begins.
fn plain(text: &str, what: &str) -> Result<String, Failure> {
    let bare = text.strip_prefix("~/").unwrap_or(text).trim_end_matches('/');
    let good = (1..=1_024).contains(&bare.len())
        && !bare.starts_with('-')
        && bare.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@".contains(c))
        && !bare.split('/').any(|part| part == "..");
    if good {
        return Ok(bare.to_owned());
    }
    let why = format!("{what} must be a path of letters, digits and `/._-+@`, without `..`");
    Err(Failure::new(ExitCode::Usage, why))
}

impl Place {
    /// One that a person named.
    ///
    /// # Errors
    /// Where a part of it cannot stand in a command line.
    pub fn new(to: &str, home: Option<&str>, program: Option<&str>) -> Result<Self, Failure> {
        let login = to.parse().map_err(|error: errand::BadLogin| {
            Failure::new(ExitCode::Usage, format!("`{to}` is no login: {error}"))
        })?;
        let home = home.map(|home| plain(home, "the remote data directory")).transpose()?;
        let program = program.map(|program| plain(program, "the remote program")).transpose()?;
        Ok(Self { login, home, program })
    }

    /// The command line that has a shell of any kind there run `outlast WORDS`.
    #[must_use]
    pub fn command(&self, words: &str) -> String {
        let find = match &self.program {
            Some(program) => format!("p={program}"),
            None => "p=$(command -v outlast) || p=$HOME/.local/bin/outlast".to_owned(),
        };
        let none = "[ -x \"$p\" ] || { echo \"there is no program $p\" >&2; exit 127; }";
        let home = self.home.as_ref().map_or_else(String::new, |home| format!("env OUTLAST_HOME={home} "));
        format!("exec sh -c '{find}; {none}; exec {home}\"$p\" {words}'")
    }

    /// The same for a person to type.
    #[must_use]
    pub fn typed(&self, words: &str) -> String {
        let program = self.program.as_deref().unwrap_or("outlast");
        match &self.home {
            None => format!("ssh {} {program} {words}", self.login),
            Some(home) => format!("ssh {} env OUTLAST_HOME={home} {program} {words}", self.login),
        }
    }

    /// Runs `outlast WORDS` there with what `send` writes, and reads the last
    /// line of JSON that it printed.
    ///
    /// # Errors
    /// Why it did not work, with the way out.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        words: &str,
        most: Duration,
        send: impl AsyncFnOnce(&mut Pipe) -> io::Result<()>,
    ) -> Result<T, Failure> {
        let answer = Box::pin(errand::ask(&self.login, &self.command(words), most, send)).await;
        let answer = answer.map_err(|error| self.failure(&error))?;
        let text = String::from_utf8_lossy(&answer);
        let found = text.lines().rev().filter_map(|line| serde_json::from_str(line.trim()).ok()).next();
        found.ok_or_else(|| {
            let why = format!("the answer of the outlast on {} is not understood", self.login);
            Failure::new(ExitCode::Unreachable, why).help("install the same version of outlast on both sides")
        })
    }

    /// What an errand's failure means for a person.
    #[must_use]
    pub fn failure(&self, error: &ErrandError) -> Failure {
        let to = &self.login;
        match error {
            ErrandError::Before { problem, cure, refused } => {
                let code = if *refused { ExitCode::Denied } else { ExitCode::Unreachable };
                Failure::new(code, problem).help(cure)
            }
            ErrandError::Cut(why) => Failure::new(ExitCode::Unreachable, why),
            ErrandError::Remote { code: 126 | 127, said } => {
                Failure::new(ExitCode::Unreachable, format!("there is no outlast to run on {to}: {said}"))
                    .help(format!(
                        "name it with --remote-program, or put it there: outlast controller deploy {to}"
                    ))
            }
            ErrandError::Remote { code: 64, .. } => Failure::new(
                ExitCode::Unreachable,
                format!("the outlast on {to} is of another version: it does not know what it was asked"),
            )
            .help("install the same version of outlast on both sides"),
            ErrandError::Remote { code, said } => {
                let code = match code {
                    65 => ExitCode::BadInput,
                    66 => ExitCode::NotFound,
                    73 => ExitCode::CannotWrite,
                    75 => ExitCode::Busy,
                    77 => ExitCode::Denied,
                    96 => ExitCode::Elsewhere,
                    _ => ExitCode::Unreachable,
                };
                Failure::new(code, format!("{to} says: {}", said.trim_start_matches("error: ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_the_same_for_every_shell_and_holds_nothing_else() {
        let place = Place::new("me@box", Some("~/.outlast/"), Some("~/bin/outlast")).unwrap();
        let line = place.command("controller link");
        assert!(line.contains("p=bin/outlast;") && line.contains("OUTLAST_HOME=.outlast "), "{line}");
        assert_eq!(line.matches('\'').count(), 2);
        for bad in ["", "~", "a b", "$HOME/x", "a/../b", "x;y", "-x", "a'b", "a\nb"] {
            assert!(Place::new("box", Some(bad), None).is_err(), "{bad}");
            assert!(Place::new("box", None, Some(bad)).is_err(), "{bad}");
        }
        assert_eq!(Place::new("-oX", None, None).unwrap_err().code, ExitCode::Usage);
        let usual = Place::new("box", None, None).unwrap();
        assert!(usual.command("version").contains(".local/bin/outlast"));
        assert_eq!(usual.typed("controller start"), "ssh box outlast controller start");
    }

    #[test]
    fn failures_have_codes_that_scripts_can_tell_apart() {
        let place = Place::new("box", None, None).unwrap();
        let code = |code| place.failure(&ErrandError::Remote { code, said: "error: x".into() }).code.code();
        assert_eq!([127, 64, 66, 96, 75, 1].map(code), [69, 69, 66, 96, 75, 69]);
        let changed =
            ErrandError::Before { problem: "CHANGED".into(), cure: "compare".into(), refused: true };
        assert_eq!(place.failure(&changed).code, ExitCode::Denied);
    }
}
