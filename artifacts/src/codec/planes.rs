//! Numbers of 2 or 4 bytes, taken apart: the first bytes of all, then the
//! second bytes of all, and so on. The sign goes to the lowest bit first, so
//! that the highest byte of a float is its exponent and nothing else. Each
//! plane is coded by itself, for they have little in common.

use super::{Coder, Damaged, huffman, sample};

/// Input that stays in the fastest cache while each plane is taken from it.
const BLOCK: usize = 8 << 10;

/// How one plane is written; each has a byte for this and four for its size.
const RAW: u8 = 0;
const FILL: u8 = 1;
const HUFFMAN: u8 = 2;
const ZSTD: u8 = 3;

/// Bytes of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Two,
    Four,
}

impl Width {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            2 => Some(Self::Two),
            4 => Some(Self::Four),
            _ => None,
        }
    }
}

/// Takes the whole numbers in `bytes` apart, into planes that lie end to end
/// in `out`, the highest first.
pub(super) fn split(bytes: &[u8], width: Width, out: &mut Vec<u8>) {
    let count = bytes.len() / width.bytes();
    out.clear();
    out.resize(count * width.bytes(), 0);
    if count == 0 {
        return;
    }
    let mut planes = out.chunks_exact_mut(count);
    match width {
        Width::Four => {
            let planes: [&mut [u8]; 4] = std::array::from_fn(|_| planes.next().unwrap_or_default());
            let whole = bytes.as_chunks::<4>().0;
            let [a, b, c, d] = planes.map(|plane| plane.chunks_mut(BLOCK / 4));
            for ((((numbers, a), b), c), d) in whole.chunks(BLOCK / 4).zip(a).zip(b).zip(c).zip(d) {
                for (shift, plane) in [(24, a), (16, b), (8, c), (0, d)] {
                    for (byte, number) in plane.iter_mut().zip(numbers) {
                        *byte = (u32::from_le_bytes(*number).rotate_left(1) >> shift) as u8;
                    }
                }
            }
        }
        Width::Two => {
            let planes: [&mut [u8]; 2] = std::array::from_fn(|_| planes.next().unwrap_or_default());
            let whole = bytes.as_chunks::<2>().0;
            let [a, b] = planes.map(|plane| plane.chunks_mut(BLOCK / 2));
            for ((numbers, a), b) in whole.chunks(BLOCK / 2).zip(a).zip(b) {
                for (shift, plane) in [(8, a), (0, b)] {
                    for (byte, number) in plane.iter_mut().zip(numbers) {
                        *byte = (u16::from_le_bytes(*number).rotate_left(1) >> shift) as u8;
                    }
                }
            }
        }
    }
}

/// Puts planes together again; `planes` has a multiple of the width.
fn join(planes: &[u8], width: Width, out: &mut Vec<u8>) {
    let (start, count) = (out.len(), planes.len() / width.bytes());
    out.resize(start + planes.len(), 0);
    match width {
        Width::Four => {
            let (a, rest) = planes.split_at(count);
            let (b, rest) = rest.split_at(count);
            let (c, d) = rest.split_at(count);
            let numbers = out[start..].as_chunks_mut::<4>().0.iter_mut();
            for ((((number, a), b), c), d) in numbers.zip(a).zip(b).zip(c).zip(d) {
                *number = u32::from_be_bytes([*a, *b, *c, *d]).rotate_right(1).to_le_bytes();
            }
        }
        Width::Two => {
            let (a, b) = planes.split_at(count);
            let numbers = out[start..].as_chunks_mut::<2>().0.iter_mut();
            for ((number, a), b) in numbers.zip(a).zip(b) {
                *number = u16::from_be_bytes([*a, *b]).rotate_right(1).to_le_bytes();
            }
        }
    }
}

/// Appends the coded form of `bytes`: the width, the planes, and what is left
/// of a last number.
pub(super) fn encode(coder: &mut Coder, bytes: &[u8], width: Width, out: &mut Vec<u8>) {
    let mut planes = std::mem::take(&mut coder.planes);
    split(bytes, width, &mut planes);
    out.push(width.bytes() as u8);
    if !planes.is_empty() {
        for plane in planes.chunks_exact(planes.len() / width.bytes()) {
            plane_to(coder, plane, out);
        }
    }
    out.extend_from_slice(&bytes[planes.len()..]);
    coder.planes = planes;
}

fn plane_to(coder: &mut Coder, plane: &[u8], out: &mut Vec<u8>) {
    let head = out.len();
    out.extend_from_slice(&[0; 5]);
    let coding = if plane.iter().all(|byte| *byte == plane[0]) {
        out.push(plane[0]);
        FILL
    } else {
        match sample::plane(plane) {
            sample::Plane::Noise => RAW,
            sample::Plane::Skewed if huffman::encode(plane, out) => HUFFMAN,
            sample::Plane::Repeating if coder.zstd(plane, plane.len(), out) => ZSTD,
            sample::Plane::Skewed | sample::Plane::Repeating => RAW,
        }
    };
    if coding == RAW {
        out.extend_from_slice(plane);
    }
    let size = (out.len() - head - 5) as u32;
    out[head] = coding;
    out[head + 1..head + 5].copy_from_slice(&size.to_le_bytes());
}

/// Appends the `len` bytes that `encode` was given.
pub(super) fn decode(coder: &mut Coder, coded: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), Damaged> {
    let (width, mut rest) = coded.split_first().ok_or(Damaged("it is empty"))?;
    let width = Width::from_byte(*width).ok_or(Damaged("its numbers have an unknown width"))?;
    let count = len / width.bytes();
    let mut planes = std::mem::take(&mut coder.planes);
    planes.clear();
    planes.resize(count * width.bytes(), 0);
    let mut read = || -> Result<(), Damaged> {
        if count > 0 {
            for plane in planes.chunks_exact_mut(count) {
                rest = plane_from(coder, rest, plane)?;
            }
        }
        Ok(())
    };
    let done = read();
    if done.is_ok() {
        join(&planes, width, out);
    }
    coder.planes = planes;
    done?;
    if rest.len() != len % width.bytes() {
        return Err(Damaged("its planes do not make up its length"));
    }
    out.extend_from_slice(rest);
    Ok(())
}

fn plane_from<'a>(coder: &mut Coder, coded: &'a [u8], plane: &mut [u8]) -> Result<&'a [u8], Damaged> {
    let cut_off = Damaged("a plane is cut off");
    let (head, rest) = coded.split_first_chunk::<5>().ok_or(cut_off)?;
    let [coding, size @ ..] = *head;
    let size = u32::from_le_bytes(size) as usize;
    let (body, rest) = rest.split_at_checked(size).ok_or(cut_off)?;
    match (coding, body) {
        (RAW, body) if body.len() == plane.len() => plane.copy_from_slice(body),
        (FILL, [byte]) => plane.fill(*byte),
        (HUFFMAN, body) => huffman::decode(body, plane)?,
        (ZSTD, body) => coder.unzstd(body, plane)?,
        _ => return Err(Damaged("a plane has an unknown coding")),
    }
    Ok(rest)
}
