//! Finds and reads configuration files. The search walks up from a directory
//! to the root of its git checkout, and without one no further than the home
//! directory. A file found above the start that belongs to another user is
//! refused: it names a command that would run as this user.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::Problem;
use super::source::{At, Place, Source};

/// The name of the project's file.
pub(super) const FILE_NAME: &str = "outlast.toml";

/// Nobody writes a larger one by hand.
const LARGEST: u64 = 1 << 20;

/// Where the user's own file is looked for; `None` if no home is known.
/// It need not exist.
#[must_use]
pub fn user_file(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = set("OUTLAST_HOME") {
        return Some(home.join("config.toml"));
    }
    // A relative XDG_CONFIG_HOME is to be ignored, says its specification.
    let base = set("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let base = base.or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(base.join("outlast").join("config.toml"))
}

/// The nearest `outlast.toml`, if there is one.
pub(super) fn find(start: &Path, home: Option<&Path>) -> Result<Option<PathBuf>, Problem> {
    for directory in start.ancestors() {
        let candidate = directory.join(FILE_NAME);
        if candidate.is_file() {
            if directory != start && !same_owner(start, &candidate) {
                let shown = candidate.display();
                let problem = Problem::nowhere(format!("{shown} belongs to another user"));
                return Err(problem.help(format!("if you trust it: --config {shown}")));
            }
            return Ok(Some(candidate));
        }
        if directory.join(".git").exists() || Some(directory) == home {
            break;
        }
    }
    Ok(None)
}

#[cfg(unix)]
fn same_owner(start: &Path, file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let owner = |path: &Path| fs::metadata(path).map(|meta| meta.uid());
    match (owner(start), owner(file)) {
        (Ok(start), Ok(file)) => file == start || file == 0,
        _ => false,
    }
}

#[cfg(not(unix))]
fn same_owner(_start: &Path, _file: &Path) -> bool {
    true
}

/// Reads a file; `None` if it does not exist and need not.
pub(super) fn read(place: Place, label: String, needed: bool) -> Result<Option<Arc<Source>>, Problem> {
    let path = match &place {
        Place::UserFile(path) | Place::ProjectFile(path) => path.clone(),
        Place::Environment(_) | Place::Flag(_) => return Ok(None),
    };
    let failed = |why: &str| Problem::nowhere(format!("cannot read {label}: {why}"));
    let bytes = match bounded(&path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            let limit = LARGEST >> 20;
            return Err(
                failed("not a regular file of at most that size").help(format!("the limit is {limit} MiB"))
            );
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !needed => return Ok(None),
        Err(error) => return Err(failed(&error.to_string())),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(Arc::new(Source { place, label, text }))),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let source = Arc::new(Source { place, label, text });
            let at = At::new(&source, good..good + 1);
            Err(Problem::new(&at, "not valid UTF-8").help("save the file as UTF-8"))
        }
    }
}

/// The bytes of a regular file within the limit.
fn bounded(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    // Looked at before opening: opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= LARGEST).then_some(bytes))
}

/// How a path is shown: relative to the start where that is short.
pub(super) fn label(path: &Path, start: &Path) -> String {
    if let Ok(inside) = path.strip_prefix(start) {
        return inside.display().to_string();
    }
    let above = path.parent().and_then(|parent| start.strip_prefix(parent).ok());
    match (above, path.file_name()) {
        (Some(below), Some(name)) if below.components().count() <= 4 => {
            let ups = "../".repeat(below.components().count());
            format!("{ups}{}", name.display())
        }
        _ => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_ends_at_the_checkout() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repo");
        let deep = repo.join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(repo.join(".git")).unwrap();
        fs::write(dir.path().join(FILE_NAME), "").unwrap();
        assert_eq!(find(&deep, None).unwrap(), None, "outside the checkout");
        fs::write(repo.join(FILE_NAME), "").unwrap();
        assert_eq!(find(&deep, None).unwrap(), Some(repo.join(FILE_NAME)));
        assert_eq!(label(&repo.join(FILE_NAME), &deep), "../../outlast.toml");
        assert_eq!(label(&repo.join(FILE_NAME), &repo), "outlast.toml");
    }

    #[test]
    fn the_search_ends_at_home_without_a_checkout() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        fs::create_dir_all(home.join("a")).unwrap();
        fs::write(dir.path().join(FILE_NAME), "").unwrap();
        assert_eq!(find(&home.join("a"), Some(&home)).unwrap(), None);
        assert!(find(&home.join("a"), None).unwrap().is_some());
    }

    #[test]
    fn the_user_file_follows_the_variables() {
        let env = |pairs: &[(&str, &str)]| {
            let env = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            user_file(&env).map(|path| path.display().to_string())
        };
        assert_eq!(env(&[]), None);
        assert_eq!(env(&[("HOME", "/h")]).unwrap(), "/h/.config/outlast/config.toml");
        assert_eq!(env(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]).unwrap(), "/x/outlast/config.toml");
        assert_eq!(
            env(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "x")]).unwrap(),
            "/h/.config/outlast/config.toml"
        );
        assert_eq!(env(&[("HOME", "/h"), ("OUTLAST_HOME", "/o")]).unwrap(), "/o/config.toml");
    }

    #[test]
    fn hostile_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        let get = || read(Place::ProjectFile(path.clone()), "x.toml".to_owned(), true);
        assert!(get().is_err(), "missing");
        fs::write(&path, b"a = 1\nb = \"\xff\"").unwrap();
        assert!(get().unwrap_err().to_string().contains("x.toml:2:6"));
        fs::write(&path, vec![b'#'; LARGEST as usize + 1]).unwrap();
        assert!(get().is_err(), "too large");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(get().is_err(), "a directory");
    }
}
