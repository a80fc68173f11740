//! How a chunk is written, whatever names it: a chunk's name is the hash of
//! its plain bytes, so that the same bytes are known again however they were
//! coded. The coding is chosen per chunk from a sample and is never larger than
//! the chunk; decoding is bounded by the length the manifest declares, and its
//! result is believed only once it is hashed.
//!
//! | codec | for | what is stored |
//! |---|---|---|
//! | raw | noise | the bytes |
//! | fill | zero pages, constant tensors | 1, 2, 4 or 8 bytes that repeat |
//! | lz4 | anything, on a link faster than a core | an LZ4 block |
//! | zstd | text, code, opaque files that repeat | a Zstandard frame |
//! | planes | floats | each byte of the numbers apart, [`planes`] |
//! | delta | floats of a later save | the difference to an earlier chunk, [`delta`] |

use serde::{Deserialize, Serialize};

use crate::manifest::MAX_CHUNK;

mod delta;
mod huffman;
mod planes;
mod sample;
mod sparse;
#[cfg(test)]
mod tests;

pub use delta::Base;

/// Chunks shorter than this are not worth a look at what they are.
const SHORT: usize = 64;
/// zstd's fastest ordinary level: on floats the higher ones find no more.
const LEVEL: i32 = 1;

/// How the bytes of a chunk are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    #[default]
    Raw = 0,
    /// A few bytes that repeat.
    Fill = 1,
    /// An LZ4 block.
    Lz4 = 2,
    /// A Zstandard frame.
    Zstd = 3,
    /// Numbers taken apart.
    Planes = 4,
    /// The difference to another chunk, which is never one itself.
    Delta = 5,
}

impl Codec {
    /// The first version of the format that has it. A codec more is a version
    /// more: whoever does not know it must say so instead of finding damage.
    #[must_use]
    pub const fn version(self) -> u32 {
        match self {
            Self::Raw => 1,
            Self::Fill | Self::Lz4 | Self::Zstd | Self::Planes | Self::Delta => 2,
        }
    }
}

impl From<Codec> for u8 {
    fn from(codec: Codec) -> Self {
        codec as Self
    }
}

impl TryFrom<u8> for Codec {
    type Error = Damaged;
    fn try_from(byte: u8) -> Result<Self, Damaged> {
        [Self::Raw, Self::Fill, Self::Lz4, Self::Zstd, Self::Planes, Self::Delta]
            .into_iter()
            .find(|codec| *codec as u8 == byte)
            .ok_or(Damaged("it has an unknown codec"))
    }
}

/// What may be spent on making chunks smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// Whoever reads it knows no codec: every chunk as it is.
    Plain,
    /// The store is faster than a core: only what costs next to nothing.
    Light,
    /// The link is the limit: all that a core does faster than the link.
    #[default]
    Dense,
}

/// Stored bytes that no coder has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(&'static str);

/// Codes and decodes chunks; holds what both need again and again.
pub struct Coder {
    compress: zstd_safe::CCtx<'static>,
    decompress: zstd_safe::DCtx<'static>,
    planes: Vec<u8>,
    sparse: [(Vec<u8>, Vec<u8>); planes::DEEPEST],
    scratch: Vec<u8>,
    codes: Vec<u8>,
    /// What decoding what was just coded gave.
    back: Vec<u8>,
    /// Codes as a faulty core would.
    #[cfg(test)]
    pub(crate) faulty: bool,
}

impl Default for Coder {
    fn default() -> Self {
        Self {
            compress: zstd_safe::CCtx::create(),
            decompress: zstd_safe::DCtx::create(),
            planes: Vec::new(),
            sparse: Default::default(),
            scratch: Vec::new(),
            codes: Vec::new(),
            back: Vec::new(),
            #[cfg(test)]
            faulty: false,
        }
    }
}

impl std::fmt::Debug for Coder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Coder")
    }
}

impl Coder {
    /// Appends the stored form of a chunk, at most as long as the chunk. A
    /// base of another length is none, and so is any where effort is less than
    /// all. What was coded is decoded again before it is believed: a fault of
    /// this program or of its core would otherwise be found when the chunk is
    /// needed, and there is no other copy of it then.
    pub fn encode(
        &mut self,
        chunk: &[u8],
        base: Option<Base<'_>>,
        effort: Effort,
        out: &mut Vec<u8>,
    ) -> Codec {
        let start = out.len();
        let base = base.filter(|base| base.bytes.len() == chunk.len() && effort == Effort::Dense);
        let codec = self.attempt(chunk, base, effort, out);
        #[cfg(test)]
        if let Some(byte) = out.last_mut().filter(|_| self.faulty && codec != Codec::Raw) {
            *byte ^= 1;
        }
        if codec != Codec::Raw && out.len() - start < chunk.len() {
            if self.comes_back(codec, &out[start..], base, chunk) {
                return codec;
            }
            tracing::error!(
                ?codec,
                len = chunk.len(),
                "a coded chunk does not decode to itself: stored plain"
            );
        }
        out.truncate(start);
        out.extend_from_slice(chunk);
        Codec::Raw
    }

    fn comes_back(&mut self, codec: Codec, stored: &[u8], base: Option<Base<'_>>, chunk: &[u8]) -> bool {
        let mut back = std::mem::take(&mut self.back);
        // Of another chunk: as good as any bytes.
        if back.len() < chunk.len() {
            back.resize(chunk.len(), 0);
        }
        let room = &mut back[..chunk.len()];
        let same = self.fill(codec, stored, base, room).is_ok() && *room == *chunk;
        self.back = back;
        same
    }

    fn attempt(&mut self, chunk: &[u8], base: Option<Base<'_>>, effort: Effort, out: &mut Vec<u8>) -> Codec {
        if effort == Effort::Plain {
            return Codec::Raw;
        }
        if let Some(pattern) = pattern(chunk) {
            out.extend_from_slice(pattern);
            return Codec::Fill;
        }
        if chunk.len() < SHORT {
            return Codec::Raw;
        }
        if effort == Effort::Light {
            let repeats = sample::repeats(chunk, |piece| self.lz4_share(piece));
            return if repeats { self.lz4(chunk, out) } else { Codec::Raw };
        }
        let (nature, share) = match base {
            None if sample::is_written(chunk) => (sample::Nature::Text, 1.0),
            _ => sample::nature(chunk, |piece| self.lz4_share(piece)),
        };
        if let Some(base) = base
            && let Some(width) = sample::differs_little(chunk, base.bytes, share)
        {
            delta::encode(self, chunk, base, width, out);
            return Codec::Delta;
        }
        match nature {
            sample::Nature::Noise => Codec::Raw,
            sample::Nature::Text => {
                let fits = self.zstd(chunk, chunk.len(), out);
                if fits { Codec::Zstd } else { Codec::Raw }
            }
            sample::Nature::Numbers(width) => {
                planes::encode(self, chunk, None, width, out);
                Codec::Planes
            }
        }
    }

    fn lz4(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Codec {
        let start = out.len();
        out.resize(start + lz4_flex::block::get_maximum_output_size(chunk.len()), 0);
        let size = lz4_flex::block::compress_into(chunk, &mut out[start..]).unwrap_or(chunk.len());
        out.truncate(start + size);
        Codec::Lz4
    }

    /// The share of itself that LZ4 leaves of a piece.
    fn lz4_share(&mut self, piece: &[u8]) -> f64 {
        self.scratch.resize(lz4_flex::block::get_maximum_output_size(piece.len()), 0);
        let size = lz4_flex::block::compress_into(piece, &mut self.scratch).unwrap_or(piece.len());
        size as f64 / piece.len().max(1) as f64
    }

    /// Appends a Zstandard frame if it is smaller than `limit`.
    fn zstd(&mut self, bytes: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.resize(start + limit, 0);
        match self.compress.compress(&mut out[start..], bytes, LEVEL) {
            Ok(size) => {
                out.truncate(start + size);
                true
            }
            Err(_) => {
                out.truncate(start);
                false
            }
        }
    }

    /// Fills `out` from a Zstandard frame.
    fn unzstd(&mut self, coded: &[u8], out: &mut [u8]) -> Result<(), Damaged> {
        match self.decompress.decompress(out, coded) {
            Ok(size) if size == out.len() => Ok(()),
            _ => Err(Damaged("a Zstandard frame is damaged")),
        }
    }

    /// Appends the `len` plain bytes of a stored chunk. On an error nothing is
    /// appended; without one the bytes are still to be hashed.
    pub fn decode(
        &mut self,
        codec: Codec,
        stored: &[u8],
        base: Option<Base<'_>>,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Damaged> {
        if len > MAX_CHUNK as usize {
            return Err(Damaged("its length is more than any chunk's"));
        }
        let start = out.len();
        if codec == Codec::Raw && stored.len() == len {
            out.extend_from_slice(stored);
            return Ok(());
        }
        out.resize(start + len, 0);
        let decoded = self.fill(codec, stored, base, &mut out[start..]);
        if decoded.is_err() {
            out.truncate(start);
        }
        decoded
    }

    /// Fills `out` with the plain bytes of a stored chunk, if they are as many;
    /// with anything, and an error, otherwise.
    fn fill(
        &mut self,
        codec: Codec,
        stored: &[u8],
        base: Option<Base<'_>>,
        out: &mut [u8],
    ) -> Result<(), Damaged> {
        match codec {
            Codec::Raw if stored.len() == out.len() => {
                out.copy_from_slice(stored);
                Ok(())
            }
            Codec::Raw => Err(Damaged("its length is another")),
            Codec::Fill if matches!(stored.len(), 1 | 2 | 4 | 8) => {
                if let [byte] = stored {
                    out.fill(*byte);
                } else {
                    for room in out.chunks_mut(stored.len()) {
                        room.copy_from_slice(&stored[..room.len()]);
                    }
                }
                Ok(())
            }
            Codec::Fill => Err(Damaged("its pattern has an impossible length")),
            Codec::Lz4 => match lz4_flex::block::decompress_into(stored, out) {
                Ok(size) if size == out.len() => Ok(()),
                _ => Err(Damaged("an LZ4 block is damaged")),
            },
            Codec::Zstd => self.unzstd(stored, out),
            Codec::Planes => planes::decode(self, stored, out).map(drop),
            Codec::Delta => match base {
                Some(base) if base.bytes.len() == out.len() => delta::decode(self, stored, base, out),
                _ => Err(Damaged("its base is of another length or not at hand")),
            },
        }
    }
}

/// The shortest pattern of 1, 2, 4 or 8 bytes that all of a chunk repeats.
fn pattern(chunk: &[u8]) -> Option<&[u8]> {
    [1, 2, 4, 8].into_iter().find_map(|period| {
        let (first, rest) = chunk.split_at_checked(period)?;
        (!rest.is_empty() && *rest == chunk[..rest.len()]).then_some(first)
    })
}
