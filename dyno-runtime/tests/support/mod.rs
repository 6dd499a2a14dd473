//! A stage for tests that need root: a small root file system with one static program, one instance of the runtime, and the
//! leak check around both.

#![allow(dead_code, reason = "every test program uses another part")]

pub mod groups;
pub mod lab;
pub mod leaks;
pub mod links;
mod suite;

use std::{
    fs::{self, Permissions},
    io::Read,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Dyno, ExitRecord, Host, Layer, Sandbox, StartOptions, Stdio, Streams, Tier};
use tempfile::TempDir;

#[allow(unused_imports, reason = "the library's own tests run under another harness")]
pub use self::suite::{Case, suite, suite_on};

/// Where the program is inside.
pub const PROGRAM: &str = "/bin/program";

/// One instance, and what its sandboxes run on.
#[derive(Debug)]
pub struct Stage {
    pub host: Host,
    /// State directory of the instance.
    pub run: PathBuf,
    /// Name of its cgroups.
    pub name: String,
    work: TempDir,
    next: AtomicU32,
    /// Whether what can be parked is started from a parked sandbox, and no other.
    pub parked: bool,
}

/// Why such tests cannot run here.
pub fn missing(tools: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".into());
    }
    let rustc = compiled().is_none().then(rustc);
    let absent = tools.iter().copied().chain(rustc.as_deref()).find(|tool| Command::new(tool).arg("--version").output().is_err());
    absent.map(|tool| format!("needs {tool}"))
}

/// The test program, where somebody has compiled it before: a machine that runs these tests need not have a compiler.
fn compiled() -> Option<PathBuf> {
    std::env::var_os("DYNO_TEST_PROGRAM").map(PathBuf::from)
}

/// Whether the processor is emulated, so that what is done a thousand times elsewhere is done some times only.
pub fn emulated() -> bool {
    std::env::var_os("DYNO_TEST_EMULATED").is_some()
}

fn rustc() -> String {
    std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into())
}

/// A root file system in `dir`: the program, and the directories that mounts are attached to.
pub fn make_rootfs(dir: &Path) -> Result<()> {
    for sub in ["bin", "dev", "proc", "tmp", "data"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    fs::set_permissions(dir.join("tmp"), Permissions::from_mode(0o1777))?;
    let program = dir.join(&PROGRAM[1..]);
    if let Some(compiled) = compiled() {
        fs::copy(&compiled, &program).with_context(|| format!("copy DYNO_TEST_PROGRAM={}", compiled.display()))?;
        return Ok(());
    }
    compile(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/program.rs").as_ref(), &program)
}

/// Compiles one source file to a static program, with rustc alone.
pub fn compile(source: &Path, program: &Path) -> Result<()> {
    let mut command = Command::new(rustc());
    command.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "opt-level=1", "-C", "strip=symbols", "-o"]);
    let output = command.arg(program).arg(source).output().context("run rustc")?;
    ensure!(output.status.success(), "{} did not compile: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Stage {
    /// Makes the root file system and opens the instance `dyno-test-NAME-PID`.
    pub fn new(name: &str) -> Result<Self> {
        let name = format!("dyno-test-{name}-{}", std::process::id());
        let work = TempDir::new()?;
        make_rootfs(&work.path().join("rootfs"))?;
        let run = Path::new("/run").join(&name);
        Ok(Self { host: Host::open(&run, &name)?, run, name, work, next: AtomicU32::new(1), parked: false })
    }

    /// A stage on which everything that can be parked starts from a parked sandbox.
    pub fn of_parked(name: &str) -> Result<Self> {
        Ok(Self { parked: true, ..Self::new(name)? })
    }

    /// For files of the test's own.
    pub fn work(&self) -> &Path {
        self.work.path()
    }

    /// The directory layer.
    pub fn rootfs(&self) -> PathBuf {
        self.work().join("rootfs")
    }

    /// The root file system as squashfs image, as a file of that name.
    pub fn image(&self, name: &str) -> Result<PathBuf> {
        let path = self.work().join(name);
        squash(&self.rootfs(), &path)?;
        Ok(path)
    }

    /// Runs the program with `args` on the directory layer.
    pub fn sandbox(&self, args: &[&str]) -> Sandbox {
        Sandbox::new(vec![Layer::Directory(self.rootfs())], [PROGRAM].iter().chain(args).copied())
    }

    /// An id that no other dyno of this stage has.
    pub fn id(&self) -> String {
        format!("t.{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Starts with these streams.
    pub fn start(&self, sandbox: &Sandbox, stdio: Stdio) -> dyno_runtime::Result<Dyno> {
        let waits = self.parked && !matches!(stdio, Stdio::Tty { .. }) && self.park(sandbox);
        let started = self.host.start(&self.id(), sandbox, StartOptions { stdio, ..Default::default() });
        if waits {
            self.host.keep_parked(sandbox, 0)?;
            assert!(!started.as_ref().is_ok_and(|dyno| dyno.tier() != Tier::Parked), "one was parked, and another was started");
        }
        started
    }

    /// Waits until a sandbox like this one is parked; false when none can be.
    pub fn park(&self, sandbox: &Sandbox) -> bool {
        self.host.keep_parked(sandbox, 1).is_ok() && self.host.wait_ready().is_ok()
    }

    /// Starts a program that stays; returns once it has said `here`.
    pub fn forever(&self) -> Result<Dyno> {
        self.here(&self.sandbox(&["forever"]))
    }

    /// Starts `sandbox`; returns once it has said `here`.
    pub fn here(&self, sandbox: &Sandbox) -> Result<Dyno> {
        let mut dyno = self.start(sandbox, Stdio::Pipes)?;
        let Streams::Pipes { stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
        let mut said = [0; 5];
        fs::File::from(stdout).read_exact(&mut said)?;
        ensure!(&said == b"here\n");
        Ok(dyno)
    }

    /// Runs to the end: exit record and what it wrote to stdout.
    pub fn output(&self, sandbox: &Sandbox) -> Result<(ExitRecord, String)> {
        let mut dyno = self.start(sandbox, Stdio::Pipes)?;
        let Streams::Pipes { stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
        let text = read_all(stdout)?;
        let exit = dyno.wait()?;
        dyno.free()?;
        Ok((exit, text))
    }

    /// The program's answer to `args`, which must succeed.
    pub fn ask(&self, args: &[&str]) -> Result<String> {
        let (exit, text) = self.output(&self.sandbox(args))?;
        ensure!(exit.status == 0, "{args:?}: {exit:?} {text}");
        Ok(text)
    }

    /// What this instance and this process hold now.
    pub fn snapshot(&self) -> Result<leaks::Snapshot> {
        leaks::snapshot(&self.run, &self.name, self.work())
    }

    /// Runs `work` and fails if it left anything.
    pub fn leaves_nothing(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = self.snapshot()?;
        work()?;
        leaks::must_become(&before, || self.snapshot())
    }

    /// Frees what a failed case has left.
    pub fn sweep(&self) -> Result<()> {
        for found in self.host.recover()? {
            self.host.sweep(found.id())?;
        }
        Ok(())
    }

    /// Takes the instance off the host.
    pub fn close(self) -> Result<()> {
        self.sweep()?;
        Ok(self.host.dismantle()?)
    }
}

/// A squashfs image of `tree`, readable for all and writable for root only.
pub fn squash(tree: &Path, image: &Path) -> Result<()> {
    let mut command = Command::new("mksquashfs");
    command.arg(tree).arg(image).args(["-noappend", "-quiet", "-no-progress"]);
    let output = command.output().context("run mksquashfs")?;
    ensure!(output.status.success(), "mksquashfs: {}", String::from_utf8_lossy(&output.stderr));
    fs::set_permissions(image, Permissions::from_mode(0o444))?;
    Ok(())
}

/// The image's hash as a layer wants it.
pub fn sha256(path: &Path) -> Result<String> {
    use sha2::{Digest, Sha256};
    Ok(Sha256::digest(fs::read(path)?).iter().map(|b| format!("{b:02x}")).collect())
}

/// The image as a layer.
pub fn layer(path: &Path) -> Result<Layer> {
    Ok(Layer::Image { path: path.to_owned(), sha256: sha256(path)? })
}

/// Everything up to the end of file. A terminal's master answers EIO when the last slave is closed.
pub fn read_all(fd: OwnedFd) -> Result<String> {
    let (mut file, mut all, mut chunk) = (fs::File::from(fd), Vec::new(), [0u8; 4096]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

/// Fails with the name of the case unless both sides are equal.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, want: T) -> Result<()> {
    ensure!(is == want, "{what}: is {is:?}, should be {want:?}");
    Ok(())
}
