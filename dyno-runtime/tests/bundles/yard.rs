//! One bundle and the runtime under test, for tests that take a container through its life by hand.

use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, wait};
use serde_json::{Value, json};

use super::{Answer, Bundle, PATIENCE, Runtime, compile, exit_of, finish, oracle};
use crate::support::Stage;

#[derive(Debug)]
pub struct Yard {
    pub bundle: Bundle,
    pub runtime: Runtime,
    pub work: PathBuf,
    /// Of the container, and in the names of its groups.
    pub id: String,
    pub probe: PathBuf,
}

impl Yard {
    pub fn new(stage: &Stage, runtime: Runtime) -> Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        fs::set_permissions(stage.work(), Permissions::from_mode(0o755))?;
        let (work, probe) = (stage.work().to_owned(), stage.work().join("probe"));
        if !probe.exists() {
            compile(&probe)?;
        }
        let bundle = Bundle::new(&work.join(format!("bundle-{}", runtime.name)), &probe)?;
        Ok(Self { bundle, runtime, work, id: format!("{}-{}", stage.name, stage.id()), probe })
    }

    /// A usual container with these arguments of the probe; `/marks` is the bundle's.
    pub fn config(&self, args: &[&str]) -> Value {
        let args = [&["/bin/probe"], args].concat();
        json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs" },
            "process": { "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": args, "env": ["PATH=/bin"] },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/marks", "type": "bind", "source": self.bundle.dir.join("marks"), "options": ["bind", "rw"] },
            ],
            "linux": {
                "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }],
                "cgroupsPath": format!("/{}", self.id),
            },
        })
    }

    pub fn tell(&self, args: &[&str]) -> Result<Answer> {
        self.bundle.tell(&self.runtime, args)
    }

    /// What must succeed.
    pub fn must(&self, args: &[&str]) -> Result<Answer> {
        let answer = self.tell(args)?;
        ensure!(answer.ok(), "{args:?}: {answer:?}");
        Ok(answer)
    }

    /// The bundle as new and a container of it.
    pub fn create(&self, config: &Value) -> Result<Answer> {
        self.bundle.reset(config, 0)?;
        self.bundle.create(&self.runtime, &self.id)
    }

    /// A container that runs, and the lines that it writes.
    pub fn start(&self, config: &Value) -> Result<(Pid, BufReader<File>)> {
        self.bundle.reset(config, 0)?;
        let (reader, writer) = std::io::pipe()?;
        let pid = self.bundle.dir.join("pid").display().to_string();
        let mut command =
            self.runtime.command(&self.bundle.root, &["create", "--bundle", &self.bundle.dir.display().to_string(), "--pid-file", &pid, &self.id]);
        let status = command.stdout(writer).status().context("create")?;
        ensure!(status.success(), "create: {status}");
        drop(command); // with its copy of the pipe
        self.must(&["start", &self.id])?;
        Ok((self.bundle.pid()?, BufReader::new(File::from(std::os::fd::OwnedFd::from(reader)))))
    }

    /// `run` with the container's own output.
    pub fn run(&self, config: &Value) -> Result<Answer> {
        self.bundle.reset(config, 0)?;
        finish(
            self.runtime.command(&self.bundle.root, &["run", "--bundle", &self.bundle.dir.display().to_string(), &self.id]),
            &self.bundle.dir.join("out"),
        )
    }

    /// Deletes the container, waits for its first process, and looks for what is left.
    pub fn clear(&self, pid: Option<Pid>) -> Result<()> {
        self.tell(&["delete", "--force", &self.id])?;
        if let Some(pid) = pid {
            exit_of(pid).map_or_else(|e| if e.to_string().contains("No such process") { Ok(()) } else { Err(e) }, |_| Ok(()))?;
        }
        // Those whose runtime was killed.
        while wait(WaitOptions::NOHANG).ok().flatten().is_some() {}
        oracle::nothing_left(&self.work, &self.id)
    }
}

/// What a probe that looks has said.
pub fn facts(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('\t')).collect()
}

/// Lines until one begins so.
pub fn until(lines: &mut BufReader<File>, beginning: &str) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    loop {
        let ready = !lines.buffer().is_empty() || poll(&mut [PollFd::new(lines.get_ref(), PollFlags::IN)], Some(&PATIENCE.try_into()?))? == 1;
        ensure!(ready, "it does not say {beginning:?}: {seen:?}");
        let mut line = String::new();
        ensure!(lines.read_line(&mut line)? > 0, "it ended before it said {beginning:?}: {seen:?}");
        seen.push(line.trim_end().to_owned());
        if line.starts_with(beginning) {
            return Ok(seen);
        }
    }
}
