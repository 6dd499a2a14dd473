//! The repository's commands. The README and CI use these and no others.

mod battery;
mod bench;
mod cargo;
mod crash;
mod demo;
mod dist;
mod elf;
mod fuzz;
mod host;
mod images;
mod platform;
mod supply;
mod test;
mod tidy;
mod units;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of this repository; each does its own set-up.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "\
Examples:
  cargo xtask demo          a running platform to play with
  cargo xtask demo --once   the same unattended: checks every step, leaves nothing behind
  cargo xtask test          all tests, with all their set-up, and vm-test
  cargo xtask test --no-vm  without it
  cargo xtask vm-test       the runtime's tests on Debian's kernels, in virtual machines
  cargo xtask bench         starts by the library beside every peer, ten minutes; --quick takes one
  cargo xtask battery --mutate   the attacks, and whether they see every wall that is taken away
  cargo xtask fuzz --seconds 600   every parser of foreign bytes, ten minutes each
  cargo xtask crash         kills and failures at every system call of a start and a stop, an hour
  cargo xtask bench oci     the OCI runtime beside crun, runc and bubblewrap
  cargo xtask dist          the static dyno-runtime; --verify builds it twice
  cargo xtask deny          licences, sources and advisories of all that is built in
  cargo xtask test -- cgroup   only tests whose name holds `cgroup`"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Set up everything, start the platform, deploy an app, show it working.
    Demo {
        /// Unattended: check each step, stop everything, leave nothing behind.
        #[arg(long)]
        once: bool,
        /// Stop the platform that an earlier demo left running.
        #[arg(long, conflicts_with = "once")]
        stop: bool,
    },
    /// Set up everything for the tests and run them all.
    Test {
        /// Leave out the virtual machines with other kernels.
        #[arg(long)]
        no_vm: bool,
        /// Passed on to the test programs.
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Make the stack and buildpacks images (cached by what they are made from).
    Stack,
    /// Run the programs on other kernels, in a throw-away virtual machine with pure cgroup v2.
    VmTest(vm::Options),
    /// Attack sandboxes: bare, with the wall in question taken away, and full.
    Battery(battery::Options),
    /// Give parsers of foreign bytes what nobody thought of.
    Fuzz(fuzz::Options),
    /// Kill somebody, or fail a call, at every step of a start and of a stop; then look for what is left.
    Crash(crash::Options),
    /// Measure the library and the programs beside their peers: the whole, or a part.
    Bench {
        /// What of it; without, the whole.
        #[command(subcommand)]
        what: Option<bench::Bench>,
        #[command(flatten)]
        whole: bench::Whole,
    },
    /// Build the static `dyno-runtime` and say where it is.
    Dist {
        /// Build it a second time elsewhere: it must come out the same, byte for byte.
        #[arg(long)]
        verify: bool,
    },
    /// Licences, sources and advisories of all that is built in, by cargo-deny.
    Deny,
    /// Check the house rules over every tracked file.
    Tidy,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Demo { stop: true, .. } => demo::stop(),
        Task::Demo { once, .. } => demo::run(once),
        Task::Test { no_vm, filter } => test::run(&filter, no_vm),
        Task::VmTest(options) => vm::run(&options),
        Task::Battery(options) => battery::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Crash(options) => crash::run(&options),
        Task::Bench { what, whole } => bench::run(what.as_ref(), &whole),
        Task::Dist { verify } => dist::run(verify),
        Task::Deny => supply::run(),
        Task::Tidy => tidy::run(),
        Task::Stack => host::prepare().and_then(|()| images::make()).map(|images| {
            println!("{}\n{}", images.stack.display(), images.buildpacks.display());
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}
