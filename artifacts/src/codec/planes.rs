//! Numbers of 2 or 4 bytes, taken apart: the first bytes of all, then the
//! second bytes of all, and so on. The sign goes to the lowest bit first, so
//! that the highest byte of a float is its exponent and nothing else. Each
//! plane is coded by itself, for they have little in common.

use super::{Coder, Damaged, delta, huffman, sample, sparse};

/// Input that stays in the fastest cache while each plane is taken from it.
pub(super) const BLOCK: usize = 8 << 10;

/// How one plane is written; each has a byte for this and four for its size.
const RAW: u8 = 0;
const FILL: u8 = 1;
const HUFFMAN: u8 = 2;
const ZSTD: u8 = 3;
const SPARSE: u8 = 4;
/// A sparse plane is made of two, which may be sparse too, this many times.
pub(super) const DEEPEST: usize = 2;

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

/// Takes the whole numbers in `bytes` apart, or their differences to those in
/// `base`, into planes that lie end to end in `out`, the highest first.
pub(super) fn split(bytes: &[u8], base: Option<&[u8]>, width: Width, out: &mut Vec<u8>) {
    let count = bytes.len() / width.bytes();
    // Every byte is written over: what is there need not be cleared.
    out.resize(count * width.bytes(), 0);
    if count == 0 {
        return;
    }
    let mut differences = [0; BLOCK];
    for (number, piece) in bytes[..out.len()].chunks(BLOCK).enumerate() {
        let piece = match base.and_then(|base| base.get(number * BLOCK..)) {
            Some(base) => delta::subtract(piece, base, width, &mut differences),
            None => piece,
        };
        let at = number * BLOCK / width.bytes();
        let planes = out.chunks_exact_mut(count).map(|plane| &mut plane[at..]);
        let shifts = (0..width.bytes() as u32).rev().map(|place| place * 8);
        for (plane, shift) in planes.zip(shifts) {
            match width {
                Width::Four => {
                    for (byte, number) in plane.iter_mut().zip(piece.as_chunks::<4>().0) {
                        *byte = (u32::from_le_bytes(*number).rotate_left(1) >> shift) as u8;
                    }
                }
                Width::Two => {
                    for (byte, number) in plane.iter_mut().zip(piece.as_chunks::<2>().0) {
                        *byte = (u16::from_le_bytes(*number).rotate_left(1) >> shift) as u8;
                    }
                }
            }
        }
    }
}

/// Puts planes together again, the highest first and each as long as there are
/// numbers in `out`.
fn join(planes: [&[u8]; 4], width: Width, out: &mut [u8]) {
    let [a, b, c, d] = planes;
    match width {
        Width::Four => {
            for ((((number, a), b), c), d) in
                out.as_chunks_mut::<4>().0.iter_mut().zip(a).zip(b).zip(c).zip(d)
            {
                *number = u32::from_be_bytes([*a, *b, *c, *d]).rotate_right(1).to_le_bytes();
            }
        }
        Width::Two => {
            for ((number, a), b) in out.as_chunks_mut::<2>().0.iter_mut().zip(a).zip(b) {
                *number = u16::from_be_bytes([*a, *b]).rotate_right(1).to_le_bytes();
            }
        }
    }
}

/// Appends the coded form of `bytes`, or of their differences to those of
/// `base`: the width, the planes, and what is left of a last number.
pub(super) fn encode(coder: &mut Coder, bytes: &[u8], base: Option<&[u8]>, width: Width, out: &mut Vec<u8>) {
    let mut planes = std::mem::take(&mut coder.planes);
    split(bytes, base, width, &mut planes);
    out.push(width.bytes() as u8);
    if !planes.is_empty() {
        for plane in planes.chunks_exact(planes.len() / width.bytes()) {
            plane_to(coder, plane, 0, out);
        }
    }
    out.extend_from_slice(&bytes[planes.len()..]);
    coder.planes = planes;
}

fn plane_to(coder: &mut Coder, plane: &[u8], depth: usize, out: &mut Vec<u8>) {
    let head = out.len();
    out.extend_from_slice(&[0; 5]);
    let coding = match plane {
        [] => RAW,
        [first, ..] if plane.iter().all(|byte| byte == first) => {
            out.push(*first);
            FILL
        }
        _ => match sample::plane(plane) {
            sample::Plane::Noise => RAW,
            sample::Plane::Sparse if depth < DEEPEST && sparse_to(coder, plane, depth, out) => SPARSE,
            sample::Plane::Sparse | sample::Plane::Skewed
                if huffman::encode(plane, &mut coder.codes, out) =>
            {
                HUFFMAN
            }
            sample::Plane::Repeating if coder.zstd(plane, plane.len(), out) => ZSTD,
            _ => RAW,
        },
    };
    if coding == RAW {
        out.extend_from_slice(plane);
    }
    let size = (out.len() - head - 5) as u32;
    out[head] = coding;
    out[head + 1..head + 5].copy_from_slice(&size.to_le_bytes());
}

/// Appends a mostly empty plane as two; `false`, and nothing appended, where
/// that is no smaller.
fn sparse_to(coder: &mut Coder, plane: &[u8], depth: usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let (mut bits, mut rest) = std::mem::take(&mut coder.sparse[depth]);
    sparse::part(plane, &mut bits, &mut rest);
    plane_to(coder, &bits, depth + 1, out);
    plane_to(coder, &rest, depth + 1, out);
    coder.sparse[depth] = (bits, rest);
    let is_smaller = out.len() - start < plane.len();
    if !is_smaller {
        out.truncate(start);
    }
    is_smaller
}

/// Fills `out` with what `encode` was given, if that was as long; tells the
/// width of its numbers.
pub(super) fn decode(coder: &mut Coder, coded: &[u8], out: &mut [u8]) -> Result<Width, Damaged> {
    let (width, rest) = coded.split_first().ok_or(Damaged("it is empty"))?;
    let width = Width::from_byte(*width).ok_or(Damaged("its numbers have an unknown width"))?;
    let mut room = std::mem::take(&mut coder.planes);
    let done = decode_planes(coder, rest, width, &mut room, out);
    coder.planes = room;
    done.map(|()| width)
}

fn decode_planes(
    coder: &mut Coder,
    mut coded: &[u8],
    width: Width,
    room: &mut Vec<u8>,
    out: &mut [u8],
) -> Result<(), Damaged> {
    let count = out.len() / width.bytes();
    let (numbers, last) = out.split_at_mut(count * width.bytes());
    if count > 0 {
        // Written over in full, or not used.
        room.resize(numbers.len(), 0);
        let mut planes = [&[][..]; 4];
        for (plane, room) in planes.iter_mut().zip(room.chunks_exact_mut(count)) {
            // Most planes of floats are as they are: they need no room.
            (*plane, coded) = match plain_plane(coded, count) {
                Some(plain) => plain,
                None => {
                    let rest = plane_from(coder, coded, 0, room)?;
                    (&*room, rest)
                }
            };
        }
        join(planes, width, numbers);
    }
    if coded.len() != last.len() {
        return Err(Damaged("its planes do not make up its length"));
    }
    last.copy_from_slice(coded);
    Ok(())
}

/// A plane that is stored as it is, and what comes after it.
fn plain_plane(coded: &[u8], count: usize) -> Option<(&[u8], &[u8])> {
    let ([coding, size @ ..], rest) = coded.split_first_chunk::<5>()?;
    let plain = *coding == RAW && u32::from_le_bytes(*size) as usize == count;
    rest.split_at_checked(count).filter(|_| plain)
}

fn plane_from<'a>(
    coder: &mut Coder,
    coded: &'a [u8],
    depth: usize,
    plane: &mut [u8],
) -> Result<&'a [u8], Damaged> {
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
        (SPARSE, body) if depth < DEEPEST => {
            let (mut bits, mut rest) = std::mem::take(&mut coder.sparse[depth]);
            let done = sparse_from(coder, body, depth, (&mut bits, &mut rest), plane);
            coder.sparse[depth] = (bits, rest);
            done?;
        }
        _ => return Err(Damaged("a plane has an unknown coding")),
    }
    Ok(rest)
}

fn sparse_from(
    coder: &mut Coder,
    body: &[u8],
    depth: usize,
    (bits, rest): (&mut Vec<u8>, &mut Vec<u8>),
    plane: &mut [u8],
) -> Result<(), Damaged> {
    bits.resize(plane.len().div_ceil(8), 0);
    let body = plane_from(coder, body, depth + 1, bits)?;
    let count = sparse::count(bits, plane.len()).ok_or(Damaged("bits stand for no bytes"))?;
    rest.resize(count, 0);
    if !plane_from(coder, body, depth + 1, rest)?.is_empty() {
        return Err(Damaged("bytes are left after a plane"));
    }
    sparse::whole(bits, rest, plane);
    Ok(())
}
