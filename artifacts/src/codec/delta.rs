//! The difference between a chunk and one of the same length in an earlier
//! checkpoint, number by number. Floats are taken as whole numbers in the order
//! of their values, so that a step of training is a small difference whatever
//! its sign; what is left goes the way of all numbers, [`planes`].
//!
//! The stored bytes begin with the digest of the base: a pack tells by itself
//! what else is needed. Nothing here believes that a base is the right one.

use super::planes::{self, Width};
use super::{Coder, Damaged};
use crate::digest::Digest;

const NAME: usize = 32;

/// A chunk of an earlier checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// Hash of its bytes.
    pub digest: &'a Digest,
    /// Its plain bytes, which the caller has hashed.
    pub bytes: &'a [u8],
}

/// A float as a whole number in the order of values, and back: negative ones
/// have all bits turned but the sign.
const fn order4(bits: u32) -> u32 {
    bits ^ ((bits.cast_signed() >> 31).cast_unsigned() >> 1)
}

const fn order2(bits: u16) -> u16 {
    bits ^ ((bits.cast_signed() >> 15).cast_unsigned() >> 1)
}

/// The differences of numbers in a block, each with its sign as a float has it.
pub(super) fn subtract<'a>(
    bytes: &[u8],
    base: &[u8],
    width: Width,
    room: &'a mut [u8; planes::BLOCK],
) -> &'a [u8] {
    match width {
        Width::Four => {
            let numbers = bytes.as_chunks::<4>().0.iter().zip(base.as_chunks::<4>().0);
            for (room, (now, then)) in room.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
                let (now, then) = (order4(u32::from_le_bytes(*now)), order4(u32::from_le_bytes(*then)));
                *room = order4(now.wrapping_sub(then)).to_le_bytes();
            }
        }
        Width::Two => {
            let numbers = bytes.as_chunks::<2>().0.iter().zip(base.as_chunks::<2>().0);
            for (room, (now, then)) in room.as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
                let (now, then) = (order2(u16::from_le_bytes(*now)), order2(u16::from_le_bytes(*then)));
                *room = order2(now.wrapping_sub(then)).to_le_bytes();
            }
        }
    }
    &room[..bytes.len().min(planes::BLOCK)]
}

/// Makes differences the numbers they came of.
fn add(differences: &mut [u8], base: &[u8], width: Width) {
    match width {
        Width::Four => {
            for (number, base) in differences.as_chunks_mut::<4>().0.iter_mut().zip(base.as_chunks::<4>().0) {
                let (step, then) = (order4(u32::from_le_bytes(*number)), order4(u32::from_le_bytes(*base)));
                *number = order4(step.wrapping_add(then)).to_le_bytes();
            }
        }
        Width::Two => {
            for (number, base) in differences.as_chunks_mut::<2>().0.iter_mut().zip(base.as_chunks::<2>().0) {
                let (step, then) = (order2(u16::from_le_bytes(*number)), order2(u16::from_le_bytes(*base)));
                *number = order2(step.wrapping_add(then)).to_le_bytes();
            }
        }
    }
}

/// Appends the coded form of `bytes`, as long as those of the base.
pub(super) fn encode(coder: &mut Coder, bytes: &[u8], base: Base<'_>, width: Width, out: &mut Vec<u8>) {
    out.extend_from_slice(base.digest.as_bytes());
    planes::encode(coder, bytes, Some(base.bytes), width, out);
}

/// Fills `out`, which is as long as the base, with what `encode` was given with
/// the same one.
pub(super) fn decode(coder: &mut Coder, coded: &[u8], base: Base<'_>, out: &mut [u8]) -> Result<(), Damaged> {
    let (name, coded) = coded.split_at_checked(NAME).ok_or(Damaged("it is cut off"))?;
    if name != base.digest.as_bytes() {
        return Err(Damaged("it was made from another base"));
    }
    let width = planes::decode(coder, coded, out)?;
    add(out, base.bytes, width);
    Ok(())
}
