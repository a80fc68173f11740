//! Fuzzes one reader; see curves/tests/corpus/targets.rs.
#![no_main]

#[path = "../../curves/tests/corpus/targets.rs"]
#[allow(dead_code, reason = "the others are fuzzed by others")]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::wandb_cloud(bytes));
