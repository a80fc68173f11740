//! Packs and publishes the source tree of a run. The tree as it is now is what
//! runs, committed or not; what the store holds already does not travel again.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use artifacts::manifest::Node;
use artifacts::publish::PublishError;
use artifacts::source::{SourceError, SourceSelection, select_source};
use artifacts::{KeySpace, Kind, Manifest, Published, Selection, StoreError, publish};

use crate::app::Context;
use crate::config::SourceTree;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::bytes;
use proto::gateway::RemoteStore;

/// The scope of source trees in the store.
pub(crate) const SCOPE: &str = "source";
/// A larger tree is seldom what was meant.
const LARGE: u64 = 1 << 30;
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(300);
/// So many things that cannot travel are named; the rest is counted.
const NAMED: usize = 10;

/// A source tree in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Where its manifest is.
    pub key: String,
    /// The digest of the manifest's bytes.
    pub digest: String,
    /// Files in the tree.
    pub files: u64,
    /// Files of which at least a part was not in the store.
    pub new_files: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Bytes that were not in the store.
    pub new_bytes: u64,
}

/// What will travel, and how large it is.
///
/// # Errors
/// Where the tree cannot be read or a glob is none.
pub fn choose(root: &Path, settings: &SourceTree) -> anyhow::Result<(SourceSelection, u64)> {
    let chosen = select_source(root, &settings.include, &settings.exclude).map_err(|error| {
        let code = match &error {
            SourceError::Glob { .. } => ExitCode::Configuration,
            SourceError::Walk { .. } | SourceError::TooMany { .. } => ExitCode::BadInput,
        };
        Failure::new(code, error.to_string())
    })?;
    let size = |path: &String| root.join(path).symlink_metadata().map_or(0, |meta| meta.len());
    let total = chosen.paths.iter().map(size).sum();
    Ok((chosen, total))
}

/// Whether a person should be asked before so much travels.
#[must_use]
pub fn is_large(total: u64) -> bool {
    total > LARGE
}

/// Names what stays behind.
pub fn warn_of_skipped(ctx: &Context, chosen: &SourceSelection) {
    for (path, why) in chosen.skipped.iter().take(NAMED) {
        ctx.printer.warn(&format!("{path} stays behind: {why}"));
    }
    if chosen.skipped.len() > NAMED {
        ctx.printer.warn(&format!("{} more stay behind", chosen.skipped.len() - NAMED));
    }
}

/// Publishes the chosen files.
///
/// # Errors
/// Where a file cannot be read or keeps changing, or the store refuses.
pub async fn pack(
    ctx: &Context,
    store: &RemoteStore,
    root: &Path,
    chosen: SourceSelection,
) -> anyhow::Result<Packed> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let root = std::fs::canonicalize(root).with_context(|| format!("cannot read {}", root.display()))?;
    let selection = Selection {
        root,
        paths: chosen.paths,
        kind: Kind::Source,
        step: None,
        name: String::new(),
        single_file: false,
        created_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    };
    let mut tries = 0;
    loop {
        tries += 1;
        // Drawn at random, so that no two publications share a key.
        let generation = u64::from_le_bytes(proto::pki::random()?) >> 1;
        let mut keys = KeySpace { scope: SCOPE.to_owned(), generation, pack_seq: 0, manifest_seq: 0 };
        match Box::pin(publish(&selection, &mut keys, store, store)).await {
            Ok(published) => {
                let packed = describe(&published, generation);
                ctx.printer.note(&summary(&packed));
                return Ok(packed);
            }
            Err(PublishError::Changed { path }) if tries < TRIES => {
                ctx.printer.detail(&format!("{path} changed while it was read; reading again"));
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(refusal(&error)),
        }
    }
}

fn describe(published: &Published, generation: u64) -> Packed {
    Packed {
        key: published.manifest_key.to_string(),
        digest: published.manifest_digest.to_string(),
        files: published.manifest.files(),
        new_files: new_files(&published.manifest, generation),
        total_bytes: published.total_bytes,
        new_bytes: published.new_bytes,
    }
}

fn new_files(manifest: &Manifest, generation: u64) -> u64 {
    let sent = |node: &Node| match node {
        Node::File { chunks, .. } => chunks.iter().any(|chunk| chunk.pack.generation() == Some(generation)),
        Node::Dir { .. } | Node::Symlink { .. } => false,
    };
    manifest.entries.iter().filter(|entry| sent(&entry.node)).count() as u64
}

fn summary(packed: &Packed) -> String {
    let all = format!("source: {} files, {}", packed.files, bytes(packed.total_bytes));
    if packed.new_bytes == 0 {
        return format!("{all}; unchanged, nothing to send");
    }
    format!("{all}; {} files, {} were new", packed.new_files, bytes(packed.new_bytes))
}

fn refusal(error: &PublishError) -> anyhow::Error {
    let code = match error {
        PublishError::Store(StoreError::Full(_)) => ExitCode::CannotWrite,
        PublishError::Store(StoreError::Remote(_)) => ExitCode::Unreachable,
        PublishError::Store(_)
        | PublishError::Key(_)
        | PublishError::ManifestTaken { .. }
        | PublishError::PacksTaken { .. }
        | PublishError::Index { .. } => ExitCode::Internal,
        PublishError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            ExitCode::Denied
        }
        PublishError::Io { .. }
        | PublishError::Changed { .. }
        | PublishError::Unfit { .. }
        | PublishError::Path(_)
        | PublishError::Manifest(_) => ExitCode::BadInput,
    };
    let advice = matches!(code, ExitCode::BadInput | ExitCode::Denied);
    let failure = Failure::new(code, format!("the source tree cannot be sent: {error}"));
    if advice {
        failure.help("leave files out with [source] exclude or an .outlastignore file")
    } else {
        failure
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use artifacts::index::MemoryIndex;
    use artifacts::store::MemoryStore;

    async fn publish_again(store: &MemoryStore, index: &MemoryIndex, generation: u64) -> Packed {
        let files = [("a.py".to_owned(), b"print(1)".to_vec()), ("b.py".to_owned(), b"print(2)".to_vec())];
        let about = artifacts::publish::About {
            kind: Kind::Source,
            step: None,
            name: String::new(),
            single_file: false,
            created_ms: 1,
        };
        let mut keys = KeySpace { scope: SCOPE.into(), generation, pack_seq: 0, manifest_seq: 0 };
        let published = artifacts::publish_bytes(&files, &about, &mut keys, store, index).await.unwrap();
        index.add(&published.manifest);
        describe(&published, generation)
    }

    #[tokio::test]
    async fn an_unchanged_tree_sends_no_file_bytes() {
        let (store, index) = (MemoryStore::default(), MemoryIndex::default());
        let first = publish_again(&store, &index, 1).await;
        assert_eq!((first.files, first.new_files, first.new_bytes), (2, 2, 16));
        let second = publish_again(&store, &index, 2).await;
        assert_eq!((second.files, second.new_files, second.new_bytes), (2, 0, 0));
        assert!(summary(&second).contains("unchanged"));
        assert_ne!(first.key, second.key);
    }
}
