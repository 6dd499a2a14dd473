//! What every peer gets: the same root with the same payload, as a directory, as a squashfs image and in OCI bundles; and the C
//! programs, compiled on the host that is measured.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::bundle::{self, Walls};

/// Without a C library: its start-up would be most of what is measured.
const FREESTANDING: [&str; 7] = ["-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie"];

/// Everything on disk.
#[derive(Debug)]
pub struct Stage {
    dir: TempDir,
    memory: TempDir,
    /// Of the image, lower-case hex.
    pub sha256: String,
    /// The static `dyno-runtime`, where it was built.
    pub runtime: Option<PathBuf>,
}

impl Stage {
    /// Sets it.
    ///
    /// # Errors
    /// Of cc, mksquashfs, of writing.
    pub fn set(runtime: Option<&Path>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("dyno-bench-").tempdir()?;
        // A tmpfs, as /run is on most hosts.
        let memory = tempfile::Builder::new().prefix("dyno-bench-").tempdir_in("/dev/shm")?;
        let mut stage = Self { dir, memory, sha256: String::new(), runtime: runtime.map(Path::to_owned) };
        stage.fill_root()?;
        compile(&stage.path("floor.c"), include_str!("../programs/floor.c"), &["-O2"], &stage.path("floor"))?;
        fs::create_dir(stage.path("scratch"))?;
        run(Command::new("mksquashfs").arg(stage.root()).arg(stage.image()).args(["-quiet", "-no-progress", "-all-root", "-noappend"]))?;
        stage.sha256 = Sha256::digest(fs::read(stage.image())?).iter().map(|b| format!("{b:02x}")).collect();
        for (name, walls) in [("plain", Walls::Usual), ("walled", Walls::All)] {
            for program in ["true", "probe"] {
                bundle::write(&stage.path(&format!("{name}-{program}")), &stage.root(), program, walls)?;
            }
        }
        Ok(stage)
    }

    /// A path of the stage's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path below it that is in memory, whatever /tmp is.
    pub fn in_memory(&self, name: &str) -> PathBuf {
        self.memory.path().join(name)
    }

    /// The root, as a directory: `/true`, `/stay`, `/probe`.
    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// The same as a squashfs image.
    pub fn image(&self) -> PathBuf {
        self.path("root.sqsh")
    }

    fn fill_root(&self) -> Result<()> {
        // `usr`, because systemd-nspawn takes nothing else for a root.
        for name in ["proc", "dev", "sys", "etc", "tmp", "run", "var", "usr"] {
            fs::create_dir_all(self.root().join(name))?;
        }
        fs::set_permissions(self.root().join("tmp"), fs::Permissions::from_mode(0o1777))?;
        payload(&self.path("payload.c"), &self.root())?;
        compile(&self.path("probe.c"), include_str!("../programs/probe.c"), &["-O2", "-static"], &self.root().join("probe"))
    }
}

/// Puts `true`, which ends at once, and `stay`, which does not, into `root`. Without a C library: the start of one takes half a millisecond on
/// a virtual machine, whose host answers each of its questions about the processor. `source` is where the text is kept.
///
/// # Errors
/// Of writing, of the compiler.
pub fn payload(source: &Path, root: &Path) -> Result<()> {
    let text = include_str!("../programs/payload.c");
    compile(source, text, &FREESTANDING, &root.join("true"))?;
    compile(source, text, &[&FREESTANDING[..], &["-DSTAY"]].concat(), &root.join("stay"))
}

/// Compiles a C program, whose text is written to `source`.
///
/// # Errors
/// Of writing, of the compiler.
pub fn compile(source: &Path, text: &str, flags: &[&str], to: &Path) -> Result<()> {
    fs::write(source, text)?;
    run(Command::new("cc").args(flags).arg("-o").arg(to).arg(source)).map(drop)
}

/// Runs a command; what it says is told when it fails.
///
/// # Errors
/// When it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(std::process::Stdio::null()).output().with_context(|| format!("run {:?}", command.get_program()))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    ensure!(output.status.success(), "{:?} failed ({}): {} {}", command.get_program(), output.status, said(&output.stdout), said(&output.stderr));
    Ok(said(&output.stdout))
}
