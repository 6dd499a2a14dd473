//! Bundles, and the runtime's answers.

use std::{
    fs,
    io::{self, Seek},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::{Value, json};

use crate::support::{PROGRAM, Stage};

/// As long as anything may take that is expected to come.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// A bundle and a directory for containers of it; both are gone, and all containers, when it is dropped.
pub struct World {
    /// `--root`.
    pub root: PathBuf,
    pub bundle: PathBuf,
    /// Of control groups.
    name: String,
}

/// What the runtime answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    /// A configuration whose program is the test program with `args`, after `change`.
    pub fn new(stage: &Stage, args: &[&str], change: impl FnOnce(&mut Value)) -> Result<Self> {
        let dir = stage.work().join(stage.id());
        let this = Self { root: dir.join("root"), bundle: dir.join("bundle"), name: format!("{}-oci", stage.name) };
        fs::create_dir_all(&this.bundle)?;
        let argv = [&[PROGRAM], args].concat();
        let mut config = json!({
            "ociVersion": "1.2.0",
            "root": {"path": stage.rootfs()},
            "process": {"cwd": "/", "args": argv, "user": {"uid": 0, "gid": 0}},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "annotations": {"org.example.test": "yes"},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"}]}
        });
        change(&mut config);
        fs::write(this.bundle.join("config.json"), config.to_string())?;
        Ok(this)
    }

    /// The configuration of another id: its control groups are below those of the test.
    pub fn place(&self, id: &str) -> Result<PathBuf> {
        let mut config: Value = serde_json::from_slice(&fs::read(self.bundle.join("config.json"))?)?;
        config["linux"]["cgroupsPath"] = json!(format!("/{}/{id}", self.name));
        let file = self.bundle.join(format!("{id}.json"));
        fs::write(&file, config.to_string())?;
        Ok(file)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dyno-runtime"));
        command.arg("--root").arg(&self.root).args(args).current_dir(&self.bundle);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn ask(&self, args: &[&str]) -> Result<Answer> {
        answer(self.command(args).output()?)
    }

    /// [`World::ask`] for what must succeed and say nothing on stderr.
    pub fn must(&self, args: &[&str]) -> Result<String> {
        let answer = self.ask(args)?;
        ensure!(answer.status == 0 && answer.stderr.is_empty(), "{args:?}: {answer:?}");
        Ok(answer.stdout)
    }

    /// What must fail with status 1, and one line that begins like this.
    pub fn fails(&self, args: &[&str], words: &str) -> Result<()> {
        let answer = self.ask(args)?;
        let line = answer.stderr.strip_prefix("dyno-runtime: ").with_context(|| format!("{args:?}: {answer:?}"))?;
        ensure!(
            answer.status == 1 && answer.stdout.is_empty() && line.matches('\n').count() == 1 && line.starts_with(words),
            "{args:?}: {answer:?}, should be {words:?}"
        );
        Ok(())
    }

    /// `create`.
    pub fn created(&self, id: &str) -> Command {
        let config = self.place(id).unwrap_or_default();
        self.command(&["create", "--config", &config.to_string_lossy(), id])
    }

    pub fn create(&self, id: &str) -> Result<()> {
        let answer = answer_of(self.created(id))?;
        ensure!(answer == Answer { status: 0, stdout: String::new(), stderr: String::new() }, "create {id}: {answer:?}");
        Ok(())
    }

    /// A running one.
    pub fn start(&self, id: &str) -> Result<()> {
        self.create(id)?;
        self.must(&["start", id]).map(drop)
    }

    pub fn state(&self, id: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.must(&["state", id])?)?)
    }

    pub fn status(&self, id: &str) -> Result<String> {
        Ok(self.state(id)?["status"].as_str().context("status")?.to_owned())
    }

    /// Of the first process.
    pub fn pid(&self, id: &str) -> Result<u32> {
        Ok(self.state(id)?["pid"].as_u64().context("pid")?.try_into()?)
    }

    /// Waits until the first process has ended.
    pub fn ended(&self, id: &str) -> Result<()> {
        let pid = self.pid(id)?;
        if pid != 0 {
            awaits(pid)?;
        }
        ensure!(self.status(id)? == "stopped", "{id}: {}", self.status(id)?);
        Ok(())
    }

    /// Nothing of any container is left: directories, groups, processes.
    pub fn is_empty(&self) -> Result<()> {
        let left: Vec<_> = fs::read_dir(&self.root)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
        ensure!(left.is_empty(), "left: {left:?}");
        let groups = self.groups();
        ensure!(groups.is_empty(), "left: {groups:?}");
        Ok(())
    }

    fn groups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        below(Path::new("/sys/fs/cgroup"), &self.name, 4, &mut found);
        found
            .iter()
            .flat_map(|group| fs::read_dir(group).into_iter().flatten().filter_map(Result::ok))
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for id in fs::read_dir(&self.root).into_iter().flatten().filter_map(Result::ok) {
            let id = id.file_name().to_string_lossy().into_owned();
            if !id.starts_with('@') {
                let gone = self.ask(&["delete", "--force", &id]);
                assert!(matches!(&gone, Ok(answer) if answer.status == 0) || std::thread::panicking(), "{id}: {gone:?}");
            }
        }
        let mut groups = Vec::new();
        below(Path::new("/sys/fs/cgroup"), &self.name, 4, &mut groups);
        for group in groups {
            assert!(fs::remove_dir(&group).is_ok() || std::thread::panicking(), "{} is left", group.display());
        }
        fs::remove_dir_all(self.bundle.with_file_name("")).unwrap_or_default();
    }
}

fn below(dir: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name() == name {
            found.push(path);
        } else if depth > 0 {
            below(&path, name, depth - 1, found);
        }
    }
}

pub fn answer(output: Output) -> Result<Answer> {
    Ok(Answer {
        status: output.status.code().context("killed by a signal")?,
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// Waits for the end of a process that need not be our child.
pub fn awaits(pid: u32) -> Result<()> {
    let number = Pid::from_raw(pid.cast_signed()).context("pid")?;
    let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty()) else { return Ok(()) };
    if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&PATIENCE))? == 0 {
        bail!("process {pid} does not end");
    }
    Ok(())
}

/// All of them, started before any is waited for.
pub fn at_once(commands: Vec<Command>) -> Result<Vec<Answer>> {
    let running = commands.into_iter().map(Asked::start).collect::<Result<Vec<_>>>()?;
    running.into_iter().map(Asked::answer).collect()
}

/// A command whose streams are files: what it leaves running has them as well, and a pipe would not end.
struct Asked {
    child: Child,
    streams: [fs::File; 2],
}

impl Asked {
    fn start(mut command: Command) -> Result<Self> {
        let streams = [tempfile::tempfile()?, tempfile::tempfile()?];
        let child = command.stdout(streams[0].try_clone()?).stderr(streams[1].try_clone()?).spawn()?;
        Ok(Self { child, streams })
    }

    fn answer(mut self) -> Result<Answer> {
        let status = self.child.wait()?.code().context("killed by a signal")?;
        let [stdout, stderr] = self.streams.map(|mut file| -> Result<String> {
            file.rewind()?;
            Ok(io::read_to_string(file)?)
        });
        Ok(Answer { status, stdout: stdout?, stderr: stderr? })
    }
}

/// The answer of a command that leaves a process running.
pub fn answer_of(command: Command) -> Result<Answer> {
    Asked::start(command)?.answer()
}

/// Looks until it is so; for what nobody tells of.
pub fn comes_true(what: &str, is: impl Fn() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while !is()? {
        ensure!(Instant::now() < end, "it does not come true: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
