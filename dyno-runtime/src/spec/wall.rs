//! Walls by name: what an unprivileged user may not have here, and may accept to do without.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A wall, or a service of the runtime, that the kernel may not grant to an unprivileged user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wall {
    /// `limits.memory`, `memory_high` and `swap`. Without it the host's memory is the limit.
    MemoryLimit,
    /// `limits.pids`. (RLIMIT_NPROC counts all processes of the user together and does not stand in for it.)
    PidsLimit,
    /// `limits.cpu_weight` and `cpu_millis`.
    CpuLimit,
    /// `limits.cpu_ms`.
    CpuTime,
    /// `limits.cpus`, `memory_nodes`, `io_weight`, `io` and `hugetlb`.
    OtherLimits,
    /// No id of the sandbox is the caller's own. Without it there is one user inside, and outside that is the caller.
    IdRange,
    /// No other sandbox of this user has the same ids outside.
    OwnIdRange,
    /// The caller's supplementary groups are given up.
    Groups,
    /// No core dump of a sandbox goes to the host's handler.
    CoreDumps,
    /// What is masked, read-only or mounted inside stays so whatever capabilities the sandbox asks for.
    LockedMounts,
    /// Squashfs layers. They cannot be done without by a sandbox that has some.
    Images,
    /// [`crate::Upper::Disk`]; likewise.
    DiskUpper,
    /// [`crate::Layer::UpperOf`] and [`crate::StartOptions::keep_upper`]; likewise.
    KeptUpper,
    /// [`crate::Network::Egress`]; likewise.
    Egress,
}

impl Wall {
    /// Whether a sandbox can be had without it: false for those that are asked for by name, and so cannot be left out.
    pub fn can_be_accepted(self) -> bool {
        !matches!(self, Self::Images | Self::DiskUpper | Self::KeptUpper | Self::Egress)
    }
}

impl fmt::Display for Wall {
    /// As in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MemoryLimit => "memory_limit",
            Self::PidsLimit => "pids_limit",
            Self::CpuLimit => "cpu_limit",
            Self::CpuTime => "cpu_time",
            Self::OtherLimits => "other_limits",
            Self::IdRange => "id_range",
            Self::OwnIdRange => "own_id_range",
            Self::Groups => "groups",
            Self::CoreDumps => "core_dumps",
            Self::LockedMounts => "locked_mounts",
            Self::Images => "images",
            Self::DiskUpper => "disk_upper",
            Self::KeptUpper => "kept_upper",
            Self::Egress => "egress",
        })
    }
}

/// A wall that is missing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Which.
    pub wall: Wall,
    /// What the kernel or the host said.
    pub why: String,
    /// How it can be had.
    pub how: String,
}

impl Missing {
    pub(crate) fn new(wall: Wall, why: impl Into<String>, how: impl Into<String>) -> Self {
        Self { wall, why: why.into(), how: how.into() }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.wall, self.why, self.how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_text_is_its_name_in_json() {
        let all = [
            Wall::MemoryLimit,
            Wall::PidsLimit,
            Wall::CpuLimit,
            Wall::CpuTime,
            Wall::OtherLimits,
            Wall::IdRange,
            Wall::OwnIdRange,
            Wall::Groups,
            Wall::CoreDumps,
            Wall::LockedMounts,
            Wall::Images,
            Wall::DiskUpper,
            Wall::KeptUpper,
            Wall::Egress,
        ];
        for wall in all {
            assert_eq!(serde_json::to_value(wall).unwrap(), wall.to_string());
        }
    }
}
