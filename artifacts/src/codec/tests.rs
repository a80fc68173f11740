//! What is coded comes back, and nothing hostile gets far.

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;

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

/// The same numbers some steps later: each moves by at most so many of its
/// last places, some not at all.
fn later(bytes: &[u8], places: u32) -> Vec<u8> {
    let by = noise(77, bytes.len());
    let numbers = bytes.as_chunks::<4>().0.iter().zip(by.as_chunks::<4>().0);
    let moved = numbers.map(|(number, by)| {
        let by = u32::from_le_bytes(*by);
        let step = if by >> 30 == 0 { 0 } else { by % (2 * places + 1) };
        u32::from_le_bytes(*number).wrapping_add(step).wrapping_sub(if step == 0 { 0 } else { places })
    });
    moved.flat_map(u32::to_le_bytes).collect()
}

fn there_and_back(bytes: &[u8], effort: Effort) -> (Codec, usize) {
    let mut coder = Coder::default();
    let mut stored = b"before".to_vec();
    let codec = coder.encode(bytes, None, effort, &mut stored);
    let stored = &stored[6..];
    let mut plain = b"before".to_vec();
    coder.decode(codec, stored, None, bytes.len(), &mut plain).unwrap();
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
        let (light, _) = there_and_back(&bytes, Effort::Light);
        let free = match name {
            "zeros" | "ones" | "counts" => Codec::Fill,
            "rows of zeros" | "code" => Codec::Lz4,
            _ => Codec::Raw,
        };
        assert_eq!(light, free, "{name}, on a link that is faster than a core");
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
fn a_later_save_takes_what_it_differs_by() {
    let mut coder = Coder::default();
    let (then, halves) = (fp32(2, 1 << 18), bf16(3, 1 << 19));
    let near: Vec<u8> = halves
        .as_chunks::<2>()
        .0
        .iter()
        .zip(noise(5, 1 << 19))
        .flat_map(|(half, by)| (u16::from_le_bytes(*half) ^ u16::from(by > 200)).to_le_bytes())
        .collect();
    for (name, base, bytes, codec, percent) in [
        ("a few last places", &then, later(&then, 40), Codec::Delta, 25),
        ("many last places", &then, later(&then, 4000), Codec::Delta, 46),
        ("halves", &halves, near, Codec::Delta, 7),
        ("numbers without kin", &then, fp32(9, 1 << 18), Codec::Planes, 86),
        ("noise", &then, noise(1, 1 << 20), Codec::Raw, 100),
        ("zeros", &then, vec![0; 1 << 20], Codec::Fill, 1),
        ("another length", &then, later(&then, 40)[4..].to_vec(), Codec::Planes, 86),
    ] {
        let name_of_base = Digest::of(base);
        let base = Base { digest: &name_of_base, bytes: base };
        let (mut stored, mut plain) = (Vec::new(), Vec::new());
        let got = coder.encode(&bytes, Some(base), Effort::Dense, &mut stored);
        assert_eq!(got, codec, "{name}");
        assert!(stored.len() * 100 <= bytes.len() * percent, "{name}: {} of {}", stored.len(), bytes.len());
        coder.decode(got, &stored, Some(base), bytes.len(), &mut plain).unwrap();
        assert!(plain == bytes, "{name}");
        // On a fast link a base is not even looked at.
        assert_ne!(coder.encode(&bytes, Some(base), Effort::Light, &mut Vec::new()), Codec::Delta, "{name}");
        if got == Codec::Delta {
            let (other, mut out) = (Digest::of(b"other"), Vec::new());
            let other = Base { digest: &other, bytes: base.bytes };
            let shorter = Base { digest: &name_of_base, bytes: &base.bytes[1..] };
            for wrong in [None, Some(other), Some(shorter)] {
                coder.decode(got, &stored, wrong, bytes.len(), &mut out).unwrap_err();
                assert!(out.is_empty());
            }
        }
    }
}

#[test]
fn a_skewed_plane_needs_hardly_more_than_its_entropy() {
    // Exponents of a normal distribution: 2.55 bits each, in theory.
    let planes: Vec<u8> =
        floats(9, 1 << 18).iter().map(|number| (number.to_bits().rotate_left(1) >> 24) as u8).collect();
    let mut coded = Vec::new();
    assert!(huffman::encode(&planes, &mut Vec::new(), &mut coded));
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

    /// Whatever the bytes of both, taken for numbers of whatever width.
    #[test]
    fn a_difference_gives_back_what_it_was_made_of(
        seed in any::<u64>(),
        len in 0_usize..3000,
        alike in 0_u8..4,
        is_wide in any::<bool>(),
    ) {
        let base = noise(seed, len);
        let mut bytes = base.clone();
        for (byte, by) in bytes.iter_mut().zip(noise(!seed, len)) {
            match alike {
                0 => *byte = by,
                1 if by < 9 => *byte ^= by,
                2 if by < 60 => *byte = 0xff,
                3 if by < 60 => *byte = 0,
                _ => {}
            }
        }
        let name = Digest::of(&base);
        let base = Base { digest: &name, bytes: &base };
        let (mut coder, mut stored, mut plain) = (Coder::default(), Vec::new(), b"before".to_vec());
        let width = if is_wide { planes::Width::Four } else { planes::Width::Two };
        delta::encode(&mut coder, &bytes, base, width, &mut stored);
        coder.decode(Codec::Delta, &stored, Some(base), len, &mut plain).unwrap();
        prop_assert_eq!(&plain[6..], bytes);
    }

    /// Hostile bytes are refused or give exactly the length that was declared.
    #[test]
    fn no_bytes_make_a_decoder_panic_or_grow(
        codec in 0_u8..6,
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        len in 0_usize..5000,
        width in prop::sample::select(vec![2_u8, 4]),
        coding in 0_u8..5,
    ) {
        let codec = Codec::try_from(codec).unwrap();
        let mut out = Vec::new();
        let mut coder = Coder::default();
        let (name, base) = (Digest::of(b"base"), noise(3, len));
        let base = Some(Base { digest: &name, bytes: &base });
        let decoded = coder.decode(codec, &bytes, base, len, &mut out);
        prop_assert_eq!(out.len(), if decoded.is_ok() { len } else { 0 });
        let mut planes = vec![width, coding];
        planes.extend((bytes.len() as u32).to_le_bytes());
        planes.extend(&bytes);
        let differences = [&name.as_bytes()[..], &planes].concat();
        for (codec, stored) in [(Codec::Planes, &planes), (Codec::Delta, &differences)] {
            out.clear();
            let decoded = coder.decode(codec, stored, base, len, &mut out);
            prop_assert_eq!(out.len(), if decoded.is_ok() { len } else { 0 });
        }
    }

    /// A flipped or lost byte never panics; what it gives is for the hash.
    #[test]
    fn damage_is_bounded(at in any::<prop::sample::Index>(), flip in 1_u8.., cut in any::<bool>(), kind in 0_u8..5) {
        let bytes = match kind {
            0 => fp32(1, 20_000),
            1 => bf16(1, 40_000),
            2 => b"a text that repeats itself, ".repeat(3000),
            _ => later(&fp32(1, 20_000), 2 * u32::from(kind)),
        };
        let (name, base) = (Digest::of(b"base"), fp32(1, 20_000));
        let base = (kind > 2).then_some(Base { digest: &name, bytes: &base });
        let mut coder = Coder::default();
        let mut stored = Vec::new();
        let codec = coder.encode(&bytes, base, Effort::Dense, &mut stored);
        prop_assert_eq!(codec == Codec::Delta, kind > 2);
        let at = at.index(stored.len());
        if cut { stored.truncate(at) } else { stored[at] ^= flip }
        let mut out = Vec::new();
        let decoded = coder.decode(codec, &stored, base, bytes.len(), &mut out);
        prop_assert_eq!(out.len(), if decoded.is_ok() { bytes.len() } else { 0 });
        prop_assert!(!cut || decoded.is_err() || out != bytes);
    }
}

#[test]
fn codecs_keep_their_numbers() {
    let all = [Codec::Raw, Codec::Fill, Codec::Lz4, Codec::Zstd, Codec::Planes, Codec::Delta];
    for (number, codec) in (0..).zip(all) {
        assert_eq!((u8::from(codec), Codec::try_from(number)), (number, Ok(codec)));
    }
    assert!(Codec::try_from(6).is_err());
}

#[test]
fn what_does_not_decode_to_itself_is_stored_plain() {
    for (bytes, effort, codec) in [
        (fp32(1, 5000), Effort::Dense, Codec::Planes),
        (b"a text that repeats itself, ".repeat(300), Effort::Dense, Codec::Zstd),
        (b"a text that repeats itself, ".repeat(300), Effort::Light, Codec::Lz4),
        (vec![7; 5000], Effort::Dense, Codec::Fill),
    ] {
        let mut coder = Coder::default();
        for (faulty, expected) in [(false, codec), (true, Codec::Raw), (false, codec)] {
            coder.faulty = faulty;
            let mut stored = b"before".to_vec();
            assert_eq!(coder.encode(&bytes, None, effort, &mut stored), expected, "{codec:?}");
            assert!(!faulty || stored[6..] == bytes);
        }
        let mut stored = Vec::new();
        assert_eq!(coder.encode(&bytes, None, Effort::Plain, &mut stored), Codec::Raw);
    }
}

#[test]
fn no_length_makes_a_decoder_take_room_that_no_chunk_has() {
    let mut out = Vec::new();
    let codecs = [Codec::Raw, Codec::Fill, Codec::Lz4, Codec::Zstd, Codec::Planes, Codec::Delta];
    for codec in codecs {
        for len in [MAX_CHUNK as usize + 1, usize::MAX] {
            assert!(Coder::default().decode(codec, &[4], None, len, &mut out).is_err());
            assert_eq!(out.capacity(), 0, "{codec:?}");
        }
    }
}

/// Tables that are complete prefix codes and that no coder would write: every
/// stream ends in an error or in as many bytes as were asked for.
#[test]
fn hostile_tables_that_are_whole_codes_are_bounded() {
    let table = |lengths: &dyn Fn(usize) -> u8| -> Vec<u8> {
        (0..128).map(|pair| lengths(2 * pair) | lengths(2 * pair + 1) << 4).collect()
    };
    let tables = [
        // All 256 bytes by eight bits; two by one bit; a ladder down to eleven.
        table(&|_| 8),
        table(&|byte| u8::from(byte >= 254)),
        table(&|byte| if byte < 11 { byte as u8 + 1 } else { u8::from(byte == 11) * 11 }),
        // Half of the codes mean nothing.
        table(&|byte| if byte < 2 { 2 } else { 0 }),
    ];
    for (number, lengths) in tables.iter().enumerate() {
        for seed in 0..40 {
            for len in [1, 2, 4, 5, 40, 41, 400] {
                let streams = noise(seed, 8 + seed as usize * 5);
                let part = (streams.len() / 4) as u32;
                for sizes in [[part; 3], [0; 3], [streams.len() as u32, 0, 0], [part, u32::MAX, part]] {
                    let mut coded = lengths.clone();
                    coded.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
                    coded.extend(&streams);
                    let mut out = vec![0xa5; len];
                    let decoded = huffman::decode(&coded, &mut out);
                    assert_eq!(out.len(), len);
                    assert!(decoded.is_err() || number != 3 || out.iter().all(|byte| *byte < 2));
                }
            }
        }
        // What fits such a table exactly is read: eight bits a byte, no more.
        if number == 0 {
            let bytes = noise(9, 400);
            let mut coded = lengths.clone();
            coded.extend([100_u32; 3].iter().flat_map(|size| size.to_le_bytes()));
            coded.extend(bytes.iter().map(|byte| byte.reverse_bits()));
            let mut out = vec![0; 400];
            huffman::decode(&coded, &mut out).unwrap();
            assert_eq!(out, bytes);
        }
    }
}
