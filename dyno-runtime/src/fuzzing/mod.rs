//! What must hold of whatever bytes others give us, one function per parser: what the fuzzers of `fuzz/` call, and the tests of this crate with the
//! seeds that lie there.
//!
//! A function takes bytes and panics if something does not hold. That a parser does not panic is the least; most of these also hold what was
//! read against something else: the same written and read again, a filter against a second evaluation, a plan against what those who carry it
//! out rely on.

#[cfg(feature = "oci")]
mod oci_config;
#[cfg(feature = "oci")]
mod oci_seccomp;
#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
mod sandbox;
mod seccomp;
mod state;

use serde::{Serialize, de::DeserializeOwned};

macro_rules! targets {
    ($($(#[$attribute:meta])* $name:ident = $check:path;)*) => {
        $($(#[$attribute])* pub fn $name(bytes: &[u8]) { $check(bytes) })*

        /// Every seed, and what a few thousand mutations make of them.
        #[cfg(test)]
        mod replayed {
            $($(#[$attribute])* #[test] fn $name() { super::replay::replay(stringify!($name), $check) })*
        }
    };
}

targets! {
    /// A `config.json`.
    #[cfg(feature = "oci")]
    oci_config = crate::fuzzing::oci_config::configuration;
    /// The `process` of `exec --process`, a JSON file.
    #[cfg(feature = "oci")]
    oci_process = crate::fuzzing::oci_config::process;
    /// The limits of `update --resources`, a JSON file.
    #[cfg(feature = "oci")]
    oci_resources = crate::fuzzing::oci_config::resources;
    /// `linux.seccomp`, compiled.
    #[cfg(feature = "oci")]
    oci_seccomp = crate::fuzzing::oci_seccomp::check;
    /// What a bus answers.
    #[cfg(feature = "oci")]
    dbus = crate::oci::cgroup::fuzz_bus;
    /// A sandbox as JSON.
    sandbox = crate::fuzzing::sandbox::check;
    /// A profile of system calls as JSON, compiled.
    seccomp = crate::fuzzing::seccomp::check;
    /// Records of the state directory, and what an init writes.
    state = crate::fuzzing::state::check;
}

/// One line, that says something, and not all that was given.
fn one_line(said: &str) {
    assert!(!said.is_empty() && said.len() < 2000 && !said.contains(char::is_control), "{said:?}");
}

/// What was read is the same when it is written and read again, if it can be read.
fn written_again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let text = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&text).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("as before"), text);
    Some(value)
}
