//! Formats of single files: whole, torn and hostile.

use super::*;

#[test]
fn a_zip_is_whole_or_torn_at_every_cut() {
    let dir = Dir::new();
    for deflate in [false, true] {
        let body = noise(300_000);
        let bytes = zip(&[("archive/data.pkl", b"\x80\x02."), ("archive/data/0", &body)], deflate);
        assert_eq!(dir.file("a.pt", &bytes), complete("torch-zip"));
        assert_eq!(dir.file("a.npz", &bytes), complete("numpy-zip"));
        for cut in [1, 4, 30, 1000, bytes.len() / 2, bytes.len() - 100, bytes.len() - 22, bytes.len() - 1] {
            let judged = dir.file("a.npz", &bytes[..cut]);
            assert!(torn_file(&judged), "{cut}: {judged:?}");
        }
        let mut hole = bytes.clone();
        hole[100_000..200_000].fill(0);
        assert!(torn_file(&dir.file("a.pt", &hole)));
        let mut flipped = bytes.clone();
        flipped[150_000] ^= 1;
        assert!(torn_file(&dir.file("a.pt", &flipped)));
        assert!(torn_file(&dir.file("a.pt", [&bytes[..], b"x"].concat())));
        let mut head = bytes.clone();
        head[..200].fill(0);
        assert!(torn_file(&dir.file("a.npz", &head)));
    }
    assert!(torn_file(&dir.file("a.pt", vec![0; 5000])));
    assert!(torn_file(&dir.file("a.pt", zip(&[], false))));
    assert!(torn_file(&dir.file("a.keras", b"not a zip")));
    assert!(torn_file(&dir.file("a.pt", b"")));
}

#[test]
fn a_hostile_zip_is_refused_and_does_not_hang() {
    let dir = Dir::new();
    let good = zip(&[("a", &noise(1000)), ("b", b"x")], false);
    let end = good.len() - 22;
    for (at, bytes) in [
        (end + 16, &[0xfe, 0xff, 0xff, 0x7f][..]),
        (end + 12, &[0xff, 0xff, 0xff, 0x7f]),
        (end + 10, &[0xfe, 0xff]),
        (end - 1, b"z"),
        (good.windows(4).position(|w| w == b"PK\x01\x02").unwrap() + 42, &[0xff, 0xff, 0xff, 0xff]),
        (good.windows(4).position(|w| w == b"PK\x01\x02").unwrap() + 20, &[0xff, 0xff, 0xff, 0x7f]),
    ] {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let judged = dir.file("a.pt", &bad);
        assert!(torn_file(&judged), "{at}: {judged:?}");
    }
}

#[test]
fn safetensors_sizes_and_holes() {
    let dir = Dir::new();
    let data = noise(10_000);
    let good = tensors(&data);
    assert_eq!(dir.file("m.safetensors", &good), complete("safetensors"));
    for cut in [0, 7, 9, 100, good.len() - 1] {
        assert!(torn_file(&dir.file("m.safetensors", &good[..cut])), "{cut}");
    }
    assert!(torn_file(&dir.file("m.safetensors", [&good[..], b"x"].concat())));
    // Zeros that were written are data; what was never written is none.
    let mut tail = data.clone();
    tail[4000..].fill(0);
    let written = dir.file("m.safetensors", tensors(&tail));
    let path = dir.put("m.safetensors", tensors(&noise(100_000)));
    let file = fs::File::options().write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    file.set_len(size / 2).unwrap();
    file.set_len(size).unwrap();
    if hole::are_told(&file) {
        assert_eq!(written, complete("safetensors"));
        dir.incomplete("m.safetensors", "hole");
    } else {
        assert!(is_open(&written) && is_open(&dir.judge("m.safetensors")));
    }
    for header in [
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}}"#,
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#,
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}"#,
        r#"{"a":{"dtype":"F64","shape":[18446744073709551615,8],"data_offsets":[0,4]}}"#,
        r#"{"a":{}}"#,
        r#"{"a""#,
    ] {
        assert!(torn_file(&dir.file("m.safetensors", safetensors(header, b"data"))), "{header}");
    }
    assert!(torn_file(&dir.file("m.safetensors", [&u64::MAX.to_le_bytes()[..], b"{}"].concat())));
}

#[test]
fn json_as_python_writes_it() {
    let dir = Dir::new();
    assert_eq!(
        dir.file("a.json", r#"{"loss": NaN, "x": [-Infinity, Infinity], "NaN": "I\"N"}"#),
        complete("json")
    );
    for bad in [r#"{"loss": NaN"#, "", "{}{}", r#"{"a": Na}"#, "\0\0\0\0"] {
        assert!(torn_file(&dir.file("a.json", bad)), "{bad}");
    }
}

#[test]
fn json_as_people_write_it() {
    let dir = Dir::new();
    for text in [
        "\u{feff}{\"a\": 1}",
        "// of the run\n{\"a\": 1, // one\n \"b\": \"http://x/*\"}",
        "{/* two\n lines, * and / */ \"a\": /**/ NaN}",
        "{} // at the end",
    ] {
        assert_eq!(dir.file("a.json", text), complete("json"), "{text}");
    }
    for bad in ["\u{feff}", "\u{feff}{", "{} / {}", "{\"a\": 1 /}", "{\"a\": /* 1}", "// {}", "{\"a\" /x 1}"]
    {
        assert!(torn_file(&dir.file("a.json", bad)), "{bad}");
    }
}

fn npy(header: &str, data: usize) -> Vec<u8> {
    let header = format!("{header}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &vec![1; data]]
        .concat()
}

#[test]
fn numpy_arrays_have_the_size_they_tell() {
    let dir = Dir::new();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 5), }";
    assert_eq!(dir.file("a.npy", npy(header, 60)), complete("numpy"));
    assert!(torn_file(&dir.file("a.npy", npy(header, 59))));
    assert!(torn_file(&dir.file("a.npy", &npy(header, 60)[..20])));
    assert_eq!(
        dir.file("a.npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", 8)),
        complete("numpy")
    );
    let object = "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }";
    assert!(is_open(&dir.file("a.npy", npy(object, 9))));
    assert!(torn_file(&dir.file("b.npy", vec![0; 100])));
}

#[test]
fn compressed_dumps_have_an_end_and_a_checksum() {
    let dir = Dir::new();
    for (bytes, format) in [
        (&include_bytes!("../pickle/recorded/zlib.joblib")[..], "zlib"),
        (include_bytes!("../pickle/recorded/gzip.joblib"), "gzip"),
        (include_bytes!("../pickle/recorded/xz.joblib"), "xz"),
    ] {
        assert_eq!(dir.file("a.joblib", bytes), complete(format));
        for cut in 12..bytes.len() {
            let judged = dir.file("a.joblib", &bytes[..cut]);
            assert!(torn_file(&judged), "{format} {cut}: {judged:?}");
        }
    }
    let mut flipped = include_bytes!("../pickle/recorded/gzip.joblib").to_vec();
    flipped[200] ^= 1;
    assert!(torn_file(&dir.file("a.joblib", flipped)));
}

/// A member of a tar archive with so many bytes.
fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let pad = bytes.len().next_multiple_of(512) - bytes.len();
    [&header, bytes, &vec![0; pad]].concat()
}

#[test]
fn what_says_where_its_parts_end_is_walked() {
    let dir = Dir::new();
    // As Python's bz2 writes it.
    let bzip2 = b"BZh91AY&SY\x0f\xf4\xc9\xdc\0\0J\x91\x04\0\0$J\0\x02\x0aTf\x06h5\x16\"\xfa,E\xa4\\.\xe4\x8ap\xa1 \x1f\xe9\x93\xb8";
    let mut zstd = vec![0; 4_096];
    let length = zstd_safe::compress(&mut zstd[..], &noise(2_000), 3).unwrap();
    zstd.truncate(length);
    // A block that is not packed, one that says it is, and a sum of all.
    let mut lz4 = b"\x04\x22\x4d\x18\x64\x40\xa7".to_vec();
    lz4.extend([&(0x8000_0000_u32 + 100).to_le_bytes()[..], &noise(100)].concat());
    lz4.extend([&50_u32.to_le_bytes()[..], &noise(50), &[0; 4], &[7; 4]].concat());
    let tar = [member("a", &noise(700)), member("b", b""), vec![0; 512]].concat();
    for (name, bytes, format) in [
        ("a.joblib", &bzip2[..], Some("bzip2")),
        ("a.zst", &zstd, Some("zstd")),
        ("a.joblib", &lz4, Some("lz4")),
        ("a.tar", &tar, None),
    ] {
        match format {
            Some(format) => assert_eq!(dir.file(name, bytes), complete(format)),
            None => is_doubtful(&dir.file(name, bytes), "no checksums"),
        }
        for cut in 265..bytes.len() {
            assert!(torn_file(&dir.file(name, &bytes[..cut])), "{name} {cut}");
        }
        for cut in (12..bytes.len().min(265)).filter(|_| format.is_some()) {
            assert!(torn_file(&dir.file(name, &bytes[..cut])), "{name} {cut}");
        }
    }
    // What only begins so, under a name that promises nothing: Orbax's data.
    let more = [zstd.clone(), noise(300)].concat();
    assert!(!torn_file(&dir.file("300dd8bfed1611776d7c64b10dbf4710", &more)));
    assert!(torn_file(&dir.file("a.zst", &more)));
    // Several after another, and one that is no frame.
    let skipped = [&0x184d_2a53_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"xyz"].concat();
    assert_eq!(dir.file("a.zst", [&zstd[..], &skipped, &zstd].concat()), complete("zstd"));
    assert!(torn_file(&dir.file("a.zst", [&zstd[..], &skipped[..9]].concat())));
    assert!(torn_file(&dir.file("a.zst", [&zstd[..], b"something"].concat())));
    let mut other = tar.clone();
    other[124] = b'7';
    assert!(torn_file(&dir.file("a.tar", other)));
}

#[test]
fn hdf5_ends_where_it_says() {
    let dir = Dir::new();
    let mut v0 = vec![1_u8; 200];
    v0[..8].copy_from_slice(b"\x89HDF\r\n\x1a\n");
    v0[8] = 0;
    v0[13] = 8;
    v0[40..48].copy_from_slice(&200_u64.to_le_bytes());
    assert_eq!(dir.file("w.weights.h5", &v0), complete("hdf5"));
    assert!(torn_file(&dir.file("w.weights.h5", &v0[..199])));
    let mut v3 = v0.clone();
    (v3[8], v3[9], v3[11]) = (3, 8, 0);
    v3[28..36].copy_from_slice(&200_u64.to_le_bytes());
    assert_eq!(dir.file("w.h5", &v3), complete("hdf5"));
    v3[11] = 1;
    assert!(torn_file(&dir.file("w.h5", &v3)));
    assert!(torn_file(&dir.file("w.h5", vec![0; 200])));
}

#[test]
fn names_and_unknown_formats() {
    let dir = Dir::new();
    assert!(is_open(&dir.file("model.txt", "tree")));
    assert!(torn_file(&dir.file("a.pt.tmp", zip(&[("a", b"x")], false))));
    dir.put("run-unfinished", "");
    dir.put("run/a.pt", zip(&[("a", b"x")], false));
    dir.incomplete("run", "unfinished");
    dir.incomplete("gone", "cannot be read");
    dir.put("empty/sub/.x", "y");
    dir.remove("empty/sub/.x");
    dir.incomplete("empty", "no file");
    dir.put("plain/a.pt", zip(&[("a", b"x")], false));
    dir.put("plain/_SUCCESS", "");
    assert!(is_open(&dir.judge("plain")));
    dir.put("plain/b.npz", "PK\x03\x04");
    dir.incomplete("plain", "b.npz");
    dir.put("plain/b.npz", "");
    dir.incomplete("plain", "empty");
    dir.put("plain/.tmpX", "x");
    dir.incomplete("plain", ".tmpX");
}

#[track_caller]
fn is_doubtful(judged: &Completeness, about: &str) {
    match judged {
        Completeness::Unknown { why } => assert!(why.to_string().contains(about), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_size_with_a_hole_proves_nothing() {
    let dir = Dir::new();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (30000,), }";
    let mut hdf5 = vec![1_u8; 120_000];
    hdf5[..9].copy_from_slice(b"\x89HDF\r\n\x1a\n\0");
    hdf5[13] = 8;
    hdf5[40..48].copy_from_slice(&120_000_u64.to_le_bytes());
    // A pickle of bytes.
    let pickle = [&b"\x80\x04B"[..], &100_000_u32.to_le_bytes(), &vec![7; 100_000], b"."].concat();
    for (name, bytes) in [("a.npy", npy(header, 120_000)), ("w.h5", hdf5), ("p.pkl", pickle)] {
        assert!(matches!(dir.file(name, &bytes), Completeness::Complete { .. }), "{name}");
        // As a mapping that was given its size at once and killed: the middle was never written.
        let path = dir.0.path().join(format!("hole-{name}"));
        let file = fs::File::create(path).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes[..8192], 0).unwrap();
        let end = bytes.len() - 4096;
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes[end..], end as u64).unwrap();
        if hole::are_told(&file) && hole::first(&file, bytes.len() as u64).unwrap().is_some() {
            is_doubtful(&dir.judge(&format!("hole-{name}")), "never written");
        }
    }
}

#[test]
fn what_no_name_promises_is_never_torn() {
    let dir = Dir::new();
    assert!(is_open(&dir.file("events.out", "")));
    assert!(torn_file(&dir.file("a.json", "")) && torn_file(&dir.file("a.bin", "")));
    is_doubtful(&dir.file("a.bin", vec![0; 10_000]), "never written");
    for lines in ["{\"loss\": NaN}\n{\"loss\": 1}\n", "{\"loss\": 2}\n{\"lo"] {
        assert!(is_open(&dir.file("metrics.json", lines)), "{lines}");
    }
    assert!(torn_file(&dir.file("a.json", "{\n\"loss\": 2}\n{")));
    // Records without sums, as PyTorch writes them when it is told to.
    let mut bytes = zip(&[("archive/data/0", &noise(3000)), ("archive/version", b"3\n")], false);
    for (header, at) in [(&b"PK\x03\x04"[..], 14), (b"PK\x01\x02", 16)] {
        let places: Vec<usize> = (0..bytes.len() - 4).filter(|n| bytes[*n..].starts_with(header)).collect();
        places.into_iter().for_each(|place| bytes[place + at..place + at + 4].fill(0));
    }
    is_doubtful(&dir.file("a.pt", &bytes), "no checksums");
    let cut = bytes.len() - 10;
    assert!(torn_file(&dir.file("a.pt", &bytes[..cut])));
}

#[test]
fn what_would_take_for_ever_or_all_memory_is_not_followed() {
    let dir = Dir::new();
    let mut bomb = zip(&[("a", &noise(1000))], true);
    let central = bomb.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    bomb[central + 24..central + 28].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    is_doubtful(&dir.file("a.npz", bomb), "more than is followed");
    let shape =
        format!(r#"{{"a":{{"dtype":"U8","shape":[{}4],"data_offsets":[0,4]}}}}"#, "1,".repeat(50_000));
    assert_eq!(dir.file("m.safetensors", safetensors(&shape, b"data")), complete("safetensors"));
    let long = format!(r#"{{"__metadata__":{{"x":"{}"}}}}"#, "y".repeat(17 << 20));
    is_doubtful(&dir.file("m.safetensors", safetensors(&long, b"")), "more than is followed");
    // Tuples of tuples, each remembered: a few bytes of file for a kilobyte of memory.
    let many = [&b"\x80\x04("[..], &b"K\x01".repeat(60), b"t", &b"2".repeat(200_000), b"."].concat();
    assert!(matches!(dir.file("a.pkl", many), Completeness::Unknown { .. } | Completeness::Complete { .. }));
    let tuples =
        [&b"\x80\x04"[..], &[&b"("[..], &b"N".repeat(60), b"t"].concat().repeat(20_000), b"."].concat();
    assert!(is_open(&dir.file("a.pkl", tuples)));
}

#[test]
fn json_is_read_as_a_stream() {
    let dir = Dir::new();
    for pad in 65_500..65_540 {
        let text = format!(r#"{{"x": "{}\"N", "y": [NaN, -Infinity, 1]}}"#, "p".repeat(pad));
        assert_eq!(dir.file("a.json", &text), complete("json"), "{pad}");
        assert!(torn_file(&dir.file("a.json", text.replace("NaN", "NaM"))), "{pad}");
    }
}
