//! The key pair by which this installation comes to machines at Vast.ai: made
//! once by the user's own OpenSSH, kept in a directory of this installation.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Longest public key that is read.
const PUBLIC_MAX: u64 = 4_096;

/// The private key's file.
pub(super) fn file(keys: &Path) -> PathBuf {
    keys.join("vast_ed25519")
}

/// The public key on one line; the pair is made where there is none.
///
/// # Errors
/// Where it can neither be read nor made, in words.
pub(super) async fn public(keys: &Path) -> Result<String, String> {
    let private = file(keys);
    let public = keys.join("vast_ed25519.pub");
    if !exists(&private)? {
        make(keys, &private).await?;
    }
    let text = read(&public)
        .map_err(|error| format!("the public key {} cannot be read: {error}", public.display()))?;
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (Some(kind), Some(key)) => Ok(format!("{kind} {key} outlast")),
        _ => Err(format!("{} holds no public key", public.display())),
    }
}

fn exists(file: &Path) -> Result<bool, String> {
    file.try_exists().map_err(|error| format!("{} cannot be looked at: {error}", file.display()))
}

fn read(file: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(file)?.take(PUBLIC_MAX).read_to_string(&mut text)?;
    Ok(text)
}

async fn make(keys: &Path, private: &Path) -> Result<(), String> {
    let told = |what: &str, error: &dyn std::fmt::Display| format!("{what} for Vast.ai's machines: {error}");
    std::fs::create_dir_all(keys).map_err(|e| told("no directory for the key", &e))?;
    // Made beside its place: what is half made is never taken for a key.
    let draft = tempfile_beside(keys);
    let made = tokio::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "outlast", "-f"])
        .arg(&draft)
        .env_remove("VAST_API_KEY")
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .map_err(|e| told("ssh-keygen (OpenSSH) is needed to make the key", &e))?;
    if !made.status.success() {
        return Err(told("ssh-keygen made no key", &String::from_utf8_lossy(&made.stderr).trim().to_owned()));
    }
    let with_pub = |path: &Path| PathBuf::from(format!("{}.pub", path.display()));
    // The private key last: it is what says that there is a pair.
    std::fs::rename(with_pub(&draft), with_pub(private))
        .and_then(|()| std::fs::rename(&draft, private))
        .and_then(|()| std::fs::File::open(keys)?.sync_all())
        .map_err(|e| told("the key cannot be kept", &e))
}

fn tempfile_beside(keys: &Path) -> PathBuf {
    keys.join(format!(".vast-{}-{:08x}", std::process::id(), fastrand::u32(..)))
}

/// Whether the account's list of keys has this one, whatever its comment.
pub(super) fn knows(list: &Value, public: &str) -> bool {
    let core = |text: &str| text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let wanted = core(public);
    let rows = list.as_array().or_else(|| list.get("ssh_keys")?.as_array());
    let key = |row: &Value| {
        let text = row.get("public_key").or_else(|| row.get("ssh_key")).and_then(Value::as_str);
        text.is_some_and(|text| core(text) == wanted)
    };
    rows.is_some_and(|rows| rows.iter().any(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn the_pair_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = public(dir.path()).await.unwrap();
        assert!(first.starts_with("ssh-ed25519 ") && first.ends_with(" outlast"), "{first}");
        assert_eq!(public(dir.path()).await.unwrap(), first);
        let mode = std::fs::metadata(file(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_key_is_known_by_itself_and_not_by_its_comment() {
        let list = json!([{"id": 1, "public_key": "ssh-ed25519 AAAA me@there"}, {"id": 2}]);
        assert!(knows(&list, "ssh-ed25519 AAAA outlast") && !knows(&list, "ssh-ed25519 BBBB outlast"));
        assert!(knows(&json!({"ssh_keys": [{"ssh_key": "ssh-ed25519 AAAA"}]}), "ssh-ed25519 AAAA outlast"));
        assert!(!knows(&json!({"success": true}), "ssh-ed25519 AAAA"));
    }
}
