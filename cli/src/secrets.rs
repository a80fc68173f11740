//! Reads the values of a run's secrets where the configuration says they are,
//! just before the run is handed in. A value goes from there into the request
//! alone: never into an argument, a message or a file. Everything that cannot
//! be read is told at once, each with where it was looked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifecycle::spec::secret::{LONGEST, check_value};
use proto::v1;

use crate::config::{Secret, Secrets};
use crate::exit_code::{ExitCode, Failure};

/// What asks a Linux desktop's keyring.
const TOOL: &str = "secret-tool";

/// The values of all secrets.
///
/// # Errors
/// All that cannot be read, as one failure.
pub fn read(env: &BTreeMap<String, String>, secrets: &Secrets) -> Result<Vec<v1::Secret>, Failure> {
    let (mut values, mut wrong) = (Vec::new(), Vec::new());
    for (name, source) in &secrets.sources {
        let read = value(env, source).and_then(|value| {
            check_value(&value).map_err(|why| format!("{}: {why}", place(source)))?;
            Ok(v1::Secret { name: name.clone(), value })
        });
        match read {
            Ok(secret) => values.push(secret),
            Err(why) => wrong.push(format!("the secret {name} cannot be read: {why}")),
        }
    }
    if wrong.is_empty() {
        return Ok(values);
    }
    let help = "[secrets] in outlast.toml says where they are; nothing was sent";
    Err(Failure::new(ExitCode::BadInput, wrong.join("; ")).help(help))
}

fn place(source: &Secret) -> String {
    match source {
        Secret::Env(name) => format!("the variable {name}"),
        Secret::File(path) => format!("the file {path}"),
        Secret::Keyring(service, name) => format!("the keyring's item {service}/{name}"),
        Secret::Kept => "the controller".to_owned(),
    }
}

fn value(env: &BTreeMap<String, String>, source: &Secret) -> Result<String, String> {
    let here = place(source);
    match source {
        Secret::Env(name) => {
            env.get(name).cloned().ok_or_else(|| format!("{here} is not set here, or is no text"))
        }
        Secret::File(path) => {
            let path = match path.strip_prefix("~/") {
                None => PathBuf::from(path),
                Some(rest) => {
                    let home = env.get("HOME").filter(|home| !home.is_empty());
                    Path::new(home.ok_or_else(|| format!("{here}: HOME is not set"))?).join(rest)
                }
            };
            let shown = format!("the file {}", path.display());
            let file = File::open(&path).map_err(|error| format!("{shown}: {error}"))?;
            if !file.metadata().is_ok_and(|meta| meta.is_file()) {
                return Err(format!("{shown} is no file"));
            }
            text(file).map_err(|why| format!("{shown}: {why}"))
        }
        Secret::Keyring(service, name) => keyring(env, service, name).map_err(|why| format!("{here}: {why}")),
        Secret::Kept => Err("only the controller has it".to_owned()),
    }
}

/// A bounded text without the end of its last line.
fn text(from: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    from.take(LONGEST as u64 + 3).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let mut text = String::from_utf8(bytes).map_err(|_| "it is no text of UTF-8")?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// Asks the keyring by its own tool; what it answers comes over a pipe.
fn keyring(env: &BTreeMap<String, String>, service: &str, name: &str) -> Result<String, String> {
    let path = env.get("PATH").map(String::as_str).unwrap_or_default();
    let tool = std::env::split_paths(path).map(|dir| dir.join(TOOL)).find(|file| file.is_file());
    let tool = tool.ok_or_else(|| {
        format!(
            "the program {TOOL} is not installed (Debian: apt-get install libsecret-tools); use env or file"
        )
    })?;
    let attributes = ["lookup", "service", service, "username", name];
    let mut command = Command::new(&tool);
    command.args(attributes).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let failed = |error: io::Error| format!("{}: {error}", tool.display());
    let mut child = command.spawn().map_err(failed)?;
    let said = child.stdout.take().map_or_else(|| Ok(String::new()), text);
    let status = child.wait().map_err(failed)?;
    match said? {
        said if status.success() && !said.is_empty() => Ok(said),
        _ => Err(format!(
            "{TOOL} found nothing; store it: {TOOL} store --label={service} service {service} username {name}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn secrets(list: &[(&str, Secret)]) -> Secrets {
        Secrets { sources: list.iter().map(|(name, source)| ((*name).to_owned(), source.clone())).collect() }
    }

    fn vars(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn values_come_from_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("token"), "from-file\r\n").unwrap();
        let tool = dir.path().join(TOOL);
        let script = "#!/bin/sh\n[ \"$*\" = 'lookup service hf username me' ] && printf 'from-keyring\\n'\n";
        std::fs::write(&tool, script).unwrap();
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        let env = vars(&[("HOME", home), ("PATH", home), ("MINE", "from-env")]);
        let given = secrets(&[
            ("A", Secret::Env("MINE".into())),
            ("B", Secret::File("~/token".into())),
            ("C", Secret::Keyring("hf".into(), "me".into())),
        ]);
        let values: Vec<String> = read(&env, &given).unwrap().into_iter().map(|s| s.value).collect();
        assert_eq!(values, ["from-env", "from-file", "from-keyring"]);
    }

    #[test]
    fn all_that_is_missing_is_told_at_once_and_where_it_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let large = dir.path().join("large");
        std::fs::write(&large, "canary".repeat(4_000)).unwrap();
        let env = vars(&[("HOME", "/nowhere"), ("EMPTY", ""), ("GOOD", "canary")]);
        let given = secrets(&[
            ("A", Secret::Env("ABSENT".into())),
            ("B", Secret::Env("EMPTY".into())),
            ("C", Secret::File("~/token".into())),
            ("D", Secret::File(large.display().to_string())),
            ("E", Secret::Keyring("hf".into(), "me".into())),
            ("F", Secret::File(dir.path().display().to_string())),
            ("G", Secret::Env("GOOD".into())),
        ]);
        let failure = read(&env, &given).unwrap_err();
        assert_eq!(failure.code, ExitCode::BadInput);
        for part in [
            "the secret A cannot be read: the variable ABSENT",
            "the secret B cannot be read: the variable EMPTY: it is empty",
            "/nowhere/token",
            "16 KiB",
            "secret-tool is not installed",
            "is no file",
        ] {
            assert!(failure.message.contains(part), "{part}: {}", failure.message);
        }
        assert!(!failure.message.contains("canary") && !failure.message.contains("secret G"));
    }
}
