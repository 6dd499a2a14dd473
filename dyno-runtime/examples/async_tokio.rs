//! A thousand sandboxes at once from one tokio program.
//!
//! `cargo run --example async_tokio -- ROOTFS COUNT COMMAND [ARG…]` (as root). Starts COUNT sandboxes, which all run at the same
//! time; then all are asked to end, and each is waited for. Prints how many were alive together, and the starts per second.
//!
//! A start is a handful of milliseconds of system calls, so it belongs on the blocking pool. Waiting is cheap: the pidfd of a
//! sandbox turns readable when it ends, and tokio watches a thousand of them with one epoll.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dyno_runtime::{Dyno, ExitRecord, Host, Layer, Limits, Sandbox, StartOptions, Upper};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

/// How long a sandbox has after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    // Each handle holds about ten descriptors.
    let files = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files })?;
    // As many starts at a time as there are processors; more would only wait for each other in the kernel.
    let processors = std::thread::available_parallelism()?.get();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(processors).build()?;
    let mut args = std::env::args().skip(1);
    let (rootfs, count) = (args.next().context("usage: async_tokio ROOTFS COUNT COMMAND…")?, args.next().context("how many?")?.parse()?);
    let mut sandbox = Sandbox::new(vec![Layer::Directory(rootfs.into())], args);
    sandbox.limits = Limits { memory: Some(32 << 20), pids: Some(8), ..Limits::default() };
    sandbox.root.upper = Upper::Tmpfs { bytes: 1 << 20, inodes: 64 };

    let name = format!("dyno-async-{}", std::process::id());
    let host = Host::open(format!("/run/{name}").as_ref(), &name)?;
    let result = runtime.block_on(run(&host, &sandbox, count));
    // Whatever went wrong, nothing stays; dropping the runtime waits for the starts that are under way.
    drop(runtime);
    for found in host.recover()? {
        host.sweep(found.id())?;
    }
    host.dismantle()?;
    result
}

async fn run(host: &Host, sandbox: &Sandbox, count: usize) -> Result<()> {
    let began = Instant::now();
    let mut starts = JoinSet::new();
    for n in 0..count {
        // Both are cheap to clone; the description is plain data.
        let (host, sandbox) = (host.clone(), sandbox.clone());
        starts.spawn_blocking(move || host.start(&format!("dyno.{n}"), &sandbox, StartOptions::default()));
    }
    let mut dynos = Vec::with_capacity(count);
    while let Some(started) = starts.join_next().await {
        dynos.push(started??);
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    let alive = dynos.iter().filter(|dyno| !dyno.has_ended()).count();
    println!("{alive} of {count} alive together, {rate:.0} starts per second");

    let mut ends = JoinSet::new();
    for dyno in dynos {
        ends.spawn(end(dyno));
    }
    let (mut ended, mut memory) = (0, 0);
    while let Some(exit) = ends.join_next().await {
        memory += exit??.memory_peak.unwrap_or(0);
        ended += 1;
    }
    println!("{ended} ended, {} KiB of memory each at most", memory / 1024 / count.max(1) as u64);
    Ok(())
}

/// Asks one to end, insists when it does not, and frees it.
async fn end(dyno: Dyno) -> Result<ExitRecord> {
    dyno.signal(libc::SIGTERM)?;
    if timeout(GRACE, ended(&dyno)).await.is_err() {
        dyno.kill()?;
    }
    ended(&dyno).await?;
    // Freeing removes cgroups and directories: the blocking pool again.
    spawn_blocking(move || {
        let exit = dyno.wait()?;
        dyno.free()?;
        Ok(exit)
    })
    .await?
}

/// Sleeps until it has ended.
#[allow(deprecated, reason = "what replaces it is unsafe, for descriptors that may be closed meanwhile; a borrowed one cannot be")]
async fn ended(dyno: &Dyno) -> Result<()> {
    let watched = AsyncFd::with_interest(dyno.pidfd(), Interest::READABLE)?;
    let _ready = watched.readable().await?;
    Ok(())
}
