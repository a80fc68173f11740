//! The program `outlast`.

fn main() -> std::process::ExitCode {
    cli::app::main()
}
