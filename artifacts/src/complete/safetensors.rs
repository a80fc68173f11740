//! Safetensors: a header of JSON, then the tensors end to end. The format has
//! no checksum, and one writer sets the full size first. What it did not get to
//! is a hole in the file; where the file system does not tell of holes, a tail
//! of zeros leaves a doubt that a rename or a quiet period lifts.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::Deserialize;

use super::structure::TOO_LARGE;
use super::{Judged, Structure, hole, torn};

/// What the format allows, and what is read into memory here.
const MAX_HEADER: u64 = 100_000_000;
const READ: u64 = 16 << 20;
const TAIL: u64 = 4096;

#[derive(Deserialize)]
struct Tensor {
    dtype: Option<String>,
    shape: Option<Elements>,
    data_offsets: Option<(u64, u64)>,
}

/// The product of a shape, which may be long: it is never kept.
struct Elements(Option<u64>);

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Product;
        impl<'de> serde::de::Visitor<'de> for Product {
            type Value = Elements;
            fn expecting(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                text.write_str("a shape")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut dims: A) -> Result<Elements, A::Error> {
                let mut product = Some(1_u64);
                while let Some(dim) = dims.next_element::<u64>()? {
                    product = product.and_then(|product| product.checked_mul(dim));
                }
                Ok(Elements(product))
            }
        }
        deserializer.deserialize_seq(Product)
    }
}

pub(super) fn judge(file: &File, size: u64) -> Judged {
    let mut length = [0; 8];
    if size < 8 {
        return torn("it is shorter than a safetensors header");
    }
    file.read_exact_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if !(2..=MAX_HEADER.min(size - 8)).contains(&length) {
        return torn(format!("its header claims {length} bytes of {size}"));
    }
    if length > READ {
        return Ok(Structure::Doubtful(TOO_LARGE));
    }
    let mut header = vec![0; length as usize];
    file.read_exact_at(&mut header, 8)?;
    let tensors: HashMap<String, Tensor> = match serde_json::from_slice(&header) {
        Ok(tensors) => tensors,
        Err(error) => return torn(format!("its header does not parse: {error}")),
    };
    let data = size - 8 - length;
    let mut spans = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors.iter().filter(|(name, _)| *name != "__metadata__") {
        let Some((begin, end)) = tensor.data_offsets.filter(|(begin, end)| begin <= end) else {
            return torn(format!("tensor `{name}` has no place"));
        };
        if bytes_of(tensor).is_some_and(|bytes| bytes != end - begin) {
            return torn(format!("tensor `{name}` has a shape unlike its place"));
        }
        spans.push((begin, end));
    }
    spans.sort_unstable();
    let mut reached = 0;
    for (begin, end) in spans {
        if begin != reached {
            return torn("its tensors do not lie end to end");
        }
        reached = end;
    }
    if reached != data {
        return torn(format!("it has {data} bytes of data where its header says {reached}"));
    }
    if let Some(at) = hole::first(file, size)? {
        return torn(format!("nothing was ever written at byte {at} of {size}: it is a hole"));
    }
    // Zeros that are no hole were written.
    if !hole::are_told(file) && data > 0 && ends_in_zeros(file, size, data.min(TAIL))? {
        return Ok(Structure::Doubtful("ends in zeros, as if its end was never written"));
    }
    Ok(Structure::Sound("safetensors"))
}

fn ends_in_zeros(file: &File, size: u64, count: u64) -> std::io::Result<bool> {
    let mut tail = vec![0; count as usize];
    file.read_exact_at(&mut tail, size - count)?;
    Ok(tail.iter().all(|byte| *byte == 0))
}

/// What dtype and shape take; `None` for a dtype that is not known here.
fn bytes_of(tensor: &Tensor) -> Option<u64> {
    let bits: u64 = match tensor.dtype.as_deref()? {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    };
    let Elements(count) = tensor.shape.as_ref()?;
    // Overflow: no place has that size, so any answer but the right one does.
    Some(count.and_then(|count| count.checked_mul(bits / 8)).unwrap_or(u64::MAX))
}
