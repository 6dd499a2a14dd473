//! `dyno-runtime`: the library's command line.

fn main() -> std::process::ExitCode {
    dyno_runtime::cli::main()
}
