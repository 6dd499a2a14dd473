//! The workshop: one thread of a [`crate::Host`] that makes parts of sandboxes ahead of whoever asks for them.
//!
//! A user namespace takes a process of its own to make and a /dev thirty calls, so some always lie ready ([`Workshop::lease`]). Network namespaces and groups, which
//! are half of what a sandbox costs, do so where the host was told to keep spares, and whole sandboxes where it keeps them parked.
//!
//! Network namespaces that sandboxes of a tenant left are looked at here too, whether the tenant's next one can have them
//! ([`Workshop::offer`]).
//!
//! The thread begins with the first start and ends with the host. A program that has forked since has none; then, and when nothing is left,
//! all is made in place as if there were no workshop.

mod lots;
mod order;
mod thread;

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use rustix::process::Pid;

pub(crate) use self::order::Order;
use self::{lots::Lots, order::Orders};
use crate::{
    cgroup::{Cgroups, Spare},
    error::{Error, ErrorKind, Result},
    host::Inner,
    mount::{Lease, Leases},
    net::{Home, Recycled},
    spawn::parked::Parked,
    spec::Sandbox,
    sys,
};

/// User namespaces that lie ready, each with a /dev. Some twenty kilobytes.
const LEASES: usize = 2;

/// How much of what is kept, of what a host was told.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stock {
    /// Networks and groups that lie ready.
    pub spares: usize,
    /// Networks of ended sandboxes.
    pub recycled: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Workshop {
    shared: Arc<Shared>,
    thread: Mutex<Thread>,
    /// Starts under way, and processors that we may use.
    starts: AtomicUsize,
    processors: usize,
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
    recycled: Recycled,
    /// The thread's, once it runs.
    thread: AtomicI32,
    /// The thread waits until somebody calls it.
    sleeps: AtomicBool,
    /// Where it is back after it has made a network.
    home: Home,
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
    /// A test wants no order to be carried out.
    #[cfg(test)]
    losing: bool,
    /// The first start was asked for, and nothing that should lie ready could not be made since.
    stocking: bool,
    /// Why something that should lie ready does not; None once it is tried again.
    trouble: Option<Error>,
    orders: Orders,
    leases: Vec<Lease>,
    networks: Vec<OwnedFd>,
    groups: Vec<Spare>,
    lots: Lots,
    /// When the last start was asked for.
    last: Option<Instant>,
    /// When networks of ended sandboxes are to be looked at; None when there is none that was not.
    tend: Option<Instant>,
    /// The thread looks at them.
    tending: bool,
}

impl Workshop {
    /// `home`: the network where its thread is at home.
    pub fn new(leases: Arc<Leases>, cgroups: Option<Cgroups>, stock: Stock, home: Home) -> Self {
        let shared = Shared {
            leases,
            cgroups,
            spares: stock.spares,
            recycled: Recycled::new(stock.recycled),
            thread: AtomicI32::new(0),
            sleeps: AtomicBool::new(false),
            home,
            bench: Mutex::default(),
            has_lots: AtomicBool::new(false),
            bell: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
            thread: Mutex::new(Thread::NotYet),
            starts: AtomicUsize::new(0),
            processors: sys::usable_processors(),
            pid: std::process::id(),
        }
    }

    /// Tells that a start was asked for: from the first one on there is a thread, and things lie ready.
    pub fn begin(&self) {
        if self.is_open() {
            let mut bench = self.shared.bench();
            (bench.stocking, bench.trouble) = (true, None);
            bench.last = Some(Instant::now());
        }
    }

    /// A network namespace that lies ready, its loopback up.
    pub fn network(&self) -> Option<OwnedFd> {
        self.take(|bench| bench.networks.pop())
    }

    /// A network that a former sandbox of `tenant` has left, as it was made.
    pub fn left_by(&self, tenant: &str) -> Option<OwnedFd> {
        self.take(|_| self.shared.recycled.take(tenant))
    }

    /// Takes in the network of a sandbox of `tenant` that has ended, and into which no other was let.
    pub fn offer(&self, tenant: &str, netns: OwnedFd) {
        if self.shared.recycled.keeps_any() && self.pid == std::process::id() {
            self.shared.recycled.offer(tenant, netns);
            self.shared.bench().tend = Some(Instant::now());
            self.shared.bell.notify_all();
        }
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
            (bench.last, bench.trouble) = (Some(Instant::now()), None);
            bench.lots.take(sandbox)
        })
    }

    /// What was taken can be made again. Told at the end of a start: to wake a thread takes a tenth of a millisecond on an idle host. One that waits
    /// for the starts to come less thick looks around by itself.
    pub fn nudge(&self) {
        if self.shared.sleeps.swap(false, Ordering::Relaxed) {
            self.shared.bell.notify_all();
        }
    }

    /// Keeps `count` sandboxes like `like` parked, from now on.
    pub fn keep_parked(&self, host: Weak<Inner>, like: &Sandbox, count: usize) {
        let mut bench = self.shared.bench();
        bench.trouble = None;
        let dropped = bench.lots.keep(host, like, count);
        drop(bench);
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

    /// Waits until all is there that is to lie ready, and what was left is looked at; why it is not, if some of it could not be made.
    pub fn wait_ready(&self) -> Result<()> {
        let nobody =
            || Error::refused(ErrorKind::Io, "nothing is kept ready: the thread for it could not be started, or this process has forked since");
        if !self.is_open() {
            return Err(nobody());
        }
        let mut bench = self.shared.bench();
        (bench.stocking, bench.trouble) = (true, None);
        self.shared.bell.notify_all();
        loop {
            if let Some(trouble) = &bench.trouble {
                return Err(trouble.clone());
            }
            if bench.closing {
                return Err(nobody());
            }
            if self.shared.has_all(&bench) && bench.tend.is_none() && !bench.tending {
                return Ok(());
            }
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

    /// From now on every order is begun and closed without a network, or not.
    #[cfg(test)]
    pub fn lose(&self, losing: bool) {
        self.shared.bench().losing = losing;
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
            let left = std::mem::replace(&mut *bench, Bench { closing: true, ..Bench::default() });
            drop(bench);
            left.leases.iter().for_each(|lease| self.shared.leases.free(lease.slot()));
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

    fn thread_id(&self) -> Option<Pid> {
        Pid::from_raw(self.thread.load(Ordering::Relaxed))
    }
}
