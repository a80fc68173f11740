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

/// Looks at a chunk. `packed` is the share of itself that a search for
/// repetitions leaves of a piece.
pub(super) fn nature(bytes: &[u8], mut packed: impl FnMut(&[u8]) -> f64) -> Nature {
    let mut plain = [0; 256];
    let mut split = [[0; 256]; 6];
    let (mut repeats, mut looked) = (0.0, 0.0);
    let mut apart = Vec::new();
    for place in places(bytes, AT_ONCE) {
        looked += 1.0;
        repeats += packed(place);
        add(&mut plain, place);
        let (two, four) = split.split_at_mut(2);
        for (planes, width) in [(two, Width::Two), (four, Width::Four)] {
            planes::split(place, width, &mut apart);
            let count = (apart.len() / width.bytes()).max(1);
            for (sum, plane) in planes.iter_mut().zip(apart.chunks_exact(count)) {
                add(sum, plane);
            }
        }
    }
    let plain = entropy(&plain) / 8.0;
    let share = |planes: &[[u32; 256]]| planes.iter().map(entropy).sum::<f64>() / (8.0 * planes.len() as f64);
    let (two, four) = (share(&split[..2]), share(&split[2..]));
    let repeats = repeats / looked;
    let (numbers, width) = if four <= two { (four, Width::Four) } else { (two, Width::Two) };
    // Bytes that differ by place are numbers even where many are zero.
    if numbers < WORTH && numbers < plain * 0.96 && numbers < repeats * 1.1 {
        return Nature::Numbers(width);
    }
    if repeats < WORTH || plain < 0.9 { Nature::Text } else { Nature::Noise }
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
    if same * 16 > looked {
        Plane::Repeating
    } else if entropy(&all) < 8.0 * WORTH {
        Plane::Skewed
    } else {
        Plane::Noise
    }
}
