//! placeholder
fn main() -> std::process::ExitCode { dyno_tests::run(&[], &[]) }
