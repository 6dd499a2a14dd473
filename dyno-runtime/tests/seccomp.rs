//! Every system-call profile, live: what a program meets, and what the log of denied calls tells.

mod support;

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Denial, Dyno, Exec, Profile, Sandbox, StartOptions, Stdio, Streams, seccomp::ProfileData};

use support::{Case, Stage, same};

const CASES: &[Case] = &[
    ("what_each_profile_answers", what_each_profile_answers),
    ("unconfined_has_no_filter_and_every_other_wall", unconfined_has_no_filter_and_every_other_wall),
    ("a_profile_may_kill", a_profile_may_kill),
    ("a_profile_that_cannot_start_is_refused", a_profile_that_cannot_start_is_refused),
    ("denied_calls_are_told_and_answered_alike", denied_calls_are_told_and_answered_alike),
    ("denials_of_many_processes", denials_of_many_processes),
    ("a_denied_call_waits_for_its_reader", a_denied_call_waits_for_its_reader),
    ("without_a_reader_denied_calls_answer_enosys", without_a_reader_denied_calls_answer_enosys),
    ("commands_beside_the_program_are_told_of_too", commands_beside_the_program_are_told_of_too),
    ("no_filter_no_denials", no_filter_no_denials),
];

fn main() -> ExitCode {
    support::suite("seccomp", &[], CASES)
}

fn custom(json: &str) -> Result<Profile> {
    Ok(Profile::Custom(Box::new(ProfileData::parse(json).map_err(anyhow::Error::msg)?)))
}

/// A sandbox whose program makes one raw call.
fn probe(stage: &Stage, profile: &Profile, number: i64, args: &[u64]) -> Sandbox {
    let mut words = vec!["call".to_owned(), number.to_string()];
    words.extend(args.iter().map(u64::to_string));
    Sandbox { seccomp: profile.clone(), ..stage.sandbox(&words.iter().map(String::as_str).collect::<Vec<_>>()) }
}

const NOTHING: &str = "answer 0\n";

/// Calls that an unprivileged program may make where no filter is, so that every refusal is the filter's.
fn what_each_profile_answers(stage: &Stage) -> Result<()> {
    let (unshare, ptrace, personality, clone3) = (libc::SYS_unshare, libc::SYS_ptrace, libc::SYS_personality, libc::SYS_clone3);
    let (eperm, enosys, einval) = (libc::EPERM, libc::ENOSYS, libc::EINVAL);
    let own = custom(
        r#"{"extends": "docker", "answers": {"unshare": "4000", "ptrace": "EACCES", "uname": "log"},
        "rules": [{"call": "personality", "when": [{"arg": 0, "op": "gt", "value": "0x100000000"}], "then": "EXDEV"},
                  {"call": "personality", "when": [{"arg": 0, "op": "ge", "value": "0"}]}]}"#,
    )?;
    let cases: &[(&Profile, i64, &[u64], Option<i32>)] = &[
        (&Profile::Unconfined, unshare, &[0], None),
        (&Profile::Unconfined, ptrace, &[0], None), // PTRACE_TRACEME
        (&Profile::Unconfined, clone3, &[0, 0], Some(einval)),
        (&Profile::Dyno, unshare, &[0], Some(eperm)),
        (&Profile::Dyno, ptrace, &[0], Some(eperm)),
        (&Profile::Dyno, clone3, &[0, 0], Some(enosys)),
        (&Profile::Dyno, 100_000, &[], Some(enosys)),
        (&Profile::Build, ptrace, &[0], Some(eperm)),
        (&Profile::Build, libc::SYS_fchmod, &[1, 0o4755], Some(eperm)),
        (&Profile::Build, libc::SYS_fchmod, &[9, 0o755], Some(libc::EBADF)),
        (&Profile::Docker, unshare, &[0], Some(eperm)),
        (&Profile::Docker, ptrace, &[0], None),
        (&Profile::Docker, clone3, &[0, 0], Some(enosys)),
        (&Profile::Docker, personality, &[0], None),
        (&Profile::Docker, personality, &[0x004_0000], Some(eperm)),
        (&own, unshare, &[0], Some(4000)),
        (&own, ptrace, &[0], Some(libc::EACCES)),
        (&own, personality, &[0x1_0000_0000], None),
        (&own, personality, &[0x1_0000_0001], Some(libc::EXDEV)),
        (&own, libc::SYS_uname, &[0], Some(libc::EFAULT)), // it runs
    ];
    for (profile, number, args, errno) in cases {
        let want = errno.map_or(NOTHING.into(), |e| format!("errno {e}\n"));
        let (_, is) = stage.output(&probe(stage, profile, *number, args))?;
        same(&format!("{profile:?}: call {number} {args:x?}"), is, want)?;
    }
    Ok(())
}

fn unconfined_has_no_filter_and_every_other_wall(stage: &Stage) -> Result<()> {
    let sandbox = Sandbox { seccomp: Profile::Unconfined, ..stage.sandbox(&["read", "/proc/self/status"]) };
    let (_, status) = stage.output(&sandbox)?;
    let own = fs::read_to_string("/proc/self/status")?;
    let field = |text: &str, name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
    for name in ["Seccomp:", "Seccomp_filters:"] {
        same(name, field(&status, name), field(&own, name))?;
    }
    same("this test itself", field(&own, "Seccomp:"), Some("0".into()))?;
    for (name, want) in [("NoNewPrivs:", "1"), ("CapEff:", "0000000000000000"), ("CapBnd:", "0000000000000000")] {
        same(name, field(&status, name), Some(want.into()))?;
    }
    Ok(())
}

fn a_profile_may_kill(stage: &Stage) -> Result<()> {
    let profile = custom(r#"{"extends": "dyno", "answers": {"unshare": "kill_process"}}"#)?;
    let (exit, said) = stage.output(&probe(stage, &profile, libc::SYS_unshare, &[0]))?;
    same("signal", (exit.signal, said), (Some(libc::SIGSYS), String::new()))
}

fn a_profile_that_cannot_start_is_refused(stage: &Stage) -> Result<()> {
    let profile = custom(r#"{"extends": "dyno", "answers": {"signalfd4": "EPERM"}}"#)?;
    let error = stage.start(&probe(stage, &profile, 0, &[]), Stdio::Null).err().context("it started")?;
    same("error", error.to_string(), "seccomp.profile answers EPERM to signalfd4, without which no sandbox can start".into())
}

fn start_logged(stage: &Stage, sandbox: &Sandbox) -> Result<Dyno> {
    Ok(stage.host.start(&stage.id(), sandbox, StartOptions { stdio: Stdio::Pipes, log_denied: true, ..Default::default() })?)
}

fn stdout(dyno: &mut Dyno) -> Result<std::os::fd::OwnedFd> {
    let Streams::Pipes { stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
    Ok(stdout)
}

/// Runs to the end, reading denials as they come.
fn logged(stage: &Stage, sandbox: &Sandbox) -> Result<(Vec<Denial>, String)> {
    let mut dyno = start_logged(stage, sandbox)?;
    let denials = dyno.take_denials().context("no denials")?;
    ensure!(dyno.take_denials().is_none(), "taken twice");
    let stdout = stdout(&mut dyno)?;
    let denied = denials.collect::<dyno_runtime::Result<Vec<_>>>()?;
    let said = support::read_all(stdout)?;
    dyno.free()?;
    Ok((denied, said))
}

/// Profile, call by number, arguments; its name, errno and rule as they are told.
type Told<'a> = (&'a Profile, i64, &'a [u64], &'a str, &'a str, &'a str);

fn denied_calls_are_told_and_answered_alike(stage: &Stage) -> Result<()> {
    let own = custom(r#"{"extends": "dyno", "answers": {"unshare": "EXDEV"}}"#)?;
    let cases: &[Told<'_>] = &[
        (&Profile::Dyno, libc::SYS_unshare, &[0], "unshare", "EPERM", "default: not in any list"),
        (&Profile::Dyno, libc::SYS_clone3, &[7, 8], "clone3", "ENOSYS", "answers: ENOSYS"),
        (&Profile::Dyno, libc::SYS_socket, &[2, 3, 1], "socket", "EPERM", "rules: arg 1 & 0xf is 0x3; allowed if it is 0x1, or is 0x2"),
        (&Profile::Dyno, 100_000, &[], "100000", "ENOSYS", "newer: not in this library's table"),
        (&Profile::Docker, libc::SYS_mount, &[1, 2, 3, 4, 5, 6], "mount", "EPERM", "default: not in any list"),
        (&own, libc::SYS_unshare, &[0], "unshare", "EXDEV", "answers: EXDEV"),
    ];
    for (profile, number, args, call, errno, rule) in cases {
        let sandbox = probe(stage, profile, *number, args);
        let (denied, said) = logged(stage, &sandbox)?;
        same("what the program saw", said, stage.output(&sandbox)?.1)?;
        let [denial] = denied.as_slice() else { bail!("{call}: {denied:#?}") };
        let is = (denial.explanation.call.as_str(), denial.explanation.action.as_str(), denial.explanation.rule.as_str());
        same("denial", is, (*call, *errno, *rule))?;
        same("arguments", &denial.args[..args.len()], *args)?;
        same("who", (denial.program.as_str(), denial.pid_inside, denial.pid > 1), ("program", 2, true))?;
    }
    let (denied, said) = logged(stage, &stage.sandbox(&["say", "hello"]))?;
    same("nothing denied", (denied.len(), said), (0, "hello\n".into()))
}

fn denials_of_many_processes(stage: &Stage) -> Result<()> {
    let sandbox = probe(stage, &Profile::Dyno, libc::SYS_unshare, &[0]);
    let started = (0..8).map(|_| {
        let mut dyno = start_logged(stage, &sandbox)?;
        Ok((dyno.take_denials().context("none")?, dyno))
    });
    for (denials, dyno) in started.collect::<Result<Vec<_>>>()? {
        let denied = denials.collect::<dyno_runtime::Result<Vec<_>>>()?;
        same("denials", denied.len(), 1)?;
        dyno.free()?;
    }
    Ok(())
}

fn a_denied_call_waits_for_its_reader(stage: &Stage) -> Result<()> {
    let mut dyno = start_logged(stage, &probe(stage, &Profile::Dyno, libc::SYS_unshare, &[0]))?;
    let mut denials = dyno.take_denials().context("none")?;
    ensure!(dyno.wait_timeout(Duration::from_millis(100))?.is_none(), "it went on");
    let mut fds = [rustix::event::PollFd::new(&denials, rustix::event::PollFlags::IN)];
    same("poll", rustix::event::poll(&mut fds, None)?, 1)?;
    same("denied", denials.next_within(Duration::from_secs(10))?.map(|d| d.explanation.call), Some("unshare".into()))?;
    dyno.wait()?;
    same("after the end", (denials.next_within(Duration::from_secs(10))?, denials.has_ended()), (None, true))?;
    dyno.free()?;
    // One that waits can be killed.
    let mut dyno = start_logged(stage, &probe(stage, &Profile::Dyno, libc::SYS_unshare, &[0]))?;
    let mut denials = dyno.take_denials().context("none")?;
    dyno.free()?;
    same("of the killed", denials.next_within(Duration::ZERO)?, None)?;
    // And one to which nothing is denied has nothing to tell.
    let mut dyno = start_logged(stage, &stage.sandbox(&["forever"]))?;
    let mut denials = dyno.take_denials().context("none")?;
    let began = Instant::now();
    same("nothing", (denials.next_within(Duration::from_millis(20))?, denials.has_ended()), (None, false))?;
    ensure!(began.elapsed() >= Duration::from_millis(20), "it did not wait");
    Ok(dyno.free()?)
}

fn without_a_reader_denied_calls_answer_enosys(stage: &Stage) -> Result<()> {
    let mut dyno = start_logged(stage, &probe(stage, &Profile::Dyno, libc::SYS_unshare, &[0]))?;
    drop(dyno.take_denials());
    let said = support::read_all(stdout(&mut dyno)?)?;
    same("still denied", said, format!("errno {}\n", libc::ENOSYS))?;
    Ok(dyno.free()?)
}

fn commands_beside_the_program_are_told_of_too(stage: &Stage) -> Result<()> {
    let mut dyno = start_logged(stage, &stage.sandbox(&["forever"]))?;
    let mut denials = dyno.take_denials().context("none")?;
    let process = dyno.exec(Exec::new([support::PROGRAM, "call", &libc::SYS_unshare.to_string(), "0"]))?;
    let denial = denials.next_within(Duration::from_secs(10))?.context("nothing told")?;
    same("call", (denial.explanation.call.as_str(), denial.pid_inside), ("unshare", process.pid_inside()))?;
    same("its program's answer", process.wait()?.status, 9)?;
    Ok(dyno.free()?)
}

fn no_filter_no_denials(stage: &Stage) -> Result<()> {
    let mut dyno = start_logged(stage, &probe(stage, &Profile::Unconfined, libc::SYS_unshare, &[0]))?;
    ensure!(dyno.take_denials().is_none(), "denials without a filter");
    same("it runs", support::read_all(stdout(&mut dyno)?)?, NOTHING.into())?;
    Ok(dyno.free()?)
}
