//! Safetensors: eight bytes with the length of a JSON header that says where
//! each tensor lies, then the tensors end to end.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::outline::{At, piece};

/// The format allows 100 MB; no header of a model has come near this. It is in
/// memory while a checkpoint is published, and so is every tensor.
const LONGEST: u64 = 8 << 20;
const MOST: usize = 100_000;

/// Where the tensors lie, if the file is one of these and adds up.
pub(super) fn records(file: &(impl At + ?Sized), size: u64) -> Option<Vec<Range<u64>>> {
    let length = u64::from_le_bytes(piece(file, 0, 8)?.try_into().ok()?);
    if length < 2 || length > LONGEST.min(size - 8) || piece(file, 8, 1)? != b"{" {
        return None;
    }
    let header = piece(file, 8, length as usize)?;
    let Tensors(mut tensors) = serde_json::from_slice(&header).ok()?;
    tensors.sort_unstable();
    let mut end = 0;
    for (from, to) in &tensors {
        if *from != end || to < from {
            return None;
        }
        end = *to;
    }
    let data = 8 + length;
    (end.checked_add(data)? == size)
        .then(|| tensors.iter().map(|(from, to)| data + from..data + to).collect())
}

/// Begin and end of each tensor; whatever else the header says is passed by.
struct Tensors(Vec<(u64, u64)>);

#[derive(Deserialize)]
struct Tensor {
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Header;
        impl<'de> Visitor<'de> for Header {
            type Value = Tensors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a header of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Tensors, M::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    tensors.push(map.next_value::<Tensor>()?.data_offsets);
                    if tensors.len() > MOST {
                        return Err(serde::de::Error::custom("more tensors than any model has"));
                    }
                }
                Ok(Tensors(tensors))
            }
        }
        deserializer.deserialize_map(Header)
    }
}
