//! One command of the OCI runtime is killed, or somebody whom it has started, or fails; then the next commands come on the same `--root`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    library::Ground,
    oracle,
    watch::{Ended, Role, collect},
};
use crate::support::PROGRAM;

/// A command in the life of a container, and what comes before it.
#[derive(Debug)]
pub struct Verb {
    pub name: &'static str,
    before: &'static [&'static [&'static str]],
    args: &'static [&'static str],
    /// Whether a helper makes its namespaces ahead of it.
    ahead: bool,
    program: &'static [&'static str],
}

const FOREVER: &[&str] = &["forever"];

pub const VERBS: &[Verb] = &[
    Verb { name: "create", before: &[], args: &["create", "ID"], ahead: true, program: FOREVER },
    Verb { name: "create without network", before: &[], args: &["create", "ID"], ahead: false, program: FOREVER },
    Verb { name: "start", before: &[&["create", "ID"]], args: &["start", "ID"], ahead: true, program: FOREVER },
    Verb { name: "run", before: &[], args: &["run", "ID"], ahead: true, program: &["exit", "0"] },
    Verb { name: "kill", before: &[&["create", "ID"], &["start", "ID"]], args: &["kill", "ID", "KILL"], ahead: false, program: FOREVER },
    Verb {
        name: "delete --force",
        before: &[&["create", "ID"], &["start", "ID"]],
        args: &["delete", "--force", "ID"],
        ahead: true,
        program: FOREVER,
    },
];

/// Whose calls are swept.
pub const ROLES: &[Role] = &["runtime", "helper", "first", "launcher"];

/// Who is who.
pub fn cast(name: &str, is_first: bool, inside: Option<u32>) -> Option<Role> {
    let is_number = name.bytes().all(|b| b.is_ascii_digit());
    match (name, inside) {
        ("program", _) => Some("program"),
        _ if is_first => Some("runtime"),
        (_, Some(_)) if name.starts_with("memfd:dyno-lau") || is_number => Some("launcher"),
        (_, Some(_)) => Some("first"),
        (_, None) => Some("helper"),
    }
}

/// The runtime beside this test program, if it was built.
pub fn program() -> Option<PathBuf> {
    let named = std::env::var_os("DYNO_TEST_OCI_OURS").map(PathBuf::from);
    let beside = || Some(std::env::current_exe().ok()?.parent()?.with_file_name("dyno-runtime"));
    named.or_else(beside).filter(|path| path.exists())
}

impl Verb {
    /// A container in the state before the command, and the command.
    pub fn command(&self, ground: &Ground) -> Result<Command> {
        let dir = ground.work.join("bundle");
        fs::create_dir_all(&dir)?;
        fs::create_dir_all(root(ground))?;
        fs::write(dir.join("config.json"), self.config(ground).to_string())?;
        self.before.iter().try_for_each(|args| must(ground, args))?;
        Ok(told(ground, self.args))
    }

    pub fn begins(&self) -> bool {
        self.args[0] == "run"
    }

    fn config(&self, ground: &Ground) -> Value {
        let mut kinds = vec!["pid", "mount", "uts", "ipc"];
        let mut mounts = vec![json!({ "destination": "/proc", "type": "proc", "source": "proc" })];
        if self.ahead {
            kinds.extend(["network", "cgroup"]);
            mounts.push(json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] }));
        }
        let args = [&[PROGRAM], self.program].concat();
        json!({
            "ociVersion": "1.2.0",
            "root": { "path": ground.work.join("rootfs") },
            "process": {
                "cwd": "/",
                "args": args,
                "user": { "uid": 1000, "gid": 1000, "additionalGids": [7] },
                "noNewPrivileges": true,
                "capabilities": { "bounding": ["CAP_KILL"], "permitted": [], "effective": [], "inheritable": [], "ambient": [] },
                "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 99, "hard": 99 }],
            },
            "mounts": mounts,
            "linux": {
                "namespaces": kinds.iter().map(|kind| json!({ "type": kind })).collect::<Vec<_>>(),
                "cgroupsPath": format!("/{}", ground.name),
                "resources": { "memory": { "limit": 64 << 20 }, "pids": { "limit": 32 } },
                "maskedPaths": ["/proc/kcore", "/proc/scsi"],
                "readonlyPaths": ["/proc/sys"],
                "seccomp": { "defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO" }] },
            }
        })
    }

    /// Whatever is left: the next calls see it, `delete --force` takes it away, and the id can be had again.
    pub fn restart(&self, ground: &Ground, _: &Ended) -> Result<()> {
        let (status, said) = answer(ground, &["state", "ID"])?;
        ensure!(status == 0 || said.contains("container does not exist"), "state: {said}");
        must(ground, &["list"])?;
        must(ground, &["delete", "--force", "ID"])?;
        nothing_left(ground).context("after delete")?;
        must(ground, &["create", "ID"])?;
        must(ground, &["delete", "--force", "ID"])?;
        nothing_left(ground).context("after create and delete")
    }
}

fn root(ground: &Ground) -> PathBuf {
    ground.work.join("oci.state")
}

fn told(ground: &Ground, args: &[&str]) -> Command {
    let mut command = Command::new(program().unwrap_or_default());
    let args = args.iter().map(|word| if *word == "ID" { ground.name.as_str() } else { word });
    command.arg("--root").arg(root(ground)).args(args).current_dir(ground.work.join("bundle")).stdin(Stdio::null());
    command
}

/// To files: what it leaves running has them too, and a pipe would not end.
fn answer(ground: &Ground, args: &[&str]) -> Result<(i32, String)> {
    let (out, err) = (ground.work.join("said.out"), ground.work.join("said.err"));
    let status = told(ground, args).stdout(File::create(&out)?).stderr(File::create(&err)?).status()?;
    Ok((status.code().context("killed by a signal")?, fs::read_to_string(&err)?))
}

fn must(ground: &Ground, args: &[&str]) -> Result<()> {
    let (status, said) = answer(ground, args)?;
    ensure!(status == 0, "{args:?}: {status}: {said}");
    Ok(())
}

/// The kernel lets go of some things a moment later and tells nobody.
fn nothing_left(ground: &Ground) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        collect(Duration::ZERO);
        let left = all_left(ground)?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "left behind: {left:#?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What passes over to the next command by design begins with `@` and is empty of containers.
fn all_left(ground: &Ground) -> Result<BTreeSet<String>> {
    let mut left = oracle::left(&ground.work, &ground.name)?;
    left.retain(|thing| !Path::new(thing).file_name().is_some_and(|name| name.to_string_lossy().starts_with('@')));
    Ok(left)
}
