//! Compressed files with a checksum at the end, as `joblib.dump(compress=...)`
//! and `gzip.open` write them, and what else tells where it ends.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::os::unix::fs::FileExt as _;

use flate2::bufread::{MultiGzDecoder, ZlibDecoder};

mod frames;

use super::structure::TOO_LARGE;
use super::{Judged, Structure, torn};

const GZIP: &[u8] = &[0x1f, 0x8b, 8];
const XZ: &[u8] = b"\xfd7zXZ\0";

/// Names that promise one of [`frames`]. Others begin so too and go on as they
/// like: the data files of Orbax are a Zstandard frame and more behind it.
const FRAMED: [&str; 9] = ["bz2", "tbz2", "lz4", "zst", "zstd", "tar", "joblib", "pkl", "pickle"];

/// Whether these are the first bytes of such a file. A zlib stream begins so
/// shortly that its name must promise it.
pub(super) fn begins(head: &[u8], extension: &str, is_pickle_by_name: bool) -> bool {
    head.starts_with(GZIP)
        || head.starts_with(XZ)
        || FRAMED.contains(&extension) && frames::begins(head)
        || is_pickle_by_name && is_zlib(head)
}

fn is_zlib(head: &[u8]) -> bool {
    matches!(head, [0x78, level, ..] if (0x7800 + u16::from(*level)).is_multiple_of(31))
}

pub(super) fn judge(file: &File, size: u64, head: &[u8]) -> Judged {
    if head.starts_with(XZ) {
        return xz(file, size);
    }
    if frames::begins(head) {
        return frames::judge(file, size, head);
    }
    let mut plain = file;
    plain.rewind()?;
    let reader = BufReader::with_capacity(1 << 16, plain);
    if head.starts_with(GZIP) {
        return drained(MultiGzDecoder::new(reader), size, |_| true, "gzip");
    }
    let ended = |decoder: &ZlibDecoder<BufReader<&File>>| decoder.total_in() == size;
    drained(ZlibDecoder::new(reader), size, ended, "zlib")
}

/// The most that is unpacked of so many bytes: a file that was made to take
/// for ever does not.
pub(super) fn most(size: u64) -> u64 {
    size.saturating_mul(64).saturating_add(1 << 30)
}

/// Reads all; the decoder checks its own sums.
fn drained<D: Read>(mut decoder: D, size: u64, ended: impl Fn(&D) -> bool, format: &'static str) -> Judged {
    match io::copy(&mut (&mut decoder).take(most(size)), &mut io::sink()) {
        Ok(unpacked) if unpacked == most(size) => Ok(Structure::Doubtful(TOO_LARGE)),
        Ok(_) if ended(&decoder) => Ok(Structure::Sound(format)),
        Ok(_) => torn("something follows its compressed data"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            torn("it ends in the middle of its compressed data")
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            torn("its compressed data are damaged")
        }
        Err(error) => Err(error),
    }
}

/// Its footer stands at the end and nowhere else, with a checksum of its own.
fn xz(file: &File, size: u64) -> Judged {
    let mut end = [0; 12];
    if size < 32 || !size.is_multiple_of(4) {
        return torn("it ends in the middle of its compressed data");
    }
    let at = size - end.len() as u64;
    file.read_exact_at(&mut end, at)?;
    let (sum, rest) = end.split_at(4);
    if rest.ends_with(b"YZ") && crc32fast::hash(&rest[..6]).to_le_bytes() == sum {
        Ok(Structure::Sound("xz"))
    } else {
        torn("it has no xz footer")
    }
}
