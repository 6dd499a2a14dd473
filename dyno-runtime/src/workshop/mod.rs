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

use std::{
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{io::Errno, process::Pid};

pub(crate) use self::order::Order;
use self::{lots::Lots, order::Orders};
use crate::{
    cgroup::{Cgroups, Spare},
    error::{Context, Error, ErrorKind, Result},
    host::{Host, Inner},
    mount::{Lease, Leases},
    net::{self, Home, Recycled},
    spawn::parked::Parked,
    spec::Sandbox,
    sys,
};

/// User namespaces that lie ready, each with a /dev. Some twenty kilobytes.
const LEASES: usize = 2;

/// As long as starts come thicker than this, what is kept ready is not topped up: it would take processors and locks from those that are
/// under way.
const QUIET: Duration = Duration::from_millis(5);

/// A namespace that is not yet as new is looked at again after this: what is left in it goes with a grace period of the kernel.
const SOON: Duration = Duration::from_millis(4);

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

/// What the thread does next.
enum Job {
    /// A network for whoever has ordered it.
    Order,
    Lease,
    Network,
    Group,
    Park(Weak<Inner>, Box<Sandbox>),
    /// Networks of ended sandboxes.
    Tend,
    /// Nothing, or not before this time has passed.
    Rest(Option<Duration>),
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
            if self.shared.lacking(&bench).is_none() && bench.tend.is_none() && !bench.tending {
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

    /// The thread.
    fn work(&self) {
        self.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
        let mut bench = self.bench();
        while !bench.closing {
            bench.orders.give_back();
            match self.next(&bench) {
                Job::Rest(None) => {
                    self.sleeps.store(true, Ordering::Relaxed);
                    bench = self.bell.wait(bench).unwrap_or_else(PoisonError::into_inner);
                }
                Job::Rest(Some(time)) => bench = self.bell.wait_timeout(bench, time).unwrap_or_else(PoisonError::into_inner).0,
                job => {
                    (bench.parking, bench.tending) = (matches!(job, Job::Park(..)), matches!(job, Job::Tend));
                    if bench.tending {
                        // What is offered from here on is looked at once more.
                        bench.tend = None;
                    }
                    drop(bench);
                    let failed = self.carry_out(job).err();
                    bench = self.bench();
                    let parked = std::mem::take(&mut bench.parking);
                    bench.tending = false;
                    if let Some(e) = failed {
                        // Whoever needs it makes it himself, and is told why he cannot.
                        tracing::debug!(%e, "nothing is kept ready for now");
                        // What cannot be parked says nothing of the rest.
                        bench.stocking &= parked;
                        bench.trouble = Some(e);
                    }
                    self.bell.notify_all();
                }
            }
        }
    }

    /// What every start needs first, then what is cheap to keep, then what stands whole.
    fn next(&self, bench: &Bench) -> Job {
        if bench.orders.is_open() {
            return Job::Order;
        }
        let lacking = self.lacking(bench);
        if let Some((Job::Lease, _)) = lacking {
            return Job::Lease;
        }
        let tend = bench.tend.map(|at| at.saturating_duration_since(Instant::now()));
        if tend.is_some_and(|rest| rest.is_zero()) {
            return Job::Tend;
        }
        let busy = bench.last.map_or(Duration::ZERO, |last| QUIET.saturating_sub(last.elapsed()));
        // An empty shelf is filled whatever else goes on, a full one topped up when nobody is in a hurry.
        match lacking {
            Some((job, is_empty)) if is_empty || busy.is_zero() => job,
            Some(_) => Job::Rest(Some(tend.map_or(busy, |tend| tend.min(busy)))),
            None => Job::Rest(tend),
        }
    }

    /// What should lie ready and does not, and whether there is nothing at all of its kind.
    fn lacking(&self, bench: &Bench) -> Option<(Job, bool)> {
        match (bench.leases.len(), bench.networks.len(), bench.groups.len()) {
            (leases, ..) if bench.stocking && leases < LEASES => Some((Job::Lease, true)),
            (_, networks, _) if bench.stocking && networks < self.spares => Some((Job::Network, networks == 0)),
            (.., groups) if bench.stocking && groups < self.spares && self.cgroups.is_some() => Some((Job::Group, groups == 0)),
            _ => bench.lots.wanting().map(|(host, like, is_empty)| (Job::Park(host, Box::new(like)), is_empty)),
        }
    }

    fn carry_out(&self, job: Job) -> Result<()> {
        match job {
            Job::Order => {
                let Some(line) = self.bench().orders.begin() else { return Ok(()) };
                // Whoever waits for it need not wait until we are home.
                return self.home.in_new(|| match sys::send_descriptor(line.as_raw_fd(), net::open_with_loopback()?.as_raw_fd()) {
                    // Nobody waits any more.
                    Err(Errno::PIPE | Errno::CONNREFUSED) => Ok(()),
                    other => other.io(|| "sendmsg(network)".into()),
                });
            }
            Job::Lease => {
                let lease = self.leases.spare()?;
                self.bench().leases.push(lease);
            }
            Job::Network => {
                let netns = self.home.in_new(net::open_with_loopback)?;
                self.bench().networks.push(netns);
            }
            Job::Group => {
                if let Some(spare) = self.cgroups.as_ref().map(Cgroups::make_spare).transpose()? {
                    self.bench().groups.push(spare);
                }
            }
            Job::Park(host, like) => return self.park(&host, &like),
            Job::Tend => {
                if self.recycled.tend() {
                    self.bench().tend.get_or_insert_with(|| Instant::now() + SOON);
                }
            }
            Job::Rest(_) => {}
        }
        Ok(())
    }

    fn park(&self, host: &Weak<Inner>, like: &Sandbox) -> Result<()> {
        let Some(inner) = host.upgrade() else { return Ok(()) };
        match Host::of(inner).park(like) {
            Ok(parked) => {
                let surplus = self.bench().lots.put(like, parked);
                // Ended outside the lock.
                drop(surplus);
                Ok(())
            }
            Err(e) => {
                tracing::warn!(%e, "a sandbox could not be parked");
                self.bench().lots.give_up(like);
                Err(e)
            }
        }
    }
}
