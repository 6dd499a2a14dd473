//! OCI runtimes and bundles for the tests that run `create`, `start` and the rest as clients do.
//!
//! Three runtimes are known: ours, and Debian's crun and runc as oracles. Debian's crun refuses a host whose cgroup controllers are on v1 while one is
//! left on v2, so it runs in a mount namespace of the tests' own, where the v2 tree is not mounted.

#![allow(dead_code, reason = "every test program uses another part")]

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid},
};
use serde_json::Value;

pub mod oracle;
pub mod yard;

/// As long as anything may take that is expected to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime by its command line.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub name: &'static str,
    command: Vec<OsString>,
}

/// What a command answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 128 + n for a signal.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    pub fn ok(&self) -> bool {
        self.status == 0
    }
}

impl Runtime {
    /// The one under test, beside the directory of the test, so that both may be taken to another machine.
    pub fn ours() -> Self {
        let tests = std::env::current_exe().unwrap_or_default();
        let beside = tests.parent().unwrap_or(&tests).with_file_name("dyno-runtime");
        Self { name: "ours", command: vec![std::env::var_os("DYNO_TEST_OCI_OURS").unwrap_or(beside.into())] }
    }

    /// Debian's runc, if it is there.
    pub fn runc() -> Result<Self, String> {
        Self::installed("runc", "DYNO_TEST_OCI_RUNC", Vec::new())
    }

    /// Debian's crun, if it is there; `place` is the mount namespace that it can run in.
    pub fn crun(place: Option<&Place>) -> Result<Self, String> {
        let enter =
            place.map_or(Vec::new(), |place| vec!["nsenter".into(), format!("--mount=/proc/{}/ns/mnt", place.holder.id()).into(), "--".into()]);
        Self::installed("crun", "DYNO_TEST_OCI_CRUN", enter)
    }

    fn installed(name: &'static str, variable: &str, mut command: Vec<OsString>) -> Result<Self, String> {
        let program = std::env::var_os(variable).unwrap_or_else(|| name.into());
        Command::new(&program).arg("--version").output().map_err(|e| format!("needs {name}: {e}"))?;
        command.push(program);
        Ok(Self { name, command })
    }

    /// Its command line with the state directory `root`. Its input is empty and a pipe's: runc 1.1.5 and crun 1.8.1 give a container's streams to
    /// its user, the host's `/dev/null` too.
    pub fn command(&self, root: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).arg("--root").arg(root).args(args).stdin(Stdio::piped());
        command
    }
}

/// A mount namespace like the host's without its v2 tree.
#[derive(Debug)]
pub struct Place {
    holder: Child,
}

impl Place {
    /// None where the host needs none: a v2 tree alone, or none.
    pub fn new() -> Result<Option<Self>> {
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        let points: Vec<&str> = table.lines().filter(|l| l.contains(" - cgroup2 ")).filter_map(|l| l.split(' ').nth(4)).collect();
        if !table.contains(" - cgroup ") || points.is_empty() {
            return Ok(None);
        }
        let script = format!("umount {} && echo here && exec cat", points.join(" "));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().context("run unshare")?;
        let mut said = [0; 5];
        std::io::Read::read_exact(holder.stdout.as_mut().context("stdout")?, &mut said)?;
        Ok(Some(Self { holder }))
    }
}

impl Place {
    /// What `/proc/PID/ns/mnt` of a runtime in it says.
    pub fn link(&self) -> Result<String> {
        Ok(fs::read_link(format!("/proc/{}/ns/mnt", self.holder.id()))?.display().to_string())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let ended = self.holder.kill().and_then(|()| self.holder.wait());
        assert!(ended.is_ok(), "the mount namespace is still held: {ended:?}");
    }
}

/// The probe, compiled.
pub fn compile(to: &Path) -> Result<()> {
    if let Some(compiled) = std::env::var_os("DYNO_TEST_PROBE") {
        fs::copy(&compiled, to).with_context(|| format!("copy DYNO_TEST_PROBE={}", compiled.display()))?;
        return Ok(());
    }
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "opt-level=1", "-C", "strip=symbols", "-o"]);
    let output = command.arg(to).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bundles/probe.rs")).output().context("run rustc")?;
    ensure!(output.status.success(), "the probe did not compile: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A bundle and the containers made of it.
#[derive(Debug)]
pub struct Bundle {
    pub dir: PathBuf,
    /// The state directory of the runtimes.
    pub root: PathBuf,
    probe: PathBuf,
}

impl Bundle {
    /// Below `dir`, which is to be `0755` up to the root, because a container's own root may be nobody outside.
    pub fn new(dir: &Path, probe: &Path) -> Result<Self> {
        let bundle = Self { dir: dir.to_owned(), root: dir.with_extension("state"), probe: probe.to_owned() };
        fs::create_dir_all(dir)?;
        Ok(bundle)
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Everything as new, owned by `owner`.
    pub fn reset(&self, config: &Value, owner: u32) -> Result<()> {
        for old in ["rootfs", "src", "marks"] {
            match fs::remove_dir_all(self.dir.join(old)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).context(format!("remove {old}")),
                _ => {}
            }
        }
        for sub in [
            "rootfs",
            "rootfs/bin",
            "rootfs/dev",
            "rootfs/proc",
            "rootfs/sys",
            "rootfs/tmp",
            "rootfs/data",
            "rootfs/data/sub",
            "rootfs/etc",
            "src",
            "src/dir",
            "src/dir/below",
            "marks",
        ] {
            fs::create_dir(self.dir.join(sub))?;
        }
        for (file, text) in [
            ("rootfs/etc/file", "of the image\n"),
            ("rootfs/data/one", "1\n"),
            ("rootfs/data/sub/two", "2\n"),
            ("src/file", "of the host\n"),
            ("src/dir/three", "3\n"),
        ] {
            fs::write(self.dir.join(file), text)?;
        }
        std::os::unix::fs::symlink("/data", self.dir.join("rootfs/link"))?;
        std::os::unix::fs::symlink("../../../../data", self.dir.join("rootfs/etc/up"))?;
        fs::set_permissions(self.dir.join("rootfs/tmp"), Permissions::from_mode(0o1777))?;
        fs::set_permissions(self.dir.join("marks"), Permissions::from_mode(0o1777))?;
        if owner != 0 {
            own(&self.dir.join("rootfs"), owner)?;
            own(&self.dir.join("src"), owner)?;
        }
        // By root and not by `owner`: many links to one file.
        fs::hard_link(&self.probe, self.dir.join("rootfs/bin/probe"))?;
        self.configure(config)
    }

    pub fn configure(&self, config: &Value) -> Result<()> {
        Ok(fs::write(self.dir.join("config.json"), serde_json::to_vec_pretty(config)?)?)
    }

    /// Runs one of the runtime's verbs to its end.
    pub fn tell(&self, runtime: &Runtime, args: &[&str]) -> Result<Answer> {
        finish(runtime.command(&self.root, args), &self.dir.join("verb"))
    }

    /// `create`; the container's own output goes to the files `out` and `err`.
    pub fn create(&self, runtime: &Runtime, id: &str) -> Result<Answer> {
        let (dir, pid) = (self.dir.display().to_string(), self.dir.join("pid").display().to_string());
        finish(runtime.command(&self.root, &["create", "--bundle", &dir, "--pid-file", &pid, id]), &self.dir.join("out"))
    }

    /// Of the last `create`.
    pub fn pid(&self) -> Result<Pid> {
        let text = fs::read_to_string(self.dir.join("pid")).context("pid file")?;
        Pid::from_raw(text.trim().parse()?).context("pid 0")
    }

    /// What the container has said since its `create`.
    pub fn said(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.dir.join("out"))?).into_owned())
    }
}

fn own(path: &Path, owner: u32) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(owner), Some(owner))?;
    if path.symlink_metadata()?.is_dir() {
        fs::read_dir(path)?.try_for_each(|entry| own(&entry?.path(), owner))?;
    }
    Ok(())
}

/// Runs a command to its end with its output in the files OUT and OUT.err: what it leaves behind may hold both open for longer.
pub fn finish(mut command: Command, out: &Path) -> Result<Answer> {
    let err = out.with_extension("err");
    let mut child = command.stdout(File::create(out)?).stderr(File::create(&err)?).spawn().with_context(|| format!("{command:?}"))?;
    drop(child.stdin.take());
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    if !ended(&pidfd)? {
        child.kill()?;
        child.wait()?;
        bail!("{command:?} does not end: {}", fs::read_to_string(&err)?);
    }
    let status = child.wait()?;
    let status = status.code().unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0));
    let text = |path| Ok::<_, anyhow::Error>(String::from_utf8_lossy(&fs::read(path)?).into_owned());
    Ok(Answer { status, stdout: text(out)?, stderr: text(&err)? })
}

fn ended(pidfd: &OwnedFd) -> Result<bool> {
    Ok(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&PATIENCE.try_into()?))? == 1)
}

/// Waits for a container's first process, which became this process's child when its runtime ended; 128 + n for a signal.
pub fn exit_of(pid: Pid) -> Result<i32> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    if !ended(&pidfd)? {
        kill_process(pid, Signal::KILL)?;
        waitpid(Some(pid), WaitOptions::empty())?;
        bail!("the container does not end");
    }
    let (_, status) = waitpid(Some(pid), WaitOptions::empty())?.context("nothing to wait for")?;
    Ok(status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0)))
}
