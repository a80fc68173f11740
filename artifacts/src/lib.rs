//! Content-addressed file trees: source code, checkpoints and results are
//! scanned, cut into chunks, published, verified and restored here.
//!
//! Keys are numbered, never named by content, and no key is ever overwritten;
//! the manifest is put last, so what a manifest names is there. Everything
//! read back is hostile: it is bounded, its paths are checked, and every chunk
//! is hashed before a byte of it is believed.
//!
//! Modules in reading order: names ([`digest`], [`key`], [`path`]), where bytes
//! lie ([`store`], [`index`]), how they are written ([`codec`], [`pack`],
//! [`seal`]), what a tree is ([`manifest`]), how it gets there and back ([`publish`], [`restore`]),
//! what to take ([`source`]) and when it is finished ([`complete`]).

pub mod digest;
pub mod key;
pub mod path;

pub mod index;
pub mod store;

pub mod codec;
pub mod manifest;
pub mod pack;
pub mod seal;

pub mod publish;
pub mod restore;

pub mod inspect;

pub mod complete;
pub mod glob;
pub mod source;

mod archive;
mod beneath;
mod chunk;
mod clone;
mod identity;
mod offload;

pub use clone::clone_file;
pub use digest::Digest;
pub use index::{ChunkIndex, Location};
pub use key::ObjectKey;
pub use manifest::{Kind, Manifest};
pub use publish::{KeySpace, Published, Selection, publish, publish_against, publish_bytes, publish_if};
pub use store::{Put, Store, StoreError};
