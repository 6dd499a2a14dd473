//! Ten thousand starts, many of which are made to fail by chance: a system call that is refused, a process that is killed at some
//! moment of its start or its life, a program or a description that is no good. Nothing may be left, looked at every thousand.
//!
//! The chances come from a seed that is printed; `DYNO_TEST_SEED` repeats them (not the moments, which are the scheduler's).
//! `DYNO_TEST_STARTS` is another number than ten thousand, for a machine on which that takes too long. As in [`crate::failures`],
//! the work is done in a process of its own.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{
    Cause, Dyno, ErrorKind, Layer, Sandbox, Stdio, Upper,
    failures::{self, Attempt, Made},
    support::{self, PROGRAM, Stage, leaks},
};

const STARTS: u64 = 10_000;
const ROUNDS: u64 = 10;
const THREADS: u64 = 2;

/// SplitMix64: enough for a choice, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap_or(0)]
    }
}

/// One start and its end, one way or another; what came of it.
type Story = fn(&Stage, &mut Chance) -> Result<&'static str>;

/// As often as they stand here.
const STORIES: &[Story] = &[
    ends_by_itself,
    ends_by_itself,
    ends_by_itself,
    a_call_fails,
    a_call_fails,
    a_call_fails,
    killed_at_its_start,
    killed_at_its_start,
    killed_later,
    killed_later,
    no_such_program,
    bad_description,
];

/// The system calls of a start, by who makes them: their number, roughly, so that some attempts fail nothing.
const CALLERS: [(&str, u64); 3] = [("parent", 150), ("child", 310), ("init", 22)];

/// For failing calls, with every kind of streams.
const ATTEMPTS: [Attempt; 4] = [
    ("null", nap, |stage, sandbox| Ok(stage.start(sandbox, Stdio::Null).map(made))),
    ("pipes", nap, |stage, sandbox| Ok(stage.start(sandbox, Stdio::Pipes).map(made))),
    ("log", nap, |stage, sandbox| Ok(stage.start(sandbox, Stdio::Log).map(made))),
    ("tty", nap, |stage, sandbox| Ok(stage.start(sandbox, Stdio::Tty { rows: 24, cols: 80 }).map(made))),
];

fn made(dyno: Dyno) -> Made {
    Made::Dyno(Box::new(dyno))
}

fn nap(stage: &Stage) -> Result<Sandbox> {
    Ok(stage.sandbox(&["nap", "1000000"]))
}

/// On any kind of root.
fn sandbox(stage: &Stage, chance: &mut Chance, args: &[&str]) -> Result<Sandbox> {
    let mut sandbox = stage.sandbox(args);
    if chance.below(4) == 0
        && let Some(image) = image(stage)
    {
        sandbox.root.layers = vec![support::layer(&image)?];
    }
    sandbox.root.upper = match chance.below(6) {
        0 => Upper::Disk { directory: stage.work().into(), bytes: 8 << 20, inodes: 64 + 16 * chance.below(10) },
        1 => Upper::ReadOnly,
        _ => Upper::default(),
    };
    Ok(sandbox)
}

/// The root file system as an image, if there was a program to make it.
fn image(stage: &Stage) -> Option<std::path::PathBuf> {
    Some(stage.work().join("image.sqsh")).filter(|path| path.exists())
}

fn stdio(chance: &mut Chance) -> Stdio {
    match chance.below(4) {
        0 => Stdio::Null,
        1 => Stdio::Pipes,
        2 => Stdio::Log,
        _ => Stdio::Tty { rows: 24, cols: 80 },
    }
}

fn ends_by_itself(stage: &Stage, chance: &mut Chance) -> Result<&'static str> {
    let status = i32::try_from(chance.below(100))?;
    let dyno = stage.start(&sandbox(stage, chance, &["exit", &status.to_string()])?, stdio(chance))?;
    // Freed at once, or after its end was seen.
    if chance.below(2) == 0 {
        let exit = dyno.wait()?;
        ensure!(exit.status == status, "{exit:?}");
    }
    dyno.free()?;
    Ok("ended by itself")
}

fn a_call_fails(stage: &Stage, chance: &mut Chance) -> Result<&'static str> {
    let (who, calls) = chance.of(&CALLERS);
    let nth = usize::try_from(chance.below(calls))? + 1;
    let sandbox = sandbox(stage, chance, &["nap", "1000000"])?;
    let (hit, result) = failures::attempt(stage, &chance.of(&ATTEMPTS), &sandbox, (who, nth))?;
    match (hit, result) {
        (None, result) => result.map(|()| "no call failed").context("no call failed, and all the same"),
        (Some(_), Ok(())) => Ok("started in spite of a failed call"),
        (Some(_), Err(_)) => Ok("a call failed"),
    }
}

/// By somebody who sees its processes in its cgroup, from the first one on.
fn killed_at_its_start(stage: &Stage, chance: &mut Chance) -> Result<&'static str> {
    let (id, delay) = (stage.id(), Duration::from_micros(chance.below(4000)));
    let (sandbox, stdio) = (sandbox(stage, chance, &["nap", "1000000"])?, stdio(chance));
    let over = AtomicBool::new(false);
    let started = std::thread::scope(|scope| {
        scope.spawn(|| kill_members(stage, &id, delay, &over));
        let started = stage.host.start(&id, &sandbox, crate::StartOptions { stdio, ..Default::default() });
        over.store(true, Ordering::SeqCst);
        started
    });
    match started {
        Ok(dyno) => {
            dyno.free()?;
            Ok("killed too late for its start")
        }
        Err(e) => {
            ensure!(matches!(e.kind(), ErrorKind::Wall | ErrorKind::Io), "{e}");
            Ok("killed at its start")
        }
    }
}

/// Spins rather than sleeps: the moments are microseconds apart.
fn kill_members(stage: &Stage, id: &str, delay: Duration, over: &AtomicBool) {
    let mut seen = None;
    while seen.is_none() && !over.load(Ordering::SeqCst) {
        let group = stage.host.group(id).ok().flatten();
        seen = group.and_then(|group| Some((group.pids().ok().filter(|pids| !pids.is_empty())?, group)));
        std::thread::yield_now();
    }
    let Some((pids, group)) = seen else { return };
    spin(delay);
    for pid in pids {
        let Some(Ok(pidfd)) = Pid::from_raw(pid.cast_signed()).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { continue };
        // The number may be another's by now; the descriptor pins whoever has it.
        if group.pids().is_ok_and(|now| now.contains(&pid)) {
            // That it has just ended is as good.
            pidfd_send_signal(&pidfd, Signal::KILL).unwrap_or_default();
        }
    }
}

fn spin(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn killed_later(stage: &Stage, chance: &mut Chance) -> Result<&'static str> {
    let dyno = stage.start(&sandbox(stage, chance, &["nap", "1000000"])?, stdio(chance))?;
    spin(Duration::from_micros(chance.below(2000)));
    let by_us = chance.below(2) == 0;
    if by_us {
        dyno.kill()?;
    } else {
        pidfd_send_signal(dyno.pidfd(), Signal::KILL)?;
    }
    let exit = dyno.wait()?;
    ensure!(exit.cause == if by_us { Cause::Killed } else { Cause::Lost }, "{exit:?}");
    dyno.free()?;
    Ok("killed later")
}

fn no_such_program(stage: &Stage, chance: &mut Chance) -> Result<&'static str> {
    let mut sandbox = sandbox(stage, chance, &[])?;
    sandbox.argv = vec![chance.of(&["/bin/nothing", "/bin", "/dev/null", "nothing"]).to_owned()];
    let error = stage.start(&sandbox, stdio(chance)).err().context("it started")?;
    ensure!(error.kind() == ErrorKind::Exec, "{error}");
    Ok("no such program")
}

fn bad_description(stage: &Stage, chance: &mut Chance) -> Result<&'static str> {
    let mut sandbox = sandbox(stage, chance, &["exit", "0"])?;
    match chance.below(5) {
        0 => sandbox.root.layers = vec![Layer::Directory("/nonexistent".into())],
        1 => sandbox.root.layers = vec![Layer::Image { path: stage.rootfs().join(&PROGRAM[1..]), sha256: "0".repeat(64) }],
        2 => sandbox.root.upper = Upper::Disk { directory: "/nonexistent".into(), bytes: 8 << 20, inodes: 64 },
        3 => sandbox.cwd = "/nonexistent".into(),
        _ => sandbox.limits.memory = Some(1),
    }
    let error = stage.start(&sandbox, stdio(chance)).err().context("it started")?;
    ensure!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Image | ErrorKind::Wall), "{error}");
    Ok("bad description")
}

#[test]
fn nothing_is_left_of_ten_thousand_starts_with_random_failures() {
    if let Some(reason) = support::missing(&["mkfs.ext4"]) {
        return println!("skipped: {reason}");
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--exact", "endurance::driver", "--ignored", "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("nothing is left"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn driver() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seed, starts) = (number("DYNO_TEST_SEED", u64::from(std::process::id())), number("DYNO_TEST_STARTS", STARTS));
    println!("DYNO_TEST_SEED={seed} DYNO_TEST_STARTS={starts}");
    let stage = Stage::new("endurance").unwrap();
    let result = drive(&stage, seed, starts);
    stage.close().unwrap();
    result.unwrap();
}

fn drive(stage: &Stage, seed: u64, starts: u64) -> Result<()> {
    if support::missing(&["mksquashfs"]).is_none() {
        stage.image("image.sqsh")?;
    }
    let counts = Counts::default();
    let before = stage.snapshot()?;
    let began = Instant::now();
    for round in 0..ROUNDS {
        let (first, end) = (starts * round / ROUNDS, starts * (round + 1) / ROUNDS);
        std::thread::scope(|scope| {
            let work = |thread| some(stage, seed, (first + thread..end).step_by(THREADS as usize), &counts);
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
            threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow!("a thread panicked"))?)
        })?;
        failures::release_images(stage)?;
        leaks::must_become(&before, || stage.snapshot()).with_context(|| format!("after start {end}"))?;
    }
    let counts = counts.into_inner()?;
    println!("nothing is left of {} starts in {:.0} s: {counts:?}", counts.values().sum::<u64>(), began.elapsed().as_secs_f64());
    for came in ["ended by itself", "a call failed", "killed at its start", "killed later", "no such program", "bad description"] {
        ensure!(counts.get(came).copied().unwrap_or(0) >= starts / 100, "hardly any: {came}");
    }
    Ok(())
}

/// How often what came of a start.
type Counts = Mutex<BTreeMap<&'static str, u64>>;

/// The starts of these numbers, one after the other.
fn some(stage: &Stage, seed: u64, numbers: impl Iterator<Item = u64>, counts: &Counts) -> Result<()> {
    for n in numbers {
        let mut chance = Chance(seed ^ (n << 32));
        let story = chance.of(STORIES);
        let came = story(stage, &mut chance).with_context(|| format!("start {n}"))?;
        *counts.lock().map_err(|e| anyhow!("{e}"))?.entry(came).or_default() += 1;
    }
    Ok(())
}
