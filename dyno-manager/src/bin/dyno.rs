//! `dyno`, the command line of the platform. Everything is in [`dyno_manager::cli`].

fn main() -> std::process::ExitCode {
    dyno_manager::cli::main(std::env::args_os())
}
