//! Containers made through the command line, and terminals for it.

use std::{
    fs,
    io::{Read, Seek},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::PermissionsExt, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use serde_json::{Value, json};

use crate::support::{PROGRAM, Stage};

/// As long as anything may take that is expected to come.
pub const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// A container, deleted when dropped.
pub struct Container {
    pub id: String,
    /// Name of its control groups.
    pub group: String,
    /// Of all containers of this test.
    root: PathBuf,
    bundle: PathBuf,
    /// Of the first process.
    pub pid: u32,
    /// Whose runtime it is, if not root's.
    user: Option<u32>,
}

pub fn config(stage: &Stage, id: &str, args: &[&str]) -> Value {
    let device = |path: &str, kind: &str, options: &[&str]| json!({ "destination": path, "type": kind, "source": kind, "options": options });
    let args = [&[PROGRAM], args].concat();
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": stage.rootfs() },
        "hostname": "inside",
        "process": {
            "cwd": "/tmp",
            "args": args,
            "env": ["PATH=/bin", "OF=container"],
            "user": { "uid": 1000, "gid": 1001, "additionalGids": [7, 8] },
            "noNewPrivileges": true,
            "capabilities": { "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 256, "hard": 256 }]
        },
        "mounts": [
            device("/proc", "proc", &[]),
            device("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            device("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"])
        ],
        "linux": {
            "cgroupsPath": format!("/{}.{id}", stage.name),
            "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" }, { "type": "cgroup" }],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }]
            }
        }
    })
}

impl Container {
    /// One that is started, of a configuration that `change` has had its way with.
    pub fn start(stage: &Stage, change: impl FnOnce(&mut Value)) -> Result<Self> {
        let this = Self::created(stage, &["forever"], change)?;
        said(this.runtime(&["start", &this.id]))?;
        Ok(this)
    }

    /// One that waits for `start`.
    pub fn created(stage: &Stage, args: &[&str], change: impl FnOnce(&mut Value)) -> Result<Self> {
        let mut this = Self::bundle(stage, args, change)?;
        let (bundle, pid_file) = (this.bundle.display().to_string(), this.bundle.join("pid"));
        said(this.runtime(&["create", "--bundle", &bundle, "--pid-file", &pid_file.display().to_string(), &this.id]))?;
        this.pid = fs::read_to_string(&pid_file)?.parse().context("pid file")?;
        Ok(this)
    }

    /// One of a user without privileges, started.
    pub fn of_user(stage: &Stage, user: u32) -> Result<Self> {
        let rootfs = stage.work().join("of-user");
        crate::support::make_rootfs(&rootfs)?;
        let mut this = Self::bundle(stage, &["forever"], |config| {
            let map = json!([{ "containerID": 0, "hostID": user, "size": 1 }]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
            config["root"]["path"] = json!(rootfs);
            config["process"]["user"] = json!({ "uid": 0, "gid": 0 });
            if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
                all.push(json!({ "type": "user" }));
            }
            if let Some(linux) = config["linux"].as_object_mut() {
                linux.remove("cgroupsPath");
            }
            if let Some(options) = config["mounts"][2]["options"].as_array_mut() {
                options.retain(|option| option != "gid=5");
            }
        })?;
        this.user = Some(user);
        this.root = this.bundle.join("containers");
        fs::copy(env!("CARGO_BIN_EXE_dyno-runtime"), this.bundle.join("dyno-runtime"))?;
        for dir in [stage.work(), &this.bundle] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        }
        own(&rootfs, user)?;
        own(&this.bundle, user)?;
        let (bundle, pid_file) = (this.bundle.display().to_string(), this.bundle.join("pid"));
        said(this.runtime(&["run", "--detach", "--bundle", &bundle, "--pid-file", &pid_file.display().to_string(), &this.id]))?;
        this.pid = fs::read_to_string(&pid_file)?.parse().context("pid file")?;
        Ok(this)
    }

    /// A bundle, and no container yet.
    pub fn bundle(stage: &Stage, args: &[&str], change: impl FnOnce(&mut Value)) -> Result<Self> {
        let id = stage.id();
        let bundle = stage.work().join(&id);
        fs::create_dir(&bundle)?;
        let mut config = config(stage, &id, args);
        change(&mut config);
        fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)?;
        Ok(Self { group: format!("{}.{id}", stage.name), root: stage.work().join("containers"), id, bundle, pid: 0, user: None })
    }

    /// The runtime, with the caller's streams closed to it.
    pub fn runtime(&self, args: &[&str]) -> Command {
        let mut command = match self.user {
            None => Command::new(env!("CARGO_BIN_EXE_dyno-runtime")),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into(), "--inh-caps=-all".into()]);
                // Where this one was built another user may not come to.
                command.arg(self.bundle.join("dyno-runtime"));
                command
            }
        };
        command.arg("--root").arg(&self.root).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// `run` of this bundle in the foreground.
    pub fn run(&self, options: &[&str]) -> Command {
        let bundle = self.bundle.display().to_string();
        self.runtime(&[&["run", "--bundle", &bundle], options, &[&self.id]].concat())
    }

    /// `exec` of the test program.
    pub fn exec(&self, options: &[&str], args: &[&str]) -> Command {
        self.execute(options, &[&[PROGRAM], args].concat())
    }

    /// `exec` of anything.
    pub fn execute(&self, options: &[&str], program: &[&str]) -> Command {
        let mut command = self.runtime(&[&["exec"], options, &[&self.id], program].concat());
        command.stdout(Stdio::piped());
        command
    }

    /// A file beside the configuration.
    pub fn file(&self, name: &str) -> PathBuf {
        self.bundle.join(name)
    }
}

fn own(path: &Path, owner: u32) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(owner), Some(owner))?;
    if path.symlink_metadata()?.is_dir() {
        fs::read_dir(path)?.try_for_each(|entry| own(&entry?.path(), owner))?;
    }
    Ok(())
}

/// Those of any hierarchy.
pub fn groups(stage_and_id: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().filter_map(|e| Some(e.ok()?.path()));
    hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|dir| dir.join(stage_and_id)).filter(|dir| dir.is_dir()).collect()
}

impl Drop for Container {
    fn drop(&mut self) {
        let gone = failed(self.runtime(&["delete", "--force", &self.id]));
        let state = self.root.join(&self.id);
        assert!(matches!(gone, Ok((0, _))) && !state.exists(), "{} is left: {gone:?}", state.display());
        assert!(groups(&self.group).is_empty(), "{:?} are left", groups(&self.group));
    }
}

/// Runs it to its end, with its output in files: what it leaves running may hold them open for longer.
fn finished(command: &mut Command) -> Result<(i32, String, String)> {
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let child = command.stdout(out.try_clone()?).stderr(err.try_clone()?).spawn()?;
    let status = ends(child)?.with_context(|| format!("{command:?} does not end"))?;
    let text = |file: &mut fs::File| {
        let mut text = String::new();
        file.seek(std::io::SeekFrom::Start(0))?;
        file.read_to_string(&mut text)?;
        Ok::<_, anyhow::Error>(text)
    };
    Ok((status, text(&mut out)?, text(&mut err)?))
}

/// What it printed, if it ended well.
pub fn said(mut command: Command) -> Result<String> {
    let (status, out, err) = finished(&mut command)?;
    ensure!(status == 0, "{command:?}: {status} {err}");
    Ok(out)
}

/// Its exit status and what it complained of.
pub fn failed(mut command: Command) -> Result<(i32, String)> {
    finished(&mut command).map(|(status, _, err)| (status, err))
}

/// A terminal to run things on.
pub struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
    pub seen: String,
}

impl Terminal {
    pub fn new(rows: u16, columns: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        let this = Self { master, slave, seen: String::new() };
        this.resize(rows, columns)?;
        Ok(this)
    }

    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        Ok(tcsetwinsize(&self.master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
    }

    /// Starts it with all streams here.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        let stream = || self.slave.try_clone().map(Stdio::from);
        Ok(command.stdin(stream()?).stdout(stream()?).stderr(stream()?).spawn()?)
    }

    pub fn types(&self, text: &str) -> Result<()> {
        ensure!(rustix::io::write(&self.master, text.as_bytes())? == text.len(), "{text:?} does not fit");
        Ok(())
    }

    /// Reads until `text` has come, from where it stopped last.
    pub fn expect(&mut self, text: &str) -> Result<()> {
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return Ok(());
            }
            self.read().with_context(|| format!("{text:?} does not come, but {:?}", self.seen))?;
        }
    }

    fn read(&mut self) -> Result<()> {
        ensure!(poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&PATIENCE))? == 1, "nothing for a long time");
        let mut chunk = [0; 4096];
        let n = rustix::io::read(&self.master, &mut chunk)?;
        self.seen.push_str(&String::from_utf8_lossy(&chunk[..n]));
        Ok(())
    }

    /// Reads until `child` has ended, and the rest; its exit status.
    pub fn wait(&mut self, mut child: Child) -> Result<i32> {
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        loop {
            let mut fds = [PollFd::new(&self.master, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
            if poll(&mut fds, Some(&PATIENCE))? == 0 {
                child.kill()?;
                child.wait()?;
                bail!("it does not end; seen: {:?}", self.seen);
            }
            let (more, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if more {
                self.read()?;
            } else if ended {
                return Ok(status_of(child.wait()?));
            }
        }
    }
}

/// Waits until a descriptor has something to say.
pub fn awaited(fd: impl AsFd) -> Result<bool> {
    match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&PATIENCE)) {
        Ok(n) => Ok(n == 1),
        Err(Errno::INTR) => awaited(fd),
        Err(e) => Err(e.into()),
    }
}

/// Waits for a child; its status, or None after a long time (it is killed then).
pub fn ends(mut child: Child) -> Result<Option<i32>> {
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    if awaited(&pidfd)? {
        return Ok(Some(status_of(child.wait()?)));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn status_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Reads from a pipe until `text` has come.
pub fn until(pipe: &mut (impl Read + AsFd), text: &str) -> Result<()> {
    let mut seen = String::new();
    let mut byte = [0];
    while !seen.ends_with(text) {
        ensure!(awaited(&*pipe)?, "{text:?} does not come, but {seen:?}");
        ensure!(pipe.read(&mut byte)? == 1, "{text:?} does not come, but {seen:?}");
        seen.push(char::from(byte[0]));
    }
    Ok(())
}

/// Looks again and again, because nobody tells of it.
pub fn comes_true(what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while !is()? {
        ensure!(std::time::Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
    Ok(())
}
