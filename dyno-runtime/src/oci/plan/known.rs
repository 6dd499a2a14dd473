//! The names that are known here, for `features`.

use super::{
    mount_options,
    schedule::{MEMORY_FLAGS, MEMORY_MODES},
};

/// `ociVersionMax`: the newest release of the specification that is known.
pub const NEWEST_VERSION: &str = "1.3.0";

/// Kinds of hooks, in the order in which they run.
pub const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Kinds of namespaces.
pub const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// Options of mounts that are not the file system's.
pub const MOUNT_OPTIONS: &[&str] = mount_options::KNOWN;

/// Modes of set_mempolicy(2).
pub fn memory_modes() -> Vec<&'static str> {
    MEMORY_MODES.iter().map(|(name, _)| *name).collect()
}

/// Flags of set_mempolicy(2).
pub fn memory_flags() -> Vec<&'static str> {
    MEMORY_FLAGS.iter().map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{plan::version, spec::Namespace};

    #[test]
    fn what_is_said_to_be_known_is() {
        version::check(NEWEST_VERSION).unwrap();
        assert!(NEWEST_VERSION.starts_with(&format!("1.{}.", version::MINOR.end())));
        let all = NAMESPACES.map(|kind| Namespace { kind: kind.to_owned(), path: None });
        super::super::namespaces::lower(&all).unwrap();
    }
}
