//! Starts as on kernels, and below filters, that lack a system call or a flag of one (`docs/kernels.md`).
//!
//! Each is hidden from one thread and all that it starts: nobody else notices, and it is gone with the thread. Then the walls are
//! read back and the streams used by the very cases of `tests/`, on an instance that was opened under the same filter. What has
//! no substitute must be named before anything is made. The work is done in a process of its own, because the leak check
//! counts the descriptors of the process.

#![allow(clippy::duplicate_mod, reason = "each test program brings its own stage")]

#[allow(dead_code, reason = "a test program of its own")]
#[path = "../tests/exec.rs"]
mod exec;
#[allow(dead_code, reason = "a test program of its own")]
#[path = "../tests/images.rs"]
mod images;
#[allow(dead_code, reason = "a test program of its own")]
#[path = "../tests/restart.rs"]
mod restart;
#[allow(dead_code, reason = "a test program of its own")]
#[path = "../tests/streams.rs"]
mod streams;
#[allow(dead_code, reason = "a test program of its own")]
#[path = "../tests/walls.rs"]
mod walls;

use std::{fs, os::unix::fs::FileExt, process::Command, sync::mpsc};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use crate::{
    ErrorKind, Host,
    support::{self, PROGRAM},
    sys::inject::{self, Hidden, When},
};

const fn gone(number: i64) -> Hidden {
    Hidden { number, when: When::Always, errno: Errno::NOSYS }
}

const fn unknown(number: i64, when: When) -> Hidden {
    Hidden { number, when, errno: Errno::INVAL }
}

const P_PIDFD: u32 = 3;
const MFD_EXEC: u32 = 0x10;

/// What has a substitute.
const SUBSTITUTED: &[(&str, &[Hidden])] = &[
    ("openat2", &[gone(libc::SYS_openat2)]),
    ("clone3", &[gone(libc::SYS_clone3)]),
    ("close_range", &[gone(libc::SYS_close_range)]),
    ("pidfd_open", &[gone(libc::SYS_pidfd_open)]),
    ("waitid(P_PIDFD)", &[unknown(libc::SYS_waitid, When::Is(0, P_PIDFD))]),
    ("execveat", &[gone(libc::SYS_execveat)]),
    ("memfd_create(MFD_EXEC)", &[unknown(libc::SYS_memfd_create, When::Has(1, MFD_EXEC))]),
    ("statx", &[gone(libc::SYS_statx)]),
    ("keyctl", &[gone(libc::SYS_keyctl)]),
    ("Landlock", &[gone(libc::SYS_landlock_create_ruleset), gone(libc::SYS_landlock_add_rule), gone(libc::SYS_landlock_restrict_self)]),
];

/// Flags of clone3 that came later than itself.
const FLAGS: [(&str, u64); 2] = [("CLONE_CLEAR_SIGHAND", 1 << 32), ("CLONE_INTO_CGROUP", 1 << 33)];

/// What nothing can stand in for, and the Linux that has it first.
const NEEDED: &[(&str, &str, Hidden)] = &[
    ("memfd_create", "3.17", gone(libc::SYS_memfd_create)),
    ("pidfd_send_signal", "5.1", gone(libc::SYS_pidfd_send_signal)),
    ("fsopen", "5.2", gone(libc::SYS_fsopen)),
    ("fsconfig", "5.2", gone(libc::SYS_fsconfig)),
    ("fsmount", "5.2", gone(libc::SYS_fsmount)),
    ("open_tree", "5.2", gone(libc::SYS_open_tree)),
    ("move_mount", "5.2", gone(libc::SYS_move_mount)),
    ("mount_setattr", "5.12", gone(libc::SYS_mount_setattr)),
];

/// Runs the cases of a test program on a stage of its own.
macro_rules! cases {
    ($program:ident, $wanted:expr) => {{
        let stage = $program::support::Stage::new(stringify!($program))?;
        let wanted: fn(&str) -> bool = $wanted;
        let mut held = 0;
        for (name, case) in $program::CASES.iter().filter(|(name, _)| wanted(name)) {
            if let Err(e) = stage.leaves_nothing(|| case(&stage)) {
                stage.close()?;
                return Err(e.context(concat!(stringify!($program), " under the filter")).context(*name));
            }
            held += 1;
        }
        stage.close()?;
        held
    }};
}

/// The cases that an emulated processor has the time for.
const FEW: &[&str] = &[
    "status_of_every_process",
    "ids_of_every_process",
    "mount_table",
    "only_three_descriptors",
    "control_groups",
    "pipes",
    "terminal",
    "log_records",
];

/// How many cases held.
fn starts(without_pidfd_open: bool) -> Result<usize> {
    if support::emulated() {
        return Ok(cases!(walls, |name| FEW.contains(&name)) + cases!(streams, |name| FEW.contains(&name)));
    }
    let mut held = cases!(walls, |_| true) + cases!(streams, |_| true);
    if support::missing(&["mksquashfs"]).is_none() {
        held += cases!(images, |name| ["runs_on_an_image", "image_and_directory_stacked", "volumes", "upper_of_an_ended_dyno"].contains(&name));
    }
    held += cases!(exec, |name| ["output_and_status", "behind_the_same_walls", "on_a_terminal"].contains(&name));
    // What ended is recovered and what runs is ended without it; only what runs cannot be taken up.
    held += if without_pidfd_open { cases!(restart, |name| name == "sweep_ends_what_runs") } else { cases!(restart, |_| true) };
    Ok(held)
}

/// Does `work` on a thread from which `hidden` is hidden.
fn under<T: Send>(hidden: &[Hidden], work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            inject::hide(hidden).context("seccomp")?;
            for call in hidden.iter().filter(|call| matches!(call.when, When::Always)) {
                ensure!(inject::is_hidden(call.number), "system call {} is answered", call.number);
            }
            work()
        });
        thread.join().map_err(|_| anyhow!("it panicked"))?
    })
}

/// Does `work` on a thread on which clone3 does not know `flags`. They are in memory, where only a supervisor can look.
fn without_clone3_flags<T: Send>(flags: u64, work: impl FnOnce() -> Result<T> + Send) -> Result<(T, usize)> {
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        let thread = scope.spawn(move || {
            send.send(inject::watch(&[libc::SYS_clone3]).context("seccomp(NEW_LISTENER)"))?;
            work()
        });
        let listener = receive.recv()??;
        let mut refused = 0;
        loop {
            let mut fds = [PollFd::new(&listener, PollFlags::IN)];
            poll(&mut fds, None)?;
            if !fds[0].revents().contains(PollFlags::IN) {
                break; // nobody is left under the filter
            }
            let call = match inject::receive(&listener) {
                Err(Errno::NOENT | Errno::INTR) => continue,
                other => other?,
            };
            let mut bytes = [0; 8];
            let memory = fs::File::open(format!("/proc/{}/mem", call.pid)).and_then(|memory| memory.read_exact_at(&mut bytes, call.arguments[0]));
            let unknown = memory.is_ok() && u64::from_ne_bytes(bytes) & flags != 0;
            refused += usize::from(unknown);
            match inject::answer(&listener, &call, unknown.then_some(Errno::INVAL)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok((thread.join().map_err(|_| anyhow!("it panicked"))??, refused))
    })
}

fn substituted() -> Result<()> {
    // All of them together are tried everywhere.
    let one_by_one = if support::emulated() { &[] } else { SUBSTITUTED };
    for (name, hidden) in one_by_one {
        let held = under(hidden, || starts(*name == "pidfd_open")).with_context(|| format!("without {name}"))?;
        println!("without {name}: {held} cases held");
    }
    for (name, flag) in FLAGS.into_iter().filter(|_| !support::emulated()) {
        let (held, refused) = without_clone3_flags(flag, || starts(false)).with_context(|| format!("without {name}"))?;
        // Nobody asks for a group where the host has only v1.
        ensure!(refused > 0 || flag == 1 << 33 && !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), "{name} was never asked for");
        println!("without {name}: {held} cases held, {refused} calls refused");
    }
    let all: Vec<Hidden> = SUBSTITUTED.iter().flat_map(|(_, hidden)| *hidden).copied().collect();
    let held = under(&all, || starts(true)).context("without all of them")?;
    println!("without all of them: {held} cases held");
    Ok(())
}

fn needed() -> Result<()> {
    let run = std::env::temp_dir().join(format!("dyno-test-old-{}", std::process::id()));
    let open = || Host::open(&run, "dyno-test-old").err().context("it opened all the same");
    for (name, since, hidden) in NEEDED {
        let error = under(&[*hidden], open).with_context(|| format!("without {name}"))?;
        let text = format!("this host lacks {name}(2) (Linux {since}): ");
        ensure!(error.kind() == ErrorKind::Wall && error.to_string().starts_with(&text), "without {name}: {error}");
        ensure!(!run.exists(), "without {name}: {} is left", run.display());
        println!("without {name}: {error}");
    }
    let all: Vec<Hidden> = NEEDED.iter().map(|(_, _, hidden)| *hidden).filter(|h| h.number != libc::SYS_memfd_create).collect();
    let error = under(&all, open)?;
    ensure!(error.to_string().starts_with("this host lacks pidfd_send_signal(2)"), "{error}");
    Ok(())
}

/// Dynos are started and waited for without these two; one that runs already cannot be taken up, or asked for another command, and
/// that is told.
fn what_is_left_undone() -> Result<()> {
    let stage = support::Stage::new("old")?;
    let dyno = stage.forever()?;
    let refused = under(&[gone(libc::SYS_pidfd_open)], || Ok(stage.host.recover().err()))?;
    let error = refused.context("it was taken up")?;
    ensure!(error.kind() == ErrorKind::Wall && error.to_string().contains(": pidfd_open("), "{error}");
    let refused = under(&[gone(libc::SYS_pidfd_getfd)], || Ok(dyno.exec(crate::Exec::new([PROGRAM, "exit", "0"])).err()))?;
    let error = refused.context("a command was started")?;
    ensure!(error.to_string().starts_with("pidfd_getfd("), "{error}");
    ensure!(!dyno.has_ended(), "it was harmed");
    dyno.free()?;
    stage.close()
}

#[test]
fn what_is_hidden_has_a_substitute_or_is_named() {
    if let Some(reason) = support::missing(&[]) {
        return println!("skipped: {reason}");
    }
    // Compiled once, for all the stages.
    let dir = tempfile::tempdir().unwrap();
    support::make_rootfs(dir.path()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "old_kernels::driver", "--ignored", "--nocapture"]).env("DYNO_TEST_PROGRAM", dir.path().join(&PROGRAM[1..]));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let one_by_one = if support::emulated() { 0 } else { SUBSTITUTED.len() + FLAGS.len() };
    assert_eq!(said.lines().filter(|line| line.contains(" cases held")).count(), one_by_one + 1, "{said}");
    said.lines().filter(|line| line.starts_with("without ")).for_each(|line| println!("{line}"));
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn driver() {
    needed().unwrap();
    substituted().unwrap();
    what_is_left_undone().unwrap();
}
