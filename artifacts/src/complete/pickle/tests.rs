//! Files that Python, joblib and the steps of PyTorch's old format wrote, and
//! every beginning of each.

use std::io::Write as _;

use super::*;

fn judged(bytes: &[u8], promise: Promise) -> Structure {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    judge(&file, bytes.len() as u64, promise).unwrap()
}

#[track_caller]
fn whole_and_torn_at_every_cut(bytes: &[u8], promise: Promise, format: &'static str) {
    assert_eq!(judged(bytes, promise), Structure::Sound(format));
    let file = tempfile::tempfile().unwrap();
    (&file).write_all(bytes).unwrap();
    for cut in (2..bytes.len()).rev() {
        file.set_len(cut as u64).unwrap();
        let judged = judge(&file, cut as u64, promise).unwrap();
        assert!(matches!(judged, Structure::Torn(_)), "{cut} of {}: {judged:?}", bytes.len());
    }
}

#[test]
fn arrays_by_joblib() {
    let bytes = include_bytes!("recorded/arrays.joblib");
    whole_and_torn_at_every_cut(bytes, Promise::Pickles, "pickle");
    // An array's data are not opcodes, whatever they look like.
    let at = bytes.windows(8).position(|w| w == [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]).unwrap();
    let mut other = bytes.to_vec();
    other[at..at + 8].fill(b'.');
    assert_eq!(judged(&other, Promise::Pickles), Structure::Sound("pickle"));
}

#[test]
fn pickles_of_every_protocol() {
    for bytes in [
        &include_bytes!("recorded/plain2.pkl")[..],
        include_bytes!("recorded/plain3.pkl"),
        include_bytes!("recorded/plain4.pkl"),
        include_bytes!("recorded/plain5.pkl"),
    ] {
        whole_and_torn_at_every_cut(bytes, Promise::Pickles, "pickle");
        let twice = [bytes, bytes].concat();
        assert_eq!(judged(&twice, Promise::Pickles), Structure::Sound("pickle"));
        assert!(matches!(judged(&twice[..twice.len() - 1], Promise::Pickles), Structure::Torn(_)));
    }
}

#[test]
fn tensors_before_pytorch_1_6() {
    let bytes = include_bytes!("recorded/old.pth");
    for promise in [Promise::Torch, Promise::Nothing] {
        assert_eq!(judged(bytes, promise), Structure::Sound("torch-old"));
    }
    // The first pickle alone looks like any other.
    let old = OLD_TORCH.len();
    for cut in old..bytes.len() {
        let judged = judged(&bytes[..cut], Promise::Torch);
        assert!(matches!(judged, Structure::Torn(_)), "{cut}: {judged:?}");
    }
    assert!(matches!(judged(&[&bytes[..], b"x"].concat(), Promise::Torch), Structure::Torn(_)));
    let mut unknown = bytes.to_vec();
    let class = b"FloatStorage";
    let at = bytes.windows(class.len()).position(|w| w == class).unwrap();
    unknown[at..at + 5].copy_from_slice(b"Fancy");
    assert_eq!(judged(&unknown, Promise::Torch), Structure::Free, "a size that is not known is not guessed");
}

#[test]
fn what_a_name_promises() {
    let whole = b"\x80\x02K\x07.";
    let followed = [&whole[..], b"\x93NUMPY raw data of the program"].concat();
    let cases: [(&[u8], Promise, Structure); 8] = [
        (whole, Promise::Pickles, Structure::Sound("pickle")),
        (&followed, Promise::Pickles, Structure::Free),
        (&followed, Promise::Torch, Structure::Free),
        (b"\x80\x02K", Promise::Torch, Structure::Torn("it ends in the middle of a pickle".into())),
        (b"\x80\x02K", Promise::Nothing, Structure::Free),
        (b"\x80\x02\xff\xff", Promise::Torch, Structure::Torn("its pickle is damaged".into())),
        (b"\x80\x02\xff\xff", Promise::Nothing, Structure::Free),
        (b"\x80\x02\0\0\0\0\0\0", Promise::Pickles, Structure::Torn("its pickle is damaged".into())),
    ];
    for (bytes, promise, expected) in cases {
        assert_eq!(judged(bytes, promise), expected, "{promise:?}: {bytes:?}");
    }
}

/// Each is a few bytes that would cost much to follow.
#[test]
fn hostile_pickles_cost_little() {
    let deep: Vec<u8> = [&b"\x80\x02)"[..], &[0x85; 1 << 20], b"."].concat();
    let doubling: Vec<u8> = [&b"\x80\x02}"[..], &b"2U\x01ks".repeat(1 << 16), b"."].concat();
    let wide: Vec<u8> = [&b"\x80\x02("[..], &vec![b'N'; 1 << 20], b"t."].concat();
    let marks: Vec<u8> = [&b"\x80\x02"[..], &vec![b'('; 1 << 20], b"."].concat();
    for bytes in [&deep[..], &doubling, &wide, &marks] {
        let judged = judged(bytes, Promise::Pickles);
        assert!(matches!(judged, Structure::Sound(_) | Structure::Free), "{judged:?}");
    }
    assert!(matches!(
        judged(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff", Promise::Pickles),
        Structure::Torn(_)
    ));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
        let _ = judged(&[&b"\x80\x04"[..], &bytes].concat(), Promise::Pickles);
    }

    #[test]
    fn no_change_of_a_real_file_panics(at in 0_usize..4000, with in proptest::prelude::any::<u8>()) {
        let mut bytes = include_bytes!("recorded/arrays.joblib").to_vec();
        let at = at % bytes.len();
        bytes[at] = with;
        let _ = judged(&bytes, Promise::Pickles);
    }
}
