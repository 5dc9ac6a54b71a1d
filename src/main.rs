//! The `mergesweep` program: see the library's documentation.

fn main() -> std::process::ExitCode {
    mergesweep::cli::main()
}
