//! What the parent module promises, tested.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;

mod directories;
mod files;
mod nested;
mod overwritten;
mod sequences;

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
        // The kernel's own times stand still for milliseconds; writers take longer.
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::now()).unwrap();
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
            Completeness::Incomplete { why } => assert!(why.to_string().contains(about), "{why}"),
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

fn is_open(judged: &Completeness) -> bool {
    matches!(judged, Completeness::Unknown { .. })
}
