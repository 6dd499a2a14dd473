//! How a dyno ended: what its init left, what its cgroup says, and whether we killed it, made into one record.

use std::{io::Write, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    cgroup::Usage,
    error::{Context, Result},
    spawn::Timing,
};

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

/// What the platform does to end a dyno. Words in a file of its state directory, so that who comes after a restart knows them too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// SIGTERM by [`crate::Dyno::stop`].
    Asked,
    /// SIGKILL.
    Killed,
}

impl Stop {
    const FILE: &str = "stopped";

    fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked ",
            Self::Killed => "killed ",
        }
    }

    /// # Errors
    /// Of writing it down.
    pub fn note(self, dir: &Path) -> Result<()> {
        let path = dir.join(Self::FILE);
        let mut options = std::fs::OpenOptions::new();
        let written = options.create(true).append(true).open(&path).and_then(|mut file| file.write_all(self.word().as_bytes()));
        written.io(|| format!("write {}", path.display()))
    }
}

/// Which of them were done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Stops {
    asked: bool,
    killed: bool,
}

impl Stops {
    fn read(dir: &Path) -> Self {
        let words = std::fs::read_to_string(dir.join(Stop::FILE)).unwrap_or_default();
        Self { asked: words.contains(Stop::Asked.word()), killed: words.contains(Stop::Killed.word()) }
    }
}

/// What the init wrote (see `init/main.rs`).
struct Written {
    wait_status: i32,
    cpu_us: u64,
    wall_us: u64,
    max_rss: u64,
    log_dropped: u64,
    breach: i64,
    exec_us: u64,
}

impl Written {
    /// None unless it is all there: who is killed while he writes has not told how the program ended.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 56] = bytes.try_into().ok()?;
        let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, i64::from_le_bytes);
        let positive = |at: usize| u64::try_from(word(at)).unwrap_or(0);
        let wait_status = i32::from_le_bytes(bytes[4..8].try_into().ok()?);
        bytes.starts_with(b"DXIT").then(|| Self {
            wait_status,
            cpu_us: positive(8),
            wall_us: positive(16),
            max_rss: positive(24).saturating_mul(1024),
            log_dropped: positive(32),
            breach: word(40),
            exec_us: positive(48),
        })
    }
}

impl ExitRecord {
    /// Of the ended dyno whose state is in `dir`.
    pub(crate) fn of(dir: &Path, usage: Usage, timing: Timing) -> Self {
        let written = std::fs::read(dir.join("exit")).unwrap_or_default();
        Self::new(&written, usage, Stops::read(dir), timing)
    }

    fn new(written: &[u8], usage: Usage, stops: Stops, timing: Timing) -> Self {
        let base = Self {
            status: 137,
            signal: Some(libc::SIGKILL),
            cause: Cause::Lost,
            memory_peak: usage.memory_peak,
            oom_kills: usage.oom_kills,
            io_read: usage.io_read,
            io_written: usage.io_written,
            cpu_us: 0,
            wall_us: 0,
            max_rss: 0,
            log_dropped: 0,
            timing,
        };
        let Some(written) = Written::parse(written) else {
            let cause = match stops {
                // Killed by SIGKILL while the kernel counts kills at the limit: that was it.
                _ if usage.oom_kills > 0 => Cause::Memory,
                Stops { killed: true, .. } => Cause::Killed,
                _ => Cause::Lost,
            };
            return Self { cause, ..base };
        };
        let signal = written.wait_status & 0x7f;
        let status = if signal == 0 { (written.wait_status >> 8) & 0xff } else { 128 + signal };
        Self {
            status,
            signal: (signal != 0).then_some(signal),
            cause: cause(status, written.breach, usage, stops),
            cpu_us: written.cpu_us,
            wall_us: written.wall_us,
            max_rss: written.max_rss,
            log_dropped: written.log_dropped,
            timing: Timing { exec_us: if timing.exec_us == 0 { written.exec_us } else { timing.exec_us }, ..timing },
            ..base
        }
    }
}

/// Why a program ended that the init saw to its end. What the init itself did comes first, then what the kernel did, then what
/// was asked; a limit that was only met counts when the program failed.
fn cause(status: i32, breach: i64, usage: Usage, stops: Stops) -> Cause {
    match breach {
        1 => Cause::Time,
        2 => Cause::CpuTime,
        3 => Cause::Output,
        _ if usage.oom_kills > 0 && status == 137 => Cause::Memory,
        // A kill is not looked at: it came too late, or the init could not have told.
        _ if stops.asked => Cause::Stopped,
        _ if usage.pids_refused > 0 && status != 0 => Cause::Pids,
        _ if usage.disk_full && status != 0 => Cause::Disk,
        _ => Cause::Exited,
    }
}

/// Whatever stands where an init writes its record: a status is a byte or a signal's, and no cause of ours comes of bytes that no init writes.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let exit = ExitRecord::new(bytes, Usage::default(), Stops::default(), Timing::default());
    assert!((0..=255).contains(&exit.status), "{exit:?}");
    assert!(exit.signal.is_none_or(|signal| (1..=127).contains(&signal) && exit.status == 128 + signal), "{exit:?}");
    let whole = bytes.len() == 56 && bytes.starts_with(b"DXIT");
    assert_eq!(exit.cause == Cause::Lost, !whole, "{exit:?}");
    assert!(!matches!(exit.cause, Cause::Stopped | Cause::Killed | Cause::Memory), "{exit:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(status: i32, breach: i64) -> Vec<u8> {
        let mut bytes = b"DXIT".to_vec();
        bytes.extend(status.to_le_bytes());
        for word in [1500i64, 2_000_000, 1024, 17, breach, 250] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    fn record(bytes: &[u8], usage: Usage, stops: Stops) -> ExitRecord {
        ExitRecord::new(bytes, usage, stops, Timing::default())
    }

    #[test]
    fn causes() {
        let none = Usage::default();
        let (alone, asked) = (Stops::default(), Stops { asked: true, killed: false });
        let (killed, both) = (Stops { asked: false, killed: true }, Stops { asked: true, killed: true });
        let oom = Usage { oom_kills: 1, ..none };
        let pids = Usage { pids_refused: 3, ..none };
        let disk = Usage { disk_full: true, ..none };
        let check = |bytes: &[u8], usage, stops, status, cause| {
            let exit = record(bytes, usage, stops);
            assert_eq!((exit.status, exit.cause), (status, cause), "{bytes:?}");
        };
        check(&written(0, 0), none, alone, 0, Cause::Exited);
        check(&written(3 << 8, 0), none, alone, 3, Cause::Exited);
        check(&written(15, 0), none, alone, 143, Cause::Exited);
        check(&written(15, 0), none, asked, 143, Cause::Stopped);
        check(&written(0, 0), none, asked, 0, Cause::Stopped);
        check(&written(9, 0), oom, alone, 137, Cause::Memory);
        check(&written(9, 0), oom, asked, 137, Cause::Memory);
        check(&written(1 << 8, 0), oom, alone, 1, Cause::Exited);
        check(&written(9, 1), none, alone, 137, Cause::Time);
        check(&written(9, 2), oom, asked, 137, Cause::CpuTime);
        check(&written(9, 3), none, alone, 137, Cause::Output);
        check(&written(1 << 8, 0), pids, alone, 1, Cause::Pids);
        check(&written(0, 0), pids, alone, 0, Cause::Exited);
        check(&written(1 << 8, 0), disk, alone, 1, Cause::Disk);
        check(&written(0, 0), disk, alone, 0, Cause::Exited);
        check(&[], none, killed, 137, Cause::Killed);
        check(&[], none, asked, 137, Cause::Lost);
        check(&[], none, alone, 137, Cause::Lost);
        check(&[], none, both, 137, Cause::Killed);
        check(&written(15, 0), none, both, 143, Cause::Stopped);
        check(&written(0, 0), none, killed, 0, Cause::Exited);
        check(&written(0, 0)[..20], oom, alone, 137, Cause::Memory);
    }

    #[test]
    fn numbers_and_signals() {
        let exit = record(&written(0, 0), Usage::default(), Stops::default());
        assert_eq!((exit.cpu_us, exit.wall_us, exit.max_rss, exit.log_dropped, exit.timing.exec_us), (1500, 2_000_000, 1 << 20, 17, 250));
        let beyond = [b"DXIT".as_slice(), &[0; 20], &i64::MAX.to_le_bytes(), &[0; 24]].concat();
        assert_eq!(record(&beyond, Usage::default(), Stops::default()).max_rss, u64::MAX, "found by a fuzzer: KiB that are no bytes");
        let signal = |status| record(&written(status, 0), Usage::default(), Stops::default()).signal;
        assert_eq!([signal(15), signal(143 << 8), signal(0x80 | 11)], [Some(15), None, Some(11)]);
    }
}
