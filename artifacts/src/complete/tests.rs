//! What the parent module promises, tested.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;

/// An archive as `torch.save` (stored) or `np.savez_compressed` (deflated)
/// writes it.
fn zip(records: &[(&str, &[u8])], deflate: bool) -> Vec<u8> {
    let (mut out, mut central) = (Vec::new(), Vec::new());
    for (name, data) in records {
        let packed = if deflate {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        } else {
            data.to_vec()
        };
        let mut shared = Vec::new();
        shared.extend(20_u16.to_le_bytes());
        shared.extend(0_u16.to_le_bytes());
        shared.extend((if deflate { 8_u16 } else { 0 }).to_le_bytes());
        shared.extend([0; 4]);
        shared.extend(crc32fast::hash(data).to_le_bytes());
        shared.extend((packed.len() as u32).to_le_bytes());
        shared.extend((data.len() as u32).to_le_bytes());
        shared.extend((name.len() as u16).to_le_bytes());
        shared.extend(0_u16.to_le_bytes());
        let at = out.len() as u32;
        out.extend(b"PK\x03\x04");
        out.extend(&shared);
        out.extend(name.as_bytes());
        out.extend(&packed);
        central.extend(b"PK\x01\x02\x14\x00");
        central.extend(&shared);
        central.extend([0; 10]);
        central.extend(at.to_le_bytes());
        central.extend(name.as_bytes());
    }
    let at = out.len() as u32;
    out.extend(&central);
    out.extend(b"PK\x05\x06\0\0\0\0");
    for _ in 0..2 {
        out.extend((records.len() as u16).to_le_bytes());
    }
    out.extend((central.len() as u32).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0; 2]);
    out
}

fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn tensors(data: &[u8]) -> Vec<u8> {
    let half = data.len() / 2;
    let header = format!(
        r#"{{"__metadata__":{{"format":"pt"}},"a":{{"dtype":"U8","shape":[{half}],"data_offsets":[0,{half}]}},"b":{{"dtype":"U8","shape":[{}],"data_offsets":[{half},{}]}}}}"#,
        data.len() - half,
        data.len(),
    );
    safetensors(&header, data)
}

struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn judge(&self, path: &str) -> Completeness {
        judge(&self.0.path().join(path))
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> Completeness {
        judge(&self.put(name, bytes))
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.0.path().join(path)).unwrap();
    }

    fn age(&self, path: &str, seconds: u64) {
        let file = fs::File::options().write(true).open(self.0.path().join(path)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - seconds)).unwrap();
    }

    #[track_caller]
    fn incomplete(&self, path: &str, about: &str) {
        match self.judge(path) {
            Completeness::Incomplete { why } => assert!(why.contains(about), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

fn complete(format: &'static str) -> Completeness {
    Completeness::Complete { format }
}

fn torn_file(judged: &Completeness) -> bool {
    matches!(judged, Completeness::Incomplete { .. })
}

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
    let mut tail = data.clone();
    tail[4000..].fill(0);
    assert_eq!(dir.file("m.safetensors", tensors(&tail)), Completeness::Unknown);
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
    assert_eq!(dir.file("a.npy", npy(object, 9)), Completeness::Unknown);
    assert!(torn_file(&dir.file("b.npy", vec![0; 100])));
}

#[test]
fn pickles_are_walked_to_their_stop() {
    let dir = Dir::new();
    // pickle.dumps({"step": 7, "w": b"....", "f": 1.5}, protocol=4)
    let mut good =
        b"\x80\x04\x95\x22\0\0\0\0\0\0\0}\x94(\x8c\x04step\x94K\x07\x8c\x01w\x94C\x04....\x94".to_vec();
    good.extend(b"\x8c\x01f\x94G\x3f\xf8\0\0\0\0\0\0u.");
    assert_eq!(dir.file("a.pkl", &good), complete("pickle"));
    assert_eq!(dir.file("a.pkl", [&good[..], &good].concat()), complete("pickle"));
    for cut in 2..good.len() {
        // A cut within the bytes leaves a `.` at the end and is torn all the same.
        assert!(torn_file(&dir.file("a.pkl", &good[..cut])), "{cut}");
    }
    assert!(torn_file(&dir.file("a.pkl", [&good[..], b"\xff"].concat())));
    assert_eq!(dir.file("a.joblib", &good[..20]), Completeness::Unknown);
    let old_torch = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.raw tensor";
    assert_eq!(dir.file("a.pth", old_torch), Completeness::Unknown);
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
    assert_eq!(dir.file("model.txt", "tree"), Completeness::Unknown);
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
    assert_eq!(dir.judge("plain"), Completeness::Unknown);
    dir.put("plain/b.npz", "PK\x03\x04");
    dir.incomplete("plain", "b.npz");
    dir.put("plain/b.npz", "");
    dir.incomplete("plain", "empty");
    dir.put("plain/.tmpX", "x");
    dir.incomplete("plain", ".tmpX");
}

fn huggingface(dir: &Dir) {
    dir.put("checkpoint-220/config.json", "{}");
    dir.put("checkpoint-220/model-00001-of-00002.safetensors", tensors(&noise(5000)));
    dir.put("checkpoint-220/model-00002-of-00002.safetensors", tensors(&noise(5000)));
    dir.put(
        "checkpoint-220/model.safetensors.index.json",
        r#"{"metadata":{"total_size":10000},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#,
    );
    dir.put("checkpoint-220/optimizer.pt", zip(&[("a", b"x")], false));
    dir.put("checkpoint-220/rng_state.pth", zip(&[("a", b"x")], false));
    dir.put("checkpoint-220/trainer_state.json", r#"{"global_step": 220, "loss": NaN}"#);
}

#[test]
fn hugging_face() {
    let dir = Dir::new();
    huggingface(&dir);
    let name = "checkpoint-220";
    assert_eq!(dir.judge(name), complete("huggingface"));
    dir.put("checkpoint-220/trainer_state.json", r#"{"global_step": 210}"#);
    dir.incomplete(name, "step 210");
    dir.put("checkpoint-220/trainer_state.json", r#"{"global_step": 2"#);
    dir.incomplete(name, "trainer_state");
    dir.remove("checkpoint-220/trainer_state.json");
    dir.incomplete(name, "trainer_state");
    huggingface(&dir);
    dir.remove("checkpoint-220/model-00002-of-00002.safetensors");
    dir.incomplete(name, "model-00002");
    huggingface(&dir);
    dir.put("checkpoint-220/optimizer.pt", &zip(&[("a", &noise(999))], false)[..500]);
    dir.incomplete(name, "optimizer.pt");
    huggingface(&dir);
    dir.remove("checkpoint-220/rng_state.pth");
    for rank in [0, 1, 3] {
        dir.put(&format!("checkpoint-220/rng_state_{rank}.pth"), zip(&[("a", b"x")], false));
    }
    dir.incomplete(name, "rng_state_2");
    dir.put("checkpoint-220/rng_state_2.pth", zip(&[("a", b"x")], false));
    assert_eq!(dir.judge(name), Completeness::Unknown);
    dir.put("checkpoint-220/adapter_model.safetensors", tensors(&noise(10)));
    dir.incomplete(name, "adapter_config");
}

#[test]
fn distributed_checkpoints() {
    let dir = Dir::new();
    for rank in 0..2 {
        dir.put(&format!("step-5/__{rank}_0.distcp"), "data");
        dir.age(&format!("step-5/__{rank}_0.distcp"), 50);
    }
    dir.incomplete("step-5", ".metadata");
    dir.put("step-5/__0.metadata", "x");
    dir.incomplete("step-5", "__1.metadata");
    dir.put("step-5/__1.metadata", "x");
    assert_eq!(dir.judge("step-5"), complete("dcp"));
    dir.put("step-5/.metadata", "x");
    assert_eq!(dir.judge("step-5"), complete("dcp"));
    dir.age("step-5/.metadata", 60);
    dir.incomplete("step-5", "overwritten");
    dir.age("step-5/.metadata", 40);
    assert_eq!(dir.judge("step-5"), complete("dcp"));
    dir.put("step-5/.metadata.tmp", "x");
    dir.incomplete("step-5", ".metadata.tmp");
}

#[test]
fn deepspeed_tags() {
    let dir = Dir::new();
    let state = zip(&[("a", b"x")], false);
    for step in [100, 200] {
        dir.put(&format!("c/global_step{step}/mp_rank_00_model_states.pt"), &state);
        for rank in 0..2 {
            dir.put(&format!("c/global_step{step}/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"), &state);
        }
    }
    dir.incomplete("c/global_step100", "latest");
    dir.put("c/latest", "global_step100\n");
    assert_eq!(dir.judge("c/global_step100"), complete("deepspeed"));
    dir.incomplete("c/global_step200", "names `global_step100`");
    assert_eq!(dir.judge("c"), complete("deepspeed"));
    dir.put("c/latest", "global_step200");
    assert_eq!(dir.judge("c/global_step100"), complete("deepspeed"));
    dir.remove("c/global_step100/zero_pp_rank_1_mp_rank_00_optim_states.pt");
    dir.incomplete("c/global_step100", "names `global_step200`");
    dir.put("c/latest", "../global_step200");
    dir.incomplete("c", "latest");
}

#[test]
fn megatron_orbax_and_tensorflow() {
    let dir = Dir::new();
    dir.put("m/iter_0000100/mp_rank_00/model_optim_rng.pt", zip(&[("a", b"x")], false));
    dir.incomplete("m/iter_0000100", "latest_checkpointed_iteration");
    dir.put("m/latest_checkpointed_iteration.txt", "90");
    dir.incomplete("m/iter_0000100", "`90`");
    dir.put("m/latest_checkpointed_iteration.txt", "100\n");
    assert_eq!(dir.judge("m/iter_0000100"), complete("megatron"));
    dir.put("o/7/d/array", "x");
    assert_eq!(dir.judge("o/7"), Completeness::Unknown);
    dir.put("o/7/_CHECKPOINT_METADATA", "{}");
    assert_eq!(dir.judge("o/7"), complete("orbax"));
    fs::rename(dir.0.path().join("o/7"), dir.0.path().join("o/7.orbax-checkpoint-tmp-1")).unwrap();
    dir.incomplete("o/7.orbax-checkpoint-tmp-1", "temporary");
    dir.put("t/ckpt-5.data-00000-of-00002", "x");
    dir.put("t/ckpt-5.index", "x");
    dir.incomplete("t", "data part");
    dir.put("t/ckpt-5.data-00001-of-00002", "x");
    dir.incomplete("t", "`checkpoint`");
    dir.put("t/checkpoint", "model_checkpoint_path: \"ckpt-6\"\n");
    dir.incomplete("t", "ckpt-6");
    dir.put("t/checkpoint", "model_checkpoint_path: \"ckpt-5\"\n");
    assert_eq!(dir.judge("t"), complete("tensorflow"));
}
