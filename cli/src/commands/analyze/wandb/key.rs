//! What proves who asks W&B's server: `WANDB_API_KEY`, else what `wandb login`
//! wrote into `~/.netrc` for that very host.
//!
//! A key is never printed, logged or written, and stands in no error.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _};
use std::path::PathBuf;

use crate::commands::analyze::find;

/// Bytes of a file of passwords that are read.
const MAX_FILE: u64 = 1 << 20;
/// Bytes of a key.
const MAX_KEY: usize = 1024;
/// A shorter one could stand in any text by chance.
const TELLING: usize = 16;

/// A key; it does not show itself.
pub(super) struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// The key for a host.
    ///
    /// # Errors
    /// Where there is none, or what there is cannot be one.
    pub(super) fn of(env: &BTreeMap<String, String>, machine: &str) -> io::Result<Self> {
        let set = |name: &str| env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
        let (key, place) = match set("WANDB_API_KEY") {
            Some(key) => (key.to_owned(), "WANDB_API_KEY"),
            None => {
                let found = passwords(env).and_then(|text| password(&text, machine));
                let none = format!("no key for {machine} is known");
                (
                    found.ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, none))?,
                    "the file netrc",
                )
            }
        };
        if key.len() > MAX_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let why = format!("{place} holds no key: one is a single word of letters, digits and signs");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(Self(key))
    }

    /// For the header that is sent, and nothing else.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }

    /// Takes the key out of what a server answered, who knows it and could say it.
    pub(super) fn blot(&self, answer: &mut [u8]) {
        let key = self.0.as_bytes();
        if key.len() < TELLING {
            return;
        }
        let mut from = 0;
        while let Some(at) = answer[from..].windows(key.len()).position(|part| part == key) {
            answer[from + at..from + at + key.len()].fill(b'*');
            from += at + key.len();
        }
    }
}

/// The file of passwords, if it can be read.
fn passwords(env: &BTreeMap<String, String>) -> Option<String> {
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty());
    let home = set("HOME").map(PathBuf::from);
    let named = set("NETRC").map(|path| match (path.strip_prefix("~/"), &home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    });
    let places = match (named, home) {
        (Some(named), _) => vec![named],
        (None, Some(home)) => vec![home.join(".netrc"), home.join("_netrc")],
        (None, None) => Vec::new(),
    };
    let mut bytes = Vec::new();
    let file = places.iter().find_map(|path| find::open(path).ok())?;
    file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The password for a machine: words in pairs, as of ftp(1). An entry `default`
/// is for whoever asks, and so for nobody here.
fn password(text: &str, machine: &str) -> Option<String> {
    let mut words = Vec::new();
    let mut in_macro = false;
    for line in text.lines() {
        let line = line.trim();
        in_macro &= !line.is_empty();
        if in_macro || line.starts_with('#') {
            continue;
        }
        in_macro = line.split_whitespace().any(|word| word == "macdef");
        words.extend(line.split_whitespace());
    }
    let mut words = words.into_iter();
    let mut here = false;
    while let Some(word) = words.next() {
        match word {
            "machine" => here = words.next().is_some_and(|name| name.eq_ignore_ascii_case(machine)),
            "default" => here = false,
            "password" => match words.next() {
                Some(password) if here => return Some(password.trim_matches('"').to_owned()),
                _ => {}
            },
            "login" | "account" | "macdef" => {
                let _ = words.next();
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_the_host_is_found_and_no_other() {
        let text = "machine other.example login a password wrong\n# machine api.wandb.ai password commented\n\
                    macdef init\nmachine api.wandb.ai password in-a-macro\n\n\
                    machine api.wandb.ai\n  login user\n  password right\ndefault login x password anybody\n";
        assert_eq!(password(text, "api.wandb.ai").as_deref(), Some("right"));
        assert_eq!(password(text, "other.example").as_deref(), Some("wrong"));
        for machine in ["wandb.ai", "evil.example", ""] {
            assert_eq!(password(text, machine), None, "{machine}");
        }
        assert_eq!(password("machine", "x").or(password("machine x password", "x")), None);
    }

    #[test]
    fn a_key_is_one_word_and_does_not_show_itself() {
        let of = |key: &str| Key::of(&BTreeMap::from([("WANDB_API_KEY".into(), key.into())]), "h");
        let key = of(" canary-0123456789 \n").unwrap();
        assert_eq!((key.secret(), format!("{key:?}").as_str()), ("canary-0123456789", "Key"));
        let mut answer = b"a canary-0123456789canary-0123456789 b".to_vec();
        key.blot(&mut answer);
        assert_eq!(answer, b"a ********************************** b");
        for bad in ["canary key", "canary\u{7f}", "canär"] {
            let error = of(bad).unwrap_err().to_string();
            assert!(!error.contains("can"), "{error}");
        }
        let error = of("").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
