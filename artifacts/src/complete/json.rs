//! JSON as Python writes it, `NaN` and `Infinity` included: a loss that
//! diverged must not make a finished checkpoint look torn.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Judged, Structure, torn};

const MAX: u64 = 256 << 20;

pub(super) fn judge(file: &File, size: u64) -> Judged {
    if size > MAX {
        return Ok(Structure::Free);
    }
    Ok(match read::<IgnoredAny>(file, size)? {
        Ok(_) => Structure::Sound("json"),
        Err(why) => return torn(format!("it does not parse as JSON: {why}")),
    })
}

/// Reads a document of at most 256 MiB; the inner error says why it is torn.
pub(super) fn read<T: DeserializeOwned>(file: &File, size: u64) -> io::Result<Result<T, String>> {
    if size > MAX {
        return Ok(Err(format!("it has {size} bytes")));
    }
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, 0)?;
    plain_numbers(&mut bytes);
    Ok(serde_json::from_slice(&bytes).map_err(|error| error.to_string()))
}

/// Puts zeros where Python writes numbers that JSON does not have.
fn plain_numbers(bytes: &mut [u8]) {
    let mut quoted = false;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'N' | b'I' if !quoted => {
                for word in [&b"NaN"[..], b"Infinity"] {
                    if bytes[at..].starts_with(word) {
                        bytes[at..at + word.len()].fill(b' ');
                        bytes[at] = b'0';
                        at += word.len() - 1;
                        break;
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
}
