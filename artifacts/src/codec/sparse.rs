//! Planes that are mostly zero, as the high bytes of small differences are:
//! a bit for each byte, and the bytes that are not zero. Both are coded as
//! planes again, so a bit costs little where most are alike. No bit of a search
//! for repetitions is needed, and it is several times as fast as one.

/// One bit for each byte of eight that is not zero, the lowest first.
const fn mask(eight: u64) -> u8 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let set = (((eight & LOW) + LOW) | eight) & !LOW;
    ((set >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
}

/// Bits of `plane`, eight to a byte from the lowest up, and what is not zero.
pub(super) fn part(plane: &[u8], bits: &mut Vec<u8>, rest: &mut Vec<u8>) {
    bits.clear();
    // Written over as far as it is used.
    rest.resize(plane.len() + 8, 0);
    let mut filled = 0;
    let mut put = |eight: u64| {
        let mut left = mask(eight);
        while left != 0 {
            if let Some(room) = rest.get_mut(filled) {
                *room = (eight >> (8 * left.trailing_zeros())) as u8;
            }
            filled += 1;
            left &= left - 1;
        }
        mask(eight)
    };
    let (eights, last) = plane.as_chunks::<8>();
    bits.extend(eights.iter().map(|eight| put(u64::from_le_bytes(*eight))));
    if !last.is_empty() {
        let mut eight = [0; 8];
        eight[..last.len()].copy_from_slice(last);
        bits.push(put(u64::from_le_bytes(eight)));
    }
    rest.truncate(filled);
}

/// How many bytes are set; `None` where bits stand for bytes beyond `len`.
pub(super) fn count(bits: &[u8], len: usize) -> Option<usize> {
    let beyond = bits.len() * 8 - len.min(bits.len() * 8);
    let clean = bits.last().is_none_or(|last| beyond < 8 && u32::from(*last) >> (8 - beyond) == 0);
    (clean && bits.len() == len.div_ceil(8)).then(|| bits.iter().map(|byte| byte.count_ones() as usize).sum())
}

/// Fills `plane`; `rest` has as many bytes as there are bits set.
pub(super) fn whole(bits: &[u8], rest: &[u8], plane: &mut [u8]) {
    plane.fill(0);
    let mut rest = rest.iter();
    for (eight, mask) in plane.chunks_mut(8).zip(bits) {
        let mut left = *mask;
        while left != 0 {
            if let (Some(room), Some(byte)) = (eight.get_mut(left.trailing_zeros() as usize), rest.next()) {
                *room = *byte;
            }
            left &= left - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_its_bit() {
        for place in 0..8 {
            for byte in [1, 0x7f, 0x80, 0xff] {
                assert_eq!(mask(byte << (8 * place)), 1 << place);
            }
        }
        assert_eq!((mask(0), mask(u64::MAX), mask(0x0100_8000_0000_ff00)), (0, 0xff, 0b1010_0010));
    }

    #[test]
    fn a_plane_comes_back() {
        let plane: Vec<u8> = (0..=255_u8).flat_map(|n| [n & 3, 0, n % 7 / 6, 0, 0]).chain([9, 0]).collect();
        for plane in [&plane[..], &plane[..8], &plane[..3], &[]] {
            let (mut bits, mut rest, mut back) = (Vec::new(), Vec::new(), vec![1; plane.len()]);
            part(plane, &mut bits, &mut rest);
            assert!(!rest.contains(&0));
            assert_eq!(count(&bits, plane.len()), Some(rest.len()));
            whole(&bits, &rest, &mut back);
            assert_eq!(back, plane);
        }
        assert_eq!([count(&[0b1000], 3), count(&[0, 0], 3), count(&[], 1)], [None; 3]);
    }
}
