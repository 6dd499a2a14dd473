//! `cargo xtask test`: set-up, then every test of the workspace, then the runtime's on other kernels.

use std::process::Command;

use anyhow::Result;

use crate::{battery, cargo, host, images, vm};

/// Prepares the host, makes images and programs, runs all tests; `filter` goes to the test programs. The machines come last, and
/// not when only some tests are asked for.
pub fn run(filter: &[String], no_vm: bool) -> Result<()> {
    host::prepare()?;
    host::install_clients()?;
    let images = images::make()?;
    let programs = cargo::build()?;
    let mut command = Command::new("cargo");
    // One test program after the other, and the black-box suites' tests one at a time: two cores, one host.
    command.args(["test", "--workspace", "--no-fail-fast", "--"]).args(filter);
    command.env("DYNO_STACK", &images.stack).env("DYNO_BUILDPACKS", &images.buildpacks);
    command.env("DYNO_BIN_DYNOD", &programs.dynod).env("DYNO_BIN_DYNO", &programs.dyno);
    // Another runtime may be named, to see whether a suite of clients is right.
    if std::env::var_os("DYNO_OCI_RUNTIME").is_none() {
        command.env("DYNO_OCI_RUNTIME", &programs.runtime);
    }
    let tested = cargo::run(&mut command);
    let attacked = if filter.is_empty() { battery::run(&battery::Options::default()) } else { Ok(()) };
    tested.and(attacked)?;
    if no_vm || !filter.is_empty() {
        println!("-----> Not run: the machines with other kernels (cargo xtask vm-test)");
        return Ok(());
    }
    vm::run(&vm::Options::default())
}
