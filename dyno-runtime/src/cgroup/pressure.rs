//! How much was waited for what: the kernel's pressure stall information (psi.rst).

use serde::{Deserialize, Serialize};

use super::file::field;

/// Waiting for processor, memory and disks. Each is None where the kernel does not say (v1 hosts without a v2 tree, `psi=0`).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Pressure {
    /// For a processor.
    pub cpu: Option<Stalls>,
    /// For memory: reclaim, swap, refaults.
    pub memory: Option<Stalls>,
    /// For disks.
    pub io: Option<Stalls>,
}

/// Waiting for one thing.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Stalls {
    /// While at least one task waited.
    pub some: Stall,
    /// While all tasks waited. (For the processor since Linux 5.13.)
    pub full: Option<Stall>,
}

/// Shares of time, in percent, and their sum.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Stall {
    /// Of the last 10 s.
    pub avg10: f64,
    /// Of the last 60 s.
    pub avg60: f64,
    /// Of the last 300 s.
    pub avg300: f64,
    /// Since the start, microseconds.
    pub total_us: u64,
}

impl Stalls {
    /// From the text of a pressure file.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let line = |kind: &str| text.lines().find_map(|line| Stall::parse(line.strip_prefix(kind)?));
        Some(Self { some: line("some ")?, full: line("full ") })
    }
}

impl Stall {
    fn parse(fields: &str) -> Option<Self> {
        let share = |key| field(fields, key)?.parse().ok();
        Some(Self { avg10: share("avg10")?, avg60: share("avg60")?, avg300: share("avg300")?, total_us: field(fields, "total")?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_files() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=123456\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=99\n";
        let stalls = Stalls::parse(text).unwrap();
        assert_eq!((stalls.some.avg10, stalls.some.avg60, stalls.some.total_us), (1.5, 0.25, 123_456));
        assert_eq!(stalls.full.unwrap().total_us, 99);
        assert_eq!(Stalls::parse(text.lines().next().unwrap()).unwrap().full, None);
        assert_eq!(Stalls::parse("some avg10=x"), None);
        assert_eq!(Stalls::parse(""), None);
    }
}
