//! What the attacks aim at, all of it the test's own: files, a process, listeners, a segment, a key; and the ways to run the probe
//! against them, bare and in a sandbox.

use std::{
    fs::{self, File, Permissions},
    io::{BufRead, BufReader},
    net::TcpListener,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode};

use super::{
    row::{Answer, Control},
    segment::Segment,
};
use crate::support::{self, Stage};

/// An ordinary user of the host; the same number as the app's inside, so that nothing but the mapping tells them apart.
const USER: u32 = 1000;

/// The targets of the attacks.
#[derive(Debug)]
pub struct Scene {
    pub stage: Stage,
    work: PathBuf,
    probe: PathBuf,
    victim: Child,
    listener: TcpListener,
    abstract_name: String,
    segment: Segment,
    _held: (UnixListener, OwnedFd, OwnedFd),
}

impl Scene {
    pub fn new() -> Result<Self> {
        // Before there is a thread that prepares sandboxes: it is to have the key too.
        super::segment::own_session_with_key()?;
        let stage = Stage::new("battery")?;
        let work = stage.work().join("scene");
        let probe = furnish(&stage, &work)?;
        let mut victim = Command::new(&probe).arg("wait").uid(USER).gid(USER).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = String::new();
        BufReader::new(victim.stdout.as_mut().context("stdout")?).read_line(&mut said)?;
        ensure!(said == "waits\n", "the victim said {said:?}");
        let abstract_name = format!("{}-canary", stage.name);
        let local = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name)?)?;
        // Inheritable, as a careless program's are.
        let (read, write) = rustix::pipe::pipe()?;
        Ok(Self {
            listener: TcpListener::bind("127.0.0.1:0")?,
            segment: Segment::new(0x6479_6e00 | (std::process::id() & 0xff))?,
            stage,
            work,
            probe,
            victim,
            abstract_name,
            _held: (local, read, write),
        })
    }

    /// The words of an attack, with what this scene knows.
    pub fn words(&self, attack: &str, inside: bool) -> Result<Vec<String>> {
        let (tmp, shm) = if inside { ("/tmp".into(), "/dev/shm".into()) } else { (self.work.display().to_string(), self.work.display().to_string()) };
        let mut text = attack.to_owned();
        for (name, value) in [
            ("{tmp}", tmp),
            ("{shm}", shm),
            ("{work}", self.work.display().to_string()),
            ("{probe}", self.probe.display().to_string()),
            ("{pid}", self.victim.id().to_string()),
            ("{port}", self.listener.local_addr()?.port().to_string()),
            ("{abstract}", self.abstract_name.clone()),
            ("{segment}", self.segment.key.to_string()),
        ] {
            text = text.replace(name, &value);
        }
        for kind in ["pid", "ipc", "cgroup", "user", "net", "mnt", "uts"] {
            text = text.replace(&format!("{{ns:{kind}}}"), &fs::read_link(format!("/proc/self/ns/{kind}"))?.to_string_lossy());
        }
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// Runs the attack without a sandbox.
    pub fn bare(&self, attack: &str, control: Control) -> Result<Answer> {
        let words = self.words(attack, false)?;
        let mut command = match control {
            Control::Apart => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--net", "--uts", "--ipc", "--"]).arg(&self.probe).args(&words);
                command
            }
            Control::Terminal => {
                let line = format!("{} {}", self.probe.display(), words.join(" "));
                let mut command = Command::new("script");
                command.args(["-q", "-e", "-c", &line, "/dev/null"]);
                command
            }
            _ => {
                let mut command = Command::new(&self.probe);
                command.args(&words);
                command
            }
        };
        if matches!(control, Control::Nobody | Control::Terminal) {
            command.uid(USER).gid(USER);
        }
        command.env("DYNO_BATTERY_SECRET", "canary").stdin(Stdio::null()).current_dir(&self.work);
        let output = command.output().with_context(|| format!("run {command:?}"))?;
        if let Some(signal) = output.status.signal() {
            return Ok(Answer::Killed(signal));
        }
        parse(&String::from_utf8_lossy(&output.stdout)).with_context(|| format!("{words:?}: {output:?}"))
    }

    /// The directory of the host that [`super::row::Change::HostDirectory`] shows.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Ends the victim and takes the stage down.
    pub fn close(mut self) -> Result<()> {
        drop(self.victim.stdin.take());
        self.victim.wait()?;
        self.stage.close()
    }
}

/// The probe's line.
pub fn parse(said: &str) -> Result<Answer> {
    // What was typed into a terminal is echoed there.
    let said = said.replace("^@", "");
    let line = said.trim();
    if let Some(what) = line.strip_prefix("did ") {
        return Ok(Answer::Did(what.to_owned()));
    }
    if let Some(errno) = line.strip_prefix("errno ") {
        return Ok(Answer::Errno(errno.parse()?));
    }
    ensure!(line == "nothing", "the probe said {said:?}");
    Ok(Answer::Nothing)
}

/// The probe in the root file system and beside it, with what the attacks look for.
fn furnish(stage: &Stage, work: &Path) -> Result<PathBuf> {
    fs::create_dir(work)?;
    for dir in [stage.work(), work] {
        fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    }
    let (probe, inside) = (work.join("probe"), stage.rootfs().join("bin"));
    compile(&probe)?;
    fs::copy(&probe, inside.join("probe"))?;
    for suid in [inside.join("suid"), work.join("suid")] {
        fs::copy(&probe, &suid)?;
        fs::set_permissions(&suid, Permissions::from_mode(0o4755))?;
    }
    for node in [inside.join("node"), work.join("node")] {
        rustix::fs::mknodat(CWD, &node, FileType::CharacterDevice, Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 3))?;
        fs::set_permissions(&node, Permissions::from_mode(0o666))?;
    }
    for (name, mode) in [("canary", 0o644), ("secret", 0o600), ("own", 0o644)] {
        fs::write(work.join(name), "canary\n")?;
        fs::set_permissions(work.join(name), Permissions::from_mode(mode))?;
    }
    // The app's own file in its own /tmp.
    let own = stage.rootfs().join("tmp/own");
    File::create(&own)?;
    std::os::unix::fs::chown(&own, Some(USER), Some(USER))?;
    Ok(probe)
}

/// Compiles it, or takes the one that somebody has compiled before.
fn compile(probe: &Path) -> Result<()> {
    if let Some(compiled) = std::env::var_os("DYNO_TEST_PROBE") {
        fs::copy(&compiled, probe).with_context(|| format!("copy {}", Path::new(&compiled).display()))?;
        return Ok(());
    }
    support::compile(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/battery/probe.rs").as_ref(), probe)
}
