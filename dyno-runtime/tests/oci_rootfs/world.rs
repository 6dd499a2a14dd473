//! Bundles, the runtime's command line, and what a container looks like from outside.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::support::Stage;

/// A bundle with a root file system of its own.
pub struct Bundle<'a> {
    stage: &'a Stage,
    /// Its directory.
    pub dir: PathBuf,
    /// Its configuration, written by [`Bundle::create`] and [`Bundle::run`].
    pub config: Value,
    /// Global options and those of `create` and `run`.
    pub options: Vec<&'static str>,
    next: Cell<u32>,
}

/// A container that waits for `start`; deleted when it is dropped.
pub struct Created {
    /// Whose mount namespace it was made in.
    within: Option<u32>,
    state: PathBuf,
    id: String,
    deleted: bool,
    /// Of its first process.
    pub pid: u32,
}

/// One line of a mount table (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Of the file system.
    pub root: String,
    /// Where.
    pub at: String,
    /// Of the mount, with its propagation.
    pub options: Vec<String>,
    /// Of the file system.
    pub kind: String,
    /// As given.
    pub source: String,
    /// Of the file system.
    pub data: Vec<String>,
}

impl Mounted {
    /// Whether the mount has this option.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
}

/// A mount table.
pub fn table(text: &str) -> Vec<Mounted> {
    let one = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let (before, after): (Vec<&str>, Vec<&str>) = (before.split(' ').collect(), after.split(' ').collect());
        let options = before.get(5)?.split(',').chain(before.iter().skip(6).copied()).map(str::to_owned).collect();
        let data = after.get(2)?.split(',').map(str::to_owned).collect();
        Some(Mounted {
            root: before.get(3)?.to_string(),
            at: before.get(4)?.to_string(),
            options,
            kind: after.first()?.to_string(),
            source: after.get(1)?.to_string(),
            data,
        })
    };
    text.lines().filter_map(one).collect()
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// As `spec` makes it.
fn config() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/program", "forever"], "cwd": "/", "env": ["PATH=/bin"]},
        "root": {"path": "rootfs"},
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}]},
    })
}

impl<'a> Bundle<'a> {
    /// A fresh one.
    pub fn new(stage: &'a Stage) -> Result<Self> {
        let dir = stage.work().join(stage.id());
        let rootfs = dir.join("rootfs");
        for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir_all(rootfs.join(name))?;
        }
        // One file for all of them.
        fs::hard_link(stage.rootfs().join("bin/program"), rootfs.join("bin/program")).context("link the test program")?;
        Ok(Self { stage, dir, config: config(), options: Vec::new(), next: Cell::new(0) })
    }

    /// A path of its root file system.
    pub fn root(&self, below: &str) -> PathBuf {
        self.dir.join("rootfs").join(below.trim_start_matches('/'))
    }

    /// Adds a mount.
    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> &mut Self {
        if let Some(mounts) = self.config.pointer_mut("/mounts").and_then(Value::as_array_mut) {
            mounts.push(mount(destination, kind, source, options));
        }
        self
    }

    /// Adds a bind mount of a directory or file of the bundle.
    pub fn bind(&mut self, destination: &str, source: &str, options: &[&str]) -> &mut Self {
        let source = self.dir.join(source);
        self.mount(destination, "bind", &source.display().to_string(), options)
    }

    /// Keeps the mounts that `keep` likes, by destination.
    pub fn only(&mut self, keep: impl Fn(&str) -> bool) -> &mut Self {
        if let Some(mounts) = self.config.pointer_mut("/mounts").and_then(Value::as_array_mut) {
            mounts.retain(|m| m.get("destination").and_then(Value::as_str).is_some_and(&keep));
        }
        self
    }

    /// Sets a member, such as `/linux/maskedPaths`.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let (parent, name) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        if let Some(parent) = self.config.pointer_mut(parent) {
            parent[name] = value;
        }
        self
    }

    /// Leaves a kind of namespace out.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Self {
        if let Some(namespaces) = self.config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
            namespaces.retain(|n| n["type"] != kind);
        }
        self
    }

    /// A user namespace whose ids begin at `first`; the root file system is given to it.
    pub fn with_user_namespace(&mut self, first: u32) -> Result<&mut Self> {
        let map = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
        self.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        if let Some(namespaces) = self.config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
            namespaces.push(json!({"type": "user"}));
        }
        for name in ["", "bin", "proc", "sys", "dev", "etc", "tmp"] {
            std::os::unix::fs::chown(self.root(name), Some(first), Some(first))?;
        }
        Ok(self)
    }

    fn write(&self) -> Result<String> {
        fs::write(self.dir.join("config.json"), serde_json::to_vec_pretty(&self.config)?)?;
        let number = self.next.replace(self.next.get() + 1);
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(format!("{}-{name}-{number}", self.stage.name))
    }

    fn state(&self) -> PathBuf {
        self.stage.work().join("state")
    }

    /// `create`, in the mount namespace of `within` if there is one.
    pub fn create_in(&self, within: Option<u32>) -> Result<Created> {
        let id = self.write()?;
        let pid_file = self.dir.join("pid");
        let mut command = runtime(within);
        command
            .arg("--root")
            .arg(self.state())
            .arg("create")
            .args(&self.options)
            .arg("--bundle")
            .arg(&self.dir)
            .arg("--pid-file")
            .arg(&pid_file)
            .arg(&id);
        // Its streams are the container's, whose end nobody here waits for.
        let errors = self.dir.join("stderr");
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&errors)?).status()?;
        if !status.success() {
            bail!("create: {}", fs::read_to_string(&errors)?.trim());
        }
        let pid = fs::read_to_string(&pid_file)?.trim().parse()?;
        Ok(Created { within, state: self.state(), id, deleted: false, pid })
    }

    /// `create`.
    pub fn create(&self) -> Result<Created> {
        self.create_in(None)
    }

    /// What `create` says when it fails, as it must.
    pub fn refused(&self) -> Result<String> {
        match self.create() {
            Ok(_) => bail!("it was created"),
            Err(e) => Ok(format!("{e:#}")),
        }
    }

    /// `run` of the test program with `args`: its output, whatever its status.
    pub fn run(&mut self, args: &[&str]) -> Result<Output> {
        self.run_any(&[&["/bin/program"], args].concat())
    }

    /// `run` of any program.
    pub fn run_any(&mut self, args: &[&str]) -> Result<Output> {
        self.set("/process/args", json!(args));
        let id = self.write()?;
        let mut command = Command::new(program());
        command.arg("--root").arg(self.state()).arg("run").args(&self.options).arg("--bundle").arg(&self.dir).arg(&id);
        Ok(command.stdin(Stdio::null()).output()?)
    }

    /// [`Bundle::run`] that must succeed: what was written to stdout.
    pub fn ask(&mut self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{args:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
        Ok(text)
    }
}

/// The runtime's command line, in the mount namespace of `within` if there is one.
fn runtime(within: Option<u32>) -> Command {
    let Some(pid) = within else { return Command::new(program()) };
    let mut command = Command::new("nsenter");
    command.args([format!("--mount=/proc/{pid}/ns/mnt"), "--".into()]).arg(program());
    command
}

/// The runtime under test.
pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_dyno-runtime").into()
}

impl Created {
    /// Its mounts.
    pub fn mounts(&self) -> Result<Vec<Mounted>> {
        Ok(table(&fs::read_to_string(format!("/proc/{}/mountinfo", self.pid))?))
    }

    /// The topmost mount at `path`.
    pub fn at(&self, path: &str) -> Result<Mounted> {
        let mounts = self.mounts()?;
        mounts.iter().rfind(|m| m.at == path).cloned().ok_or_else(|| anyhow!("nothing is mounted at {path}: {mounts:#?}"))
    }

    /// A path inside, as it is reached from outside. No part of it may be an absolute symlink.
    pub fn inside(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(path.trim_start_matches('/'))
    }

    /// `delete --force`.
    pub fn delete(mut self) -> Result<()> {
        self.deleted = true;
        self.end()
    }

    fn end(&self) -> Result<()> {
        let output = runtime(self.within).arg("--root").arg(&self.state).args(["delete", "--force", &self.id]).output()?;
        ensure!(output.status.success(), "delete: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if !self.deleted
            && let Err(e) = self.end()
        {
            eprintln!("{e:#}");
        }
    }
}
