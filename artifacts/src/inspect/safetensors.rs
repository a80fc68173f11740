//! The tensors of a safetensors file, by its header.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{LONGEST_HEADER, Piece, Stored};
use crate::restore::RestoreError;

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

pub(super) async fn pieces(file: &Stored<'_>, head: &[u8]) -> Result<Option<Vec<Piece>>, RestoreError> {
    let Some(length) = head.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)) else {
        return Ok(None);
    };
    if head.get(8) != Some(&b'{') || length < 2 || length > LONGEST_HEADER.min(file.size().saturating_sub(8))
    {
        return Ok(None);
    }
    let data = 8 + length;
    let header = file.read(8..data).await?;
    Ok(parse(&header, data, file.size()))
}

fn parse(header: &[u8], data: u64, size: u64) -> Option<Vec<Piece>> {
    let all: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let mut pieces = Vec::new();
    for (name, value) in all.into_iter().filter(|(name, _)| name != "__metadata__") {
        let Tensor { dtype, shape, data_offsets: (from, to) } = serde_json::from_value(value).ok()?;
        let at = data.checked_add(from)?..data.checked_add(to)?;
        if to < from || at.end > size {
            return None;
        }
        let bytes = to - from;
        pieces.push(Piece { name, dtype: Some(dtype), shape: Some(shape), bytes, at, crc: None });
    }
    Some(pieces)
}
