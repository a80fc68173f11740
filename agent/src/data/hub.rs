//! Asks the Hugging Face hub, or what stands for it, and other servers. The
//! token is sent to the hub's own address alone, whatever it redirects to, and
//! never in the clear over a network.

use std::sync::Arc;

use artifacts::store::booklet::client::fetch::{Ask, Fetcher, Response, is_private, origin, redirected};
use lifecycle::spec::{HfKind, HfRepo, is_commit};

use super::answer::{Asked, Trouble, judge};
use super::tree::{self, Tree};

/// Redirects that are followed.
const HOPS: usize = 8;
/// The longest description of a repository.
const LONGEST: usize = 64 << 20;

/// The hub.
pub(super) struct Hub {
    fetcher: Arc<Fetcher>,
    endpoint: String,
    token: Option<String>,
}

impl Hub {
    /// The hub at an address.
    ///
    /// # Errors
    /// Where it is none, or the token would be read on the way.
    pub(super) fn new(fetcher: Arc<Fetcher>, endpoint: &str, token: Option<&str>) -> Result<Self, String> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if origin(&format!("{endpoint}/")).is_none() || endpoint.contains(['?', '#']) {
            return Err(format!("HF_ENDPOINT is no address of a hub: {endpoint:.200}"));
        }
        if token.is_some() && !is_private(&format!("{endpoint}/")) {
            return Err(format!("HF_TOKEN is not sent to {endpoint}, which is not https"));
        }
        Ok(Self { fetcher, endpoint, token: token.map(|token| token.trim().to_owned()) })
    }

    /// Where a repository shows itself to people.
    fn page(&self, repo: &HfRepo) -> String {
        match repo.kind {
            HfKind::Model => format!("{}/{}", self.endpoint, repo.id),
            HfKind::Dataset => format!("{}/datasets/{}", self.endpoint, repo.id),
        }
    }

    /// Where a file of a repository is.
    pub(super) fn file(&self, repo: &HfRepo, commit: &str, path: &str) -> String {
        format!("{}/resolve/{commit}/{}", self.page(repo), quoted(path, true))
    }

    /// The commit of a branch or tag.
    pub(super) async fn resolve(&self, repo: &HfRepo) -> Result<String, Trouble> {
        Ok(self.tree(repo, &repo.revision).await?.commit)
    }

    /// What a repository holds at a revision.
    pub(super) async fn tree(&self, repo: &HfRepo, revision: &str) -> Result<Tree, Trouble> {
        let name = repo.to_string();
        let url = format!(
            "{}/api/{}/{}/revision/{}?blobs=true",
            self.endpoint,
            repo.kind.plural(),
            repo.id,
            quoted(revision, false)
        );
        let answer = self.open(&name, Some(&self.page(repo)), &url, 0).await?;
        let json = answer.whole(LONGEST).await.map_err(|trouble| Trouble::of_wire(&name, &trouble))?;
        let tree = tree::read(&json).map_err(|why| Trouble::for_good(format!("{name}: the hub: {why}")))?;
        if is_commit(revision) && tree.commit != revision {
            return Err(Trouble::for_good(format!("{name}: the hub answers for another commit")));
        }
        Ok(tree)
    }

    /// The size of a file at another server; `None`: it does not tell.
    pub(super) async fn size(&self, url: &str) -> Result<Option<u64>, Trouble> {
        let name = shown(url);
        let answer = self.hop(name, url, 0, true).await?.0;
        match answer.status {
            // Some say 0 where they mean that they do not know.
            200 => Ok(answer.number("content-length").filter(|bytes| *bytes > 0)),
            // Some let a file be read and not be asked about.
            400 | 401 | 403 | 405 | 501 => Ok(None),
            status => {
                let asked = Asked { name, page: None, with_token: false };
                judge(status, answer.number("retry-after"), asked).map(|()| None)
            }
        }
    }

    /// Opens a file of a repository, or of another server, at a byte.
    pub(super) async fn open(
        &self,
        name: &str,
        page: Option<&str>,
        url: &str,
        from: u64,
    ) -> Result<Response, Trouble> {
        let (answer, with_token) = self.hop(name, url, from, false).await?;
        // What is left of it is nothing: whoever asked knows.
        if answer.status == 416 && from > 0 {
            return Ok(answer);
        }
        let own = self.is_own(url).then_some(url);
        let asked = Asked { name, page: page.or(own), with_token };
        judge(answer.status, answer.number("retry-after"), asked)?;
        Ok(answer)
    }

    fn is_own(&self, url: &str) -> bool {
        origin(url).is_some() && origin(url) == origin(&format!("{}/", self.endpoint))
    }

    /// Asks, and goes where the answer leads. Whether the last one had a token.
    async fn hop(
        &self,
        name: &str,
        url: &str,
        from: u64,
        head_only: bool,
    ) -> Result<(Response, bool), Trouble> {
        let mut url = url.to_owned();
        let may_be_plain = url.starts_with("http://");
        for _ in 0..HOPS {
            let token = self.token.as_deref().filter(|_| self.is_own(&url));
            let ask = Ask { head_only, url: &url, token, from };
            let answer = self.fetcher.ask(&ask).await.map_err(|trouble| Trouble::of_wire(name, &trouble))?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok((answer, token.is_some()));
            }
            let next = answer.header("location").and_then(|location| redirected(&url, location));
            url = match next {
                Some(next) if may_be_plain || next.starts_with("https://") => next,
                _ => return Err(Trouble::for_good(format!("{name}: it redirects to nowhere that is safe"))),
            };
        }
        Err(Trouble::for_good(format!("{name}: it redirects more than {HOPS} times")))
    }
}

/// An address for people: what follows the question mark may be a key.
pub(super) fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

/// As a part of an address.
fn quoted(text: &str, with_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || with_slashes && byte == b'/';
        if plain {
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

    #[test]
    fn addresses_are_those_of_the_hub() {
        let fetcher = Arc::new(crate::booklets::fetcher(std::time::Duration::from_secs(1)));
        let hub = Hub::new(fetcher.clone(), "https://hub/", Some("t")).unwrap();
        let repo: HfRepo = "dataset:o/d".parse().unwrap();
        let file = hub.file(&repo, &"a".repeat(40), "a b/c#d.txt");
        assert_eq!(file, format!("https://hub/datasets/o/d/resolve/{}/a%20b/c%23d.txt", "a".repeat(40)));
        assert!(hub.is_own(&file) && !hub.is_own("https://hub.evil/x") && !hub.is_own("http://hub/x"));
        assert_eq!(quoted("refs/pr/1", false), "refs%2Fpr%2F1");
        for bad in ["hub", "ftp://hub", "https://hub?x", ""] {
            assert!(Hub::new(fetcher.clone(), bad, None).is_err(), "{bad}");
        }
        assert!(Hub::new(fetcher.clone(), "http://hub", Some("t")).is_err(), "in the clear");
        assert!(Hub::new(fetcher.clone(), "http://hub", None).is_ok());
        assert!(Hub::new(fetcher, "http://127.0.0.1:1", Some("t")).is_ok());
    }
}
