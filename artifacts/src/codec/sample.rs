//! What a chunk is like, from a few thousand bytes of it. A guess costs a
//! fiftieth of the coding it saves, and a wrong one costs only room.

use super::planes::{self, Width};

/// Places looked at, spread over the chunk, and bytes at each.
const PLACES: usize = 4;
const AT_ONCE: usize = 4 << 10;
/// Bytes of one plane that are counted.
const OF_PLANE: usize = 4 << 10;
/// Less gain than this is not worth decoding for.
const WORTH: f64 = 0.97;
/// What repeats less is not worth a search on a link that is faster.
const NEARLY_FREE: f64 = 0.85;
/// A difference that leaves more than this of what its chunk alone would is not
/// worth another chunk that must be whole to restore it.
const CLEARLY: f64 = 0.95;

/// What suits a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// Nothing helps.
    Noise,
    /// Numbers of this width: their bytes differ by place.
    Numbers(Width),
    /// It repeats itself.
    Text,
}

/// What suits a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plane {
    Noise,
    /// Some bytes are more frequent than others.
    Skewed,
    /// Most bytes are zero.
    Sparse,
    /// Runs of one byte are frequent.
    Repeating,
}

/// Bits that a byte of this kind takes at least, by frequency alone; 0 to 8.
/// Few samples look less even than they are: this is set right.
fn entropy(counts: &[u32; 256]) -> f64 {
    let total = f64::from(counts.iter().sum::<u32>());
    let bits: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) * (total / f64::from(*count)).log2())
        .sum();
    let seen = counts.iter().filter(|count| **count > 0).count();
    // Miller and Madow's correction.
    (bits / total + (seen as f64 - 1.0) * 0.721 / total).min(8.0)
}

/// Places of `each` bytes spread over `bytes`, at multiples of 8.
fn places(bytes: &[u8], each: usize) -> impl Iterator<Item = &[u8]> {
    let stride = (bytes.len().saturating_sub(each) / (PLACES - 1).max(1)) & !7;
    let many = if stride < each { 1 } else { PLACES };
    let each = if many == 1 { bytes.len().min(each * PLACES) } else { each };
    (0..many).map(move |place| &bytes[place * stride..place * stride + each])
}

/// What is left of numbers of two and of four bytes, taken apart.
struct Apart {
    planes: [[u32; 256]; 6],
    room: Vec<u8>,
}

impl Apart {
    const fn new() -> Self {
        Self { planes: [[0; 256]; 6], room: Vec::new() }
    }

    fn add(&mut self, piece: &[u8], base: Option<&[u8]>, width: Width) {
        planes::split(piece, base, width, &mut self.room);
        let count = (self.room.len() / width.bytes()).max(1);
        let sums = match width {
            Width::Two => &mut self.planes[..2],
            Width::Four => &mut self.planes[2..],
        };
        for (sum, plane) in sums.iter_mut().zip(self.room.chunks_exact(count)) {
            add(sum, plane);
        }
    }

    /// The width that suits better and the share of itself it leaves.
    fn best(&self) -> (f64, Width) {
        let share =
            |planes: &[[u32; 256]]| planes.iter().map(entropy).sum::<f64>() / (8.0 * planes.len() as f64);
        let (two, four) = (share(&self.planes[..2]), share(&self.planes[2..]));
        if four <= two { (four, Width::Four) } else { (two, Width::Two) }
    }
}

/// Whether a search for repetitions, of which `packed` tells the share that it
/// leaves of a piece, finds so many that it is nearly free: those of zero pages and
/// of text, not those of a few numbers.
pub(super) fn repeats(bytes: &[u8], packed: impl FnMut(&[u8]) -> f64) -> bool {
    let shares: Vec<f64> = places(bytes, AT_ONCE / 2).map(packed).collect();
    shares.iter().sum::<f64>() < shares.len() as f64 * NEARLY_FREE
}

/// Whether a chunk is written text by its beginning, which needs no closer look:
/// most files of a source tree are so small that looking would take as long as
/// coding.
pub(super) fn is_written(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(AT_ONCE / 4)];
    let written = head.iter().filter(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~')).count();
    written * 16 >= head.len() * 15
}

/// Looks at a chunk. `packed` is the share of itself that a search for
/// repetitions leaves of a piece. With the kind comes the share that its coding
/// will leave.
pub(super) fn nature(bytes: &[u8], mut packed: impl FnMut(&[u8]) -> f64) -> (Nature, f64) {
    let mut plain = [0; 256];
    let (mut repeats, mut looked) = (0.0, 0.0);
    let mut apart = Apart::new();
    for place in places(bytes, AT_ONCE) {
        looked += 1.0;
        repeats += packed(place);
        add(&mut plain, place);
        apart.add(place, None, Width::Two);
        apart.add(place, None, Width::Four);
    }
    let plain = entropy(&plain) / 8.0;
    let (numbers, width) = apart.best();
    let repeats = repeats / looked;
    // Bytes that differ by place are numbers even where many are zero.
    if numbers < WORTH && numbers < plain * 0.96 && numbers < repeats * 1.1 {
        return (Nature::Numbers(width), numbers.min(repeats));
    }
    if repeats < WORTH || plain < 0.9 { (Nature::Text, repeats.min(plain)) } else { (Nature::Noise, 1.0) }
}

/// The width of the numbers whose differences to those of `base`, which is as
/// long, leave clearly less than `share` of the chunk.
pub(super) fn differs_little(bytes: &[u8], base: &[u8], share: f64) -> Option<Width> {
    let mut apart = Apart::new();
    for (place, base) in places(bytes, AT_ONCE).zip(places(base, AT_ONCE)) {
        apart.add(place, Some(base), Width::Two);
        apart.add(place, Some(base), Width::Four);
    }
    let (left, width) = apart.best();
    (left < share * CLEARLY).then_some(width)
}

fn add(sum: &mut [u32; 256], bytes: &[u8]) {
    for byte in bytes {
        sum[usize::from(*byte)] += 1;
    }
}

/// Looks at a plane.
pub(super) fn plane(bytes: &[u8]) -> Plane {
    let mut all = [0; 256];
    let (mut same, mut looked) = (0_usize, 0_usize);
    for place in places(bytes, OF_PLANE / PLACES) {
        add(&mut all, place);
        // Runs of eight: of frequent bytes alone there are few.
        let (eights, _) = place.as_chunks::<8>();
        same += eights.iter().filter(|run| run.iter().all(|byte| *byte == run[0])).count();
        looked += eights.len();
    }
    let total: u32 = all.iter().sum();
    if all[0] > total / 16 * 9 {
        Plane::Sparse
    } else if same * 16 > looked {
        Plane::Repeating
    } else if entropy(&all) < 8.0 * WORTH {
        Plane::Skewed
    } else {
        Plane::Noise
    }
}
