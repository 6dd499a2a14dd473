//! What the kernel says of a platform's processes, and ways to end them that no platform expects.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::Platform;

/// One process, told apart from a later one with the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Host pid.
    pub pid: u32,
    /// Clock ticks since boot (proc_pid_stat(5), field 22).
    pub start: u64,
}

/// A dyno as the API and the kernel see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Id of the launch.
    pub id: String,
    /// Its pid 1.
    pub init: Process,
}

/// Asks until there is an answer. For what has no event: the process table, a control group's directory.
///
/// # Errors
/// After `seconds`, naming `what`.
pub fn until<T>(seconds: u64, what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(Instant::now() < end, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Process {
    /// The process with this number now.
    pub fn find(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, after) = stat.rsplit_once(')')?;
        let state = after.split_whitespace().next()?;
        let start = after.split_whitespace().nth(19)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, start })
    }

    /// True while it runs.
    pub fn runs(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    fn pidfd(self) -> Result<OwnedFd> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("pid")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("pidfd_open({pid:?})"))?;
        ensure!(self.runs(), "process {} is gone", self.pid);
        Ok(pidfd)
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When it is gone already, or does not go.
    pub fn kill(self) -> Result<()> {
        let pidfd = self.pidfd()?;
        pidfd_send_signal(&pidfd, Signal::KILL)?;
        gone(&pidfd, 10)
    }

    /// Does `act`, which ends the process, and waits until it is gone.
    ///
    /// # Errors
    /// Of `act`, or after `seconds`.
    pub fn ends(self, seconds: i64, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let pidfd = self.pidfd()?;
        act()?;
        gone(&pidfd, seconds)
    }

    /// One request to a port inside the network of the process, past router and platform; the answer's body.
    ///
    /// # Errors
    /// When nobody answers there.
    pub fn ask(self, port: u16, path: &str) -> Result<String> {
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3");
        let pid = self.pid.to_string();
        let output = Command::new("nsenter").args(["-t", &pid, "-n", "bash", "-c", &script]).output().context("nsenter")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "port {port} of {pid}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }
}

fn gone(pidfd: &OwnedFd, seconds: i64) -> Result<()> {
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout))?;
    ensure!(ended == 1, "a process that should end is still there after {seconds} s");
    Ok(())
}

impl Platform {
    /// The directory of a dyno's control group that holds `file` (v1 hierarchy of its own, or v2).
    ///
    /// # Errors
    /// When there is none.
    pub fn group_file(&self, id: &str, file: &str) -> Result<PathBuf> {
        let roots = ["pids", "memory", "cpu", "unified", ""].map(|h| PathBuf::from("/sys/fs/cgroup").join(h));
        let mut files = roots.iter().map(|root| root.join(self.cgroup()).join(id).join(file));
        files.find(|f| f.exists()).with_context(|| format!("no {file} of dyno {id}"))
    }

    /// The launches that have a control group, builds among them.
    ///
    /// # Errors
    /// Of reading the hierarchy.
    pub fn groups(&self) -> Result<Vec<String>> {
        let roots = ["pids", ""].map(|h| PathBuf::from("/sys/fs/cgroup").join(h).join(self.cgroup()));
        let Some(root) = roots.iter().find(|r| r.is_dir()) else { return Ok(Vec::new()) };
        let dirs = fs::read_dir(root)?.filter_map(Result::ok).filter(|e| e.path().is_dir());
        // What is kept ready for later has a name that begins with a point.
        let of_a_dyno = |name: &String| name.contains('-') && !name.starts_with('.');
        Ok(dirs.filter_map(|e| e.file_name().into_string().ok()).filter(of_a_dyno).collect())
    }

    /// Host pids of a dyno's processes.
    ///
    /// # Errors
    /// When it has no control group.
    pub fn pids(&self, id: &str) -> Result<Vec<u32>> {
        let text = fs::read_to_string(self.group_file(id, "cgroup.procs")?)?;
        Ok(text.lines().filter_map(|l| l.parse().ok()).collect())
    }

    /// The pid 1 of a dyno.
    ///
    /// # Errors
    /// When it has none.
    pub fn init(&self, id: &str) -> Result<Process> {
        let is_init = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap_or_default();
            // One number per pid namespace that it is in, the innermost last.
            numbers.split_whitespace().skip(1).last() == Some("1")
        };
        let pid = self.pids(id)?.into_iter().find(is_init).with_context(|| format!("dyno {id} has no init"))?;
        Process::find(pid).context("it has just ended")
    }

    /// The app's dynos that are up, by name.
    ///
    /// # Errors
    /// When one of them has no process.
    pub fn seen(&self, app: &str) -> Result<BTreeMap<String, Seen>> {
        let mut seen = BTreeMap::new();
        for dyno in self.json(&["ps", "-a", app])?.as_array().context("list")? {
            let text = |key: &str| dyno[key].as_str().unwrap_or_default().to_owned();
            if text("state") == "up" {
                let (id, name) = (text("id"), text("name"));
                let init = self.init(&id)?;
                ensure!(seen.insert(name.clone(), Seen { id, init }).is_none(), "{name} is listed twice");
            }
        }
        Ok(seen)
    }

    /// The warden of this platform: a dynod whose command line names our run directory.
    ///
    /// # Errors
    /// When none runs.
    pub fn warden(&self) -> Result<Process> {
        for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let arguments: Vec<&[u8]> = line.split(|b| *b == 0).collect();
            let run = self.run_dir();
            let ours = arguments.contains(&run.to_string_lossy().as_bytes());
            if ours
                && arguments.get(1) == Some(&b"warden".as_slice())
                && let Some(process) = Process::find(pid)
            {
                return Ok(process);
            }
        }
        bail!("no warden runs on {}", self.run_dir().display())
    }
}
