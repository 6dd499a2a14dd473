//! What operators can get wrong: each start is refused with one line, and nothing is left of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::Platform;

use super::unharmed;

/// A second instance that is not to come up.
struct Other {
    name: String,
    state: PathBuf,
    run: PathBuf,
    router: String,
}

impl Other {
    fn new() -> Self {
        let name = format!("dyno-test-{}-other", std::process::id());
        let (state, run) = (Path::new("/var/lib").join(&name), Path::new("/run").join(&name));
        Self { name, state, run, router: "127.0.0.1:0".to_owned() }
    }

    fn arguments(&self, command: &mut Command) {
        command.arg("--state-dir").arg(&self.state).arg("--run-dir").arg(&self.run).args(["--cgroup", &self.name]);
        command.args(["--api", "127.0.0.1:0", "--router", &self.router]);
    }

    /// Runs `command` with this instance's options; it must end with `status`, one line that holds `says`, and leave nothing.
    fn refuses(&self, mut command: Command, status: i32, says: &[&str]) -> Result<()> {
        self.arguments(&mut command);
        // Files and no pipes: what it might leave running would keep a pipe open.
        let told = tempfile::NamedTempFile::new()?;
        let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(told.reopen()?).status().context("run it")?;
        let told = fs::read_to_string(told.path())?;
        let lines: Vec<&str> = told.lines().filter(|l| l.starts_with("dynod: ")).collect();
        let holds = lines.len() == 1 && says.iter().all(|part| lines[0].contains(part));
        ensure!(ended.code() == Some(status) && holds, "wanted {status} and {says:?}, got {ended}:\n{told}");
        self.left_nothing()
    }

    /// No process, no mount, no control group, no directory with this instance's name.
    fn left_nothing(&self) -> Result<()> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(!mounts.contains(&self.name), "mounts are left:\n{mounts}");
        for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            ensure!(!line.contains(&self.name), "process {} is left: {line}", entry.path().display());
        }
        let own = ["/run", "/var/lib", "/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu"];
        for path in own.map(|dir| Path::new(dir).join(&self.name)) {
            ensure!(!path.exists(), "{} is left", path.display());
        }
        Ok(())
    }
}

fn dynod() -> PathBuf {
    std::env::var_os("DYNO_BIN_DYNOD").map(PathBuf::from).unwrap_or_default()
}

pub(super) fn port_taken(platform: &Platform) -> Result<()> {
    unharmed(platform, || {
        let client = platform.client()?;
        let router = client["router"].as_str().context("router")?.trim_start_matches("http://").to_owned();
        let other = Other { router: router.clone(), ..Other::new() };
        let says = [router.as_str(), "--router", "Address already in use"];
        other.refuses(Command::new(dynod()), 1, &says)?;
        let mut serve = Command::new(dynod());
        serve.arg("serve");
        other.refuses(serve, 1, &says)
    })
}

pub(super) fn second(platform: &Platform) -> Result<()> {
    unharmed(platform, || {
        let state = platform.state();
        let pid = format!("(pid {})", platform.client()?["pid"]);
        let says = [&*state.to_string_lossy(), "is in use by another dynod", &pid, "stop that one"];
        // With a run directory of its own, and with that of the first.
        let other = Other { state: state.clone(), ..Other::new() };
        other.refuses(Command::new(dynod()), 1, &says)?;
        let other = Other { state: state.clone(), run: platform.run_dir(), ..Other::new() };
        other.refuses(Command::new(dynod()), 1, &says)?;
        let mut warden = Command::new(dynod());
        warden.arg("warden");
        let run = platform.run_dir().display().to_string();
        let says = ["another warden runs on", run.as_str(), "stop it first"];
        other.refuses(warden, 1, &says)
    })
}

pub(super) fn missing_image(platform: &Platform) -> Result<()> {
    unharmed(platform, || {
        for (variable, option) in [("DYNO_STACK", "stack"), ("DYNO_BUILDPACKS", "buildpacks")] {
            for command in [None, Some("serve")] {
                let mut dynod = Command::new(dynod());
                dynod.args(command).env(variable, "/no/such/image.sqsh");
                Other::new().refuses(dynod, 1, &["there is no image /no/such/image.sqsh", "cargo xtask stack", option])?;
            }
        }
        // Without the hash that was written when it was made, nobody can say whether it is whole.
        let dir = tempfile::tempdir()?;
        let image = dir.path().join("stack.sqsh");
        fs::write(&image, "no image")?;
        let mut command = Command::new(dynod());
        command.env("DYNO_STACK", &image);
        Other::new().refuses(command, 1, &[&format!("{}.sha256", image.display()), "cargo xtask stack"])
    })
}

pub(super) fn without_root(platform: &Platform) -> Result<()> {
    // Where nobody can reach it, wherever it was built.
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let program = dir.path().join("dynod");
    fs::copy(dynod(), &program)?;
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&program).args(arguments);
        command
    };
    unharmed(platform, || {
        Other::new().refuses(as_nobody(&["warden"]), 1, &["needs root"])?;
        Other::new().refuses(as_nobody(&[]), 1, &["is started as root"])?;
        Other::new().refuses(as_nobody(&["stop"]), 1, &["needs root"])?;
        let mut root = Command::new(dynod());
        root.args(["serve", "--uid", "0"]);
        let refused = root.output()?;
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(2) && told.starts_with("error: invalid value '0' for '--uid"), "{refused:?}");
        Ok(())
    })
}

/// A host whose control groups are not there, made by a mount namespace of its own.
pub(super) fn without_cgroups(platform: &Platform) -> Result<()> {
    unharmed(platform, || {
        for arguments in [&["warden"][..], &[]] {
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-c", "mount -t tmpfs none /sys/fs/cgroup && exec \"$0\" \"$@\""]).arg(dynod()).args(arguments);
            Other::new().refuses(command, 1, &["this host cannot hold dynos: ", "/sys/fs/cgroup"])?;
        }
        Ok(())
    })
}
