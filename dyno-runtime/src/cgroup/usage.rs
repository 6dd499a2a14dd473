//! The totals of a run: what its exit record keeps, and no file more than that takes.

use super::{
    Controller, Group, Version,
    file::{read_file, value_of},
    part::Part,
};

/// The totals that an exit record keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Highest memory use in bytes (v1 `max_usage_in_bytes`; v2 `memory.peak`, Linux 5.19).
    pub memory_peak: Option<u64>,
    /// Memory in use now, bytes.
    pub memory: Option<u64>,
    /// Processes killed at the memory limit.
    pub oom_kills: u64,
    /// Times that a fork failed at the pids limit.
    pub pids_refused: u64,
    /// Bytes read from disks.
    pub io_read: Option<u64>,
    /// Bytes written to disks.
    pub io_written: Option<u64>,
    /// Whether the writable layer had no room left.
    pub disk_full: bool,
}

impl Group {
    /// The totals. Files that this host lacks leave their field empty.
    pub fn usage(&self) -> Usage {
        let memory = self.part(Controller::Memory);
        let [now, peak] = match memory.map(Part::version) {
            Some(Version::V1) => ["memory.usage_in_bytes", "memory.max_usage_in_bytes"],
            _ => ["memory.current", "memory.peak"],
        };
        let io = self.io();
        Usage {
            memory_peak: memory.and_then(|part| part.number(peak)),
            memory: memory.and_then(|part| part.number(now)),
            oom_kills: memory.map_or(0, Part::oom_kills),
            pids_refused: self.part(Controller::Pids).map_or(0, Part::forks_refused),
            io_read: io.as_ref().map(|io| io.total.read),
            io_written: io.as_ref().map(|io| io.total.written),
            disk_full: false,
        }
    }
}

impl Part {
    /// Processes killed at the memory limit.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.version() == Version::V1 { "memory.oom_control" } else { "memory.events" };
        self.told(file, "oom_kill")
    }

    /// Times that a fork failed at the pids limit.
    pub fn forks_refused(&self) -> u64 {
        self.told("pids.events", "max")
    }

    fn told(&self, file: &str, key: &str) -> u64 {
        read_file(&self.dir, file).ok().and_then(|text| value_of(&text, key)).unwrap_or(0)
    }
}
