//! The workshop: one thread of a [`crate::Host`] that makes parts of sandboxes ahead of whoever asks for them.
//!
//! A user namespace takes a process of its own to make, so some always lie ready ([`Workshop::lease`]). Network namespaces and groups, which
//! are half of what a sandbox costs, do so where the host was told to keep spares, and whole sandboxes where it keeps them parked.
//!
//! The thread begins with the first start and ends with the host. A program that has forked since has none; then, and when nothing is left,
//! all is made in place as if there were no workshop.

mod lots;

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use self::lots::Lots;
use crate::{
    cgroup::{Cgroups, Spare},
    error::Result,
    host::{Host, Inner},
    mount::{Lease, Leases},
    net,
    spawn::parked::Parked,
    spec::Sandbox,
    sys,
};

/// User namespaces that lie ready. Each is a few kilobytes.
const LEASES: usize = 2;

/// As long as starts come thicker than this, what is kept ready is not topped up: it would take processors and locks from those that are
/// under way.
const QUIET: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Workshop {
    shared: Arc<Shared>,
    thread: Mutex<Thread>,
    /// A copy of this handle in a forked process has no thread.
    pid: u32,
}

#[derive(Debug)]
enum Thread {
    NotYet,
    Runs(JoinHandle<()>),
    /// It could not be started, or the host is closed.
    Gone,
}

#[derive(Debug)]
struct Shared {
    leases: Arc<Leases>,
    cgroups: Option<Cgroups>,
    /// Networks and groups to keep ready.
    spares: usize,
    bench: Mutex<Bench>,
    /// Whether anything is to be parked, for who asks at every start.
    has_lots: AtomicBool,
    /// Something is to be made, or was.
    bell: Condvar,
}

/// What is to be made, and what is ready.
#[derive(Debug, Default)]
struct Bench {
    /// The thread raises a sandbox to be parked.
    parking: bool,
    closing: bool,
    /// A test wants everything made in place.
    #[cfg(test)]
    resting: bool,
    /// The first start was asked for, and nothing that should lie ready could not be made since.
    stocking: bool,
    leases: Vec<Lease>,
    networks: Vec<OwnedFd>,
    groups: Vec<Spare>,
    lots: Lots,
    /// When the last start was asked for.
    last: Option<Instant>,
}

/// What the thread does next.
enum Job {
    Lease,
    Network,
    Group,
    Park(Weak<Inner>, Box<Sandbox>),
    /// Nothing, or not before this time has passed.
    Rest(Option<Duration>),
}

impl Workshop {
    pub fn new(leases: Arc<Leases>, cgroups: Option<Cgroups>, spares: usize) -> Self {
        let shared = Shared { leases, cgroups, spares, bench: Mutex::default(), has_lots: AtomicBool::new(false), bell: Condvar::new() };
        Self { shared: Arc::new(shared), thread: Mutex::new(Thread::NotYet), pid: std::process::id() }
    }

    /// Tells that a start was asked for: from the first one on there is a thread, and things lie ready.
    pub fn begin(&self) {
        if self.is_open() {
            let mut bench = self.shared.bench();
            bench.stocking = true;
            bench.last = Some(Instant::now());
        }
    }

    /// A network namespace that lies ready, its loopback up.
    pub fn network(&self) -> Option<OwnedFd> {
        self.take(|bench| bench.networks.pop())
    }

    /// A lease that lies ready.
    pub fn lease(&self) -> Option<Lease> {
        self.take(|bench| bench.leases.pop())
    }

    /// A group that lies ready.
    pub fn group(&self) -> Option<Spare> {
        self.take(|bench| bench.groups.pop())
    }

    fn take<T>(&self, from: impl FnOnce(&mut Bench) -> Option<T>) -> Option<T> {
        let mut bench = (self.pid == std::process::id()).then(|| self.shared.bench())?;
        #[cfg(test)]
        if bench.resting {
            return None;
        }
        from(&mut bench)
    }

    /// Whether any sandbox is to be parked.
    pub fn has_lots(&self) -> bool {
        self.shared.has_lots.load(Ordering::Relaxed)
    }

    /// A parked sandbox that can run `sandbox`.
    pub fn parked(&self, sandbox: &Sandbox) -> Option<Parked> {
        self.take(|bench| {
            bench.last = Some(Instant::now());
            bench.lots.take(sandbox)
        })
    }

    /// What was taken can be made again. Told at the end of a start: to wake a thread takes a tenth of a millisecond on an idle host.
    pub fn nudge(&self) {
        self.shared.bell.notify_all();
    }

    /// Keeps `count` sandboxes like `like` parked, from now on.
    pub fn keep_parked(&self, host: Weak<Inner>, like: &Sandbox, count: usize) {
        let dropped = self.shared.bench().lots.keep(host, like, count);
        self.shared.has_lots.store(true, Ordering::Relaxed);
        // Ended outside the lock.
        drop(dropped);
        if self.is_open() {
            self.shared.bell.notify_all();
        }
        // What was being made for a lot that is no more ends as well.
        let mut bench = self.shared.bench();
        while count == 0 && bench.parking {
            bench = self.shared.bell.wait(bench).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many are parked now that can run `sandbox`.
    pub fn count(&self, sandbox: &Sandbox) -> usize {
        self.shared.bench().lots.count(sandbox)
    }

    /// From now on everything is made in place, or not.
    #[cfg(test)]
    pub fn rest(&self, resting: bool) {
        self.shared.bench().resting = resting;
    }

    /// Waits until the thread runs, has what should lie ready, and nothing to do.
    #[cfg(test)]
    pub fn settle(&self) {
        assert!(self.is_open());
        let mut bench = self.shared.bench();
        while bench.leases.len() < LEASES {
            bench.stocking = true;
            self.shared.bell.notify_all();
            bench = self.shared.bell.wait_timeout(bench, Duration::from_millis(1)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the thread and gives back what lies ready. Nothing can be ordered any more.
    pub fn close(&self) {
        self.shared.bench().closing = true;
        self.shared.bell.notify_all();
        let thread = std::mem::replace(&mut *self.thread(), Thread::Gone);
        // The thread itself may be the last to let go of the host, after it has parked something there.
        if let Thread::Runs(thread) = thread
            && self.pid == std::process::id()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::warn!("the workshop's thread has panicked");
        }
        if self.pid == std::process::id() {
            let mut bench = self.shared.bench();
            let left = (std::mem::take(&mut bench.leases), std::mem::take(&mut bench.networks), std::mem::take(&mut bench.groups), std::mem::take(&mut bench.lots));
            drop(bench);
            left.0.iter().for_each(|lease| self.shared.leases.free(lease.slot()));
        }
    }

    fn thread(&self) -> MutexGuard<'_, Thread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a thread; begins it.
    fn is_open(&self) -> bool {
        if self.pid != std::process::id() {
            return false;
        }
        let mut thread = self.thread();
        if matches!(*thread, Thread::NotYet) {
            let shared = self.shared.clone();
            let builder = std::thread::Builder::new().name("dyno-workshop".into()).stack_size(256 * 1024);
            *thread = match sys::with_signals_blocked(|| builder.spawn(move || shared.work())) {
                Ok(begun) => Thread::Runs(begun),
                Err(e) => {
                    tracing::warn!(%e, "no thread for the workshop");
                    Thread::Gone
                }
            };
        }
        matches!(*thread, Thread::Runs(_))
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn bench(&self) -> MutexGuard<'_, Bench> {
        self.bench.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn work(&self) {
        let mut bench = self.bench();
        while !bench.closing {
            match self.next(&bench) {
                Job::Rest(None) => bench = self.bell.wait(bench).unwrap_or_else(PoisonError::into_inner),
                Job::Rest(Some(time)) => bench = self.bell.wait_timeout(bench, time).unwrap_or_else(PoisonError::into_inner).0,
                job => {
                    bench.parking = matches!(job, Job::Park(..));
                    drop(bench);
                    let failed = self.carry_out(job).err();
                    bench = self.bench();
                    if std::mem::take(&mut bench.parking) {
                        self.bell.notify_all();
                    }
                    if let Some(e) = failed {
                        // Whoever needs it makes it himself, and is told why he cannot.
                        tracing::debug!(%e, "nothing is kept ready for now");
                        bench.stocking = false;
                    }
                }
            }
        }
    }

    /// What every start needs first, then what is cheap to keep, then what stands whole.
    fn next(&self, bench: &Bench) -> Job {
        if bench.stocking && bench.leases.len() < LEASES {
            return Job::Lease;
        }
        let busy = bench.last.map_or(Duration::ZERO, |last| QUIET.saturating_sub(last.elapsed()));
        // An empty shelf is filled whatever else goes on, a full one topped up when nobody is in a hurry.
        let (short, is_empty) = match (bench.stocking, bench.networks.len(), bench.groups.len()) {
            (true, networks, _) if networks < self.spares => (Some(Job::Network), networks == 0),
            (true, _, groups) if groups < self.spares && self.cgroups.is_some() => (Some(Job::Group), groups == 0),
            _ => match bench.lots.wanting() {
                Some((host, like, is_empty)) => (Some(Job::Park(host, Box::new(like))), is_empty),
                None => (None, false),
            },
        };
        match short {
            Some(job) if is_empty || busy.is_zero() => job,
            Some(_) => Job::Rest(Some(busy)),
            None => Job::Rest(None),
        }
    }

    fn carry_out(&self, job: Job) -> Result<()> {
        match job {
            Job::Lease => {
                let lease = self.leases.spare()?;
                self.bench().leases.push(lease);
            }
            Job::Network => {
                let netns = net::fresh_from_here()?;
                self.bench().networks.push(netns);
            }
            Job::Group => {
                if let Some(spare) = self.cgroups.as_ref().map(Cgroups::make_spare).transpose()? {
                    self.bench().groups.push(spare);
                }
            }
            Job::Park(host, like) => self.park(&host, &like),
            Job::Rest(_) => {}
        }
        Ok(())
    }

    fn park(&self, host: &Weak<Inner>, like: &Sandbox) {
        let parked = host.upgrade().map(|inner| Host::of(inner).park(like));
        let surplus = match parked {
            Some(Ok(parked)) => self.bench().lots.put(like, parked),
            Some(Err(e)) => {
                tracing::warn!(%e, "a sandbox could not be parked");
                self.bench().lots.give_up(like);
                None
            }
            None => None,
        };
        drop(surplus);
    }
}
