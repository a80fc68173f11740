//! A fake Vast.ai on loopback, for tests; see the module `fake_vast`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::fake_vast::main()
}
