//! How dynod starts and stops: ports, a host that lacks a wall, a strict umask, a warden that was killed. Each case has
//! an instance of its own; the leak check of the suite covers them all.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Output, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use dyno_tests::Platform;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

fn main() -> ExitCode {
    dyno_tests::run(
        &[],
        &[
            ("a_port_below_1024_is_taken_before_root_is_given_up", privileged_port),
            ("a_taken_port_is_named_and_leaves_nothing", taken_port),
            ("a_host_without_a_wall_is_refused_and_left_as_it_was", missing_wall),
            ("each_half_holds_what_it_needs_and_no_more", what_each_half_holds),
            ("the_umask_of_the_starter_shuts_no_dyno_out_and_stop_ends_the_dynos_of_a_killed_warden", umask_and_killed_warden),
        ],
    )
}

/// Any free port.
const FREE: &str = "127.0.0.1:0";

/// An instance beside the suite's own.
struct Instance {
    name: String,
    router: String,
}

impl Instance {
    fn new(name: &str, router: String) -> Self {
        Self { name: format!("dyno-test-{name}-{}", std::process::id()), router }
    }

    fn run_dir(&self) -> PathBuf {
        Path::new("/run").join(&self.name)
    }

    fn state(&self) -> PathBuf {
        Path::new("/var/lib").join(&self.name)
    }

    /// `words` with dynod's own path for `{}`, and this instance's options in the environment.
    fn command(&self, words: &[&str]) -> Result<Command> {
        let dynod = std::env::var_os("DYNO_BIN_DYNOD").context("DYNO_BIN_DYNOD")?;
        let words: Vec<OsString> = words.iter().map(|w| if *w == "{}" { dynod.clone() } else { w.into() }).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("DYNO_CGROUP", &self.name).env("DYNO_API", "127.0.0.1:0").env("DYNO_ROUTER", &self.router);
        command.env("DYNO_RUN_DIR", self.run_dir()).env("DYNO_STATE_DIR", self.state()).stdin(Stdio::null());
        Ok(command)
    }

    fn start(&self, words: &[&str]) -> Result<Child> {
        let mut child = self.command(words)?.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("start dynod")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "dynod did not start: {}", child.wait()?);
        Ok(child)
    }

    /// Runs a start that is to fail: status and what it said. Into a file, because a warden that it should not have
    /// started would hold a pipe open.
    fn refused(&self, words: &[&str]) -> Result<(Option<i32>, String)> {
        let said = tempfile::NamedTempFile::new()?;
        let status = self.command(words)?.stdout(Stdio::null()).stderr(said.reopen()?).status()?;
        Ok((status.code(), fs::read_to_string(said.path())?))
    }

    fn stop(&self, mut daemon: Child) -> Result<()> {
        let output = self.command(&["{}", "stop"])?.output()?;
        ensure!(output.status.success(), "dynod stop: {}", String::from_utf8_lossy(&output.stderr));
        daemon.wait()?;
        self.is_gone()?;
        fs::remove_dir_all(self.state()).context("remove the state")
    }

    fn is_gone(&self) -> Result<()> {
        ensure!(!self.run_dir().exists(), "{} is left", self.run_dir().display());
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(!mounts.contains(&self.name), "mounts are left:\n{mounts}");
        Ok(())
    }

    fn dyno(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(std::env::var_os("DYNO_BIN_DYNO").context("DYNO_BIN_DYNO")?);
        command.args(args).env("DYNO_CLIENT", self.run_dir().join("api/client.json")).env_remove("DYNO_APP").stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output()?;
        let text = String::from_utf8_lossy(&stdout).into_owned();
        ensure!(status.success(), "dyno {}: {text}{}", args.join(" "), String::from_utf8_lossy(&stderr));
        Ok(text)
    }

    /// The warden, by its command line.
    fn kill_warden(&self) -> Result<()> {
        let marks = ["warden\0".to_owned(), format!("{}\0", self.run_dir().display())];
        for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
            let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let pid = entry.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
            if let Some(pid) = pid.filter(|_| marks.iter().all(|mark| line.contains(mark))) {
                let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
                return Ok(pidfd_send_signal(&pidfd, Signal::KILL)?);
            }
        }
        bail!("no warden of {} runs", self.name)
    }
}

/// A case that failed leaves the host to the next one as it was.
impl Drop for Instance {
    fn drop(&mut self) {
        if self.run_dir().exists() {
            let stopped = self.command(&["{}", "stop"]).and_then(|mut stop| Ok(stop.stdout(Stdio::null()).stderr(Stdio::null()).status()?));
            eprintln!("{}: stopped after a failure: {stopped:?}", self.name);
        }
        if self.state().exists()
            && let Err(e) = fs::remove_dir_all(self.state())
        {
            eprintln!("{}: {e}", self.state().display());
        }
    }
}

fn privileged_port(_: &Platform) -> Result<()> {
    // Not always the same one first: another suite may be looking for one at this moment.
    let first = 700 + std::process::id() as u16 % 200;
    let free = (first..1024).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("no free port below 1024")?;
    let instance = Instance::new("port", format!("127.0.0.1:{free}"));
    let daemon = instance.start(&["{}"])?;
    let client = fs::read_to_string(instance.run_dir().join("api/client.json"))?;
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id()))?;
    instance.stop(daemon)?;
    ensure!(client.contains(&format!("127.0.0.1:{free}")), "{client}");
    ensure!(status.contains("CapEff:\t0000000000000000") && status.contains("Uid:\t950\t950\t950\t950"), "{status}");
    Ok(())
}

fn taken_port(_: &Platform) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let instance = Instance::new("taken", address.clone());
    let (status, said) = instance.refused(&["{}"])?;
    ensure!(status == Some(1) && said.contains(&address) && said.contains("--router"), "{status:?} {said}");
    ensure!(said.trim().lines().count() == 1, "more than one line: {said}");
    ensure!(!instance.state().exists(), "a state directory was made");
    instance.is_gone()
}

/// Without CAP_MKNOD there is no /dev for dynos.
fn missing_wall(_: &Platform) -> Result<()> {
    let instance = Instance::new("wall", FREE.to_owned());
    let (status, said) = instance.refused(&["setpriv", "--bounding-set", "-mknod", "--inh-caps", "-all", "{}"])?;
    ensure!(status == Some(1) && said.contains("this host cannot hold dynos: mknod(/dev/null)"), "{status:?} {said}");
    ensure!(!instance.state().exists(), "a state directory was made");
    instance.is_gone()
}

/// The value of a line of a status file below /proc.
fn field<'a>(status: &'a str, name: &str) -> Result<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).with_context(|| format!("{name} in {status}"))
}

/// SYS_ADMIN, SYS_CHROOT, SYS_PTRACE, NET_ADMIN, SETUID, SETGID, MKNOD, CHOWN, FOWNER, FSETID, DAC_OVERRIDE, DAC_READ_SEARCH.
const OF_THE_WARDEN: u64 = 1 << 21 | 1 << 18 | 1 << 19 | 1 << 12 | 1 << 7 | 1 << 6 | 1 << 27 | 1 | 1 << 3 | 1 << 4 | 1 << 1 | 1 << 2;

/// By the kernel's word, of every thread.
fn what_each_half_holds(platform: &Platform) -> Result<()> {
    let client = platform.client()?;
    let daemon = client["pid"].as_u64().context("pid")?;
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{daemon}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            ensure!(field(&status, set)? == "0000000000000000", "{status}");
        }
        ensure!(
            field(&status, "NoNewPrivs")? == "1" && field(&status, "Seccomp")? == "2" && field(&status, "Uid")?.starts_with("950\t950\t950"),
            "{status}"
        );
        threads += 1;
    }
    ensure!(threads > 1, "{threads} threads");
    // Its memory is closed to its own user's other processes: procfs gives its files to root.
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{daemon}/environ"))?);
    ensure!(owner == 0, "/proc/{daemon}/environ belongs to {owner}: it can be traced");
    let status = fs::read_to_string(format!("/proc/{}/status", platform.warden()?.pid))?;
    let bits = |set| Ok::<_, anyhow::Error>(u64::from_str_radix(field(&status, set)?, 16)?);
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        ensure!(bits(set)? & !OF_THE_WARDEN == 0, "{status}");
    }
    // A filter of its own would be every dyno's for good.
    ensure!(bits("CapInh")? == 0 && bits("CapAmb")? == 0 && field(&status, "NoNewPrivs")? == "1" && field(&status, "Seccomp")? == "0", "{status}");
    Ok(())
}

fn umask_and_killed_warden(_: &Platform) -> Result<()> {
    let instance = Instance::new("umask", FREE.to_owned());
    let daemon = instance.start(&["sh", "-c", "umask 077; exec \"$0\"", "{}"])?;
    let source = tempfile::tempdir()?;
    fs::write(source.path().join("index.html"), "hello\n")?;
    instance.dyno(&["apps:create", "umask-app", "--no-file"])?;
    instance.dyno(&["deploy", "-a", "umask-app", &source.path().to_string_lossy()])?;
    let said = instance.dyno(&["run", "--no-tty", "-a", "umask-app", "--", "ls /app && cat /app/index.html"])?;
    ensure!(said.contains("hello"), "{said}");
    instance.dyno(&["ps:wait", "-a", "umask-app"])?;
    instance.kill_warden()?;
    instance.stop(daemon)
}
