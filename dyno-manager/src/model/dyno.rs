//! A dyno: one isolated process of an app, and everything that is said about it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Invalid, ProcessType};

/// Identity of one launch; a restarted `web.1` has a new one.
pub type DynoId = Uuid;

/// Why a dyno exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DynoKind {
    /// Wanted by the formation; replaced when it ends.
    Formation,
    /// A one-off (`run.13`); ends in `complete`.
    OneOff,
    /// A build or the packing of its result.
    Build,
    /// The release phase of a release.
    Release,
}

/// `web.1`, `run.13`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DynoName {
    /// `web`, `run`.
    pub process_type: ProcessType,
    /// 1 and up.
    pub number: u32,
}

impl DynoName {
    /// Joins the two halves.
    pub fn new(process_type: ProcessType, number: u32) -> Self {
        Self { process_type, number }
    }
}

impl FromStr for DynoName {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("dyno name", s, "must look like web.1");
        let (kind, number) = s.rsplit_once('.').ok_or_else(bad)?;
        let number = number.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?;
        Ok(Self { process_type: kind.parse().map_err(|_| bad())?, number })
    }
}

impl fmt::Display for DynoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.process_type, self.number)
    }
}

impl TryFrom<String> for DynoName {
    type Error = Invalid;
    fn try_from(s: String) -> Result<Self, Invalid> {
        s.parse()
    }
}

impl From<DynoName> for String {
    fn from(n: DynoName) -> String {
        n.to_string()
    }
}

/// States as in Heroku's API and log lines, plus `stopping` between SIGTERM and the exit.
///
/// ```text
///            start        bound $PORT, or no port to bind
///   (none) ────────▶ starting ────────▶ up
///      ▲                │                │ exit of its own accord
///      │ next try       ├────────────────┴──▶ crashed ──(back-off)──▶ starting
///      └────────────────┘                │
///   scaled down, restarted, stopped:  stopping ──▶ down
///   one-offs:                            up ──▶ complete
///   web, nobody asks for it:             up ──▶ idle ──(request)──▶ starting
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DynoState {
    /// Asked for; not yet up.
    Starting,
    /// Running (a web dyno has bound its port).
    Up,
    /// Told to end; not yet gone.
    Stopping,
    /// Ended unasked; a new try is scheduled.
    Crashed,
    /// Ended because it was told to.
    Down,
    /// A one-off that ended.
    Complete,
    /// Not running until the next request.
    Idle,
}

impl DynoState {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Stopping => "stopping",
            Self::Crashed => "crashed",
            Self::Down => "down",
            Self::Complete => "complete",
            Self::Idle => "idle",
        }
    }
}

impl fmt::Display for DynoState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What ended a dyno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// The main process exited or was signalled from inside.
    Exited,
    /// Killed by the kernel at its memory limit.
    Memory,
    /// Ran past its wall-clock limit.
    Time,
    /// Ended because the platform asked.
    Stopped,
    /// Its init vanished without a record (killed from outside, host fault).
    Lost,
}

/// How a dyno ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0 to 255; 128 + n for signal n, as shells and Heroku's log lines say it.
    pub status: i32,
    /// Why.
    pub cause: ExitCause,
    /// Highest memory use in bytes, where the host's cgroup tells.
    pub memory_peak: Option<u64>,
    /// Processes that the kernel killed at the memory limit.
    pub oom_kills: u64,
    /// User + system time of the whole process tree, microseconds.
    pub cpu_us: u64,
    /// Start to end, microseconds.
    pub wall_us: u64,
}

/// A dyno size: a named bundle of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeSpec {
    /// Name as typed (`standard-1x`).
    pub name: &'static str,
    /// Name as shown (`Standard-1X`).
    pub shown: &'static str,
    /// Bytes.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Relative CPU weight, 1 to 10000 (cgroup v2 `cpu.weight` scale; 100 is one share).
    pub cpu_weight: u64,
    /// Bytes of the writable layer.
    pub disk: u64,
    /// Inodes of the writable layer.
    pub inodes: u64,
}

const MB: u64 = 1 << 20;

/// All sizes, the default first. Memory and pids as Heroku's sizes of the same name.
pub const SIZES: [SizeSpec; 5] = [
    SizeSpec { name: "standard-1x", shown: "Standard-1X", memory: 512 * MB, pids: 256, cpu_weight: 100, disk: 512 * MB, inodes: 65536 },
    SizeSpec { name: "basic", shown: "Basic", memory: 512 * MB, pids: 256, cpu_weight: 50, disk: 256 * MB, inodes: 65536 },
    SizeSpec { name: "standard-2x", shown: "Standard-2X", memory: 1024 * MB, pids: 512, cpu_weight: 200, disk: 1024 * MB, inodes: 131_072 },
    SizeSpec { name: "performance-m", shown: "Performance-M", memory: 2560 * MB, pids: 16384, cpu_weight: 1000, disk: 2048 * MB, inodes: 262_144 },
    SizeSpec { name: "build", shown: "Build", memory: 4096 * MB, pids: 2048, cpu_weight: 50, disk: 3072 * MB, inodes: 1_000_000 },
];

/// The name of one of [`SIZES`], matched without regard to case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(try_from = "String", into = "String")]
pub struct DynoSize(usize);

impl DynoSize {
    /// The size of builds.
    pub const BUILD: Self = Self(4);

    /// Its limits.
    pub fn spec(self) -> &'static SizeSpec {
        &SIZES[self.0]
    }
}

impl FromStr for DynoSize {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        let found = SIZES.iter().position(|size| size.name.eq_ignore_ascii_case(s));
        found.map(Self).ok_or_else(|| {
            let names: Vec<_> = SIZES.iter().map(|s| s.shown).collect();
            Invalid::new("dyno size", s, format!("is unknown; sizes are {}", names.join(", ")))
        })
    }
}

impl TryFrom<String> for DynoSize {
    type Error = Invalid;
    fn try_from(s: String) -> Result<Self, Invalid> {
        s.parse()
    }
}

impl From<DynoSize> for String {
    fn from(s: DynoSize) -> String {
        s.to_string()
    }
}

impl fmt::Display for DynoSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec().shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dyno_names_round_trip() {
        for name in ["web.1", "run.9157", "my-worker.12"] {
            assert_eq!(name.parse::<DynoName>().unwrap().to_string(), name);
        }
        for bad in ["", "web", "web.", "web.0", "web.-1", ".1", "web.1/../../x", "we b.1"] {
            assert!(bad.parse::<DynoName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn sizes_match_without_case_and_name_the_choices() {
        assert_eq!("STANDARD-2X".parse::<DynoSize>().unwrap().to_string(), "Standard-2X");
        assert!("huge".parse::<DynoSize>().unwrap_err().to_string().contains("Performance-M"));
        assert_eq!(DynoSize::BUILD.spec().name, "build");
    }
}
