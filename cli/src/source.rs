//! Packs and publishes the source tree of a run. The tree as it is now is what
//! runs, committed or not; what the store holds already does not travel again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use artifacts::manifest::Node;
use artifacts::publish::PublishError;
use artifacts::source::{Personal, SourceError, SourceSelection, fingerprint, select_source};
use artifacts::{
    ChunkIndex, KeySpace, Kind, ObjectKey, Published, Put, Selection, Store, StoreError, publish,
};

use crate::app::Context;
use crate::config::SourceTree;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{bytes, safe};

mod sent;

pub(crate) use sent::{forget, write};

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
pub fn choose(ctx: &Context, root: &Path, settings: &SourceTree) -> anyhow::Result<(SourceSelection, u64)> {
    let set = |name: &str| ctx.env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let personal =
        Personal { home: set("HOME"), config: set("XDG_CONFIG_HOME"), global: set("GIT_CONFIG_GLOBAL") };
    let chosen = select_source(root, &settings.include, &settings.exclude, &personal).map_err(|error| {
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
        ctx.printer.warn(&format!("{} stays behind: {why}", safe(path)));
    }
    if chosen.skipped.len() > NAMED {
        ctx.printer.warn(&format!("{} more stay behind", chosen.skipped.len() - NAMED));
    }
}

/// Publishes the chosen files, or finds that the store has this very tree.
///
/// # Errors
/// Where a file cannot be read or keeps changing, or the store refuses.
pub async fn pack<S: Store + ChunkIndex>(
    ctx: &Context,
    store: &S,
    root: &Path,
    chosen: SourceSelection,
) -> anyhow::Result<Packed> {
    let root = std::fs::canonicalize(root).with_context(|| format!("cannot read {}", root.display()))?;
    let before = fingerprint(&root, &chosen.paths, SystemTime::now());
    if let Some(state) = before
        && let Some(packed) = sent::recall(ctx, store, &root, state).await
    {
        ctx.printer.note(&summary(&packed));
        return Ok(packed);
    }
    let selection = select(&root, chosen);
    let index = sent::WithLast::of(ctx, store, store, &root).await;
    let published = publish_still(ctx, store, &index, &selection).await?;
    // Only where nothing changed meanwhile is the state the one that was sent.
    let after = fingerprint(&root, &selection.paths, SystemTime::now());
    if let Some(state) = before.filter(|_| before == after) {
        sent::remember(ctx, &root, state, &published);
    }
    let packed = describe(&published);
    ctx.printer.note(&summary(&packed));
    Ok(packed)
}

fn select(root: &Path, chosen: SourceSelection) -> Selection {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Selection {
        root: root.to_owned(),
        paths: chosen.paths,
        kind: Kind::Source,
        step: None,
        name: String::new(),
        single_file: false,
        created_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Publishes once the files are at rest.
async fn publish_still(
    ctx: &Context,
    store: &dyn Store,
    index: &dyn ChunkIndex,
    selection: &Selection,
) -> anyhow::Result<Published> {
    let mut tries = 0;
    loop {
        tries += 1;
        // Drawn at random, so that no two publications share a key.
        let generation = u64::from_le_bytes(proto::pki::random()?) >> 1;
        let mut keys = KeySpace { scope: SCOPE.to_owned(), generation, pack_seq: 0, manifest_seq: 0 };
        match Box::pin(publish(selection, &mut keys, store, index)).await {
            Ok(published) => return Ok(published),
            Err(PublishError::Changed { path }) if tries < TRIES => {
                ctx.printer.detail(&format!("{path} changed while it was read; reading again"));
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(refusal(&error)),
        }
    }
}

/// What publishing the chosen files would send, file by file and in all: the
/// store is asked what it has, and given nothing.
///
/// # Errors
/// Where a file cannot be read or keeps changing, or the store cannot be asked.
pub async fn rehearse<S: Store + ChunkIndex>(
    ctx: &Context,
    store: &S,
    root: &Path,
    chosen: SourceSelection,
) -> anyhow::Result<(Published, BTreeMap<String, u64>, u64)> {
    let root = std::fs::canonicalize(root).with_context(|| format!("cannot read {}", root.display()))?;
    let state = fingerprint(&root, &chosen.paths, SystemTime::now());
    let index = sent::WithLast::of(ctx, store, store, &root).await;
    let published = publish_still(ctx, &Nowhere, &index, &select(&root, chosen)).await?;
    if let Some(state) = state
        && sent::recall(ctx, store, &root, state).await.is_some()
    {
        return Ok((published, BTreeMap::new(), 0));
    }
    let (new, total) = (new_bytes(&published), published.new_bytes);
    Ok((published, new, total))
}

/// Takes everything and keeps nothing.
struct Nowhere;

#[tonic::async_trait]
impl Store for Nowhere {
    async fn put_if_absent(&self, _: &ObjectKey, _: &[u8]) -> Result<Put, StoreError> {
        Ok(Put::Created)
    }

    async fn get(&self, key: &ObjectKey, _: u64, _: u64) -> Result<Vec<u8>, StoreError> {
        Err(StoreError::Missing(key.clone()))
    }

    async fn size(&self, _: &ObjectKey) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    async fn list(&self, _: &str) -> Result<Vec<ObjectKey>, StoreError> {
        Ok(Vec::new())
    }

    async fn delete(&self, _: &ObjectKey) -> Result<bool, StoreError> {
        Ok(false)
    }
}

fn describe(published: &Published) -> Packed {
    Packed {
        key: published.manifest_key.to_string(),
        digest: published.manifest_digest.to_string(),
        files: published.manifest.files(),
        new_files: new_bytes(published).len() as u64,
        total_bytes: published.total_bytes,
        new_bytes: published.new_bytes,
    }
}

/// Files of which at least a part was not in the store, and how much; a part
/// that several have counts for each.
fn new_bytes(published: &Published) -> BTreeMap<String, u64> {
    let generation = published.manifest_key.generation();
    let sent = |node: &Node| match node {
        Node::File { chunks, .. } => {
            let new = chunks.iter().filter(|chunk| chunk.pack.generation() == generation);
            new.map(|chunk| u64::from(chunk.len)).sum()
        }
        Node::Dir { .. } | Node::Symlink { .. } => 0,
    };
    let all = published.manifest.entries.iter().map(|entry| (entry.path.clone(), sent(&entry.node)));
    all.filter(|(_, new)| *new > 0).collect()
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
        | PublishError::Index { .. }
        | PublishError::Unsealed(_)
        | PublishError::Seal(_)
        | PublishError::Withdrawn => ExitCode::Internal,
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
        describe(&published)
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

    /// Counts the chunks that were asked for: one for each that was read.
    struct Both(MemoryStore, MemoryIndex, std::sync::atomic::AtomicUsize);

    #[tonic::async_trait]
    impl ChunkIndex for Both {
        async fn locate(
            &self,
            digests: &[artifacts::Digest],
        ) -> Result<Vec<Option<artifacts::Location>>, StoreError> {
            self.2.fetch_add(digests.len(), std::sync::atomic::Ordering::Relaxed);
            self.1.locate(digests).await
        }
    }

    #[tonic::async_trait]
    impl Store for Both {
        async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
            self.0.put_if_absent(key, bytes).await
        }
        async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
            self.0.get(key, offset, len).await
        }
        async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
            self.0.size(key).await
        }
        async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
            self.0.list(prefix).await
        }
        async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
            self.0.delete(key).await
        }
    }

    #[test]
    fn of_an_unchanged_tree_no_byte_is_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (home, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = tree.path();
        for number in 0..40_u8 {
            std::fs::write(root.join(format!("{number}.bin")), vec![number; 100_000]).unwrap();
        }
        let env = BTreeMap::from([("OUTLAST_HOME".to_owned(), home.path().display().to_string())]);
        let printer = crate::printer::Printer::new(crate::printer::Verbosity::Quiet, &env);
        let ctx = Context::new(printer, env);
        let store = Both(MemoryStore::default(), MemoryIndex::default(), 0.into());
        let settings = SourceTree::default();
        let send = || {
            let (chosen, _) = choose(&ctx, root, &settings).unwrap();
            let read = || store.2.load(std::sync::atomic::Ordering::Relaxed);
            let before = read();
            let packed = runtime.block_on(pack(&ctx, &store, root, chosen)).unwrap();
            (packed, read() - before)
        };
        let settled = || {
            let (chosen, _) = choose(&ctx, root, &settings).unwrap();
            while fingerprint(root, &chosen.paths, SystemTime::now()).is_none() {
                std::thread::yield_now();
            }
        };
        settled();
        let (first, read) = send();
        assert_eq!((first.files, first.total_bytes, read), (40, 4_000_000, 40));
        let rehearsed = || {
            let (chosen, _) = choose(&ctx, root, &settings).unwrap();
            let (_, new, total) = runtime.block_on(rehearse(&ctx, &store, root, chosen)).unwrap();
            (new.len(), total)
        };
        assert_eq!(rehearsed(), (0, 0), "what was sent would not be sent again");
        let (second, read) = send();
        assert_eq!((&second.key, second.new_bytes), (&first.key, 0), "the same tree under the same key");
        assert_eq!(read, 0, "chunks were read to find that nothing changed");
        std::fs::write(root.join("7.bin"), vec![99; 100_000]).unwrap();
        settled();
        assert_eq!(rehearsed(), (1, 100_000), "no run used the others, and they were sent");
        let (third, _) = send();
        assert_ne!(third.key, first.key);
        assert_eq!((third.new_files, third.new_bytes), (1, 100_000));
        // What was sent before that is part of the tree that is remembered now.
        std::fs::write(root.join("8.bin"), vec![98; 100_000]).unwrap();
        settled();
        assert_eq!((send().0.new_files, rehearsed()), (1, (0, 0)));
        let (third, _) = send();
        // Where the store lost a part, what is remembered is not believed.
        runtime.block_on(async {
            for key in store.list("source/").await.unwrap() {
                store.delete(&key).await.unwrap();
            }
        });
        assert_ne!(send().0.key, third.key);
    }
}
