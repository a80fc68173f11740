use proptest::prelude::*;

use super::*;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Numbers as weights are: around zero, most of them small.
fn floats(seed: u64, count: usize) -> Vec<f32> {
    let bytes = noise(seed, count * 8);
    let (eights, _) = bytes.as_chunks::<8>();
    let unit = |bytes: [u8; 4]| (f64::from(u32::from_le_bytes(bytes)) + 1.0) / 4_294_967_297.0;
    eights
        .iter()
        .map(|[a, b, c, d, e, f, g, h]| {
            let radius = (-2.0 * unit([*a, *b, *c, *d]).ln()).sqrt();
            (radius * (std::f64::consts::TAU * unit([*e, *f, *g, *h])).cos() * 0.02) as f32
        })
        .collect()
}

fn fp32(seed: u64, count: usize) -> Vec<u8> {
    floats(seed, count).into_iter().flat_map(f32::to_le_bytes).collect()
}

fn bf16(seed: u64, count: usize) -> Vec<u8> {
    floats(seed, count)
        .into_iter()
        .flat_map(|number| ((number.to_bits() >> 16) as u16).to_le_bytes())
        .collect()
}

fn there_and_back(bytes: &[u8], effort: Effort) -> (Codec, usize) {
    let mut coder = Coder::default();
    let mut stored = b"before".to_vec();
    let codec = coder.encode(bytes, effort, &mut stored);
    let stored = &stored[6..];
    let mut plain = b"before".to_vec();
    coder.decode(codec, stored, bytes.len(), &mut plain).unwrap();
    assert!(plain[6..] == *bytes, "{codec:?} of {} bytes", bytes.len());
    assert!(stored.len() <= bytes.len());
    (codec, stored.len())
}

#[test]
fn each_kind_of_bytes_gets_its_codec() {
    let text = "def forward(self, hidden): return self.layer(hidden)\n".repeat(999);
    let code: Vec<u8> =
        text.bytes().enumerate().map(|(n, b)| if n % 61 == 0 { (n / 61) as u8 } else { b }).collect();
    let mut sparse = fp32(4, 1 << 18);
    for row in sparse.chunks_mut(3072).step_by(2) {
        row.fill(0);
    }
    let positive: Vec<u8> = floats(6, 1 << 18).iter().flat_map(|f| (f * f).to_le_bytes()).collect();
    for (name, bytes, codec, percent) in [
        ("zeros", vec![0; 1 << 20], Codec::Fill, 1),
        ("ones", 1.0_f32.to_le_bytes().repeat(1000), Codec::Fill, 1),
        ("counts", 7_u64.to_le_bytes().repeat(1000), Codec::Fill, 1),
        ("noise", noise(1, 1 << 20), Codec::Raw, 100),
        ("fp32 weights", fp32(2, 1 << 18), Codec::Planes, 86),
        ("fp32 second moments", positive, Codec::Planes, 86),
        ("bf16 weights", bf16(3, 1 << 19), Codec::Planes, 69),
        ("rows of zeros", sparse, Codec::Planes, 46),
        ("code", code, Codec::Zstd, 20),
        ("nothing", Vec::new(), Codec::Raw, 100),
        ("short", noise(5, 20), Codec::Raw, 100),
    ] {
        let (got, size) = there_and_back(&bytes, Effort::Dense);
        assert_eq!(got, codec, "{name}");
        assert!(size * 100 <= bytes.len() * percent, "{name}: {size} of {}", bytes.len());
        there_and_back(&bytes, Effort::Light);
    }
    assert_eq!(there_and_back(&b"abcdefgh ijklmnop ".repeat(500), Effort::Light).0, Codec::Lz4);
}

#[test]
fn lengths_that_are_no_multiple_keep_their_last_bytes() {
    let numbers = fp32(7, 5000);
    for extra in 0..9 {
        let mut bytes = numbers.clone();
        bytes.extend(noise(8, extra));
        assert_eq!(there_and_back(&bytes, Effort::Dense).0, Codec::Planes);
    }
}

#[test]
fn a_skewed_plane_needs_hardly_more_than_its_entropy() {
    // Exponents of a normal distribution: 2.55 bits each, in theory.
    let planes: Vec<u8> =
        floats(9, 1 << 18).iter().map(|number| (number.to_bits().rotate_left(1) >> 24) as u8).collect();
    let mut coded = Vec::new();
    assert!(huffman::encode(&planes, &mut coded));
    let bits = coded.len() as f64 * 8.0 / planes.len() as f64;
    assert!((2.4..2.75).contains(&bits), "{bits}");
}

proptest! {
    #[test]
    fn whatever_goes_in_comes_out(
        seed in any::<u64>(),
        runs in prop::collection::vec((0_u8..6, 0_usize..9000), 0..8),
        light in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        for (number, (kind, len)) in runs.into_iter().enumerate() {
            let seed = seed.wrapping_add(number as u64);
            match kind {
                0 => bytes.extend(noise(seed, len)),
                1 => bytes.extend(fp32(seed, len / 4)),
                2 => bytes.extend(bf16(seed, len / 2)),
                3 => bytes.resize(bytes.len() + len, seed as u8),
                4 => bytes.extend(noise(seed, 13).iter().cycle().take(len)),
                _ => bytes.extend(noise(seed, len).iter().map(|byte| byte & 3)),
            }
        }
        there_and_back(&bytes, if light { Effort::Light } else { Effort::Dense });
    }

    /// Hostile bytes are refused or give exactly the length that was declared.
    #[test]
    fn no_bytes_make_a_decoder_panic_or_grow(
        codec in 0_u8..5,
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        len in 0_usize..5000,
        width in prop::sample::select(vec![2_u8, 4]),
        coding in 0_u8..4,
    ) {
        let codec = Codec::try_from(codec).unwrap();
        let mut out = Vec::new();
        let mut coder = Coder::default();
        let decoded = coder.decode(codec, &bytes, len, &mut out);
        prop_assert_eq!(out.len(), if decoded.is_ok() { len } else { 0 });
        let mut planes = vec![width, coding];
        planes.extend((bytes.len() as u32).to_le_bytes());
        planes.extend(&bytes);
        out.clear();
        let decoded = coder.decode(Codec::Planes, &planes, len, &mut out);
        prop_assert_eq!(out.len(), if decoded.is_ok() { len } else { 0 });
    }

    /// A flipped or lost byte never panics; what it gives is for the hash.
    #[test]
    fn damage_is_bounded(at in any::<prop::sample::Index>(), flip in 1_u8.., cut in any::<bool>(), kind in 0_u8..3) {
        let bytes = match kind {
            0 => fp32(1, 20_000),
            1 => bf16(1, 40_000),
            _ => b"a text that repeats itself, ".repeat(3000),
        };
        let mut coder = Coder::default();
        let mut stored = Vec::new();
        let codec = coder.encode(&bytes, Effort::Dense, &mut stored);
        let at = at.index(stored.len());
        if cut { stored.truncate(at) } else { stored[at] ^= flip }
        let mut out = Vec::new();
        let decoded = coder.decode(codec, &stored, bytes.len(), &mut out);
        prop_assert_eq!(out.len(), if decoded.is_ok() { bytes.len() } else { 0 });
        prop_assert!(!cut || decoded.is_err() || out != bytes);
    }
}

#[test]
fn codecs_keep_their_numbers() {
    for (number, codec) in
        [(0, Codec::Raw), (1, Codec::Fill), (2, Codec::Lz4), (3, Codec::Zstd), (4, Codec::Planes)]
    {
        assert_eq!((u8::from(codec), Codec::try_from(number)), (number, Ok(codec)));
    }
    assert!(Codec::try_from(5).is_err());
}
