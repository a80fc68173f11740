//! Protocol buffer messages walked field by field, without their schema.
//!
//! Writers of different versions know different messages; going by field
//! numbers, one reader reads them all. Wire format:
//! <https://protobuf.dev/programming-guides/encoding/>.

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wire<'a> {
    /// A number of up to 64 bits, a truth value, or an enumeration.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// Text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    /// The bytes of a text or message; none of another type.
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Wire::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// The number of a varint; 0 of another type.
    pub(super) fn number(self) -> u64 {
        match self {
            Wire::Varint(number) => number,
            _ => 0,
        }
    }

    /// A double.
    pub(super) fn double(self) -> Option<f64> {
        match self {
            Wire::Fixed64(bits) => Some(f64::from_bits(bits)),
            _ => None,
        }
    }
}

/// The fields of a message in the order they stand. Ends early where the
/// message is broken, which [`Self::is_broken`] then tells.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    broken: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message, broken: false }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    #[inline]
    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let len = usize::try_from(len).ok()?;
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    #[inline]
    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = varint(&mut self.rest)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut self.rest)?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let len = varint(&mut self.rest)?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        (tag >> 3 != 0).then_some((tag >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Wire<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.broken = true;
            self.rest = &[];
        }
        field
    }
}

/// Takes a varint off the front; `None` when it does not end within ten bytes.
#[inline]
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(u64::from(first));
    }
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte < 0x80 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

/// The signed number that zig-zag coding stands for.
pub(super) fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The last text of a field, as proto3 has it.
pub(super) fn text(message: &[u8], field: u64) -> std::borrow::Cow<'_, str> {
    let found = Fields::new(message).filter(|(number, _)| *number == field).last();
    String::from_utf8_lossy(found.map_or(&[], |(_, wire)| wire.bytes()))
}

/// A timestamp message, seconds in 1 and nanoseconds in 2, as seconds since 1970.
pub(super) fn timestamp(message: &[u8]) -> f64 {
    Fields::new(message).fold(0.0, |time, (field, wire)| match field {
        1 => time + wire.number() as i64 as f64,
        2 => time + wire.number() as i64 as f64 / 1e9,
        _ => time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_of_every_wire_type() {
        let message = [8, 0x96, 1, 18, 2, b'h', b'i', 29, 0, 0, 128, 63, 33, 0, 0, 0, 0, 0, 0, 240, 63];
        let found: Vec<_> = Fields::new(&message).collect();
        assert_eq!(
            found,
            [
                (1, Wire::Varint(150)),
                (2, Wire::Bytes(b"hi")),
                (3, Wire::Fixed32(1.0_f32.to_bits())),
                (4, Wire::Fixed64(1.0_f64.to_bits())),
            ]
        );
        assert_eq!((zigzag(0), zigzag(1), zigzag(2), zigzag(u64::MAX)), (0, -1, 1, i64::MIN));
    }

    #[test]
    fn lengths_beyond_the_message_are_broken() {
        let mut huge = vec![18];
        huge.extend([0xff; 8]);
        huge.push(0x7f);
        for message in [&[18, 5, 1][..], &huge, &[0xff; 11], &[8], &[3, 1], &[0, 0]] {
            let mut fields = Fields::new(message);
            assert_eq!(fields.next(), None, "{message:?}");
            assert!(fields.is_broken(), "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(message in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Fields::new(&message).count() <= message.len());
        }
    }
}
