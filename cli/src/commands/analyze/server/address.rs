//! The address of a tracking server, and what is asked of it.

use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;

/// Where a server is and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    base: Url,
    experiment: Option<String>,
    run: Option<String>,
    /// What stands behind the host, where that may be read in several ways.
    parts: Vec<String>,
}

/// Parts of an address that is read in several ways.
const MAX_PARTS: usize = 16;

impl Address {
    /// The address that a path is; `None`: it is a path of files.
    ///
    /// # Errors
    /// Where it is an address that cannot be asked.
    pub(crate) fn of(path: &Path) -> Option<io::Result<Self>> {
        let text = path.to_str()?;
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme {
            "mlflow" | "http" => "http",
            "mlflows" | "mlflow+https" | "https" => "https",
            _ => return None,
        };
        Some(
            Self::read(&format!("{scheme}://{rest}"))
                .map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why)),
        )
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let mut base = Url::parse(text).map_err(|_| "is no address of a server")?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(
                "holds a name or a password: set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            );
        }
        if base.host_str().is_none_or(str::is_empty) {
            return Err("names no host");
        }
        // What a browser shows: `/#/experiments/1/runs/ID`.
        let shown = base.fragment().map(|text| text.split('?').next().unwrap_or_default().to_owned());
        let path = base.path().to_owned();
        let parts = |text: &str| -> Vec<String> {
            text.split('/').filter(|part| !part.is_empty()).map(decoded).collect()
        };
        let mut address = Self { base: base.clone(), experiment: None, run: None, parts: Vec::new() };
        let mut prefix = parts(&path);
        match shown.map(|text| parts(&text)) {
            Some(shown) => {
                let after = |word: &str| shown.iter().skip_while(|part| *part != word).nth(1).cloned();
                (address.experiment, address.run) = (after("experiments"), after("runs"));
            }
            None => {
                address.parts.clone_from(&prefix);
                address.experiment = prefix.pop();
            }
        }
        base.set_fragment(None);
        base.set_query(None);
        address.base = below(base, &prefix);
        Ok(address)
    }

    /// The other ways to read it: names of experiments hold slashes (Databricks'
    /// begin with one), and addresses of servers behind a proxy have a path.
    pub(super) fn others(&self) -> Vec<Self> {
        let length = self.parts.len();
        if !(2..=MAX_PARTS).contains(&length) {
            return Vec::new();
        }
        let read = |at: usize, slash: &str| {
            let (prefix, name) = self.parts.split_at(at);
            let experiment = Some(format!("{slash}{}", name.join("/")));
            Self { base: below(self.base.clone(), prefix), experiment, ..self.clone() }
        };
        let mut all = vec![read(0, ""), read(0, "/")];
        all.extend((1..length - 1).map(|at| read(at, "")));
        all
    }

    /// The run, or else the experiment or run that is wanted.
    pub(crate) fn named(&self) -> Option<&str> {
        self.run.as_deref().or(self.experiment.as_deref())
    }

    /// The run, where the address can mean nothing else.
    pub(super) fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// Host and port.
    pub(super) fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Whether nobody on the way can read along.
    pub(super) fn is_safe(&self) -> bool {
        is_safe(&self.base)
    }

    /// The address of a call of the interface.
    pub(super) fn call(&self, call: &str, query: &[(&str, &str)]) -> io::Result<Url> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| io::Error::from(io::ErrorKind::InvalidInput))?
            .pop_if_empty()
            .extend(["api", "2.0", "mlflow"])
            .extend(call.split('/'));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// What is shown of a run.
    pub(super) fn shown(&self, run: &str) -> PathBuf {
        PathBuf::from(format!("mlflow://{}#{run}", self.host()))
    }
}

/// A server's address with a path.
fn below(mut base: Url, prefix: &[String]) -> Url {
    base.set_path("");
    if let Ok(mut path) = base.path_segments_mut() {
        path.clear().extend(prefix);
    }
    base
}

/// Whether nobody on the way to a server can read along.
pub(crate) fn is_safe(base: &Url) -> bool {
    base.scheme() == "https" || matches!(base.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))
}

/// `%20` and its like undone.
pub(crate) fn decoded(part: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let number = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match number.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Address {
        Address::of(Path::new(text)).expect("an address").expect("a good one")
    }

    #[test]
    fn addresses_of_servers_and_what_is_wanted() {
        for (text, base, experiment, run) in [
            ("mlflow://vm:5000/digits", "http://vm:5000/", Some("digits"), None),
            ("mlflow://vm:5000", "http://vm:5000/", None, None),
            ("https://h/prefix/a%20b", "https://h/prefix", Some("a b"), None),
            ("http://vm:5000/#/experiments/3/runs/ab?x=1", "http://vm:5000/", Some("3"), Some("ab")),
            ("http://vm/p/#/experiments/3", "http://vm/p", Some("3"), None),
        ] {
            let address = read(text);
            assert_eq!(address.base.as_str(), base, "{text}");
            assert_eq!((address.experiment.as_deref(), address.run.as_deref()), (experiment, run), "{text}");
        }
        let call = read("https://h/p/a").call("runs/get", &[("run_id", "a/b c")]).unwrap();
        assert_eq!(call.as_str(), "https://h/p/api/2.0/mlflow/runs/get?run_id=a%2Fb+c");
        assert_eq!(
            read("mlflow://vm:5000/x").call("runs/search", &[]).unwrap().as_str(),
            "http://vm:5000/api/2.0/mlflow/runs/search"
        );
    }

    #[test]
    fn names_with_slashes_are_other_ways_to_read_an_address() {
        let others = |text: &str| -> Vec<(String, Option<String>)> {
            read(text).others().into_iter().map(|one| (one.base.to_string(), one.experiment)).collect()
        };
        let is = |base: &str, name: &str| (base.to_owned(), Some(name.to_owned()));
        assert_eq!(
            others("https://h/Users/me/x"),
            [is("https://h/", "Users/me/x"), is("https://h/", "/Users/me/x"), is("https://h/Users", "me/x")]
        );
        assert!(others("mlflow://h/x").is_empty());
        assert!(others("mlflow://h/a%2Fb").is_empty());
        assert!(others("http://h/p/#/experiments/3").is_empty());
        assert!(others(&format!("http://h/{}", "a/".repeat(100))).is_empty());
    }

    #[test]
    fn paths_are_no_addresses_and_secrets_do_not_belong_in_one() {
        for path in ["runs/a.csv", "a:b", "s3://bucket/x", "/abs", "mlflow:/x"] {
            assert!(Address::of(Path::new(path)).is_none(), "{path}");
        }
        for bad in ["https://me:secret@h/x", "https://me@h/x", "http://"] {
            let error = Address::of(Path::new(bad)).expect("an address").unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(read("https://h/x").is_safe() && read("mlflow://127.0.0.1:5000/x").is_safe());
        assert!(!read("mlflow://vm/x").is_safe() && !read("http://127.0.0.1.evil.org/x").is_safe());
    }
}
