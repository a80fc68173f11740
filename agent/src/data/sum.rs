//! What a file must hash to: SHA-256 for large files of the hub and files by
//! URL, git's own name for small ones.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// A digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sum {
    /// SHA-256, 64 hexadecimal digits.
    Sha256(String),
    /// The SHA-1 of git's blob, 40 hexadecimal digits.
    Git(String),
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

impl Sum {
    /// From a server's word for it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            text if is_hex(text, 64) => Some(Self::Sha256(text.to_owned())),
            text if is_hex(text, 40) => Some(Self::Git(text.to_owned())),
            _ => None,
        }
    }

    /// As the hub's client names a blob.
    pub(super) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }

    /// Whether a file has it. Blocks.
    pub(super) fn is_of(&self, path: &Path) -> io::Result<bool> {
        let mut file = File::open(path)?;
        let mut context = match self {
            Self::Sha256(_) => Context::new(&SHA256),
            Self::Git(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {}\0", file.metadata()?.len()).as_bytes());
                context
            }
        };
        let mut piece = vec![0; 1 << 20];
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => context.update(&piece[..read]),
            }
        }
        let found = context.finish();
        let found: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(found == self.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_digests() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "hello\n").unwrap();
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        // As `git hash-object` says.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        for good in [sha, git] {
            assert!(Sum::parse(good).unwrap().is_of(&path).unwrap(), "{good}");
        }
        assert!(!Sum::Git("0".repeat(40)).is_of(&path).unwrap());
        for bad in ["", "abc", &"A".repeat(40), &"g".repeat(64), "../../etc/passwd"] {
            assert_eq!(Sum::parse(bad), None, "{bad}");
        }
    }
}
