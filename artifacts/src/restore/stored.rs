//! Checks the stored bytes of a tree without any key: a sealed manifest says in
//! the clear what they hash to. Finds every change but one of whoever could make
//! the manifest; what is read is never believed beyond that.

use super::{RestoreError, run};
use crate::digest::Digest;
use crate::manifest::MAX_CHUNK;
use crate::seal::{Sealed, SealedChunk};
use crate::store::Store;

/// Stored bytes that are read with one request.
const RANGE: u64 = 8 << 20;

/// Reads every stored chunk that the tree needs and checks its hash; tells how
/// many bytes that were.
pub async fn verify_stored(store: &dyn Store, sealed: &Sealed) -> Result<u64, RestoreError> {
    verify_chunks(store, &sealed.chunks.iter().collect::<Vec<_>>()).await
}

/// The same for some of its chunks, in the order of packs and offsets.
pub async fn verify_chunks(store: &dyn Store, chunks: &[&SealedChunk]) -> Result<u64, RestoreError> {
    let (mut rest, mut read) = (chunks, 0);
    while let Some(first) = rest.first() {
        let (pack, begin) = (first.place.pack.clone(), first.place.offset);
        let fits = |chunk: &&&SealedChunk| {
            let place = &chunk.place;
            place.pack == pack
                && place.offset >= begin
                && (place.end() - begin <= RANGE || place.offset == begin)
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        rest = later;
        let end = now.iter().map(|chunk| chunk.place.end()).max().unwrap_or(begin);
        debug_assert!(end - begin <= RANGE.max(u64::from(MAX_CHUNK) + 64));
        let bytes = store.get(&pack, begin, end - begin).await?;
        if bytes.len() as u64 != end - begin {
            let detail = format!("{} of {} bytes came of `{pack}`", bytes.len(), end - begin);
            return Err(RestoreError::Remote(detail));
        }
        read += end - begin;
        let expected: Vec<(u64, usize, Option<Digest>)> = now
            .iter()
            .map(|chunk| (chunk.place.offset - begin, chunk.place.stored as usize, chunk.place.cipher))
            .collect();
        let shown = std::path::PathBuf::from("hash");
        run(&shown, move || {
            for (at, stored, cipher) in expected {
                let part = bytes.get(at as usize..at as usize + stored).unwrap_or_default();
                if Some(Digest::of(part)) != cipher {
                    let detail = format!("the {stored} bytes at {} do not have their hash", begin + at);
                    return Err(RestoreError::Corrupt { key: pack, detail });
                }
            }
            Ok(())
        })
        .await?;
    }
    Ok(read)
}
