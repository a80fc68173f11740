//! Fake metadata services of three clouds on loopback, for tests; see the
//! module `fake_metadata`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::fake_metadata::main()
}
