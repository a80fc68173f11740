//! Changes behind checksums: a file whose records are framed is taken apart, its
//! records are changed, and it is put together again with lengths and checksums
//! that are right, so that what is wrong reaches the readers of records.

/// How the records of a target are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// TensorFlow's: length, its sum, data, its sum.
    TensorFlow,
    /// LevelDB's blocks behind W&B's header of seven bytes.
    Wandb,
    /// LevelDB's blocks as RocksDB checks them.
    RocksDb,
}

const BLOCK: usize = 32_768;

fn framing(target: &str, bytes: &[u8]) -> Option<Framing> {
    match (target, bytes.first()?) {
        ("tensorboard", _) => Some(Framing::TensorFlow),
        ("wandb", _) => Some(Framing::Wandb),
        ("aim", 1) => Some(Framing::RocksDb),
        _ => None,
    }
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The same file with other records; `None` where it has none that are framed.
/// The first byte is the target's own.
pub(crate) fn reframed(
    target: &str,
    bytes: &[u8],
    random: &mut fastrand::Rng,
    mut change: impl FnMut(&mut fastrand::Rng, &mut Vec<u8>),
) -> Option<Vec<u8>> {
    let framing = framing(target, bytes)?;
    let begin = if framing == Framing::Wandb { 8 } else { 1 };
    let (head, framed) = bytes.split_at_checked(begin)?;
    let mut records = match framing {
        Framing::TensorFlow => frames(framed),
        Framing::Wandb | Framing::RocksDb => chunks(framed, begin - 1),
    };
    if records.is_empty() {
        return None;
    }
    for _ in 0..random.usize(1..5) {
        let (one, two) = (random.usize(..records.len()), random.usize(..records.len()));
        match random.u8(0..8) {
            0 => records.swap(one, two),
            1 => records.push(records[one].clone()),
            2 if records.len() > 1 => drop(records.remove(one)),
            _ => change(random, &mut records[one]),
        }
    }
    let mut out = head.to_vec();
    for record in &records {
        match framing {
            Framing::TensorFlow => {
                let length = (record.len() as u64).to_le_bytes();
                for part in
                    [&length[..], &masked(&length).to_le_bytes(), record, &masked(record).to_le_bytes()]
                {
                    out.extend_from_slice(part);
                }
            }
            Framing::Wandb | Framing::RocksDb => write(&mut out, record, framing),
        }
    }
    Some(out)
}

/// Records of TensorFlow's framing; what follows a length that is none is left out.
fn frames(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<8>() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let end = length.saturating_add(4);
        let Some(data) = after.get(4..end) else { break };
        records.push(data.to_vec());
        rest = after.get(end + 4..).unwrap_or_default();
    }
    records
}

/// Records of LevelDB's framing, the first of which stands at offset `at` of the file.
fn chunks(mut rest: &[u8], mut at: usize) -> Vec<Vec<u8>> {
    let (mut records, mut record) = (Vec::new(), Vec::new());
    loop {
        let left = BLOCK - at % BLOCK;
        let length = rest.get(4..6).map_or(0, |l| usize::from(l[0]) | usize::from(l[1]) << 8);
        let end = if left < 7 { left } else { 7 + length };
        let Some((chunk, after)) = rest.split_at_checked(end) else { return records };
        if left >= 7 {
            let kind = chunk[6];
            if matches!(kind, 1 | 2) {
                record.clear();
            }
            record.extend_from_slice(&chunk[7..]);
            if matches!(kind, 1 | 4) {
                records.push(record.clone());
            }
        }
        (rest, at) = (after, at + end);
    }
}

/// Writes a record as LevelDB does. The first byte of `out` is no part of the file.
fn write(out: &mut Vec<u8>, record: &[u8], framing: Framing) {
    let (mut rest, mut first) = (record, true);
    loop {
        let left = BLOCK - (out.len() - 1) % BLOCK;
        if left < 7 {
            out.resize(out.len() + left, 0);
            continue;
        }
        let (piece, after) = rest.split_at(rest.len().min(left - 7));
        let kind = match (first, after.is_empty()) {
            (true, true) => 1,
            (true, false) => 2,
            (false, false) => 3,
            (false, true) => 4,
        };
        let checked = [&[kind], piece].concat();
        let sum = if framing == Framing::Wandb { crc32fast::hash(&checked) } else { masked(&checked) };
        out.extend(sum.to_le_bytes());
        out.extend((piece.len() as u16).to_le_bytes());
        out.extend(checked);
        (rest, first) = (after, false);
        if rest.is_empty() {
            return;
        }
    }
}
