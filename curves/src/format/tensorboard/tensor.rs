//! Tensors that hold one number.

use super::super::protobuf::{Fields, Wire, varint};

/// The number of a `TensorProto` that holds exactly one, of any of the types
/// that scalars have: 32 and 64 bit floats and integers, half and bfloat16.
pub(super) fn scalar(tensor: &[u8]) -> Option<f64> {
    let mut kind = 0;
    let mut values: [Option<Wire<'_>>; 6] = [None; 6];
    let mut content: &[u8] = &[];
    let mut fields = Fields::new(tensor);
    for (field, wire) in &mut fields {
        match field {
            1 => kind = wire.number(),
            2 => one_element(wire.bytes())?,
            4 => content = wire.bytes(),
            5 => values[0] = Some(wire),
            6 => values[1] = Some(wire),
            7 => values[2] = Some(wire),
            10 => values[3] = Some(wire),
            13 => values[4] = Some(wire),
            _ => {}
        }
    }
    if fields.is_broken() {
        return None;
    }
    let [float, double, int, long, half, _] = values;
    match kind {
        1 => Some(f64::from(f32::from_bits(fixed32(content, float)?))),
        2 => Some(f64::from_bits(fixed64(content, double)?)),
        3 => Some(f64::from(match content.first_chunk::<4>() {
            Some(bytes) if content.len() == 4 => i32::from_le_bytes(*bytes),
            _ => number(int)? as i32,
        })),
        9 => Some(match content.first_chunk::<8>() {
            Some(bytes) if content.len() == 8 => i64::from_le_bytes(*bytes),
            _ => number(long)? as i64,
        } as f64),
        14 => Some(f64::from(f32::from_bits(u32::from(sixteen(content, half)?) << 16))),
        19 => Some(from_half(sixteen(content, half)?)),
        _ => None,
    }
}

/// Whether a shape has one element: no dimensions, or all of size one.
fn one_element(shape: &[u8]) -> Option<()> {
    for (_, wire) in Fields::new(shape).filter(|(field, _)| *field == 2) {
        let size = Fields::new(wire.bytes()).find(|(field, _)| *field == 1)?;
        (size.1.number() == 1).then_some(())?;
    }
    Some(())
}

fn fixed32(content: &[u8], value: Option<Wire<'_>>) -> Option<u32> {
    match value {
        Some(Wire::Fixed32(bits)) => Some(bits),
        Some(Wire::Bytes(packed)) => packed.try_into().ok().map(u32::from_le_bytes),
        _ => content.try_into().ok().map(u32::from_le_bytes),
    }
}

fn fixed64(content: &[u8], value: Option<Wire<'_>>) -> Option<u64> {
    match value {
        Some(Wire::Fixed64(bits)) => Some(bits),
        Some(Wire::Bytes(packed)) => packed.try_into().ok().map(u64::from_le_bytes),
        _ => content.try_into().ok().map(u64::from_le_bytes),
    }
}

fn number(value: Option<Wire<'_>>) -> Option<u64> {
    match value? {
        Wire::Varint(number) => Some(number),
        Wire::Bytes(mut packed) => {
            let number = varint(&mut packed)?;
            packed.is_empty().then_some(number)
        }
        _ => None,
    }
}

fn sixteen(content: &[u8], value: Option<Wire<'_>>) -> Option<u16> {
    match value {
        Some(_) => u16::try_from(number(value)?).ok(),
        None => content.try_into().ok().map(u16::from_le_bytes),
    }
}

/// IEEE half precision.
fn from_half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f64::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_and_both_places() {
        let float = 0.1_f32.to_le_bytes();
        let double = 0.1_f64.to_le_bytes();
        let table: Vec<(Vec<u8>, f64)> = vec![
            ([&[8, 1, 18, 0, 34, 4][..], &float].concat(), f64::from(0.1_f32)),
            ([&[8, 1, 18, 0, 42, 4][..], &float].concat(), f64::from(0.1_f32)),
            ([&[8, 1, 45][..], &float].concat(), f64::from(0.1_f32)),
            ([&[8, 2, 34, 8][..], &double].concat(), 0.1),
            ([&[8, 2, 50, 8][..], &double].concat(), 0.1),
            ([&[8, 3, 34, 4][..], &(-7_i32).to_le_bytes()].concat(), -7.0),
            (vec![8, 3, 56, 5], 5.0),
            (vec![8, 3, 58, 1, 5], 5.0),
            ([&[8, 9, 34, 8][..], &(-7_i64).to_le_bytes()].concat(), -7.0),
            (vec![8, 9, 82, 2, 0xac, 2], 300.0),
            (vec![8, 14, 34, 2, 0xc0, 0x3f], 1.5),
            (vec![8, 14, 106, 3, 0xc0, 0xff, 2], -1.5),
            (vec![8, 19, 34, 2, 0, 0x3e], 1.5),
            (vec![8, 19, 106, 3, 0x80, 0xfc, 1], f64::NAN),
            // A shape of one row and one column.
            ([&[8, 1, 18, 8, 18, 2, 8, 1, 18, 2, 8, 1, 34, 4][..], &float].concat(), f64::from(0.1_f32)),
        ];
        for (tensor, value) in table {
            let found = scalar(&tensor);
            let same = found.is_some_and(|f| f == value || f.is_nan() && value.is_nan());
            assert!(same, "{tensor:?}: {found:?} is not {value}");
        }
        assert_eq!(from_half(0x0001), 2_f64.powi(-24));
        assert_eq!(from_half(0xfc00), f64::NEG_INFINITY);
        assert_eq!(from_half(0x7bff), 65504.0);
    }

    #[test]
    fn more_or_fewer_than_one_number_is_no_scalar() {
        for tensor in [
            &[][..],
            &[8, 1],
            &[8, 1, 34, 8, 0, 0, 0, 0, 0, 0, 0, 0],
            &[8, 1, 18, 4, 18, 2, 8, 2, 34, 4, 0, 0, 0, 0],
            &[8, 7, 34, 4, 0, 0, 0, 0],
            &[8, 1, 34, 9, 0],
            &[8, 9, 82, 2, 1, 2],
        ] {
            assert_eq!(scalar(tensor), None, "{tensor:?}");
        }
    }
}
