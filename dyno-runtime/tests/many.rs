//! Many starts: from many threads at once, and a thousand one after the other.

mod support;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    process::ExitCode,
    sync::Mutex,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use dyno_runtime::{Dyno, Sandbox, Stdio, Streams, Volume};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use support::{Case, Stage, same};

const CASES: &[Case] = &[
    ("two_hundred_from_twenty_threads", two_hundred_from_twenty_threads),
    ("a_thousand_quick_ones", a_thousand_quick_ones),
    ("freed_by_other_threads", freed_by_other_threads),
    ("descriptors_above_the_low_numbers", descriptors_above_the_low_numbers),
];

fn main() -> ExitCode {
    support::suite("many", &[], CASES)
}

const THREADS: usize = 20;

/// All are alive at the same time, each with every wall, each with ids of its own.
fn two_hundred_from_twenty_threads(stage: &Stage) -> Result<()> {
    let all = Mutex::new(Vec::new());
    let each = if support::emulated() { 2 } else { 10 };
    let work = || -> Result<()> {
        for _ in 0..each {
            let dyno = stage.start(&stage.sandbox(&["forever"]), Stdio::Null)?;
            walls(&dyno).with_context(|| format!("dyno {}", dyno.id()))?;
            // While other threads start theirs, this one allocates, locks and looks into /proc.
            all.lock().map_err(|e| anyhow!("{e}"))?.push(dyno);
        }
        Ok(())
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))).collect()
    });
    let dynos = all.into_inner()?;
    let slots: BTreeSet<u32> = dynos.iter().map(|d| d.record().slot).collect();
    let (count, alive) = (dynos.len(), dynos.iter().filter(|d| !d.has_ended()).count());
    for dyno in dynos {
        dyno.free()?;
    }
    results.into_iter().collect::<Result<()>>()?;
    same("started", count, THREADS * each)?;
    same("alive together", alive, THREADS * each)?;
    same("id ranges", slots.len(), THREADS * each)
}

fn walls(dyno: &Dyno) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", dyno.pid()))?;
    let uid = (1 << 20) + dyno.record().slot * 65536 + 1000;
    let want = [
        ("Uid:\t", format!("{uid}\t{uid}\t{uid}\t{uid}")),
        ("CapBnd:\t", "0".repeat(16)),
        ("CapEff:\t", "0".repeat(16)),
        ("NoNewPrivs:\t", "1".into()),
        ("Seccomp:\t", "2".into()),
    ];
    for (field, want) in &want {
        same(field, status.lines().find_map(|l| l.strip_prefix(field)), Some(want.as_str()))?;
    }
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let (its, ours) = (fs::read_link(format!("/proc/{}/ns/{kind}", dyno.pid()))?, fs::read_link(format!("/proc/self/ns/{kind}"))?);
        ensure!(its != ours, "{kind} namespace is the host's");
    }
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", dyno.pid()))?;
    ensure!(groups.matches(&format!("/{}\n", dyno.id())).count() >= 1, "{groups}");
    Ok(())
}

/// Programs that end at once: whoever started them must not come too late to see them. Two threads, to have it meet itself.
fn a_thousand_quick_ones(stage: &Stage) -> Result<()> {
    let times = if support::emulated() { 50 } else { 500 };
    let work = |_| -> Result<()> {
        for n in 0..times {
            let dyno = stage.start(&stage.sandbox(&["exit", &(n % 100).to_string()]), Stdio::Null)?;
            same("status", dyno.wait()?.status, n % 100)?;
            dyno.free()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|n| scope.spawn(move || work(n)));
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

fn freed_by_other_threads(stage: &Stage) -> Result<()> {
    let dynos = (0..8).map(|_| stage.forever()).collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = dynos.into_iter().map(|dyno| scope.spawn(|| dyno.free())).collect();
        threads.into_iter().try_for_each(|t| Ok(t.join().map_err(|_| anyhow!("a thread panicked"))??))
    })
}

/// Somebody who came to hold hundreds of files after the instance was opened: what a child is to have is at high numbers, and is put at the
/// reserved ones. More children at a time than there are of those, and one with more to have, get a copy of everything. None keeps
/// what is not its own, nor does a reserved number keep what was another's: the pipes of each end with it.
fn descriptors_above_the_low_numbers(stage: &Stage) -> Result<()> {
    let null = File::open("/dev/null")?;
    // Over exec only what is closed on purpose goes away.
    let files = (0..400).map(|_| Ok(rustix::io::dup(&null)?)).collect::<Result<Vec<OwnedFd>>>()?;
    ensure!(File::open("/dev/null")?.as_raw_fd() >= 256, "{} files, and low numbers are free", files.len());
    let (usual, many) = (stage.sandbox(&["copy"]), with_many_volumes(stage)?);
    let sandboxes = [&usual, &usual, &usual, &usual, &usual, &many];
    let alive = at_once(&sandboxes, |sandbox| Copier::start(stage, sandbox))?;
    for (n, copier) in alive.into_iter().enumerate() {
        copier.ends(&format!("{n}, with others after it"))?;
    }
    for sandbox in [usual, many] {
        let listing = Sandbox { argv: stage.sandbox(&["list", "/proc/self/fd"]).argv, ..sandbox };
        let lists = at_once(&[&listing; 8], |sandbox| {
            (0..5).map(|_| stage.output(sandbox)).collect::<Result<Vec<_>>>() // The fourth is that of the listing.
        })?;
        for (exit, list) in lists.into_iter().flatten() {
            same("descriptors", (exit.status, list.as_str()), (0, "0 1 2 3\n"))?;
        }
    }
    drop(files);
    fs::remove_dir_all(stage.rootfs().join("data")).and_then(|()| fs::create_dir(stage.rootfs().join("data")))?;
    Ok(())
}

/// `work` for each, all begun at a time.
fn at_once<T: Send>(sandboxes: &[&Sandbox], work: impl Fn(&Sandbox) -> Result<T> + Sync) -> Result<Vec<T>> {
    let begin = std::sync::Barrier::new(sandboxes.len());
    let one = |sandbox| {
        begin.wait();
        work(sandbox)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = sandboxes.iter().map(|sandbox| scope.spawn(|| one(sandbox))).collect();
        threads.into_iter().map(|t| t.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
    })
}

/// A tree for each volume: more than any reserved row has room for.
fn with_many_volumes(stage: &Stage) -> Result<Sandbox> {
    let mut sandbox = stage.sandbox(&["copy"]);
    for n in 0..40 {
        let target = format!("data/{n}");
        fs::create_dir(stage.rootfs().join(&target))?;
        sandbox.volumes.push(Volume::Bind { source: stage.rootfs().join("bin"), target: format!("/{target}").into(), writable: false });
    }
    Ok(sandbox)
}

/// One that copies its input until that ends.
struct Copier(Dyno, [OwnedFd; 3]);

impl Copier {
    fn start(stage: &Stage, sandbox: &Sandbox) -> Result<Self> {
        let mut dyno = stage.start(sandbox, Stdio::Pipes)?;
        let Streams::Pipes { stdin, stdout, stderr } = dyno.take_streams() else { bail!("no pipes") };
        let streams = [stdin, stdout, stderr];
        let low = streams.iter().find(|fd| fd.as_raw_fd() < 256);
        ensure!(low.is_none(), "a pipe has number {low:?}");
        Ok(Self(dyno, streams))
    }

    /// It has the end of its input when we say so, and we have that of its output, whoever lives on.
    fn ends(self, word: &str) -> Result<()> {
        let Self(dyno, [stdin, stdout, stderr]) = self;
        File::from(stdin).write_all(word.as_bytes())?;
        for (name, fd, want) in [("stdout", stdout, word), ("stderr", stderr, "")] {
            let ended = poll(&mut [PollFd::new(&fd, PollFlags::empty())], Some(&Timespec { tv_sec: 20, tv_nsec: 0 }))?;
            same(&format!("{word}: {name} has ended"), ended, 1)?;
            let mut text = String::new();
            File::from(fd).read_to_string(&mut text)?;
            same(name, text.as_str(), want)?;
        }
        same("status", dyno.wait()?.status, 0)?;
        Ok(dyno.free()?)
    }
}
