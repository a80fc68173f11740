//! Aim's coding of paths and values as keys and values of a database.

use crate::log::Value;

/// One part of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// A name.
    Text(&'a str),
    /// An index, or an opaque number: eight bytes, the greatest first.
    Number([u8; 8]),
}

/// Behind each part, and before a number; no byte of UTF-8.
const END: u8 = 0xfe;

/// The value that marks a list, whose elements have keys of their own.
pub(super) const ARRAY: u8 = 6;

/// Deeper paths are none.
const MAX_PARTS: usize = 64;

/// A key taken apart.
pub(super) fn parts(key: &[u8]) -> Option<Vec<Part<'_>>> {
    let mut out = Vec::new();
    let mut rest = key;
    while !rest.is_empty() {
        if out.len() == MAX_PARTS {
            return None;
        }
        if let Some((number, after)) = rest.strip_prefix(&[END]).and_then(|rest| rest.split_first_chunk()) {
            out.push(Part::Number(*number));
            rest = after.strip_prefix(&[END])?;
        } else {
            let end = memchr::memchr(END, rest)?;
            out.push(Part::Text(std::str::from_utf8(&rest[..end]).ok()?));
            rest = &rest[end + 1..];
        }
    }
    Some(out)
}

/// A value that stands for itself; `None` for marks and bytes.
pub(super) fn value(bytes: &[u8]) -> Option<Value> {
    let (kind, bytes) = bytes.split_first()?;
    let eight = || bytes.try_into().ok();
    Some(match kind {
        0 => Value::Null,
        1 => Value::Bool(*bytes.first()? != 0),
        2 => Value::Integer(i64::from_le_bytes(eight()?)),
        3 => Value::Float(f64::from_le_bytes(eight()?)),
        4 => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        _ => return None,
    })
}

/// A value that is a number.
pub(super) fn number(bytes: &[u8]) -> Option<f64> {
    match value(bytes)? {
        Value::Integer(number) => Some(number as f64),
        Value::Float(number) => Some(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_names_and_numbers() {
        let number = [0x87, 0x74, 0xfe, 0xe1, 0x0d, 0x41, 0xfe, 0x95];
        let key = [&b"seqs\xfev2\xfe\xfe"[..], &number, b"\xfeloss\xfe"].concat();
        assert_eq!(
            parts(&key),
            Some(vec![Part::Text("seqs"), Part::Text("v2"), Part::Number(number), Part::Text("loss")])
        );
        for broken in [&b"seqs"[..], b"\xfe1234567", b"\xfe12345678x", b"\xff\xfe"] {
            assert_eq!(parts(broken), None, "{broken:?}");
        }
        assert_eq!(parts(&b"a\xfe".repeat(1000)), None);
    }

    #[test]
    fn values_of_every_kind() {
        assert_eq!(value(&[0]), Some(Value::Null));
        assert_eq!(value(&[1, 1]), Some(Value::Bool(true)));
        assert_eq!(value(&[&[2][..], &(-3_i64).to_le_bytes()].concat()), Some(Value::Integer(-3)));
        assert_eq!(number(&[&[3][..], &0.1_f64.to_le_bytes()].concat()), Some(0.1));
        assert_eq!(value(b"\x04abc"), Some(Value::Text("abc".to_owned())));
        for none in [&[][..], &[1], &[2, 0], &[6], &[7], &[5, 1], &[99]] {
            assert_eq!(value(none), None, "{none:?}");
        }
    }
}
