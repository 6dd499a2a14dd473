//! Crash sweeps: a start and a stop, again and again, and each time somebody is killed at another of its system calls, or that call fails.
//!
//! Three things are asked each time. Did an init or a program do anything behind other walls than it has when nobody is harmed? What does the next
//! process on the same state directory find, and the next command on the same `--root`: the dyno as it should be, or nothing; and can it be
//! started anew? And is anything left on the host after that?
//!
//! [`crate::failures`] asks what a start that fails gives back by itself; here the process that would do it is dead as often as not, or told
//! of failures that it may take for something else. How it is done is told in [`watch`], who is who in [`library`] and [`oci`].
//!
//! `cargo test` takes one call of each name that each role makes; `cargo xtask crash` all of them, and writes `docs/crash.md`.
//! `DYNO_CRASH_ONLY=cold,run` names the stories of a part.

#[path = "../tests/bundles/oracle.rs"]
#[allow(dead_code, reason = "the OCI suites use the rest")]
mod oracle;

mod calls;
mod library;
mod oci;
mod page;
mod sweep;
mod walls;
mod watch;

use std::process::Command;

use crate::support;

/// Set for every call of each name instead of one.
const WHOLE: &str = "DYNO_CRASH_WHOLE";

fn run(whole: bool) {
    if let Some(reason) = support::missing(&["unshare", "nft"]) {
        return println!("skipped: {reason}");
    }
    if support::emulated() {
        return println!("skipped: hundreds of processes are too many for an emulated processor");
    }
    // Links, rules and images in namespaces of its own; children whose parents are killed are that process's.
    let mut driver = Command::new("unshare");
    driver.args(["--net", "--"]).arg(std::env::current_exe().unwrap());
    driver.args(["--exact", "crashes::driver", "--ignored", "--nocapture"]).env(support::lab::INSIDE, "1");
    if whole {
        driver.env(WHOLE, "1");
    } else {
        driver.env_remove(WHOLE);
    }
    assert!(driver.status().unwrap().success());
}

#[test]
fn a_kill_or_a_failure_at_any_call_is_recovered_from() {
    run(false);
}

#[test]
#[ignore = "takes the better part of an hour: cargo xtask crash"]
fn whole() {
    run(true);
}

#[test]
#[ignore = "run by the tests above, in a process of its own"]
fn driver() {
    sweep::drive(std::env::var_os(WHOLE).is_some()).unwrap();
}

#[test]
#[ignore = "run by the sweeps: the process that is killed"]
fn actor() {
    library::act();
}
