//! `providers.toml` in the data directory: the controller's own settings of
//! sources of machines, since several projects share them. Everything that is
//! wrong is told at once, each with its line and the way out. Values are never
//! quoted: somebody may have typed a secret into one.

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use artifacts::store::trouble::foreign;
use toml::Spanned;
use toml::de::DeTable;

use super::ssh::SshHost;

mod section;

pub(crate) use section::Section;

/// The file's name.
pub const FILE: &str = "providers.toml";
/// No file of settings is longer.
const LONGEST: u64 = 256 << 10;
/// A report shows this many problems; the rest is counted.
const SHOWN: usize = 50;

/// Every provider that is set up, besides this computer itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Providers {
    /// `[ssh.hosts.NAME]`, in the order of their names.
    pub ssh: Vec<SshHost>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    line: usize,
    message: String,
    help: String,
}

/// Everything that is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SettingsErrors {
    path: PathBuf,
    problems: Vec<Problem>,
}

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used", self.path.display())?;
        for problem in self.problems.iter().take(SHOWN) {
            f.write_str("\n  ")?;
            if problem.line > 0 {
                write!(f, "line {}: ", problem.line)?;
            }
            write!(f, "{}", problem.message)?;
            if !problem.help.is_empty() {
                write!(f, "\n    help: {}", problem.help)?;
            }
        }
        let hidden = self.problems.len().saturating_sub(SHOWN);
        if hidden > 0 { write!(f, "\n  and {hidden} more") } else { Ok(()) }
    }
}

/// Where relative paths of the file lead.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The data directory.
    pub home: &'a Path,
    /// The user's home, for paths that begin with `~/`.
    pub user: Option<&'a Path>,
}

/// Reads and checks the file; without one nothing is set up.
///
/// # Errors
/// All that is wrong with it.
pub fn read(places: Places<'_>) -> Result<Providers, SettingsErrors> {
    Ok(read_file(&places.home.join(FILE), |file| providers(file, places))?.unwrap_or_default())
}

/// Reads a file of settings with `parse`, which complains to its section;
/// `None`: there is no file.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn read_file<T>(
    path: &Path,
    parse: impl FnOnce(&Section<'_>) -> T,
) -> Result<Option<T>, SettingsErrors> {
    let failed = |problems: Vec<Problem>| SettingsErrors { path: path.to_owned(), problems };
    let text = match load(path) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(None),
        Err(error) => {
            let message = foreign(&error.to_string());
            return Err(failed(vec![Problem {
                line: 0,
                message,
                help: "make it a readable text file".into(),
            }]));
        }
    };
    parse_text(&text, parse).map(Some).map_err(failed)
}

fn load(path: &Path) -> io::Result<Option<String>> {
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !meta.is_file() || meta.len() > LONGEST {
        return Err(io::Error::other(format!("it is no plain file of at most {LONGEST} bytes")));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(Some(text))
}

fn parse_text<T>(text: &str, parse: impl FnOnce(&Section<'_>) -> T) -> Result<T, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors.iter().take(5).map(|error| syntax(text, error)).collect());
    }
    let problems = RefCell::new(Vec::new());
    let table: &Spanned<DeTable<'_>> = &table;
    let file = Section::new("", 1, text, table.get_ref(), &problems);
    let read = parse(&file);
    drop(file);
    let mut problems = problems.into_inner();
    problems.sort_by_key(|problem| problem.line);
    if problems.is_empty() { Ok(read) } else { Err(problems) }
}

fn providers(file: &Section<'_>, places: Places<'_>) -> Providers {
    let mut providers = Providers::default();
    if let Some(ssh) = file.table("ssh", "[ssh.hosts.NAME]") {
        providers.ssh = super::ssh::read_hosts(&ssh, places);
    }
    file.finish();
    providers
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

fn syntax(text: &str, error: &toml::de::Error) -> Problem {
    let line = error.span().map_or(0, |span| line_of(text, span.start));
    Problem { line, message: format!("not valid TOML: {}", foreign(error.message())), help: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Providers, Vec<Problem>> {
        parse_text(text, |file| providers(file, Places { home: Path::new("/srv/outlast"), user: None }))
    }

    #[test]
    fn without_a_file_nothing_is_set_up() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(Places { home: dir.path(), user: None }), Ok(Providers::default()));
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_line() {
        let text = "[ssh.hosts.a]\nslots = 0\nport = \"x\"\ncolour = 1\n\n[ssh.hosts.\"B c\"]\ndestination = \"-oProxyCommand=x\"\n\n[vats]\n";
        let problems = read_text(text).unwrap_err();
        let shown = SettingsErrors { path: "/p".into(), problems }.to_string();
        for part in [
            "line 1: `ssh.hosts.a` has no `destination`",
            "line 2: `ssh.hosts.a.slots`",
            "line 3: `ssh.hosts.a.port`",
            "line 4: `ssh.hosts.a.colour` is not known",
            "line 6: `ssh.hosts.B c`",
            "line 7: `ssh.hosts.B c.destination`",
            "line 9: `vats` is not known",
        ] {
            assert!(shown.contains(part), "{part} is not in:\n{shown}");
        }
        assert!(!shown.contains("ProxyCommand"), "values are not quoted");
    }

    #[test]
    fn what_is_no_toml_and_no_file_is_told() {
        let problems = read_text("[ssh.hosts.a\nx = ").unwrap_err();
        assert!(problems[0].message.starts_with("not valid TOML") && problems[0].line == 1);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FILE)).unwrap();
        assert!(read(Places { home: dir.path(), user: None }).is_err());
    }
}
