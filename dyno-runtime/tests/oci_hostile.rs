//! Classes of attack on runtimes, tried on this one: its own executable, descriptors and directories that leak, hooks that are lured. Each beside a
//! control in which the same attack succeeds on something of the test's own.

mod bundles;
mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use bundles::{
    PATIENCE, Runtime, finish,
    yard::{Yard, facts, until},
};
use support::{Case, Stage, same, sha256};

const CASES: &[Case] = &[
    ("the_runtimes_executable", executable),
    ("the_runtimes_executable_traced", executable_traced),
    ("a_program_that_is_its_own_interpreter", interpreter),
    ("a_directory_that_leaked", directory),
    ("descriptors_of_the_caller", descriptors),
    ("what_hooks_inherit", hooks),
];

fn main() -> ExitCode {
    support::suite("oci-hostile", &["nsenter", "setpriv"], CASES)
}

/// CVE-2019-5736: a process inside opens the executable of whoever joins, and writes to it when that has ended.
fn executable(stage: &Stage) -> Result<()> {
    thief(stage, &[])
}

/// The same thief may trace, and so may look into what is undumpable.
fn executable_traced(stage: &Stage) -> Result<()> {
    thief(stage, &["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"])
}

fn ours() -> Result<std::path::PathBuf> {
    let tests = std::env::current_exe()?;
    Ok(std::env::var_os("DYNO_TEST_OCI_OURS").map_or_else(|| tests.parent().unwrap_or(&tests).with_file_name("dyno-runtime"), Into::into))
}

fn thief(stage: &Stage, capabilities: &[&str]) -> Result<()> {
    let yard = Yard::new(stage, Runtime::ours())?;
    let before = sha256(&ours()?)?;
    let mut config = yard.config(&["steal", "/marks"]);
    let sets = ["bounding", "permitted", "effective"].map(|set| (set.to_owned(), json!(capabilities)));
    config["process"]["capabilities"] = serde_json::Value::Object(sets.into_iter().collect());
    let (pid, mut lines) = yard.start(&config)?;
    until(&mut lines, "here")?;
    let attacked = attack(&yard, pid, &mut lines);
    fs::write(yard.bundle.dir.join("marks/enough"), "")?;
    let told = until(&mut lines, "done");
    yard.clear(Some(pid))?;
    let told = [attacked?, told?].concat();
    let victim = yard.work.join("victim").display().to_string();
    let opened: Vec<&String> = told.iter().filter(|line| line.ends_with("opened")).collect();
    ensure!(!opened.is_empty() && opened.iter().all(|line| line.contains(&victim)), "control or defence failed: {told:#?}");
    // Who may trace may look at all that joins: a user namespace is the wall against that. Nobody else sees what the runtime has open.
    ensure!(!capabilities.is_empty() || !told.iter().any(|line| line.starts_with("met descriptor /sys")), "descriptors of the host's: {told:#?}");
    same("the runtime's file", sha256(&ours()?)?, before)
}

/// Has the thief meet one of ours, and then some more; and the control.
fn attack(yard: &Yard, pid: rustix::process::Pid, lines: &mut std::io::BufReader<fs::File>) -> Result<Vec<String>> {
    let end = std::time::Instant::now() + PATIENCE;
    let nothing = |lines: &std::io::BufReader<fs::File>| -> Result<bool> {
        let mut fds = [PollFd::new(lines.get_ref(), PollFlags::IN)];
        Ok(lines.buffer().is_empty() && poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0)
    };
    while nothing(lines)? {
        ensure!(std::time::Instant::now() < end, "the thief has met nobody: this proves nothing");
        same("exec", yard.must(&["exec", &yard.id, "/bin/probe", "say", "x"])?.stdout.as_str(), "x\n")?;
    }
    for _ in 0..20 {
        yard.must(&["exec", &yard.id, "/bin/probe", "say", "x"])?;
        // The program is the runtime itself, inside.
        ensure!(!yard.tell(&["exec", &yard.id, "/proc/self/exe", "say"])?.ok(), "the runtime ran inside");
    }
    control(yard, pid, lines)
}

/// A program of the test's own that joins without any defence: the thief gets it.
fn control(yard: &Yard, pid: rustix::process::Pid, lines: &mut std::io::BufReader<fs::File>) -> Result<Vec<String>> {
    let victim = yard.work.join("victim");
    fs::copy(&yard.probe, &victim)?;
    let gate = yard.work.join("gate");
    if !gate.exists() {
        rustix::fs::mknodat(rustix::fs::CWD, &gate, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)?;
    }
    // Copies: what the thief gets in the end is the test's own.
    let own = |name: &str| -> Result<std::path::PathBuf> {
        let copy = yard.work.join(format!("victim-{name}"));
        fs::copy(Path::new("/usr/bin").join(name), &copy).with_context(|| format!("copy {name}"))?;
        Ok(copy)
    };
    let mut command = Command::new(own("nsenter")?);
    command
        .arg(format!("--target={}", pid.as_raw_nonzero()))
        .args(["--pid", "--"])
        .arg(own("setpriv")?)
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(&victim)
        .arg("fifo")
        .arg(&gate)
        .stdin(Stdio::null());
    let mut child = command.spawn()?;
    let met = until(lines, &format!("met write {}", victim.display()));
    fs::OpenOptions::new().write(true).open(&gate)?;
    ensure!(child.wait()?.success(), "the victim failed");
    met
}

/// CVE-2019-5736, the other way: `#!/proc/self/exe`.
fn interpreter(stage: &Stage) -> Result<()> {
    let yard = Yard::new(stage, Runtime::ours())?;
    let before = sha256(&ours()?)?;
    let mut config = yard.config(&[]);
    config["process"]["args"] = json!(["/data/again", "run"]);
    yard.bundle.reset(&config, 0)?;
    let script = yard.bundle.rootfs().join("data/again");
    fs::write(&script, "#!/proc/self/exe\n")?;
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
    let mut command = yard.runtime.command(&yard.bundle.root, &["run", "--bundle"]);
    command.arg(&yard.bundle.dir).arg(&yard.id);
    let answer = finish(command, &yard.bundle.dir.join("out"))?;
    ensure!(!answer.ok(), "{answer:?}");
    yard.clear(None)?;
    same("the runtime's file", sha256(&ours()?)?, before)
}

/// CVE-2024-21626: a working directory by a descriptor that the runtime still has, of the host's.
fn directory(stage: &Stage) -> Result<()> {
    let yard = Yard::new(stage, Runtime::ours())?;
    for number in 3..48 {
        let mut config = yard.config(&["look", "0"]);
        config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        let answer = yard.run(&config)?;
        ensure!(!answer.ok() && answer.stdout.is_empty(), "descriptor {number}: {answer:?}");
        yard.clear(None)?;
    }
    let (pid, mut lines) = yard.start(&yard.config(&["forever"]))?;
    until(&mut lines, "here")?;
    for number in 3..48 {
        let answer = yard.tell(&["exec", "--cwd", &format!("/proc/self/fd/{number}"), &yard.id, "/bin/probe", "look", "0"])?;
        ensure!(!answer.ok() && answer.stdout.is_empty(), "exec, descriptor {number}: {answer:?}");
    }
    yard.clear(Some(pid))
}

/// Descriptors that whoever called the runtime has left open, and its own.
fn descriptors(stage: &Stage) -> Result<()> {
    let yard = Yard::new(stage, Runtime::ours())?;
    let with_open = |program: &Path, args: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3</ 4</etc/passwd 7</dev/null 9<. ; exec \"$@\"", "sh"]).arg(program).args(args).stdin(Stdio::piped());
        finish(command, &yard.bundle.dir.join("out"))
    };
    let seen = |text: &str| facts(text).keys().filter_map(|key| key.strip_prefix("fd ")).map(str::to_owned).collect::<Vec<_>>().join(" ");
    yard.bundle.reset(&yard.config(&["look", "0"]), 0)?;
    let control = with_open(&yard.probe, &["look", "0"])?;
    ensure!(["3", "4", "7", "9"].iter().all(|fd| seen(&control.stdout).split(' ').any(|n| n == *fd)), "without a runtime: {}", control.stdout);
    let (root, bundle) = (yard.bundle.root.display().to_string(), yard.bundle.dir.display().to_string());
    let first = with_open(&ours()?, &["--root", &root, "run", "--bundle", &bundle, &yard.id])?;
    same("first process", seen(&first.stdout).as_str(), "0 1 2")?;
    let (pid, mut lines) = yard.start(&yard.config(&["forever"]))?;
    until(&mut lines, "here")?;
    let exec = with_open(&ours()?, &["--root", &root, "exec", &yard.id, "/bin/probe", "look", "0"])?;
    same("exec", seen(&exec.stdout).as_str(), "0 1 2")?;
    yard.clear(Some(pid))
}

/// CVE-2025-23266: a hook with the environment of the container or of the caller.
fn hooks(stage: &Stage) -> Result<()> {
    let yard = Yard::new(stage, Runtime::ours())?;
    let mut config = yard.config(&["say", "ran"]);
    config["process"]["env"] = json!(["LD_PRELOAD=/data/evil.so", "PATH=/data", "SECRET=of the container"]);
    let marks = yard.bundle.dir.join("marks").display().to_string();
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        config["hooks"][kind] = json!([{ "path": yard.probe, "args": ["probe", "hook", kind, marks, "0"] }]);
    }
    yard.bundle.reset(&config, 0)?;
    let mut command = yard.runtime.command(&yard.bundle.root, &["run", "--bundle"]);
    command.arg(&yard.bundle.dir).arg(&yard.id).env("SECRET", "of the caller").env("LD_LIBRARY_PATH", "/data");
    let answer = finish(command, &yard.bundle.dir.join("out"))?;
    same("run", (answer.status, answer.stdout.as_str()), (0, "ran\n"))?;
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let told = fs::read_to_string(yard.bundle.dir.join("marks").join(kind)).with_context(|| format!("{kind} did not run"))?;
        ensure!(told.contains("state\t") && !told.contains("env."), "{kind}: {told}");
    }
    yard.clear(None)
}
