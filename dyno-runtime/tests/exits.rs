//! Exit records: every way to end, and who is told.

pub(crate) mod support;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use dyno_runtime::{Cause, ErrorKind, ExitRecord, Sandbox, Stdio};
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};

use support::{Case, Stage, same};

pub(crate) const CASES: &[Case] = &[
    ("codes", codes),
    ("signals", signals),
    ("memory", memory),
    ("killed", killed),
    ("init_killed_from_outside", init_killed_from_outside),
    ("stop_with_and_without_grace", stop_with_and_without_grace),
    ("waiting", waiting),
    ("what_was_used", what_was_used),
    ("programs_that_cannot_be_executed", programs_that_cannot_be_executed),
    ("the_rest_of_the_tree_ends_with_its_main_process", the_rest_of_the_tree_ends_with_its_main_process),
];

fn main() -> ExitCode {
    support::suite("exits", &[], CASES)
}

fn ended(exit: &ExitRecord) -> (i32, Option<i32>, Cause) {
    (exit.status, exit.signal, exit.cause)
}

fn codes(stage: &Stage) -> Result<()> {
    for code in [0, 1, 42, 137, 143, 255] {
        let (exit, _) = stage.output(&stage.sandbox(&["exit", &code.to_string()]))?;
        same("code", ended(&exit), (code, None, Cause::Exited))?;
    }
    Ok(())
}

fn signals(stage: &Stage) -> Result<()> {
    let (exit, _) = stage.output(&stage.sandbox(&["abort"]))?;
    same("abort", ended(&exit), (134, Some(libc::SIGABRT), Cause::Exited))?;
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1] {
        let dyno = stage.forever()?;
        dyno.signal(signal)?;
        same("signal", ended(&dyno.wait()?), (128 + signal, Some(signal), Cause::Exited))?;
        dyno.free()?;
    }
    let dyno = stage.forever()?;
    same("no such signal", dyno.signal(999).map_err(|e| e.kind()), Err(ErrorKind::Invalid))?;
    dyno.kill()?;
    dyno.wait()?;
    dyno.signal(libc::SIGTERM)?; // To one that has ended: no error.
    Ok(dyno.free()?)
}

fn memory(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["eat", &(64 << 20).to_string()]);
    sandbox.limits.memory = Some(32 << 20);
    let (exit, text) = stage.output(&sandbox)?;
    same("killed at the limit", ended(&exit), (137, Some(libc::SIGKILL), Cause::Memory))?;
    same("it got no further", text, String::new())?;
    ensure!(exit.oom_kills >= 1 && exit.memory_peak.is_some_and(|peak| peak > 16 << 20 && peak <= 32 << 20), "{exit:?}");
    Ok(())
}

fn killed(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    same("what ps shows", std::fs::read_to_string(format!("/proc/{}/comm", dyno.pid()))?, "dyno-init\n".into())?;
    dyno.kill()?;
    same("kill", ended(&dyno.wait()?), (137, Some(libc::SIGKILL), Cause::Killed))?;
    Ok(dyno.free()?)
}

fn init_killed_from_outside(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let pid = i32::try_from(dyno.pid()).ok().and_then(Pid::from_raw).context("pid")?;
    kill_process(pid, Signal::KILL)?;
    same("lost", ended(&dyno.wait()?), (137, Some(libc::SIGKILL), Cause::Lost))?;
    Ok(dyno.free()?)
}

fn stop_with_and_without_grace(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let gone = stage.start(&stage.sandbox(&["exit", "4"]), dyno_runtime::Stdio::Null)?;
    gone.wait()?;
    gone.kill()?;
    same("a kill that comes too late", ended(&gone.wait()?), (4, None, Cause::Exited))?;
    gone.free()?;
    same("obeys", ended(&dyno.stop(Duration::from_secs(30))?), (143, Some(libc::SIGTERM), Cause::Stopped))?;
    dyno.free()?;
    let deaf = stage.forever()?;
    deaf.signal(libc::SIGSTOP)?; // A stopped init passes nothing on.
    same("does not", ended(&deaf.stop(Duration::from_millis(50))?), (137, Some(libc::SIGKILL), Cause::Killed))?;
    Ok(deaf.free()?)
}

fn waiting(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    same("while it runs", (dyno.try_wait()?, dyno.has_ended()), (None, false))?;
    same("for a while", dyno.wait_timeout(Duration::from_millis(20))?, None)?;
    dyno.kill()?;
    let exit = dyno.wait_timeout(Duration::MAX)?.context("it was killed")?;
    same("again", (dyno.wait()?, dyno.try_wait()?), (exit.clone(), Some(exit)))?;
    same("ended", dyno.has_ended(), true)?;
    Ok(dyno.free()?)
}

fn what_was_used(stage: &Stage) -> Result<()> {
    let (exit, _) = stage.output(&stage.sandbox(&["spin", "200"]))?;
    ensure!(exit.wall_us >= 200_000, "{exit:?}");
    // A busy host gives it less.
    ensure!((20_000..=exit.wall_us * 2).contains(&exit.cpu_us), "{exit:?}");
    let (exit, text) = stage.output(&stage.sandbox(&["eat", &(48 << 20).to_string()]))?;
    same("pages", text, format!("ate {}\n", (48 << 20) / 4096))?;
    ensure!(exit.max_rss > 48 << 20 && exit.max_rss < 96 << 20, "{exit:?}");
    ensure!(exit.memory_peak.is_some_and(|peak| peak > 48 << 20), "{exit:?}");
    // Its start alone costs half a second of emulated processor.
    let (exit, _) = stage.output(&stage.sandbox(&["nap", "1500"]))?;
    ensure!(exit.wall_us >= 1_500_000 && exit.cpu_us < exit.wall_us / 2, "{exit:?}");
    Ok(())
}

fn programs_that_cannot_be_executed(stage: &Stage) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let bin = stage.rootfs().join("bin");
    for (name, text, mode) in [("secret", "x", 0o644), ("nonsense", "no program", 0o755), ("orphan", "#!/no/such/interpreter\n", 0o755)] {
        std::fs::write(bin.join(name), text)?;
        std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(mode))?;
    }
    let cases = [
        ("/bin/nothing", Errno::NOENT),
        ("nothing", Errno::NOENT),
        ("/bin", Errno::ACCESS),
        ("/bin/secret", Errno::ACCESS),
        ("secret", Errno::ACCESS),
        ("/bin/nonsense", Errno::NOEXEC),
        ("/bin/orphan", Errno::NOENT),
        ("/bin/program/x", Errno::NOTDIR),
    ];
    for (program, errno) in cases {
        let sandbox = Sandbox { argv: vec![program.into()], ..stage.sandbox(&[]) };
        stage.leaves_nothing(|| {
            let error = stage.start(&sandbox, Stdio::Null).err().with_context(|| format!("{program} was executed"))?;
            same(program, (error.kind(), error.errno()), (ErrorKind::Exec, Some(errno)))?;
            ensure!(error.to_string().starts_with(&format!("execve({program:?})")), "{error}");
            Ok(())
        })?;
    }
    Ok(())
}

fn the_rest_of_the_tree_ends_with_its_main_process(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let children = || std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", dyno.pid()));
    let program: i32 = children()?.trim().parse()?;
    kill_process(Pid::from_raw(program).context("pid")?, Signal::KILL)?;
    same("its program was killed", ended(&dyno.wait()?), (137, Some(libc::SIGKILL), Cause::Exited))?;
    Ok(dyno.free()?)
}
