//! Where a client has everything that it keeps: one temporary directory, one name for its control groups, the image that all cases run.

use std::{
    fs::{self, File, Permissions},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Said, until};

/// Users that the image knows.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/srv:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1000:\nextra:x:2000:app\n";

/// A temporary directory, the runtime, and a root file system.
pub struct Desk {
    dir: TempDir,
    runtime: PathBuf,
    name: String,
    made: Vec<PathBuf>,
}

/// Commands of one client.
pub trait Sayings {
    /// A command, not yet run, that ends by itself after a minute and has no input.
    fn command(&self, arguments: &[&str]) -> Command;

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be run or takes longer than a minute.
    fn say(&self, arguments: &[&str]) -> Result<Said> {
        let said = Said::of(self.command(arguments).output()?)?;
        ensure!(said.status != 124 || !said.stderr.is_empty(), "not within a minute: {arguments:?}");
        Ok(said)
    }

    /// Runs a command that must succeed; its standard output without the last line's end.
    ///
    /// # Errors
    /// What it said.
    fn ok(&self, arguments: &[&str]) -> Result<String> {
        let said = self.say(arguments)?;
        ensure!(said.status == 0, "{arguments:?}: status {}\n{}{}", said.status, said.stdout, said.stderr);
        Ok(said.stdout.trim_end_matches('\n').to_owned())
    }

    /// Runs a command that must end with this status.
    ///
    /// # Errors
    /// What it said.
    fn ends(&self, status: i32, arguments: &[&str]) -> Result<Said> {
        let said = self.say(arguments)?;
        ensure!(said.status == status, "{arguments:?}: status {}, not {status}\n{}{}", said.status, said.stdout, said.stderr);
        Ok(said)
    }
}

impl Desk {
    /// Why a suite cannot run here, if it cannot.
    pub fn missing(programs: &[&str]) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("needs root".to_owned());
        }
        if std::env::var_os("DYNO_OCI_RUNTIME").is_none_or(|runtime| !Path::new(&runtime).is_file()) {
            return Some("DYNO_OCI_RUNTIME does not name a file; run `cargo xtask test`".to_owned());
        }
        let missing = programs.iter().chain(&["busybox"]).find(|program| path_of(program).is_none());
        missing.map(|program| format!("no {program} on this host; run `cargo xtask test`"))
    }

    /// A new directory, with the image's root file system in it.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn new() -> Result<Self> {
        // Short: paths of sockets are made from it, and podman takes no run directory above 50 characters.
        let dir = tempfile::Builder::new().prefix("dyno-").rand_bytes(4).tempdir_in("/tmp")?;
        // Users of a mapped range pass through it.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        let runtime = std::env::var_os("DYNO_OCI_RUNTIME").context("DYNO_OCI_RUNTIME")?;
        let desk = Self { dir, runtime: fs::canonicalize(runtime)?, name: format!("dyno-clients-{}", std::process::id()), made: Vec::new() };
        desk.fill()?;
        Ok(desk)
    }

    /// A path below its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same for a command line.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The runtime under test.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Name of all its control groups.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The image's root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    /// Writes a file below its directory.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, name: &str, text: &str, mode: u32) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// The root file system as an archive.
    ///
    /// # Errors
    /// Of tar.
    pub fn archive(&self) -> Result<PathBuf> {
        let (to, from) = (self.path("rootfs.tar"), self.rootfs());
        let said = Said::of(Command::new("tar").arg("-C").arg(from).arg("-cf").arg(&to).arg(".").output()?)?;
        ensure!(said.status == 0, "tar: {said:?}");
        Ok(to)
    }

    fn fill(&self) -> Result<()> {
        let root = self.rootfs();
        for dir in ["bin", "etc", "root", "home", "srv", "dev", "proc", "sys", "run", "var", "data"] {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(root.join(dir))?;
        }
        fs::create_dir(root.join("tmp"))?;
        fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777))?;
        fs::copy(path_of("busybox").context("busybox")?, root.join("bin/busybox"))?;
        let said = Said::of(Command::new("chroot").arg(&root).args(["/bin/busybox", "--install", "-s", "/bin"]).output()?)?;
        ensure!(said.status == 0, "busybox --install: {said:?}");
        for (name, text, mode) in [
            ("etc/passwd", PASSWD, 0o644),
            ("etc/group", GROUP, 0o644),
            ("data/words", "one two three\n", 0o644),
            ("bin/plain", "no program\n", 0o644),
        ] {
            self.write(&format!("rootfs/{name}"), text, mode)?;
        }
        Ok(())
    }

    /// Takes away the control groups of its name. Only empty ones can be: a container's own must be gone already.
    ///
    /// # Errors
    /// Naming a group that a container has left.
    pub fn remove_groups(&self, own: &[&str]) -> Result<()> {
        let roots = fs::read_dir("/sys/fs/cgroup")?.filter_map(|e| Some(e.ok()?.path())).chain([PathBuf::from("/sys/fs/cgroup")]);
        for top in roots.map(|root| root.join(&self.name)).filter(|top| top.is_dir()) {
            for child in own {
                let child = top.join(child);
                // Who is in it ends by itself, now that there is no container.
                until(10, &format!("{} is empty", child.display()), || Ok((!child.is_dir() || fs::remove_dir(&child).is_ok()).then_some(())))?;
            }
            let left: Vec<PathBuf> = fs::read_dir(&top)?.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()).collect();
            ensure!(left.is_empty(), "control groups are left: {left:?}");
            fs::remove_dir(&top).with_context(|| format!("rmdir {}", top.display()))?;
        }
        Ok(())
    }

    /// Remembers which of `places` the host does not have: what a client makes outside of its directories, and nobody can tell it not to. A
    /// host that has them keeps them.
    pub fn will_make(&mut self, places: &[&str]) {
        self.made.extend(places.iter().map(PathBuf::from).filter(|place| fs::symlink_metadata(place).is_err()));
    }

    /// Takes a mount off that a client has left below the directory.
    ///
    /// # Errors
    /// When it is in use.
    pub fn unmount(&self, name: &str) -> Result<()> {
        let at = self.path(name);
        if fs::read_to_string("/proc/self/mounts")?.lines().any(|line| line.split(' ').nth(1) == at.to_str()) {
            let said = Said::of(Command::new("umount").arg(&at).output()?)?;
            ensure!(said.status == 0, "umount: {said:?}");
        }
        Ok(())
    }

    /// Removes the directory, and what the host did not have before.
    ///
    /// # Errors
    /// When something in it is still a mount point, or in use.
    pub fn close(self) -> Result<()> {
        for place in self.made.iter().filter(|place| fs::symlink_metadata(place).is_ok()) {
            let removed = if place.is_dir() { fs::remove_dir_all(place) } else { fs::remove_file(place) };
            removed.with_context(|| format!("remove {}", place.display()))?;
        }
        let path = self.dir.path().to_owned();
        self.dir.close().with_context(|| format!("remove {}", path.display()))
    }
}

/// A program of this host; what Debian installed comes before what somebody has put into /usr/local.
pub fn path_of(program: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}

/// Starts a daemon that says what it does into `log`, and waits until `ready` says so.
///
/// # Errors
/// What it said, when it ended or `ready` did not come true within half a minute.
pub fn started(command: &mut Command, log: &Path, mut ready: impl FnMut() -> bool) -> Result<Daemon> {
    let file = File::create(log)?;
    let mut child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn().with_context(|| format!("{command:?}"))?;
    let mut ended = None;
    let waited = until(30, "the daemon answers", || {
        ended = child.try_wait()?;
        Ok((ended.is_some() || ready()).then_some(()))
    });
    match (waited, ended) {
        (Ok(()), None) => Ok(Daemon(child)),
        (waited, ended) => {
            if ended.is_none() {
                child.kill()?;
                child.wait()?;
            }
            bail!("{command:?}: {waited:?} {ended:?}\n{}", tail(log))
        }
    }
}

/// A daemon of a suite; it is asked to end when this is dropped, if it was not before.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not within half a minute; then it is killed.
    pub fn stop(&mut self) -> Result<()> {
        if self.0.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).context("pid")?;
        kill_process(pid, Signal::TERM)?;
        let ended = until(30, "the daemon ends", || Ok(self.0.try_wait()?));
        if ended.is_err() {
            self.0.kill()?;
            self.0.wait()?;
        }
        ended.map(drop)
    }
}

/// For a suite that fails on its way up.
impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(e) = self.stop() {
            eprintln!("{e:#}");
        }
    }
}

/// The last 4 KiB of a file.
pub fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_or_else(|e| e.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A command in a mount namespace of its own, in which each `(file, over)` is mounted over another.
pub fn private(mounts: &[(&Path, &str)], command: &Command) -> Command {
    let mut script = String::new();
    for (file, over) in mounts {
        script += &format!("mount --bind '{}' '{over}' && ", file.display());
    }
    script += "exec \"$@\"";
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "slave", "sh", "-c", &script, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}
