//! The key to the account, from where the vendor's own tool looks for it. It is
//! read anew for each call, kept nowhere, and shown nowhere.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest key file that is read.
const MAX: u64 = 4_096;

/// Where a key may be.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// `VAST_API_KEY`.
    pub(super) variable: Option<Zeroizing<String>>,
    /// Files, the first that exists counts.
    pub(super) files: Vec<PathBuf>,
}

impl Places {
    /// As the vendor's tool looks: the variable, then its files.
    pub(super) fn of(env: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| env(name).filter(|text| !text.trim().is_empty());
        let home = set("HOME").map(PathBuf::from);
        let config =
            set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".config")));
        let new = config.map(|dir| dir.join("vastai/vast_api_key"));
        let old = home.map(|dir| dir.join(".vast_api_key"));
        Self {
            variable: set("VAST_API_KEY").map(Zeroizing::new),
            files: new.into_iter().chain(old).collect(),
        }
    }

    /// The key.
    ///
    /// # Errors
    /// Which key is missing, where it was looked for and how to get one.
    pub(super) fn key(&self) -> Result<Zeroizing<String>, String> {
        if let Some(key) = &self.variable {
            return usable(key, "the variable VAST_API_KEY");
        }
        for file in &self.files {
            match read(file) {
                Ok(text) => return usable(&text, &file.display().to_string()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(format!("the Vast.ai API key in {} cannot be read: {error}", file.display()));
                }
            }
        }
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        Err(format!(
            "there is no Vast.ai API key: looked for the variable VAST_API_KEY and for {}; make one at \
             https://cloud.vast.ai/manage-keys/ and save it with `vastai set api-key KEY`",
            files.join(" and ")
        ))
    }
}

fn read(file: &Path) -> std::io::Result<Zeroizing<String>> {
    use std::io::Read;
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(file)?.take(MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn usable(text: &str, place: &str) -> Result<Zeroizing<String>, String> {
    let key = text.trim();
    let fits = |c: char| c.is_ascii_graphic();
    if key.is_empty() || !key.chars().all(fits) {
        return Err(format!("{place} holds no Vast.ai API key: a key is one word of letters and digits"));
    }
    Ok(Zeroizing::new(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_counts_before_the_files_and_a_missing_key_says_where_it_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().display().to_string();
        let env = |key: Option<&'static str>| {
            let home = home.clone();
            move |name: &str| match name {
                "HOME" => Some(home.clone()),
                "VAST_API_KEY" => key.map(str::to_owned),
                _ => None,
            }
        };
        let missing = Places::of(env(None)).key().unwrap_err();
        for part in ["VAST_API_KEY", ".config/vastai/vast_api_key", ".vast_api_key", "https://cloud.vast.ai"]
        {
            assert!(missing.contains(part), "{part} in {missing}");
        }
        std::fs::write(dir.path().join(".vast_api_key"), "old\n").unwrap();
        assert_eq!(Places::of(env(None)).key().unwrap().as_str(), "old");
        std::fs::create_dir_all(dir.path().join(".config/vastai")).unwrap();
        std::fs::write(dir.path().join(".config/vastai/vast_api_key"), "new").unwrap();
        assert_eq!(Places::of(env(None)).key().unwrap().as_str(), "new");
        assert_eq!(Places::of(env(Some("own"))).key().unwrap().as_str(), "own");
        let bad = Places::of(env(Some("two words"))).key().unwrap_err();
        assert!(bad.contains("VAST_API_KEY") && !bad.contains("two words"), "{bad}");
        assert!(!format!("{:?}", Places::of(env(None))).contains("new"));
    }
}
