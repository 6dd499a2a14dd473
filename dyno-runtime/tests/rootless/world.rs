//! The hosts that an unprivileged user may meet, and the way from root to that user.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Dyno, ExitRecord, Host, Layer, RootlessOptions, Sandbox, StartOptions, Stdio, Streams, Wall};
use rustix::mount::mount_bind;

use crate::support::{self, PROGRAM, read_all};

/// Nobody's on any host that runs these tests.
pub const USER: u32 = 12345;
/// A supplementary group.
const GROUP: u32 = 12346;
/// First of its subordinate ids.
pub const FIRST: u32 = 2_000_000_000;

/// A host as that user finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It may map its own id only.
    Single,
    /// That, and it has another group.
    Grouped,
    /// It has 65536 ids.
    Range,
    /// Enough ids for two sandboxes.
    Slices,
    /// No user namespaces may be made.
    Forbidden,
    /// Root gave it control groups.
    Delegated,
    /// Something covers a part of /proc, as in a container.
    HiddenProc,
}

const KINDS: [Kind; 7] = [Kind::Single, Kind::Delegated, Kind::Grouped, Kind::Range, Kind::Slices, Kind::Forbidden, Kind::HiddenProc];

impl Kind {
    pub fn needs_helpers(self) -> bool {
        self.ids().is_some()
    }

    fn ids(self) -> Option<u32> {
        match self {
            Self::Range => Some(65536),
            Self::Slices => Some(2 * 65535),
            _ => None,
        }
    }

    /// What is missing there, where the hierarchies of control groups are root's.
    pub fn missing(self) -> Vec<Wall> {
        let limits = vec![Wall::MemoryLimit, Wall::PidsLimit, Wall::CpuLimit];
        let mut walls = if self == Self::Delegated { Vec::new() } else { limits };
        walls.extend((!self.needs_helpers()).then_some(Wall::IdRange));
        walls.extend((self == Self::Grouped).then_some(Wall::Groups));
        walls.extend((self != Self::Slices).then_some(Wall::OwnIdRange));
        walls
    }
}

/// Root's side: a root file system that belongs to the user, and this program where the user can run it.
pub struct Theatre {
    dir: tempfile::TempDir,
}

impl Theatre {
    pub fn new() -> Result<Self> {
        let dir = tempfile::TempDir::new()?;
        let path = dir.path();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        support::make_rootfs(&path.join("rootfs"))?;
        for sub in ["rootfs/etc", "over", "over/bin", "volume", "run"] {
            fs::create_dir_all(path.join(sub))?;
        }
        fs::write(path.join("rootfs/etc/name"), "below")?;
        fs::write(path.join("over/bin/name"), "above")?;
        fs::copy(std::env::current_exe()?, path.join("rootless"))?;
        give(path)?;
        fs::write(path.join("foreign"), "root's")?;
        fs::create_dir(path.join("roots"))?;
        Ok(Self { dir })
    }

    /// This program again, on a host of that kind.
    pub fn command(&self, kind: Kind, case: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if kind == Kind::Forbidden {
            command.args(["--user", "--map-root-user"]);
        }
        command.arg(self.dir.path().join("rootless")).args(["play", &format!("{kind:?}"), case]).arg(self.dir.path()).env_remove("XDG_RUNTIME_DIR");
        command
    }

    /// Takes away what a failed case has left, so that the others can be told apart from it.
    pub fn sweep(&self) {
        for pid in processes() {
            // Of a user that nobody else has.
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap_or_default();
            }
        }
        for dir in [self.dir.path().join("run"), self.dir.path().join("roots"), format!("/dev/shm/dyno-leases-{USER}").into()] {
            for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
                fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path())).unwrap_or_default();
            }
        }
        fs::remove_dir(format!("/dev/shm/dyno-leases-{USER}")).unwrap_or_default();
        crate::delegated::sweep();
    }

    /// Nothing of the user's is left: no process, no lease, no instance, nothing changed in what it gave.
    pub fn is_clean(&self) -> Result<()> {
        let left: Vec<_> = processes().into_iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/status"))).collect();
        ensure!(left.is_empty(), "processes are left: {left:#?}");
        ensure!(!Path::new(&format!("/dev/shm/dyno-leases-{USER}")).exists(), "leases are left");
        let run: Vec<_> = fs::read_dir(self.dir.path().join("run"))?.filter_map(|e| Some(e.ok()?.path())).collect();
        ensure!(run.is_empty(), "left: {run:?}");
        ensure!(!fs::read_to_string("/proc/self/mountinfo")?.contains(&*self.dir.path().to_string_lossy()), "mounts are left");
        Ok(())
    }
}

/// Those of the user and of its subordinate ids.
fn processes() -> Vec<i32> {
    let uid = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        text.lines().find_map(|l| l.strip_prefix("Uid:\t")?.split('\t').next()?.parse::<u32>().ok())
    };
    let ours = |pid: &i32| uid(*pid).is_some_and(|uid| uid == USER || (FIRST..FIRST + 200_000).contains(&uid));
    let pids = fs::read_dir("/proc").into_iter().flatten().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(ours).collect()
}

fn give(path: &Path) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(USER), Some(USER))?;
    if path.is_dir() {
        fs::read_dir(path)?.try_for_each(|entry| give(&entry?.path()))?;
    }
    Ok(())
}

/// One case in its own process: `rootless play KIND CASE DIR`, as root first, then (with `me`) as the user.
pub struct Scene {
    kind: Kind,
    pub case: String,
    dir: PathBuf,
    am_user: bool,
}

impl Scene {
    pub fn from_arguments() -> Option<Self> {
        let mut arguments = std::env::args().skip(1);
        let am_user = match arguments.next()?.as_str() {
            "play" => false,
            "me" => true,
            _ => return None,
        };
        let name = arguments.next()?;
        let kind = KINDS.into_iter().find(|kind| format!("{kind:?}") == name)?;
        Some(Self { kind, case: arguments.next()?, dir: arguments.next()?.into(), am_user })
    }

    pub fn play(self, case: Option<fn(&World) -> Result<()>>) -> ExitCode {
        let Some(case) = case else { return ExitCode::FAILURE };
        let result = if self.am_user { self.perform(case) } else { self.become_user() };
        if let Err(e) = result {
            println!("{e:#}");
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }

    /// Makes the host what it is to be, for this process alone, and goes on as the user.
    fn become_user(&self) -> Result<()> {
        let owns = |count: u32| format!("{USER}:{FIRST}:{count}\n");
        let ranges = self.kind.ids().map_or_else(String::new, owns);
        self.replace("subuid", &ranges)?;
        self.replace("subgid", &ranges)?;
        let passwd = fs::read_to_string("/etc/passwd")?;
        self.replace("passwd", &format!("{passwd}tester:x:{USER}:{USER}::/:/bin/sh\n"))?;
        match self.kind {
            Kind::Delegated => crate::delegated::enter()?,
            Kind::HiddenProc => mount_bind("/dev/null", "/proc/cmdline").context("cover /proc/cmdline")?,
            // It stays root of its own user namespace, in which there may be no further one.
            Kind::Forbidden => fs::write("/proc/sys/user/max_user_namespaces", "0").context("max_user_namespaces")?,
            _ => {}
        }
        let mut again = Command::new(std::env::current_exe()?);
        again.args(["me", &format!("{:?}", self.kind), &self.case]).arg(&self.dir);
        if self.kind != Kind::Forbidden {
            let groups: &[u32] = if self.kind == Kind::Grouped { &[USER, GROUP] } else { &[] };
            let groups: Vec<_> = groups.iter().map(|g| rustix::fs::Gid::from_raw(*g)).collect();
            rustix::thread::set_thread_groups(&groups)?;
            let (uid, gid) = (rustix::fs::Uid::from_raw(USER), rustix::fs::Gid::from_raw(USER));
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        }
        bail!("exec: {}", again.exec())
    }

    /// Another text for /etc/`name`, which only this process sees.
    fn replace(&self, name: &str, text: &str) -> Result<()> {
        if self.kind == Kind::Forbidden {
            return Ok(());
        }
        let (file, target) = (self.dir.join(name), Path::new("/etc").join(name));
        fs::write(&file, text)?;
        mount_bind(&file, &target).with_context(|| format!("cover {}", target.display()))
    }

    /// As the user: plays the case, and checks that this process has what it had.
    fn perform(self, case: fn(&World) -> Result<()>) -> Result<()> {
        let world = World { kind: self.kind, dir: self.dir };
        let before = descriptors()?;
        case(&world)?;
        support::same("descriptors", descriptors()?, before)?;
        let me = std::process::id();
        let children = fs::read_to_string(format!("/proc/{me}/task/{me}/children"))?;
        support::same("children", children.as_str(), "")?;
        support::same("dumpable", fs::metadata("/proc/self/stat")?.is_file() && own_status_is_ours()?, true)
    }
}

/// The files of an undumpable process in /proc are root's.
fn own_status_is_ours() -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata("/proc/self/status")?.uid() == rustix::process::geteuid().as_raw())
}

fn descriptors() -> Result<Vec<String>> {
    let entries = fs::read_dir("/proc/self/fd")?.filter_map(Result::ok);
    let mut found: Vec<String> = entries.filter_map(|e| Some(fs::read_link(e.path()).ok()?.display().to_string())).collect();
    found.retain(|target| !target.starts_with("/proc/"));
    found.sort();
    Ok(found)
}

/// What the user has.
pub struct World {
    pub kind: Kind,
    pub dir: PathBuf,
}

impl World {
    /// Of the instance.
    pub fn run(&self) -> PathBuf {
        self.dir.join(if self.kind == Kind::Forbidden { "roots/instance" } else { "run/instance" })
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Opens the instance without these walls.
    pub fn open_without(&self, walls: &[Wall]) -> dyno_runtime::Result<Host> {
        Host::open_rootless(&self.run(), "dyno-test-rootless", &RootlessOptions { without: walls.to_vec(), alone: false })
    }

    /// Opens it without those that are missing here.
    pub fn open(&self) -> Result<Host> {
        Ok(self.open_without(&self.kind.missing())?)
    }

    /// Opens it, and takes it down after `work`.
    pub fn with_host(&self, work: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
        let host = self.open()?;
        work(&host)?;
        let entries: Vec<_> = fs::read_dir(self.run().join("dynos"))?.filter_map(|e| Some(e.ok()?.path())).collect();
        ensure!(entries.is_empty(), "left: {entries:?}");
        Ok(host.dismantle()?)
    }

    /// Runs the program with `args` on the directory layer.
    pub fn sandbox(&self, args: &[&str]) -> Sandbox {
        Sandbox::new(vec![Layer::Directory(self.rootfs())], [PROGRAM].iter().chain(args).copied())
    }
}

/// Runs to the end: exit record and what it wrote to stdout.
pub fn output(host: &Host, sandbox: &Sandbox) -> Result<(ExitRecord, String)> {
    let mut dyno = host.start("t.1", sandbox, StartOptions { stdio: Stdio::Pipes, ..Default::default() })?;
    let Streams::Pipes { stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
    let text = read_all(stdout)?;
    let exit = dyno.wait()?;
    dyno.free()?;
    Ok((exit, text))
}

/// Starts `sandbox`, which says a line first, and waits for that.
pub fn forever(host: &Host, id: &str, sandbox: &Sandbox) -> Result<Dyno> {
    use std::io::Read;
    let mut dyno = host.start(id, sandbox, StartOptions { stdio: Stdio::Pipes, ..Default::default() })?;
    let Streams::Pipes { stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
    let mut said = [0; 5];
    fs::File::from(stdout).read_exact(&mut said)?;
    ensure!(&said == b"here\n");
    Ok(dyno)
}
