//! The records of a zip archive (PyTorch, NumPy, Keras), by its directory. The
//! checksums there say which are the same; NumPy arrays tell type and shape.

use super::{LONGEST_HEADER, MOST, Piece, Stored};
use crate::archive::{self, Directory, END64, End, Entry, LOCAL, LOCATOR, LONGEST_END, number};
use crate::restore::RestoreError;

/// A NumPy header.
const HEADER: u64 = 4 << 10;
/// Arrays whose headers are looked at.
const ARRAYS: usize = 2_000;

pub(super) async fn pieces(file: &Stored<'_>) -> Result<Option<Vec<Piece>>, RestoreError> {
    let Some((offset, length)) = directory(file).await? else { return Ok(None) };
    if length > LONGEST_HEADER || offset.checked_add(length).is_none_or(|end| end > file.size()) {
        return Ok(None);
    }
    let bytes = file.read(offset..offset + length).await?;
    let entries: Option<Vec<Entry<'_>>> = archive::entries(&bytes).take(MOST + 1).collect();
    let Some(entries) = entries.filter(|entries| entries.len() <= MOST) else { return Ok(None) };
    let mut pieces = Vec::with_capacity(entries.len());
    for (number, entry) in entries.into_iter().enumerate() {
        let array = entry.is_stored && entry.name.ends_with(b".npy") && number < ARRAYS;
        let told = if array { array_of(file, &entry).await? } else { None };
        let (dtype, shape) = told.unzip();
        pieces.push(Piece {
            name: String::from_utf8_lossy(entry.name).into_owned(),
            dtype,
            shape,
            bytes: entry.plain,
            at: entry.local..entry.local.saturating_add(entry.packed),
            crc: Some(entry.crc),
        });
    }
    Ok(Some(pieces))
}

async fn directory(file: &Stored<'_>) -> Result<Option<Directory>, RestoreError> {
    let start = file.size().saturating_sub(LONGEST_END);
    let Some(end) = End::find(&file.read(start..file.size()).await?) else { return Ok(None) };
    if let Some(found) = end.directory() {
        return Ok(Some(found));
    }
    let Some(at) = (start + end.at as u64).checked_sub(LOCATOR) else { return Ok(None) };
    match end.far(&file.read(at..at + LOCATOR).await?) {
        Ok(far) => Ok(archive::directory64(&file.read(far..far.saturating_add(END64)).await?)),
        Err(short) => Ok(short),
    }
}

/// Type and shape of a NumPy array in a record.
async fn array_of(file: &Stored<'_>, entry: &Entry<'_>) -> Result<Option<(String, Vec<u64>)>, RestoreError> {
    let local = file.read(entry.local..entry.local.saturating_add(LOCAL)).await?;
    let Some(after) = archive::data_after(&local) else { return Ok(None) };
    let start = entry.local.saturating_add(after);
    let head = file.read(start..start.saturating_add(HEADER.min(entry.packed))).await?;
    Ok(array(&head))
}

fn array(head: &[u8]) -> Option<(String, Vec<u64>)> {
    let head = head.strip_prefix(b"\x93NUMPY")?;
    let (length, at): (u64, usize) = match head.first()? {
        1 => (number::<2>(head, 2)?, 4),
        _ => (number::<4>(head, 2)?, 6),
    };
    let text =
        String::from_utf8_lossy(head.get(at..at.checked_add(usize::try_from(length).ok()?)?)?).into_owned();
    let after = |key: &str| Some(text.split_once(key)?.1.trim_start());
    let dtype = after("'descr':")?.strip_prefix('\'')?;
    let shape = after("'shape':")?.strip_prefix('(')?;
    let dims = shape[..shape.find(')')?].split(',').map(str::trim).filter(|dim| !dim.is_empty());
    Some((dtype[..dtype.find('\'')?].to_owned(), dims.map(|dim| dim.parse().ok()).collect::<Option<_>>()?))
}
