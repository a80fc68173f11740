//! What is wanted of W&B's server, and where that is.
//!
//! The server is named by `WANDB_BASE_URL` alone, as for W&B's own client: a key
//! goes there and to no host that stands in an argument.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::commands::analyze::server::{decoded, is_safe};

/// W&B's own service.
const CLOUD: &str = "https://api.wandb.ai";
/// Where people look at what is there.
const PAGES: [&str; 2] = ["wandb.ai", "www.wandb.ai"];
/// Bytes of a name.
const MAX_NAME: usize = 200;
/// What a browser shows of a project behind its name.
const PROJECT_PAGES: [&str; 4] = ["workspace", "table", "overview", "runs"];

/// A project, or one run of it, and the server that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    base: Url,
    pub(super) entity: String,
    pub(super) project: String,
    pub(super) run: Option<String>,
}

impl Address {
    /// The address that a path is; `None`: it is none of W&B's.
    ///
    /// # Errors
    /// Where it names nothing that could be asked for, or the server cannot be
    /// asked safely.
    pub(crate) fn of(path: &Path, env: &BTreeMap<String, String>) -> Option<io::Result<Self>> {
        let refused = |why: String| Some(Err(io::Error::new(io::ErrorKind::InvalidInput, why)));
        let (scheme, rest) = path.to_str()?.split_once("://")?;
        let given = env.get("WANDB_BASE_URL").map(|text| text.trim()).filter(|text| !text.is_empty());
        let base = base(given.unwrap_or(CLOUD));
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let below = match scheme {
            "wandb" => rest,
            "http" | "https" => {
                let (host, below) = rest.split_once('/').unwrap_or((rest, ""));
                let own = base.as_ref().is_ok_and(|base| host_of(base).eq_ignore_ascii_case(host));
                let cloud = scheme == "https" && PAGES.iter().any(|page| host.eq_ignore_ascii_case(page));
                if cloud && base.as_ref().is_ok_and(|base| base.as_str() != format!("{CLOUD}/")) {
                    return refused(
                        "WANDB_BASE_URL names another server: unset it to read from wandb.ai".into(),
                    );
                }
                // A tracking server of MLflow's has other addresses.
                let private = own && given.is_some() && below.contains("/runs/");
                if !(cloud || private) {
                    return None;
                }
                below
            }
            _ => return None,
        };
        let base = match base {
            Ok(base) => base,
            Err(why) => return refused(format!("WANDB_BASE_URL {why}")),
        };
        match names(below) {
            Ok((entity, project, run)) => Some(Ok(Self { base, entity, project, run })),
            Err(why) => refused(why.into()),
        }
    }

    /// Where questions go.
    pub(super) fn questions(&self) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("graphql");
        }
        url
    }

    /// Host and port.
    pub(super) fn host(&self) -> String {
        host_of(&self.base)
    }

    /// The host alone, as `wandb login` writes it down.
    pub(super) fn machine(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// Where copies of the project's runs are, below a directory.
    pub(super) fn place(&self, copies: &Path) -> PathBuf {
        copies.join(encoded(&self.host())).join(encoded(&self.entity)).join(encoded(&self.project))
    }
}

/// What is shown of the run whose copy is in a directory.
pub(crate) fn shown(dir: &Path) -> PathBuf {
    let names: Vec<String> = dir.iter().rev().take(3).map(|part| decoded(&part.to_string_lossy())).collect();
    PathBuf::from(format!("wandb://{}", names.iter().rev().cloned().collect::<Vec<_>>().join("/")))
}

fn base(text: &str) -> Result<Url, &'static str> {
    let base = Url::parse(text).map_err(|_| "is no address of a server")?;
    if !base.username().is_empty() || base.password().is_some() {
        return Err("holds a name or a password: set WANDB_API_KEY");
    }
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none_or(str::is_empty) {
        return Err("is no address of a server");
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err("holds more than the address of a server");
    }
    if !is_safe(&base) {
        return Err("would send the key over the network in the clear: name the server with https://");
    }
    // What people take the service's address for.
    if base.host_str().is_some_and(|host| PAGES.contains(&host)) {
        return Url::parse(CLOUD).map_err(|_| "is no address of a server");
    }
    Ok(base)
}

fn host_of(base: &Url) -> String {
    let host = base.host_str().unwrap_or_default();
    base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Entity, project and run of `E/P`, `E/P/RUN`, `E/P/runs/RUN` and what a
/// browser adds.
fn names(below: &str) -> Result<(String, String, Option<String>), &'static str> {
    let parts: Vec<String> = below.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (entity, project, run) = match *parts.as_slice() {
        [entity, project] => (entity, project, None),
        [entity, project, page] if PROJECT_PAGES.contains(&page) => (entity, project, None),
        [entity, project, "runs", run, ..] | [entity, project, run] => (entity, project, Some(run)),
        _ => {
            return Err(
                "names no project of W&B's: write wandb://ENTITY/PROJECT or wandb://ENTITY/PROJECT/RUN",
            );
        }
    };
    for name in [Some(entity), Some(project), run].into_iter().flatten() {
        if !fits(name) {
            return Err("holds a name that W&B cannot have");
        }
    }
    Ok((entity.to_owned(), project.to_owned(), run.map(str::to_owned)))
}

/// Whether something could be a name; it becomes that of a directory.
pub(super) fn fits(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && encoded(name).len() <= 255
        && !name.chars().any(|c| c.is_control() || c == '/')
}

/// A name as one of a directory, which cannot lead elsewhere.
pub(super) fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let mut out = String::new();
    for (index, byte) in name.bytes().enumerate() {
        if plain(byte) && !(index == 0 && byte == b'.') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str, base: &str) -> Option<io::Result<Address>> {
        Address::of(Path::new(text), &BTreeMap::from([("WANDB_BASE_URL".to_owned(), base.to_owned())]))
    }

    #[test]
    fn projects_and_runs_are_named_as_people_have_them() {
        for (text, base, host, run) in [
            ("wandb://e/p", "", "api.wandb.ai", None),
            ("wandb://e/p/ab12", "", "api.wandb.ai", Some("ab12")),
            ("wandb://e/p/runs/ab12/", "https://w.example:8443/x/", "w.example:8443", Some("ab12")),
            ("https://wandb.ai/e/p/runs/ab12?nw=1#top", "", "api.wandb.ai", Some("ab12")),
            (
                "https://wandb.ai/e/p/runs/ab12/overview",
                "https://api.wandb.ai/",
                "api.wandb.ai",
                Some("ab12"),
            ),
            ("https://wandb.ai/e/p/workspace", "https://wandb.ai", "api.wandb.ai", None),
            ("https://w.example/e/p/runs/ab12", "https://w.example", "w.example", Some("ab12")),
            ("http://127.0.0.1:8080/e/p/runs/ab12", "http://127.0.0.1:8080", "127.0.0.1:8080", Some("ab12")),
        ] {
            let address = read(text, base).expect(text).expect(text);
            assert_eq!((address.host().as_str(), address.run.as_deref()), (host, run), "{text}");
            assert_eq!((address.entity.as_str(), address.project.as_str()), ("e", "p"), "{text}");
        }
        let questions = |base| read("wandb://e/p", base).expect("one").expect("good").questions().to_string();
        assert_eq!(questions(""), "https://api.wandb.ai/graphql");
        assert_eq!(questions("https://w.example/x/"), "https://w.example/x/graphql");
    }

    #[test]
    fn other_addresses_and_paths_are_none_of_wandb() {
        for (text, base) in [
            ("runs/a.csv", ""),
            ("mlflow://h/x", ""),
            ("https://wandb.ai.evil.example/e/p/runs/a", ""),
            ("http://wandb.ai/e/p/runs/a", ""),
            ("https://evil.example/e/p/runs/a", "https://w.example"),
            ("https://w.example/experiment", "https://w.example"),
        ] {
            assert!(read(text, base).is_none(), "{text}");
        }
        for (text, base, why) in [
            ("wandb://e", "", "names no project"),
            ("wandb://", "", "names no project"),
            ("wandb://e/p/%00", "", "cannot have"),
            ("https://wandb.ai/e/p/reports/x/y", "", "names no project"),
            ("https://wandb.ai/e/p/runs/a", "https://w.example", "unset it"),
            ("wandb://e/p", "http://w.example", "in the clear"),
            ("wandb://e/p", "http://127.0.0.1.evil.example", "in the clear"),
            ("wandb://e/p", "https://me:secret@w.example", "WANDB_API_KEY"),
            ("wandb://e/p", "ftp://w.example", "no address"),
        ] {
            let error = read(text, base).expect(text).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_name_stays_one_directory_and_comes_back(name in "\\PC{1,40}") {
            let name_of = encoded(&name);
            prop_assert_eq!(Path::new(&name_of).components().count(), 1);
            prop_assert!(!name_of.starts_with('.') && !name_of.contains('/'));
            prop_assert_eq!(decoded(&name_of), name);
        }
    }
}
