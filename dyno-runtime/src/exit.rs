//! How a dyno ended: what its init left, what its cgroup says, and whether we killed it, made into one record.

use serde::{Deserialize, Serialize};

use crate::{cgroup::Usage, spawn::Timing};

/// What ended a dyno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its main process exited or was signalled.
    Exited,
    /// The kernel killed it at the memory limit.
    Memory,
    /// Its main process failed, and a process or thread could not be made at `limits.pids`.
    Pids,
    /// `limits.wall_ms` was over.
    Time,
    /// `limits.cpu_ms` was used up.
    CpuTime,
    /// It wrote more than `limits.output`.
    Output,
    /// Its main process failed, and its writable layer was full.
    Disk,
    /// It ended after [`crate::Dyno::stop`] had asked it to.
    Stopped,
    /// [`crate::Dyno::kill`], or [`crate::Dyno::stop`] when its grace was over.
    Killed,
    /// Its init vanished without a record: killed from outside, or the host failed.
    Lost,
}

/// How a dyno ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// 0 to 255; 128 + n for signal n.
    pub status: i32,
    /// The signal that ended the main process. (A program may as well exit with 128 + n of its own accord.)
    #[serde(default)]
    pub signal: Option<i32>,
    /// Why.
    pub cause: Cause,
    /// Highest memory use of the cgroup, bytes.
    pub memory_peak: Option<u64>,
    /// Processes killed at the memory limit.
    pub oom_kills: u64,
    /// Bytes read from disks, where the kernel counts them for the group.
    #[serde(default)]
    pub io_read: Option<u64>,
    /// Bytes written to disks.
    #[serde(default)]
    pub io_written: Option<u64>,
    /// User and system time of all its processes, microseconds.
    pub cpu_us: u64,
    /// From its start to its end, microseconds.
    pub wall_us: u64,
    /// Largest resident set of one process, bytes.
    pub max_rss: u64,
    /// [`crate::Stdio::Log`]: lines that were lost at the end, of which no record of the log tells because it was full.
    #[serde(default)]
    pub log_dropped: u64,
    /// Where the time of its start went.
    #[serde(default)]
    pub timing: Timing,
}

impl ExitRecord {
    /// From what the init wrote (see `init/main.rs`), what the cgroup says, and whether we killed it.
    pub(crate) fn new(written: &[u8], usage: Usage, killed: bool) -> Self {
        let word = |at: usize| written.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, i64::from_le_bytes);
        let complete = written.len() == 40 && written.starts_with(b"DXIT");
        let wait_status = written.get(4..8).and_then(|b| b.try_into().ok()).map_or(9, i32::from_le_bytes);
        let signal = wait_status & 0x7f;
        let status = if signal == 0 { (wait_status >> 8) & 0xff } else { 128 + signal };
        let cause = match (complete, usage.oom_kills > 0, killed) {
            (false, false, true) => Cause::Killed,
            (false, false, false) => Cause::Lost,
            // Killed by SIGKILL while the kernel counts kills at the limit: that was it.
            (false, true, _) => Cause::Memory,
            (true, true, _) if status == 137 => Cause::Memory,
            (true, ..) => Cause::Exited,
        };
        let positive = |n: i64| u64::try_from(n).unwrap_or(0);
        Self {
            status: if complete { status } else { 137 },
            signal: if complete { (signal != 0).then_some(signal) } else { Some(libc::SIGKILL) },
            cause,
            memory_peak: usage.memory_peak,
            oom_kills: usage.oom_kills,
            cpu_us: positive(word(8)),
            wall_us: positive(word(16)),
            max_rss: positive(word(24)) * 1024,
            log_dropped: positive(word(32)),
            io_read: None,
            io_written: None,
            timing: Timing::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(status: i32) -> Vec<u8> {
        let mut bytes = b"DXIT".to_vec();
        bytes.extend(status.to_le_bytes());
        for word in [1500i64, 2_000_000, 1024, 17] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn exit_records() {
        let oom = Usage { oom_kills: 1, ..Usage::default() };
        let check = |bytes: &[u8], usage, killed, status, cause| {
            let exit = ExitRecord::new(bytes, usage, killed);
            assert_eq!((exit.status, exit.cause), (status, cause), "{bytes:?}");
        };
        check(&written(0), Usage::default(), false, 0, Cause::Exited);
        check(&written(3 << 8), Usage::default(), false, 3, Cause::Exited);
        check(&written(15), Usage::default(), false, 143, Cause::Exited);
        check(&written(9), oom, false, 137, Cause::Memory);
        check(&written(1 << 8), oom, false, 1, Cause::Exited);
        check(&[], Usage::default(), true, 137, Cause::Killed);
        check(&[], Usage::default(), false, 137, Cause::Lost);
        check(&written(0)[..20], oom, false, 137, Cause::Memory);
        let exit = ExitRecord::new(&written(0), oom, false);
        assert_eq!((exit.cpu_us, exit.wall_us, exit.max_rss, exit.log_dropped), (1500, 2_000_000, 1 << 20, 17));
        let signal = |status| ExitRecord::new(&written(status), Usage::default(), false).signal;
        assert_eq!([signal(15), signal(143 << 8), signal(0x80 | 11)], [Some(15), None, Some(11)]);
    }
}
