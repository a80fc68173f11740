//! Codes that only a person redeems. A code stands for one action with all its
//! arguments, once, for a while. The code itself is stored nowhere: a file is
//! found by its hash and bound to its action by a keyed hash, so that neither a
//! read nor a changed file lets anybody act. No tool takes a code: whoever was
//! given one over the protocol can do nothing with it but hand it on.

use std::io;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};

use super::action::Action;
use super::shelf::Shelf;
use crate::commands::now_ms;
use crate::exit_code::{ExitCode, Failure};

/// A code is good for so many milliseconds.
const LIFE: u64 = 15 * 60_000;
/// What was used or has run out is remembered for so long, to say so.
const MEMORY: u64 = 24 * 60 * 60_000;
/// Codes that wait at once.
const WAITING: usize = 100;
/// So many of them are kept for what ends a bill, however often a model asks for runs.
const FOR_ENDING: usize = 20;
/// Bytes of a code.
const BYTES: usize = 10;

/// What waits for a person.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    until_ms: u64,
    /// An [`Action`] as JSON, byte for byte as it is hashed.
    action: String,
    /// The keyed hash of the two above.
    bound: String,
}

/// A code that was looked up.
pub(crate) struct Waiting {
    name: String,
    /// What is done for it.
    pub(crate) action: Action,
    /// Makes the doing safe to repeat: the same for the same code.
    pub(crate) token: String,
    until_ms: u64,
}

struct Secret {
    name: String,
    key: [u8; 32],
    token: String,
}

fn secret(code: &str) -> Option<Secret> {
    let plain: String = code.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let bytes = BASE32_NOPAD.decode(plain.to_ascii_uppercase().as_bytes()).ok()?;
    if bytes.len() != BYTES {
        return None;
    }
    let derived = |of: &str| blake3::derive_key(of, &bytes);
    Some(Secret {
        name: format!("code-{}", HEXLOWER.encode(&derived("outlast mcp code: name")[..16])),
        key: derived("outlast mcp code: bound"),
        token: HEXLOWER.encode(&derived("outlast mcp code: token")[..16]),
    })
}

fn bound(key: &[u8; 32], until_ms: u64, action: &str) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&until_ms.to_le_bytes()).update(action.as_bytes());
    hasher.finalize()
}

fn failed(error: &io::Error) -> Failure {
    Failure::new(ExitCode::CannotWrite, format!("codes cannot be kept: {error}"))
}

/// A new code for an action, and when it runs out.
pub(super) fn ask(shelf: &Shelf, action: &Action) -> anyhow::Result<(String, u64)> {
    ask_at(shelf, action, now_ms())
}

fn ask_at(shelf: &Shelf, action: &Action, now: u64) -> anyhow::Result<(String, u64)> {
    let _held = shelf.hold().map_err(|error| failed(&error))?;
    let ends = matches!(action, Action::DestroyRun { .. } | Action::DestroyMachine { .. });
    let most = if ends { WAITING } else { WAITING - FOR_ENDING };
    if sweep(shelf, now).map_err(|error| failed(&error))? >= most {
        let why = format!("{most} codes wait for a person already");
        return Err(Failure::new(ExitCode::Busy, why).help("they run out within 15 minutes").into());
    }
    let text = BASE32_NOPAD.encode(&proto::pki::random::<BYTES>()?);
    let parts: Vec<&str> = (0..4).filter_map(|part| text.get(part * 4..part * 4 + 4)).collect();
    let code = parts.join("-");
    let Some(secret) = secret(&code) else { anyhow::bail!("a code could not be made") };
    let (until_ms, action) = (now + LIFE, serde_json::to_string(action)?);
    let bound = bound(&secret.key, until_ms, &action).to_hex().to_string();
    let kept = serde_json::to_vec(&Kept { until_ms, action, bound })?;
    shelf.write(&secret.name, &kept).map_err(|error| failed(&error))?;
    Ok((code, until_ms))
}

/// Lets go of what is old; says how many codes wait.
fn sweep(shelf: &Shelf, now: u64) -> io::Result<usize> {
    let mut waiting = 0;
    for name in shelf.names()?.into_iter().filter(|name| name.starts_with("code-")) {
        let kept = shelf.read(&name).ok().flatten();
        let until = kept
            .and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok())
            .map_or(0, |kept| kept.until_ms);
        if until + MEMORY < now {
            shelf.remove(&name)?;
        } else if until > now && !name.ends_with(".used") {
            waiting += 1;
        }
    }
    Ok(waiting)
}

/// What a code stands for.
///
/// # Errors
/// Where it is none, was used, has run out, or its file was changed.
pub(crate) fn look(shelf: &Shelf, code: &str) -> Result<Waiting, Failure> {
    look_at(shelf, code, now_ms())
}

fn look_at(shelf: &Shelf, code: &str, now: u64) -> Result<Waiting, Failure> {
    let anew = "have the assistant ask again: it is given a new one";
    let none = |why: &str| Failure::new(ExitCode::NotFound, why.to_owned()).help(anew);
    let secret = secret(code).ok_or_else(|| none("this is no code"))?;
    let Some(bytes) = shelf.read(&secret.name).map_err(|error| failed(&error))? else {
        let used = shelf.read(&format!("{}.used", secret.name)).is_ok_and(|used| used.is_some());
        return Err(none(if used { "this code was used already" } else { "there is no such code" }));
    };
    let changed = || Failure::new(ExitCode::Denied, "what this code stood for was changed").help(anew);
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|_| changed())?;
    let told = blake3::Hash::from_hex(&kept.bound).map_err(|_| changed())?;
    // Compares in constant time.
    if bound(&secret.key, kept.until_ms, &kept.action) != told {
        return Err(changed());
    }
    if kept.until_ms <= now {
        return Err(none("this code has run out"));
    }
    let action = serde_json::from_str(&kept.action).map_err(|_| changed())?;
    Ok(Waiting { name: secret.name, action, token: secret.token, until_ms: kept.until_ms })
}

impl Waiting {
    /// Uses the code up, before anything is done for it.
    ///
    /// # Errors
    /// Where somebody else was faster, or it has run out meanwhile.
    pub(crate) fn redeem(&self, shelf: &Shelf) -> Result<(), Failure> {
        self.redeem_at(shelf, now_ms())
    }

    fn redeem_at(&self, shelf: &Shelf, now: u64) -> Result<(), Failure> {
        // A prompt may have stood open for hours, and prices have changed.
        if self.until_ms <= now {
            let late = Failure::new(ExitCode::NotFound, "this code has run out");
            return Err(late.help("have the assistant ask again: it is given a new one"));
        }
        let _held = shelf.hold().map_err(|error| failed(&error))?;
        let first =
            shelf.rename(&self.name, &format!("{}.used", self.name)).map_err(|error| failed(&error))?;
        if first { Ok(()) } else { Err(Failure::new(ExitCode::NotFound, "this code was used already")) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn action(run: &str) -> Action {
        Action::DestroyRun { id: run.to_owned(), name: run.to_owned() }
    }

    #[test]
    fn a_code_is_good_once_and_for_its_action() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let (code, until) = ask_at(&shelf, &action("a"), 5).unwrap();
        assert_eq!((code.len(), until), (19, 5 + LIFE));
        let lower = code.to_lowercase().replace('-', "");
        let waiting = look_at(&shelf, &lower, 6).unwrap();
        assert_eq!(waiting.action, action("a"));
        let second = look_at(&shelf, &code, 6).unwrap();
        assert!(waiting.redeem_at(&shelf, until).unwrap_err().message.contains("run out"));
        waiting.redeem_at(&shelf, 7).unwrap();
        assert_eq!(second.redeem_at(&shelf, 7).unwrap_err().code, ExitCode::NotFound);
        let used = look_at(&shelf, &code, 7).err().unwrap();
        assert!(used.message.contains("used"), "{used}");
        assert!(look_at(&shelf, "AAAA-AAAA-AAAA-AAAA", 7).is_err());
        assert!(look_at(&shelf, "../../x", 7).is_err());
    }

    #[test]
    fn a_code_runs_out() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let (code, until) = ask_at(&shelf, &action("a"), 5).unwrap();
        assert!(look_at(&shelf, &code, until - 1).is_ok());
        assert!(look_at(&shelf, &code, until).err().unwrap().message.contains("run out"));
    }

    #[test]
    fn the_file_tells_no_code_and_cannot_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let (code, _) = ask_at(&shelf, &action("a"), 5).unwrap();
        let name = shelf.names().unwrap().into_iter().find(|name| name.starts_with("code-")).unwrap();
        let mode = std::fs::metadata(shelf.path(&name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let text = String::from_utf8(shelf.read(&name).unwrap().unwrap()).unwrap();
        assert!(!text.contains(&code) && !text.contains(&code.replace('-', "")));
        for (from, to) in [("\\\"a\\\"", "\\\"b\\\""), ("until_ms\":9", "until_ms\":99")] {
            assert!(text.contains(from), "{text}");
            shelf.write(&name, text.replacen(from, to, 1).as_bytes()).unwrap();
            assert_eq!(look_at(&shelf, &code, 6).err().unwrap().code, ExitCode::Denied);
        }
    }

    #[test]
    fn codes_are_left_for_what_ends_a_bill() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let begin = Action::Resume { id: "a".into(), name: "a".into(), spec: String::new() };
        let begun = (0..WAITING).filter(|_| ask_at(&shelf, &begin, 5).is_ok()).count();
        assert_eq!(begun, WAITING - FOR_ENDING);
        let ended = (0..WAITING).filter(|_| ask_at(&shelf, &action("a"), 5).is_ok()).count();
        assert_eq!(ended, FOR_ENDING);
    }

    #[test]
    fn codes_are_not_given_out_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        for at in 0..WAITING {
            ask_at(&shelf, &action("a"), at as u64).unwrap();
        }
        assert!(ask_at(&shelf, &action("a"), 200).is_err());
        ask_at(&shelf, &action("a"), LIFE + 200).unwrap();
        ask_at(&shelf, &action("a"), LIFE + MEMORY + 200).unwrap();
        assert!(shelf.names().unwrap().len() < 10);
    }
}
