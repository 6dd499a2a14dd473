//! Capabilities by name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One capability (capabilities(7)), by its number. Text and JSON have its name: `NET_BIND_SERVICE`; with `CAP_` it is read too.
///
/// Inside a sandbox a capability holds over what the sandbox's user namespace owns: its files and processes always; its network
/// when a `NET_*` one is asked for, its mounts and host name when `SYS_ADMIN` is. Over the host it never holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Capability(u8);

/// In the order of their numbers (linux/capability.h, 6.18).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Capability {
    /// CAP_NET_BIND_SERVICE.
    pub const NET_BIND_SERVICE: Self = Self(10);
    /// CAP_NET_ADMIN.
    pub const NET_ADMIN: Self = Self(12);
    /// CAP_SYS_ADMIN.
    pub const SYS_ADMIN: Self = Self(21);

    /// All that this library knows.
    pub fn all() -> impl Iterator<Item = Self> {
        (0u8..).take(NAMES.len()).map(Self)
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Its name, without `CAP_`.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// As a bit of a capability set.
    pub fn bit(self) -> u64 {
        1 << self.0
    }

    /// True for those that hold over a network.
    pub fn is_of_network(self) -> bool {
        (10..=13).contains(&self.0)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Capability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        Self::all().find(|c| c.name() == name).ok_or_else(|| format!("capability {text:?} does not exist"))
    }
}

impl TryFrom<String> for Capability {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> Self {
        capability.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let check = |text: &str, number: u8| assert_eq!(text.parse::<Capability>().unwrap().number(), number, "{text}");
        check("CHOWN", 0);
        check("cap_sys_admin", 21);
        check("CAP_CHECKPOINT_RESTORE", 40);
        assert!("CAP_".parse::<Capability>().is_err());
        assert_eq!(
            (Capability::NET_ADMIN.name(), Capability::NET_BIND_SERVICE.name(), Capability::SYS_ADMIN.name()),
            ("NET_ADMIN", "NET_BIND_SERVICE", "SYS_ADMIN")
        );
        let network: Vec<_> = Capability::all().filter(|c| c.is_of_network()).map(Capability::name).collect();
        assert_eq!(network, ["NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"]);
    }
}
