//! Hooks that answer, fail, hang, and write more than anybody reads.

use std::{path::Path, time::Duration};

use super::*;
use crate::oci::state::Status;

fn state() -> State {
    State {
        oci_version: "1.2.0".into(),
        id: "web".into(),
        status: Status::Creating,
        pid: 7,
        bundle: "/usr".into(),
        annotations: std::iter::once(("a".into(), "b".into())).collect(),
    }
}

fn shell(script: &str, arg: &Path) -> Hook {
    let args = ["sh", "-c", script].map(str::to_owned).into_iter().chain([arg.display().to_string()]).collect();
    Hook { path: "/bin/sh".into(), args, ..Hook::default() }
}

fn fails(hook: &Hook) -> String {
    run("createRuntime", std::slice::from_ref(hook), &state()).unwrap_err().to_string()
}

#[test]
fn state_environment_and_directory() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut hook = shell("{ cat; echo; /usr/bin/env; /bin/pwd; ls /proc/self/fd; ps -o pgid= -p $$; echo $$; } > $0", &out);
    hook.env = vec!["A=b=c".into(), "EMPTY=".into(), "A=twice".into()];
    let leak = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    run("prestart", &[hook], &state()).unwrap();
    let said = std::fs::read_to_string(&out).unwrap();
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(lines[0], r#"{"ociVersion":"1.2.0","id":"web","status":"creating","pid":7,"bundle":"/usr","annotations":{"a":"b"}}"#);
    let env: Vec<&str> = lines.iter().copied().filter(|line| line.contains('=')).collect();
    // PWD and such are the shell's own.
    assert!(env.contains(&"EMPTY=") && env.iter().any(|v| v.starts_with("A=")) && !said.contains("CARGO"), "{said}");
    // The bundle.
    assert!(lines.contains(&"/usr"), "{said}");
    // The streams, and the directory that ls reads.
    assert!(lines.windows(4).any(|w| w == ["0", "1", "2", "3"]) && !lines.contains(&"4"), "{said}");
    let [.., group, own] = lines[..] else { panic!("{said}") };
    assert_eq!(group, own);
}

#[test]
fn the_first_failure_ends_it_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let hooks = [shell("touch $0", &one), shell("echo so; echo why >&2; exit 3", &one), shell("touch $0", &two)];
    let said = run("createContainer", &hooks, &state()).unwrap_err().to_string();
    assert_eq!(said, "error running createContainer hook #1 /bin/sh: exit status 3: why; so");
    assert!(one.exists() && !two.exists());
    assert_eq!(fails(&shell("kill -9 $$", &one)), "error running createRuntime hook #0 /bin/sh: signal 9");
    let missing = Hook { path: "/nowhere/hook".into(), ..Hook::default() };
    let said = fails(&missing);
    assert!(
        said.starts_with("error running createRuntime hook #0 /nowhere/hook: execve(/nowhere/hook): ") && said.contains("No such file"),
        "{said}"
    );
    run("poststop", &[Hook { path: "/bin/true".into(), ..Hook::default() }], &state()).unwrap();
}

#[test]
fn a_timeout_ends_the_whole_group() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let mut hook = shell("sleep 1000 & echo $! > $0; echo waiting >&2; wait", &file);
    hook.timeout = Some(1);
    let began = Instant::now();
    assert_eq!(fails(&hook), "error running createRuntime hook #0 /bin/sh: killed after its timeout of 1 s: waiting");
    assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&began.elapsed()));
    let sleeper: u32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    // It has been killed, which takes effect when it has its turn; nobody's child of ours, it may have been collected by then.
    let Some(pidfd) = crate::sys::pin(sleeper).unwrap() else { return };
    let time = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time)), Ok(1), "{sleeper} lives on");
}

#[test]
fn one_that_does_not_read_and_one_that_writes_without_end() {
    let nowhere = Path::new("/");
    let mut large = state();
    large.annotations.insert("large".into(), "x".repeat(1 << 20));
    run("poststart", &[shell("exec <&-; exit 0", nowhere), shell("exit 0", nowhere), shell("cat > /dev/null", nowhere)], &large).unwrap();
    let said = fails(&shell("head -c 20000000 /dev/zero | tr '\\0' x >&2; exit 1", nowhere));
    assert!(said.len() < 2 * KEPT && said.contains("exit status 1: xxx"), "{}", said.len());
    let mut endless = shell("while :; do echo y; done", nowhere);
    endless.timeout = Some(1);
    assert!(fails(&endless).contains("killed after its timeout"));
}

#[test]
fn what_it_leaves_running_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let began = Instant::now();
    run("createRuntime", &[shell("sleep 1000 & echo $! > $0", &file)], &state()).unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
    let sleeper: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(sleeper).unwrap(), Signal::KILL).unwrap();
}
