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
