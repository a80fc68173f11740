//! Pickles are walked opcode by opcode and never executed: whole if the last
//! STOP, and the raw data that belongs to it, end where the file does.
//!
//! Two writers put raw bytes where no opcode tells of them: joblib after each
//! array's description, PyTorch's format before 1.6 after the last pickle.
//! How many is known only by who follows what the opcodes build, so the few
//! values that matter are followed (`machine`): a cut anywhere is then found.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _};

use super::structure::unless_hole;
use super::{Judged, Structure, torn};

mod machine;
mod source;
mod value;

use machine::Machine;
use source::Source;

/// The first pickle of a file by `torch.save` before 1.6.
const OLD_TORCH: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// Pickles of such a file: magic, version, machine, object, names of storages.
const OLD_TORCH_PICKLES: usize = 5;

/// How a walk went on.
enum End {
    /// Through the STOP.
    Stop,
    /// An opcode that is none.
    Strange,
    /// Raw data of a size that is not known here, or more than is followed.
    Lost,
    /// The file ended before.
    Cut,
}

/// What the name of a file promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// Pickles, and perhaps something else after them.
    Pickles,
    /// What PyTorch saves: one pickle at least.
    Torch,
    /// Nothing: its first bytes may look like a pickle by chance.
    Nothing,
}

pub(super) fn judge(file: &File, size: u64, promise: Promise) -> Judged {
    let mut source = Source::new(file, size)?;
    let old_torch = source.reader.fill_buf()?.starts_with(OLD_TORCH);
    let mut storages = BTreeMap::new();
    let mut pickles = 0_usize;
    while source.at < size {
        // What follows a pickle and does not begin as one is the program's own.
        if pickles > 0 && !source.reader.fill_buf()?.starts_with(&[0x80]) {
            return Ok(Structure::Free);
        }
        let mut machine = Machine::new(&mut source, 0);
        let end = machine.walk()?;
        let strange = std::mem::take(&mut machine.has_strange_storages);
        storages.append(&mut machine.storages);
        match end {
            End::Stop => pickles += 1,
            End::Cut if old_torch || promise == Promise::Pickles => {
                return torn("it ends in the middle of a pickle");
            }
            End::Cut if pickles == 0 && promise == Promise::Torch => {
                return torn("it ends in the middle of a pickle");
            }
            End::Strange if pickles == 0 && promise != Promise::Nothing => {
                return torn("its pickle is damaged");
            }
            End::Cut | End::Strange | End::Lost => return Ok(Structure::Free),
        }
        if strange {
            return Ok(Structure::Free);
        }
        if old_torch && pickles == OLD_TORCH_PICKLES {
            return old_torch_data(file, &source, &storages);
        }
    }
    if old_torch {
        return torn("it ends before its tensors");
    }
    unless_hole(file, size, "pickle")
}

/// After the pickles each storage stands with its length before it.
fn old_torch_data(file: &File, source: &Source<'_>, storages: &BTreeMap<String, u64>) -> Judged {
    let data = storages.values().try_fold(0_u64, |sum, bytes| sum.checked_add(8)?.checked_add(*bytes));
    let expected = data.and_then(|data| source.at.checked_add(data));
    match expected {
        Some(end) if end == source.size => unless_hole(file, end, "torch-old"),
        Some(end) => torn(format!("it has {} bytes where its tensors end at {end}", source.size)),
        None => torn("its tensors are larger than any file"),
    }
}

/// An end of the file where more was promised is an answer, not an error.
fn cut(error: io::Error) -> io::Result<End> {
    if error.kind() == io::ErrorKind::UnexpectedEof { Ok(End::Cut) } else { Err(error) }
}

#[cfg(test)]
mod tests;
