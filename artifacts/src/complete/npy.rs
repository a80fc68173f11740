//! NumPy arrays: the header says dtype and shape, and with them the size.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::structure::unless_hole;
use super::{Judged, Structure, torn};

const MAX_HEADER: u32 = 1 << 20;

pub(super) fn judge(file: &File, size: u64) -> Judged {
    let mut head = [0; 12];
    if size < 12 {
        return torn("it is shorter than a NumPy header");
    }
    file.read_exact_at(&mut head, 0)?;
    let (length, start) = match head[6] {
        1 => (u32::from(u16::from_le_bytes([head[8], head[9]])), 10),
        2 | 3 => (u32::from_le_bytes([head[8], head[9], head[10], head[11]]), 12),
        _ => return Ok(Structure::Free),
    };
    if length > MAX_HEADER || start + u64::from(length) > size {
        return torn("it ends within its NumPy header");
    }
    let mut header = vec![0; length as usize];
    file.read_exact_at(&mut header, start)?;
    let header = String::from_utf8_lossy(&header);
    if !header.ends_with('\n') {
        return torn("its NumPy header is damaged");
    }
    let Some(expected) = data_bytes(&header) else { return Ok(Structure::Free) };
    let data = size - start - u64::from(length);
    if data == expected {
        // Mapped into memory it has its full size from the beginning.
        unless_hole(file, size, "numpy")
    } else {
        torn(format!("it has {data} bytes of data where its header says {expected}"))
    }
}

/// Bytes of the data; `None` for objects, records and other dtypes whose size
/// the header does not simply tell.
fn data_bytes(header: &str) -> Option<u64> {
    let descr = after(header, "'descr':")?.strip_prefix('\'')?;
    let descr = &descr[..descr.find('\'')?];
    let mut letters = descr.trim_start_matches(['<', '>', '|', '=']).chars();
    let kind = letters.next()?;
    let digits = letters.as_str();
    let digits = &digits[..digits.find('[').unwrap_or(digits.len())];
    let item = match kind {
        'b' | 'i' | 'u' | 'f' | 'c' | 'S' | 'V' | 'M' | 'm' => digits.parse::<u64>().ok()?,
        'U' => digits.parse::<u64>().ok()?.checked_mul(4)?,
        _ => return None,
    };
    let shape = after(header, "'shape':")?.strip_prefix('(')?;
    let shape = &shape[..shape.find(')')?];
    let dims = shape.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    dims.map(|dim| dim.parse::<u64>().ok()).try_fold(item, |product, dim| product.checked_mul(dim?))
}

fn after<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    Some(header.split_once(key)?.1.trim_start())
}
