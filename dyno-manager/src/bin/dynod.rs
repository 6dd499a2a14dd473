//! `dynod`, the daemon of the platform. Everything is in [`dyno_manager::daemon`].

fn main() -> std::process::ExitCode {
    dyno_manager::daemon::main()
}
