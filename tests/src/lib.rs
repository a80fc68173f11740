//! What the tests need beside the product: programs that stand in for what the
//! product meets outside. Nothing of it is shipped.

pub mod fake_metadata;
pub mod fake_vast;
mod loopback;
