//! CRIU as a program: what `checkpoint` and `restore` have in common.
//!
//! CRIU makes the container's processes children of whoever runs it, in the control groups and the mount namespace of its own. So it is
//! run by a helper, this program again ([`inside`]), that enters the groups and turns the root file system into a mount of a mount
//! namespace of its own, which CRIU asks for (`--root`), before it becomes CRIU. Nothing of that is left on the host.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};

use super::{
    Failure, Outcome,
    words::{Word, Words},
};
use crate::{
    error::Context,
    oci::{
        Global,
        plan::{Container, Namespace, Source},
    },
    sys::{self, Flags},
};

/// Options that both verbs have, and what comes of them.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// `--image-path`.
    pub image: Option<PathBuf>,
    /// `--work-path`: CRIU's own log and notes.
    pub work: Option<PathBuf>,
    /// Handed to CRIU as they are.
    pub args: Vec<OsString>,
    /// `--shell-job`.
    pub shell_job: bool,
}

impl Request {
    /// Takes an option; false for one that is not among the common ones.
    pub fn option(&mut self, name: &str, words: &mut Words) -> Result<bool, Failure> {
        match name {
            "image-path" => self.image = Some(words.path()?),
            "work-path" => self.work = Some(words.path()?),
            "shell-job" => self.shell_job = words.flag()?,
            "tcp-established" | "ext-unix-sk" | "file-locks" | "auto-dedup" | "lazy-pages" => {
                if words.flag()? {
                    self.args.push(format!("--{name}").into());
                }
            }
            "manage-cgroups-mode" => match words.text()?.as_str() {
                "ignore" | "soft" | "full" | "strict" => {}
                other => return Err(words.wrong(&format!("--manage-cgroups-mode {other:?} is none of ignore, soft, full, strict"))),
            },
            "empty-ns" => match words.text()?.as_str() {
                "network" | "net" => self.args.extend(["--empty-ns".into(), "net".into()]),
                other => return Err(words.wrong(&format!("--empty-ns {other:?} is not network"))),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The directory of images, absolute.
    pub fn images(&self) -> Result<PathBuf, Failure> {
        let image = self.image.as_deref().unwrap_or(Path::new("checkpoint"));
        std::path::absolute(image).map_err(|e| Failure::new(format!("--image-path {}: {e}", image.display())))
    }

    /// CRIU's first arguments; `log` is a file in the directory of its notes.
    pub fn begin(&self, action: &str, log: &str) -> Result<Vec<OsString>, Failure> {
        let images = self.images()?;
        let work = self.work.as_deref().map_or_else(|| Ok(images.clone()), std::path::absolute);
        let work = work.map_err(|e| Failure::new(format!("--work-path: {e}")))?;
        let mut args: Vec<OsString> = vec![action.into(), "--images-dir".into(), images.into(), "--work-dir".into(), work.into()];
        args.extend(["--log-file", log, "-v4", "--manage-cgroups=ignore"].map(OsString::from));
        if self.shell_job {
            args.push("--shell-job".into());
        }
        args.extend(self.args.iter().cloned());
        Ok(args)
    }
}

/// Mounts and namespaces that are the host's: CRIU does not look into them. `way` says what a mount is called and where it is.
pub(super) fn external(container: &Container, way: impl Fn(&Path, &Path) -> (OsString, OsString)) -> Vec<OsString> {
    let mut args = Vec::new();
    for mount in &container.mounts {
        if let Source::Bind { path, .. } = &mount.source {
            let (name, place) = way(&mount.destination, path);
            let parts: [&OsStr; 4] = ["mnt[".as_ref(), &name, "]:".as_ref(), &place];
            args.extend(["--external".into(), parts.into_iter().collect()]);
        }
    }
    args
}

/// What cannot be taken up again is not taken down.
pub(super) fn must_be_possible(container: &Container) -> Result<(), Failure> {
    if container.process.as_ref().is_some_and(|process| process.terminal) {
        return Err(Failure::new("cannot checkpoint a container with a terminal: CRIU takes terminals up again by its library only"));
    }
    let n = &container.namespaces;
    let joined = [
        (&n.mount, "mount"),
        (&n.pid, "pid"),
        (&n.network, "network"),
        (&n.ipc, "ipc"),
        (&n.uts, "uts"),
        (&n.user, "user"),
        (&n.cgroup, "cgroup"),
        (&n.time, "time"),
    ];
    if let Some((_, kind)) = joined.iter().find(|(namespace, _)| matches!(namespace, Namespace::Join(_))) {
        return Err(Failure::new(format!("cannot checkpoint a container that has joined a {kind} namespace")));
    }
    Ok(())
}

/// Runs CRIU to its end.
pub(super) fn run(global: &Global, mut command: Command, args: &[OsString], log: &Path) -> Result<(), Failure> {
    let version = Command::new(&global.criu).arg("--version").stdin(Stdio::null()).output();
    if version.is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        let name = global.criu.display();
        return Err(Failure::new(format!("checkpoint and restore are CRIU's work, and {name} is not there: install it, or name it with --criu")));
    }
    let output = command.args(args).stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit()).status();
    match output {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let text = fs::read(log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let last = text.lines().rfind(|line| line.contains("Error")).unwrap_or("its log has no error");
            Err(Failure::new(format!("criu: {status}: {}: see {}", last.trim(), log.display())))
        }
        Err(e) => Err(Failure::new(format!("{}: {e}", global.criu.display()))),
    }
}

/// The verb of the helper, which nobody calls by hand.
pub(super) const INSIDE: &str = "restore-inside";

/// A command that becomes CRIU in these groups and with this root.
pub(super) fn helper(global: &Global, root: &Path, groups: &[PathBuf]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--criu").arg(&global.criu).arg(INSIDE).arg("--rootfs").arg(root);
    for group in groups {
        command.arg("--group").arg(group);
    }
    command.arg("--");
    command
}

/// The helper: enters, and becomes CRIU.
pub(super) fn inside(global: &Global, words: &mut Words) -> Outcome {
    let (mut root, mut groups, mut args) = (None, Vec::new(), Vec::new());
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if name == "rootfs" => root = Some(words.path()?),
            Word::Option(name) if name == "group" => groups.push(words.path()?),
            Word::Value(first) => {
                args.push(first);
                args.extend(words.rest()?.into_iter().map(OsString::from));
                break;
            }
            other => return Err(words.unexpected(&other)),
        }
    }
    let Some(root) = root else { return Err(words.wrong("no --rootfs")) };
    for group in groups {
        let file = group.join("cgroup.procs");
        fs::write(&file, "0").io(|| format!("write \"0\" to {}", file.display()))?;
    }
    sys::unshare(Flags::NEWNS).io(|| "unshare(CLONE_NEWNS)".into())?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM).io(|| "mount(/, MS_SLAVE | MS_REC)".into())?;
    mount_bind_recursive(&root, &root).io(|| format!("mount({0}, {0}, MS_BIND | MS_REC)", root.display()))?;
    let e = Command::new(&global.criu).args(args).exec();
    Err(Failure::new(format!("{}: {e}", global.criu.display())))
}
