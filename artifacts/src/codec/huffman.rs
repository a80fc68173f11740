//! Canonical Huffman codes over bytes, in four streams that are coded side by
//! side: what is left of a float's exponents is their frequency and nothing
//! else, and searching them for repetitions costs more than it finds.

use super::Damaged;

/// No code is longer, so that five fit beside what a 64-bit word has left over.
const LONGEST: u32 = 11;
const BURST: usize = 5;
const STREAMS: usize = 4;
/// 256 lengths of four bits, then the sizes of all streams but the last.
const HEAD: usize = 128 + 4 * (STREAMS - 1);

/// How often each byte occurs.
pub(super) fn histogram(bytes: &[u8]) -> [u32; 256] {
    // Eight tables, so that a run of one byte does not wait for itself.
    let mut tables = [[0_u32; 256]; 8];
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        for (table, byte) in tables.iter_mut().zip(eight) {
            table[usize::from(*byte)] += 1;
        }
    }
    for byte in rest {
        tables[0][usize::from(*byte)] += 1;
    }
    let mut sum = [0; 256];
    for table in &tables {
        for (all, one) in sum.iter_mut().zip(table) {
            *all += one;
        }
    }
    sum
}

/// The length of each byte's code; `None` for fewer than two different bytes.
fn lengths(counts: &[u32; 256]) -> Option<[u8; 256]> {
    let mut leaves: Vec<(u32, u8)> =
        (0..=255_u8).filter(|b| counts[usize::from(*b)] > 0).map(|b| (counts[usize::from(b)], b)).collect();
    if leaves.len() < 2 {
        return None;
    }
    leaves.sort_unstable();
    let depths = depths(&leaves);
    let mut out = [0_u8; 256];
    let full = 1_u32 << LONGEST;
    let mut used = 0;
    for ((_, byte), depth) in leaves.iter().zip(&depths) {
        let length = (*depth).min(LONGEST);
        out[usize::from(*byte)] = length as u8;
        used += full >> length;
    }
    // Codes cut to the longest length take too much room: the rarest of the
    // others become longer until all fit, and the most frequent get the rest.
    let mut next = LONGEST - 1;
    while used > full {
        let longer = leaves.iter().find(|(_, byte)| u32::from(out[usize::from(*byte)]) == next);
        match longer {
            Some((_, byte)) => {
                out[usize::from(*byte)] += 1;
                used -= full >> (next + 1);
                next = LONGEST - 1;
            }
            None => next -= 1,
        }
    }
    for (_, byte) in leaves.iter().rev() {
        let length = &mut out[usize::from(*byte)];
        while *length > 1 && used + (full >> *length) <= full {
            used += full >> *length;
            *length -= 1;
        }
    }
    Some(out)
}

/// Depths in the Huffman tree of leaves sorted by count: two queues, since
/// the inner nodes come into being in order of weight too.
fn depths(leaves: &[(u32, u8)]) -> Vec<u32> {
    let count = leaves.len();
    let mut weights: Vec<u64> = leaves.iter().map(|(count, _)| u64::from(*count)).collect();
    let mut parents = vec![0; 2 * count - 1];
    let (mut leaf, mut inner) = (0, count);
    while weights.len() < 2 * count - 1 {
        let made = weights.len();
        let mut weight = 0;
        for _ in 0..2 {
            let take_leaf = leaf < count && (inner >= made || weights[leaf] <= weights[inner]);
            let node = if take_leaf { &mut leaf } else { &mut inner };
            parents[*node] = made;
            weight += weights[*node];
            *node += 1;
        }
        weights.push(weight);
    }
    let mut depths = vec![0_u32; 2 * count - 1];
    for node in (0..2 * count - 2).rev() {
        depths[node] = depths[parents[node]] + 1;
    }
    depths.truncate(count);
    depths
}

/// Codes in canonical order, written with their lowest bit first: bits, and
/// the length above them.
fn codes(lengths: &[u8; 256]) -> [u32; 256] {
    let mut codes = [0; 256];
    let mut code = 0_u32;
    for length in 1..=LONGEST {
        for (byte, _) in lengths.iter().enumerate().filter(|(_, l)| u32::from(**l) == length) {
            codes[byte] = code.reverse_bits() >> (32 - length) | length << 16;
            code += 1;
        }
        code <<= 1;
    }
    codes
}

/// Appends the coded form of `bytes`; `false`, and nothing appended, where it
/// would not be smaller. `room` is for streams that are being written.
pub(super) fn encode(bytes: &[u8], room: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
    let counts = histogram(bytes);
    let Some(lengths) = lengths(&counts) else { return false };
    let bits: u64 = counts.iter().zip(&lengths).map(|(c, l)| u64::from(*c) * u64::from(*l)).sum();
    if bits / 8 + HEAD as u64 + 4 >= bytes.len() as u64 {
        return false;
    }
    let codes = codes(&lengths);
    let start = out.len();
    out.extend(lengths.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4));
    out.resize(start + HEAD, 0);
    let quarter = bytes.len().div_ceil(STREAMS);
    for (number, part) in bytes.chunks(quarter).enumerate() {
        let before = out.len();
        out.extend_from_slice(write(part, &codes, room));
        if number < STREAMS - 1 {
            let size = (out.len() - before) as u32;
            let at = start + 128 + 4 * number;
            out[at..at + 4].copy_from_slice(&size.to_le_bytes());
        }
    }
    if out.len() - start < bytes.len() {
        return true;
    }
    out.truncate(start);
    false
}

/// The stream of `bytes`, at the beginning of `room`.
fn write<'a>(bytes: &[u8], codes: &[u32; 256], room: &'a mut Vec<u8>) -> &'a [u8] {
    // Whole words are written: room for the last one. What is there already need
    // not be cleared.
    let most = bytes.len() * LONGEST as usize / 8 + 16;
    if room.len() < most {
        room.resize(most, 0);
    }
    let (mut word, mut held, mut at) = (0_u64, 0_u32, 0_usize);
    let (bursts, rest) = bytes.as_chunks::<BURST>();
    let mut put = |word: &mut u64, held: &mut u32| {
        if let Some(room) = room.get_mut(at..at + 8) {
            room.copy_from_slice(&word.to_le_bytes());
        }
        at += (*held / 8) as usize;
        *word >>= *held & !7;
        *held &= 7;
    };
    for burst in bursts {
        // Pairs first: they do not wait for what was written before.
        let [a, b, c, d, e] = burst.map(|byte| {
            let code = codes[usize::from(byte)];
            (u64::from(code & 0xffff), code >> 16)
        });
        let pair = |(a, n): (u64, u32), (b, m): (u64, u32)| (a | b << n, n + m);
        let (five, length) = pair(pair(pair(a, b), pair(c, d)), e);
        word |= five << held;
        held += length;
        put(&mut word, &mut held);
    }
    for byte in rest {
        let code = codes[usize::from(*byte)];
        word |= u64::from(code & 0xffff) << held;
        held += code >> 16;
    }
    held = held.next_multiple_of(8);
    put(&mut word, &mut held);
    &room[..at]
}

/// For every beginning of `LONGEST` bits: the bytes whose codes lie whole in it,
/// up to four, how many they are and how many bits they take.
struct Table {
    steps: Box<[Step; 1 << LONGEST]>,
    lengths: [u8; 256],
}

/// Bytes of a step at most.
const STRIDE: usize = 4;

#[derive(Clone, Copy, Default)]
struct Step {
    bytes: [u8; STRIDE],
    count: u8,
    bits: u8,
}

impl Step {
    /// This one and, as far as both have room, another behind it.
    fn then(mut self, next: Self) -> Self {
        let fits = usize::from(self.count + next.count) <= STRIDE
            && u32::from(self.bits + next.bits) <= LONGEST
            && self.count > 0;
        if fits {
            for (room, byte) in self.bytes[usize::from(self.count)..].iter_mut().zip(next.bytes) {
                *room = byte;
            }
            self.count += next.count;
            self.bits += next.bits;
        }
        self
    }
}

impl Table {
    fn new(packed: &[u8]) -> Result<Self, Damaged> {
        let mut lengths = [0_u8; 256];
        for (pair, both) in lengths.as_chunks_mut::<2>().0.iter_mut().zip(packed) {
            *pair = [both & 15, both >> 4];
        }
        let full = 1_u32 << LONGEST;
        let taken = lengths.iter().filter(|l| **l > 0);
        let used = taken.clone().map(|l| full >> (*l).min(16)).sum::<u32>();
        if lengths.iter().any(|l| u32::from(*l) > LONGEST) || used > full || taken.count() < 2 {
            return Err(Damaged("a table of codes is impossible"));
        }
        let mut steps = Box::new([Step::default(); 1 << LONGEST]);
        let codes = codes(&lengths);
        for (byte, code) in (0..=255_u8).zip(codes).filter(|(_, code)| *code > 0) {
            let (bits, length) = (code & 0xffff, code >> 16);
            for slot in (bits..full).step_by(1 << length) {
                steps[slot as usize] = Step { bytes: [byte, 0, 0, 0], count: 1, bits: length as u8 };
            }
        }
        // Steps of one byte become steps of two, and those become steps of four.
        // What follows a step lies further down, where fewer bits are known.
        for _ in 0..2 {
            for slot in (0..1_usize << LONGEST).rev() {
                let first = steps[slot];
                steps[slot] = first.then(steps[slot >> first.bits]);
            }
        }
        Ok(Self { steps, lengths })
    }

    fn step(&self, bits: u64) -> Step {
        self.steps[(bits as usize) & ((1 << LONGEST) - 1)]
    }
}

/// One stream that is being read.
struct Reader<'a> {
    stream: &'a [u8],
    /// Bits read.
    at: usize,
    out: &'a mut [u8],
    /// Bytes written.
    done: usize,
}

impl Reader<'_> {
    /// Takes five steps, which have 55 bits at most and give twenty bytes at
    /// most; `false` near the end of either.
    fn burst(&mut self, table: &Table) -> Result<bool, Damaged> {
        let byte = self.at / 8;
        let (Some(word), Some(room)) =
            (self.stream.get(byte..byte + 8), self.out.get_mut(self.done..self.done + BURST * STRIDE))
        else {
            return Ok(false);
        };
        let mut bits = u64::from_le_bytes(word.try_into().unwrap_or_default()) >> (self.at % 8);
        let mut filled = 0;
        for _ in 0..BURST {
            let step = table.step(bits);
            if step.count == 0 {
                return Err(Damaged("a code is unknown"));
            }
            // What is more than its bytes is written over.
            room[filled..filled + STRIDE].copy_from_slice(&step.bytes);
            filled += usize::from(step.count);
            bits >>= step.bits;
            self.at += usize::from(step.bits);
        }
        self.done += filled;
        Ok(true)
    }

    /// Reads what is left, the last bytes one at a time; the stream must end
    /// with them.
    fn finish(mut self, table: &Table) -> Result<(), Damaged> {
        // Streams of hostile lengths: the others ended where this one did not.
        while self.burst(table)? {}
        while let Some(room) = self.out.get_mut(self.done) {
            let mut word = [0; 8];
            let rest = self.stream.get(self.at / 8..).unwrap_or_default();
            let have = rest.len().min(8);
            word[..have].copy_from_slice(&rest[..have]);
            let step = table.step(u64::from_le_bytes(word) >> (self.at % 8));
            if step.count == 0 || have == 0 {
                return Err(Damaged("a stream of codes is cut off"));
            }
            *room = step.bytes[0];
            self.at += usize::from(table.lengths[usize::from(step.bytes[0])]);
            self.done += 1;
        }
        let whole = self.at.div_ceil(8) == self.stream.len();
        if whole { Ok(()) } else { Err(Damaged("a stream of codes is too long")) }
    }
}

/// Fills `out` with what `encode` was given.
pub(super) fn decode(coded: &[u8], out: &mut [u8]) -> Result<(), Damaged> {
    let cut_off = Damaged("a stream of codes is cut off");
    let (head, mut streams) = coded.split_at_checked(HEAD).ok_or(cut_off)?;
    let (lengths, sizes) = head.split_at(128);
    let table = Table::new(lengths)?;
    let quarter = out.len().div_ceil(STREAMS).max(1);
    let mut sizes = sizes.as_chunks::<4>().0.iter().map(|size| u32::from_le_bytes(*size) as usize);
    let mut readers = Vec::with_capacity(STREAMS);
    for out in out.chunks_mut(quarter) {
        let size = sizes.next().unwrap_or(streams.len());
        let (stream, rest) = streams.split_at_checked(size).ok_or(cut_off)?;
        readers.push(Reader { stream, at: 0, out, done: 0 });
        streams = rest;
    }
    if !streams.is_empty() {
        return Err(Damaged("bytes are left after the codes"));
    }
    // In turn, so that no stream waits for itself.
    let mut whole = true;
    while whole && !readers.is_empty() {
        for reader in &mut readers {
            whole &= reader.burst(&table)?;
        }
    }
    readers.into_iter().try_for_each(|reader| reader.finish(&table))
}
