//! The key to the account, from where the vendor's own tool looks for it. It is
//! read anew for each call, kept nowhere, and shown nowhere.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest key file that is read.
const MAX: u64 = 4_096;
const VARIABLE: &str = "VAST_API_KEY";
const NEW: &str = "https://cloud.vast.ai/manage-keys/";
/// Of a shorter key nothing is shown: its end would be too much of it.
const SHOWN_FROM: usize = 12;

/// A key and where it came from.
#[derive(Clone)]
pub(super) struct Key {
    secret: Zeroizing<String>,
    /// The file; `None`: the variable.
    file: Option<PathBuf>,
    /// Where else a key may be, in the order of the search.
    others: Vec<String>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Key {
    pub(super) fn as_str(&self) -> &str {
        self.secret.as_str()
    }

    /// Where it came from, with the letters by which its owner knows it.
    pub(super) fn named(&self) -> String {
        let place = match &self.file {
            Some(file) => file.display().to_string(),
            None => format!("the variable {VARIABLE}"),
        };
        let end = self.secret.get(self.secret.len().saturating_sub(4)..);
        match end.filter(|_| self.secret.len() >= SHOWN_FROM) {
            Some(end) => format!("the key in {place} (it ends in {end})"),
            None => format!("the key in {place}"),
        }
    }

    /// What to say and do where the vendor does not accept it.
    pub(super) fn refused(&self) -> String {
        let mend = match &self.file {
            Some(_) => "save it with `vastai set api-key KEY`: the file is read anew for every call",
            None => {
                "a controller has the variable as it was when it was started: set it, `outlast controller stop`, then \
                 ask again"
            }
        };
        format!(
            "{} is not accepted; make one at {NEW}; {mend}; a key is looked for in {} too",
            self.named(),
            self.others.join(" and ")
        )
    }
}

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

    /// Whether there is a key anywhere, good or bad.
    pub(super) fn any(&self) -> bool {
        self.variable.is_some() || self.files.iter().any(|file| file.exists())
    }

    /// The key.
    ///
    /// # Errors
    /// Which key is missing, where it was looked for and how to get one.
    pub(super) fn key(&self) -> Result<Key, String> {
        let others = |own: Option<&PathBuf>| {
            let variable = own.map(|_| format!("the variable {VARIABLE} (before it)"));
            let files = self.files.iter().filter(|file| Some(*file) != own);
            variable.into_iter().chain(files.map(|file| file.display().to_string())).collect()
        };
        if let Some(key) = &self.variable {
            let secret = usable(key, "the variable VAST_API_KEY")?;
            return Ok(Key { secret, file: None, others: others(None) });
        }
        for file in &self.files {
            match read(file) {
                Ok(text) => {
                    let secret = usable(&text, &file.display().to_string())?;
                    return Ok(Key { secret, file: Some(file.clone()), others: others(Some(file)) });
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(format!("the Vast.ai API key in {} cannot be read: {error}", file.display()));
                }
            }
        }
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        Err(format!(
            "there is no Vast.ai API key: looked for the variable VAST_API_KEY and for {}; make one at {NEW} and save \
             it with `vastai set api-key KEY`",
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

    #[test]
    fn a_key_that_is_not_accepted_is_named_by_its_place_and_end_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().display().to_string();
        let at = |key: Option<&'static str>| {
            Places::of(|name| match name {
                "HOME" => Some(home.clone()),
                "VAST_API_KEY" => key.map(str::to_owned),
                _ => None,
            })
        };
        std::fs::write(dir.path().join(".vast_api_key"), "sk-of-a-file-6789").unwrap();
        let said = at(Some("sk-wrong-key-12345")).key().unwrap().refused();
        for part in [
            "variable VAST_API_KEY (it ends in 2345) is not accepted",
            "https://cloud.vast.ai/manage-keys/",
            "outlast controller stop",
            ".vast_api_key",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!said.contains("sk-wrong") && !said.contains("later"), "{said}");
        let said = at(None).key().unwrap().refused();
        for part in [".vast_api_key (it ends in 6789)", "vastai set api-key", "VAST_API_KEY (before it)"] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!said.contains("controller stop"), "a file is read anew: {said}");
        let short = at(Some("abcd1234")).key().unwrap();
        assert!(!short.refused().contains("1234") && !format!("{short:?}").contains("abcd"));
    }
}
