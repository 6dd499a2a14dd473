//! Makes every system call of a start fail, one start after the other, and looks for what is left each time.
//!
//! The calls are counted over the parent, the child that raises the walls, and the init, so the list of steps is the kernel's and
//! not ours: a new step is tested as soon as it is there. The work is done in a process of its own, because the leak check
//! counts the descriptors of the process.

mod attempts;

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    process::Command,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use self::attempts::{ATTEMPTS, callers, rootless_host};
pub(crate) use self::attempts::{Attempt, Made};
use crate::{
    Sandbox,
    support::{self, Stage, leaks},
    sys::inject::{self, Call},
};

/// The one that nothing here takes for an ordinary answer.
const INJECTED: Errno = Errno::PERM;

macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

/// Calls that set something up. Those that only end things are left out: when killing fails, something stays by definition.
#[rustfmt::skip]
const CALLS: &[(&str, i64)] = calls![
    SYS_clone3 SYS_unshare SYS_setns SYS_fsopen SYS_fsconfig SYS_fsmount SYS_open_tree SYS_move_mount SYS_mount_setattr SYS_mount
    SYS_pivot_root SYS_openat SYS_openat2 SYS_mkdirat SYS_mknodat SYS_symlinkat SYS_chdir SYS_fchdir SYS_fchown SYS_fchownat SYS_fchmod
    SYS_fchmodat SYS_linkat SYS_write SYS_read SYS_ioctl SYS_socket SYS_socketpair SYS_bind SYS_listen SYS_sendto SYS_pipe2 SYS_fcntl SYS_dup3
    SYS_close_range SYS_prctl SYS_seccomp SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self SYS_capset SYS_capget SYS_setgroups SYS_setresuid SYS_setresgid SYS_sethostname SYS_prlimit64
    SYS_keyctl SYS_setsid SYS_execve SYS_execveat SYS_memfd_create SYS_flock SYS_getpriority SYS_sched_getscheduler SYS_ioprio_set
    SYS_personality SYS_recvfrom SYS_fstatfs SYS_statx SYS_signalfd4 SYS_getdents64 SYS_ftruncate SYS_pwrite64 SYS_pread64
];
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[(&str, i64)] = calls![SYS_mkdir SYS_rename SYS_chmod SYS_link];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[(&str, i64)] = calls![SYS_renameat];

/// Without these a start goes on, for the reason given; every other success after a failure is a step that nobody checks.
const TOLERATED: &[(&str, &str)] = &[
    ("parent SYS_statx", "whether something is there already; what matters is checked by the call that makes it"),
    ("init SYS_prctl", "its name"),
    ("init SYS_read", "the word that it is known, which it does not wait for: all of it ends then, after it has started"),
    ("parent SYS_prlimit64", "the C library's posix_spawn"),
    ("parent SYS_setns", "whoever may not enter a network as it is does so by way of the user namespace that owns it"),
    ("parent SYS_prctl", "when it cannot be asked whether it is dumpable still, it is made so"),
];

/// Counts calls and fails one.
struct Supervisor {
    /// Whose calls are counted, and which of them fails.
    target: (&'static str, usize),
    seen: usize,
    /// The thread that attempts.
    parent: u32,
    away: bool,
    /// Who called what, when it was failed.
    hit: Option<String>,
}

impl Supervisor {
    fn judge(&mut self, call: &Call, armed: bool) -> Option<Errno> {
        let who = self.caller(call);
        if !armed || self.is_no_step(call, who) || who != self.target.0 {
            return None;
        }
        self.seen += 1;
        if self.seen != self.target.1 {
            return None;
        }
        let name = CALLS.iter().chain(OLD_CALLS).find(|(_, number)| *number == i64::from(call.number)).map_or("?", |(name, _)| name);
        self.hit = Some(format!("{who} {name}"));
        Some(INJECTED)
    }

    fn caller(&self, call: &Call) -> &'static str {
        if call.pid == self.parent {
            return "parent";
        }
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", call.pid)).unwrap_or_default();
        match comm.trim() {
            // Its name before it has given itself one: of the memory file, or the descriptor's number.
            "dyno-init" | "memfd:dyno-init" | "9" => "init",
            "program" => "program",
            // Not ours either; that it fails is enough.
            "mkfs.ext4" => "mkfs",
            "nft" => "nft",
            _ => "child",
        }
    }

    /// No step of ours, or the way home from another network namespace: a thread that cannot take it ends its process, on purpose.
    fn is_no_step(&mut self, call: &Call, who: &str) -> bool {
        // The standard library's debug assertion that a descriptor which it closes is open.
        if i64::from(call.number) == libc::SYS_fcntl && call.arguments[1] == libc::F_GETFD as u64 {
            return true;
        }
        if crate::sys::is_question(i64::from(call.number), call.arguments[0]) {
            return true;
        }
        // The namespaces of a dyno that runs (PIDFD_GET_MNT_NAMESPACE, _NET_): where the kernel does not tell, the one is not held, and the other
        // found in /proc.
        if i64::from(call.number) == libc::SYS_ioctl && matches!(call.arguments[1], 0xff03 | 0xff04) {
            return true;
        }
        // The sleeper that holds a user namespace: it runs beside its parent, and may be killed before or after these.
        let first = call.arguments[0];
        if matches!(i64::from(call.number), libc::SYS_prctl if first == libc::PR_SET_PDEATHSIG as u64)
            || matches!(i64::from(call.number), libc::SYS_close_range if first == 0)
        {
            return true;
        }
        let network = i64::from(call.number) == libc::SYS_setns && call.arguments[1] == libc::CLONE_NEWNET as u64 && who == "parent";
        if network {
            self.away = !self.away;
        }
        network && !self.away
    }
}

/// Attempts once with the call `target` failing. Who called what then (None: there are fewer calls), and what came of it.
pub(crate) fn attempt(
    stage: &Stage,
    attempt: &Attempt,
    sandbox: &Sandbox,
    target: (&'static str, usize),
) -> Result<(Option<String>, crate::Result<()>)> {
    // Its thread is not of those that are watched, and what it has ready decides what a start does itself.
    stage.host.wait_ready()?;
    let armed = AtomicBool::new(false);
    let (send, receive) = mpsc::channel::<Result<(OwnedFd, u32)>>();
    std::thread::scope(|scope| {
        let armed = &armed;
        let thread = scope.spawn(move || -> Result<crate::Result<()>> {
            let numbers: Vec<i64> = CALLS.iter().chain(OLD_CALLS).map(|(_, number)| *number).collect();
            let listener = inject::watch(&numbers).context("seccomp(NEW_LISTENER)");
            send.send(listener.map(|fd| (fd, rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned())))?;
            armed.store(true, Ordering::SeqCst);
            let made = attempt.2(stage, sandbox);
            armed.store(false, Ordering::SeqCst);
            Ok(match made? {
                Ok(made) => {
                    made.unmake()?;
                    Ok(())
                }
                Err(e) => Err(e),
            })
        });
        let (listener, parent) = receive.recv()??;
        let mut supervisor = Supervisor { target, seen: 0, parent, away: false, hit: None };
        supervise(&listener, &mut supervisor, armed)?;
        let result = thread.join().map_err(|_| anyhow!("the attempt panicked"))??;
        Ok((supervisor.hit, result))
    })
}

/// Until nobody is left under the filter.
fn supervise(listener: &OwnedFd, supervisor: &mut Supervisor, armed: &AtomicBool) -> Result<()> {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        poll(&mut fds, None)?;
        if !fds[0].revents().contains(PollFlags::IN) {
            return Ok(());
        }
        let call = match inject::receive(listener) {
            Err(Errno::NOENT | Errno::INTR) => continue, // its caller was killed
            other => other?,
        };
        let errno = supervisor.judge(&call, armed.load(Ordering::SeqCst));
        match inject::answer(listener, &call, errno) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Fails one call of `who` after the other until there are no more; how many times each was failed. Who is told apart because parent
/// and init run at the same time, so that only the order within each is the same every time.
fn every_call(stage: &Stage, which: &Attempt, sandbox: &Sandbox, who: &'static str) -> Result<BTreeMap<String, usize>> {
    let mut failed = BTreeMap::new();
    // Where a start takes a tenth of a second, every 31st.
    for nth in (1..).step_by(if support::emulated() { 31 } else { 1 }) {
        let before = stage.snapshot()?;
        let (hit, result) = attempt(stage, which, sandbox, (who, nth))?;
        let Some(hit) = hit else {
            result.context("without any failure")?;
            release_images(stage)?;
            // The kernel takes a link away some time after its last user, and the next attempt is compared with what is there then.
            leaks::must_become(&before, || stage.snapshot()).with_context(|| format!("{}: without any failure", which.0))?;
            return Ok(failed);
        };
        let what = format!("{}: call {nth}, {hit}", which.0);
        check(&hit, &result).with_context(|| what.clone())?;
        release_images(stage).and_then(|()| leaks::must_become(&before, || stage.snapshot())).with_context(|| format!("{what}: {result:?}"))?;
        *failed.entry(hit).or_default() += 1;
    }
    Ok(failed)
}

fn check(hit: &str, result: &crate::Result<()>) -> Result<()> {
    match result {
        Ok(()) => ensure!(TOLERATED.iter().any(|(call, _)| *call == hit), "it started all the same"),
        // What is not seen to be there is made, and that fails.
        Err(_) if hit == "parent SYS_statx" => {}
        // The init has no words but for execve's answer.
        Err(e) if hit.starts_with("init") => ensure!(e.errno() == Some(INJECTED) || e.to_string().contains("init"), "{e}"),
        Err(e) => {
            ensure!(e.errno() == Some(INJECTED) && e.to_string().len() > INJECTED.to_string().len() + 4, "the error tells of something else: {e}")
        }
    }
    Ok(())
}

/// What stays mounted stays for the next start; an empty mount point would be a leak.
pub(crate) fn release_images(stage: &Stage) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    for image in stage.host.images().list()? {
        ensure!(table.contains(&image), "images/{image} is left and not mounted");
        stage.host.images().release(&image)?;
    }
    Ok(())
}

#[test]
fn a_failure_at_any_call_of_a_start_is_named_and_leaves_nothing() {
    if let Some(reason) = support::missing(&["unshare", "nft"]) {
        return println!("skipped: {reason}");
    }
    let program = std::env::current_exe().unwrap();
    // Links and rules in a network of its own.
    let mut driver = Command::new("unshare");
    driver.args(["--net", "--"]).arg(program).args(["--exact", "failures::driver", "--ignored", "--nocapture"]);
    let output = driver.env(support::lab::INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let told = said.lines().filter(|line| line.contains(" failed, one after the other")).count();
    assert_eq!(told, ATTEMPTS.iter().map(|attempt| callers(attempt.0).len()).sum::<usize>(), "{said}");
    said.lines().filter(|line| line.contains(" failed, one after the other")).for_each(|line| println!("{line}"));
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn driver() {
    let stage = Stage::new("failures").unwrap();
    let result = drive(&stage);
    stage.close().unwrap();
    result.unwrap();
}

fn drive(stage: &Stage) -> Result<()> {
    for which in ATTEMPTS {
        let sandbox = which.1(stage)?;
        for who in callers(which.0) {
            let failed = every_call(stage, which, &sandbox, who)?;
            let total: usize = failed.values().sum();
            ensure!(total >= if support::emulated() { 1 } else { 10 }, "{}: only {total} calls of the {who} were seen", which.0);
            println!("{}: {total} calls of the {who} failed, one after the other: {failed:?}", which.0);
        }
    }
    Ok(rootless_host(stage)?.dismantle()?)
}
