//! A process model in a hundred lines: N workers are kept alive, crashed ones come back with a growing delay, and SIGTERM or
//! the end of standard input stops them all.
//!
//! `cargo run --example paas -- ROOTFS N COMMAND [ARG…]` (as root). One line per event on stdout.

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use dyno_runtime::{Dyno, Found, Host, Layer, Sandbox, StartOptions, Stdio};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a worker has after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// The first delay after a crash; it doubles with each in a row.
const DELAY: Duration = Duration::from_millis(50);

/// One worker: what is wanted is that it runs.
struct Worker {
    dyno: Option<Dyno>,
    /// Launches so far; part of the id, so that no two share one.
    launches: u32,
    crashes: u32,
    start_at: Instant,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (rootfs, count) = (args.next().context("usage: paas ROOTFS N COMMAND…")?, args.next().context("how many?")?.parse()?);
    let sandbox = Sandbox::new(vec![Layer::Directory(rootfs.into())], args);
    let name = std::env::var("PAAS_NAME").unwrap_or_else(|_| "dyno-paas".into());
    let host = Host::open(format!("/run/{name}").as_ref(), &name)?;
    // A former run that was killed has left its workers running. A real platform would take them up (`Found::Running`).
    for found in host.recover()? {
        println!("found {} {}", found.id(), if matches!(found, Found::Running(_)) { "running" } else { "ended" });
        host.sweep(found.id())?;
    }
    let new = |n| (n, Worker { dyno: None, launches: 0, crashes: 0, start_at: Instant::now() });
    let mut workers: BTreeMap<u32, Worker> = (1..=count).map(new).collect();
    let result = keep_alive(&host, &sandbox, &mut workers);
    stop_all(workers)?;
    host.dismantle()?;
    result
}

/// Until standard input ends.
fn keep_alive(host: &Host, sandbox: &Sandbox, workers: &mut BTreeMap<u32, Worker>) -> Result<()> {
    loop {
        for (n, worker) in workers.iter_mut().filter(|(_, w)| w.dyno.is_none() && w.start_at <= Instant::now()) {
            worker.launches += 1;
            let id = format!("worker.{n}.{}", worker.launches);
            worker.dyno = Some(host.start(&id, sandbox, StartOptions { stdio: Stdio::Inherit, ..Default::default() })?);
            println!("up {id}");
        }
        if wait_for_an_event(workers)? {
            return Ok(());
        }
        for worker in workers.values_mut() {
            let Some(exit) = worker.dyno.as_ref().map(Dyno::try_wait).transpose()?.flatten() else { continue };
            let Some(dyno) = worker.dyno.take() else { continue };
            println!("ended {} {} {:?}", dyno.id(), exit.status, exit.cause);
            dyno.free()?;
            worker.crashes = if exit.status == 0 { 0 } else { worker.crashes + 1 };
            worker.start_at = Instant::now() + DELAY * 2u32.saturating_pow(worker.crashes.min(10)) / 2;
        }
    }
}

/// Sleeps until a worker has ended, one is due, or standard input has ended (true).
fn wait_for_an_event(workers: &BTreeMap<u32, Worker>) -> Result<bool> {
    let stdin = std::io::stdin();
    let mut fds: Vec<PollFd<'_>> = workers.values().filter_map(|w| Some(PollFd::from_borrowed_fd(w.dyno.as_ref()?.pidfd(), PollFlags::IN))).collect();
    fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
    let due = workers.values().filter(|w| w.dyno.is_none()).map(|w| w.start_at.saturating_duration_since(Instant::now())).min();
    poll(&mut fds, due.map(Timespec::try_from).transpose()?.as_ref())?;
    let talks = fds.last().is_some_and(|fd| !fd.revents().is_empty());
    Ok(talks && rustix::io::read(stdin.as_fd(), &mut [0; 64])? == 0)
}

/// All get SIGTERM first, so that they end side by side.
fn stop_all(workers: BTreeMap<u32, Worker>) -> Result<()> {
    let dynos: Vec<Dyno> = workers.into_values().filter_map(|w| w.dyno).collect();
    dynos.iter().try_for_each(|dyno| dyno.signal(libc::SIGTERM))?;
    for dyno in dynos {
        let exit = dyno.stop(GRACE)?;
        println!("stopped {} {}", dyno.id(), exit.status);
        dyno.free()?;
    }
    Ok(())
}
