//! The workshop: one thread of a [`crate::Host`] that makes parts of sandboxes beside the caller, or ahead of him.
//!
//! A network namespace is half of what a sandbox costs, and most of that is waiting for the kernel's locks. While the caller makes groups
//! and file systems the workshop makes the network on another processor; the child picks it up over a socket when it has come so far
//! ([`Order`]). A user namespace takes a process of its own to make, so one lies ready ([`Workshop::lease`]).
//!
//! The thread begins with the first start and ends with the host. A program that has forked since has none: then, and while it is at work for
//! another start, all is made in place as if there were no workshop.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::{
    error::{Context, Result},
    mount::{Lease, Leases},
    net, sys,
};

/// User namespaces that lie ready. Each is a few kilobytes.
const LEASES: usize = 2;

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
    bench: Mutex<Bench>,
    /// Something is to be made, or was.
    bell: Condvar,
}

/// What is to be made, and what is ready.
#[derive(Debug, Default)]
struct Bench {
    /// Waits for the thread.
    order: Option<Arc<Work>>,
    /// The thread makes a network.
    busy: bool,
    closing: bool,
    ready: Vec<Lease>,
    /// How many there should be; 0 until the first start, and again when none could be made.
    wanted: usize,
}

/// One network namespace on its way.
#[derive(Debug)]
struct Work {
    /// To the child.
    line: OwnedFd,
    done: Mutex<Option<Result<OwnedFd>>>,
    bell: Condvar,
}

/// What a start has ordered. Dropped, it is made all the same, and thrown away.
#[derive(Debug)]
pub(crate) struct Order {
    work: Arc<Work>,
    /// Where the child receives the namespace.
    pub line: OwnedFd,
}

impl Workshop {
    pub fn new(leases: Arc<Leases>) -> Self {
        let shared = Shared { leases, bench: Mutex::default(), bell: Condvar::new() };
        Self { shared: Arc::new(shared), thread: Mutex::new(Thread::NotYet), pid: std::process::id() }
    }

    /// Orders a network namespace with its loopback up; None when the thread has other work.
    ///
    /// # Errors
    /// EMFILE.
    pub fn order_network(&self) -> Result<Option<Order>> {
        if !self.is_open() {
            return Ok(None);
        }
        let mut bench = self.shared.bench();
        if bench.busy || bench.closing || bench.order.is_some() {
            return Ok(None);
        }
        let (ours, childs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).io(|| "socketpair(network)".into())?;
        let work = Arc::new(Work { line: ours, done: Mutex::default(), bell: Condvar::new() });
        bench.order = Some(work.clone());
        bench.wanted = LEASES;
        drop(bench);
        self.shared.bell.notify_one();
        Ok(Some(Order { work, line: childs }))
    }

    /// A lease that lies ready.
    pub fn lease(&self) -> Option<Lease> {
        (self.pid == std::process::id()).then(|| self.shared.bench().ready.pop()).flatten()
    }

    /// Ends the thread and gives back what lies ready. Nothing can be ordered any more.
    pub fn close(&self) {
        self.shared.bench().closing = true;
        self.shared.bell.notify_all();
        let thread = std::mem::replace(&mut *self.thread(), Thread::Gone);
        if let Thread::Runs(thread) = thread
            && self.pid == std::process::id()
            && thread.join().is_err()
        {
            tracing::warn!("the workshop's thread has panicked");
        }
        if self.pid == std::process::id() {
            std::mem::take(&mut self.shared.bench().ready).iter().for_each(|lease| self.shared.leases.free(lease.slot()));
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

    /// The thread: orders first, then what should lie ready.
    fn work(&self) {
        let mut bench = self.bench();
        while !bench.closing {
            if let Some(work) = bench.order.take() {
                bench.busy = true;
                drop(bench);
                work.make();
                bench = self.bench();
                bench.busy = false;
            } else if bench.ready.len() < bench.wanted {
                drop(bench);
                let made = self.leases.spare();
                bench = self.bench();
                match made {
                    Ok(lease) => bench.ready.push(lease),
                    Err(e) => {
                        // Whoever needs one is told why there is none.
                        tracing::debug!(%e, "no spare id range");
                        bench.wanted = 0;
                    }
                }
            } else {
                bench = self.bell.wait(bench).unwrap_or_else(PoisonError::into_inner);
            }
        }
        // Somebody waits for it.
        if let Some(work) = bench.order.take() {
            work.make();
        }
    }
}

impl Work {
    /// The child first: the caller sleeps as long as it does.
    fn make(&self) {
        let made = net::fresh();
        if let Ok(netns) = &made
            && let Err(e) = sys::send_descriptor(self.line.as_raw_fd(), netns.as_raw_fd())
        {
            // The start was given up.
            tracing::debug!(%e, "a network that nobody wants any more");
        }
        if made.is_err() && let Err(e) = rustix::net::shutdown(self.line.as_fd(), rustix::net::Shutdown::Both) {
            tracing::warn!(%e, "shutdown(network)");
        }
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        self.bell.notify_one();
    }
}

impl Order {
    /// The namespace, once it is made.
    ///
    /// # Errors
    /// Of unshare(2), socket(2) and SIOCSIFFLAGS.
    pub fn wait(self) -> Result<OwnedFd> {
        let mut done = self.work.done.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match done.take() {
                Some(made) => return made,
                None => done = self.work.bell.wait(done).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}
