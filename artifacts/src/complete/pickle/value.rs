//! The few values that tell how many raw bytes follow: numbers, short names,
//! small tuples and mappings, NumPy's element types. Everything else is
//! opaque, and so is whatever is too large to be a description.

use std::cell::Cell;
use std::rc::Rc;

/// Entries of a tuple or mapping that is followed.
pub(super) const FEW: usize = 64;

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Where a tuple, list or mapping begins.
    Mark,
    Int(i64),
    Text(Rc<str>),
    Tuple(Rc<[Value]>),
    Dict(Vec<(Rc<str>, Value)>),
    /// A class or function: module and name.
    Global(Rc<str>, Rc<str>),
    /// An object of that class, its state not set yet.
    Object(Rc<str>, Rc<str>),
    Dtype(Rc<Dtype>),
    None,
    Opaque,
}

impl Value {
    /// As it stands within another one. Descriptions are flat: what nests
    /// deeper is opaque, or dropping it would need a stack as deep as a
    /// hostile file wants.
    pub(super) fn inside(self) -> Self {
        match self {
            Self::Dict(_) => Self::Opaque,
            Self::Tuple(items) if items.iter().any(|item| matches!(item, Self::Tuple(_))) => Self::Opaque,
            other => other,
        }
    }

    /// The same value a second time; mappings are followed once only, or a few
    /// bytes could copy much.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Dict(_) => Self::Opaque,
            other => other.clone(),
        }
    }
}

/// A NumPy element type.
#[derive(Debug)]
pub(super) struct Dtype {
    bytes: Cell<u64>,
    objects: Cell<bool>,
}

impl Dtype {
    /// From its short name, such as `f8`, `U10` or `O8`.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = name.trim_start_matches(['<', '>', '|', '=']);
        let kind = name.chars().next()?;
        let count: u64 = if name.len() == 1 { 0 } else { name.get(1..)?.parse().ok()? };
        let bytes = if kind == 'U' { count.checked_mul(4)? } else { count };
        let objects = kind == 'O';
        "?biufcSUVMmOB".contains(kind).then(|| Self { bytes: Cell::new(bytes), objects: Cell::new(objects) })
    }

    /// What its state adds: the size of structures, and whether objects are
    /// among their fields.
    pub(super) fn set(&self, state: &[Value]) {
        if let Some(Value::Int(bytes @ 1..)) = state.get(5) {
            self.bytes.set(bytes.cast_unsigned());
        }
        if let Some(Value::Int(flags)) = state.get(7) {
            self.objects.set(self.objects.get() || flags & 1 != 0);
        }
    }
}

/// What joblib wrote after an array's description.
pub(super) enum Raw {
    /// A pickle of its own, for arrays of objects.
    Pickle,
    /// So many bytes, after a padding that its own first byte counts.
    Bytes { bytes: u64, padded: bool },
}

/// The description of an array by joblib; `None` where it is not understood.
pub(super) fn raw_of(state: &Value) -> Option<Raw> {
    let Value::Dict(entries) = state else { return None };
    let get = |key: &str| entries.iter().find(|(name, _)| **name == *key).map(|(_, value)| value);
    let Value::Dtype(dtype) = get("dtype")? else { return None };
    if dtype.objects.get() {
        return Some(Raw::Pickle);
    }
    let Value::Tuple(shape) = get("shape")? else { return None };
    let count = shape.iter().try_fold(1_u64, |product, dim| match dim {
        Value::Int(dim) => product.checked_mul(u64::try_from(*dim).ok()?),
        _ => None,
    })?;
    let bytes = count.checked_mul(dtype.bytes.get())?;
    let padded = matches!(get("numpy_array_alignment_bytes"), Some(Value::Int(_)));
    Some(Raw::Bytes { bytes, padded })
}

/// Bytes of one element of a PyTorch storage class.
pub(super) fn storage_element(class: &str) -> Option<u64> {
    Some(match class {
        "ByteStorage" | "CharStorage" | "BoolStorage" | "UntypedStorage" => 1,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        "FloatStorage" | "IntStorage" => 4,
        "DoubleStorage" | "LongStorage" | "ComplexFloatStorage" => 8,
        "ComplexDoubleStorage" => 16,
        _ => return None,
    })
}
