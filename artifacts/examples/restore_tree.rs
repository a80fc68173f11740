//! Restores one tree from a local store, for rigs: `restore_tree STORE KEY
//! DESTINATION`. The manifest's digest is not checked: whoever has the key
//! wants what is there.

use std::path::Path;

use artifacts::restore::{load_manifest, restore, verify};
use artifacts::store::FsStore;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, store, key, dest] = args.as_slice() else {
        return Err("restore_tree STORE KEY DESTINATION".into());
    };
    let store = FsStore::open(store)?;
    let tree = load_manifest(&store, &key.parse()?, None).await?;
    verify(&store, &tree).await?;
    restore(&store, &tree, Path::new(dest)).await?;
    Ok(())
}
