//! A network namespace that is made while its start makes the rest: by the workshop's thread, on another processor.
//!
//! It is a quarter of a cold start and needs nothing of it. The child collects it over a line of its own, when all else that does not need it is
//! done. A wake-up across processors costs 80 us after idleness, and the scheduler would rather leave the thread in our own queue, so it is kept
//! off our processor until it is at work.

use std::{collections::VecDeque, os::fd::OwnedFd, sync::atomic::Ordering};

use rustix::{net::SocketType, process::Pid};

use super::{Bench, Workshop};
use crate::{
    error::Result,
    spawn::socket_pair,
    sys::{self, Processors},
};

/// What was ordered and is not begun.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// By number, with the line on which it is waited for.
    open: VecDeque<(u64, OwnedFd)>,
    next: u64,
    /// The thread's, as long as it is kept off one.
    processors: Option<Processors>,
}

impl Orders {
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The thread begins one: where it is waited for. Closed without it, the line says that it could not be made.
    pub fn begin(&mut self) -> Option<OwnedFd> {
        self.open.pop_front().map(|(_, line)| line)
    }

    /// The thread is at work: where it is now it stays, on its own. A sandbox that it parked with fewer processors would have no more ever.
    pub fn give_back(&mut self) {
        if let Some(processors) = self.processors.take() {
            processors.give_back(None);
        }
    }

    /// Whether it was not begun, and will not be.
    fn take_back(&mut self, number: u64) -> bool {
        let before = self.open.len();
        self.open.retain(|(open, _)| *open != number);
        self.open.len() < before
    }
}

/// A start that is under way; counted, because an order is worth while only where a processor is left for it.
#[derive(Debug)]
pub(crate) struct UnderWay<'w>(&'w Workshop);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.starts.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A network namespace that was ordered.
#[derive(Debug)]
pub(crate) struct Order<'w> {
    workshop: &'w Workshop,
    number: u64,
    /// None once it was handed out.
    line: Option<OwnedFd>,
}

impl Workshop {
    /// A start begins.
    pub fn start_begins(&self) -> UnderWay<'_> {
        self.starts.fetch_add(1, Ordering::Relaxed);
        UnderWay(self)
    }

    /// Has a network namespace made meanwhile, if a processor is left for that.
    ///
    /// # Errors
    /// Of socketpair(2).
    pub fn order_network(&self) -> Result<Option<Order<'_>>> {
        if self.starts.load(Ordering::Relaxed) >= self.processors || self.pid != std::process::id() {
            return Ok(None);
        }
        let Some(thread) = self.shared.thread_id() else { return Ok(None) };
        if !self.shared.bench().takes_orders() {
            return Ok(None);
        }
        let (line, theirs) = socket_pair(SocketType::SEQPACKET, "network")?;
        Ok(self.order(thread, theirs).map(|number| Order { workshop: self, number, line: Some(line) }))
    }

    /// The number of the order that goes to `theirs`, if it can be begun at once.
    fn order(&self, thread: Pid, theirs: OwnedFd) -> Option<u64> {
        let mut bench = self.shared.bench();
        if !bench.takes_orders() {
            return None;
        }
        let processors = sys::keep_off_ours(thread)?;
        bench.orders.processors.get_or_insert(processors);
        let number = bench.orders.next;
        bench.orders.next += 1;
        bench.orders.open.push_back((number, theirs));
        drop(bench);
        self.shared.bell.notify_all();
        Some(number)
    }
}

impl Bench {
    /// Parking, the thread would not come to it in time, and what it parks would be kept off our processor too; ended, its number may be another's.
    fn takes_orders(&self) -> bool {
        #[cfg(test)]
        if self.resting {
            return false;
        }
        !(self.parking || self.closing)
    }
}

impl Order<'_> {
    /// Where the namespace comes ([`sys::receive_descriptor`]). None if it was not begun: then it is taken back, and the child makes its own.
    pub fn line(mut self) -> Option<OwnedFd> {
        let line = self.line.take()?;
        (!self.take_back()).then_some(line)
    }

    fn take_back(&self) -> bool {
        self.workshop.shared.bench().orders.take_back(self.number)
    }
}

impl Drop for Order<'_> {
    fn drop(&mut self) {
        if self.line.is_some() {
            self.take_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        os::{fd::AsFd, unix::fs::MetadataExt},
        path::Path,
        sync::Arc,
    };

    use super::*;
    use crate::{mount::Leases, net::Home, workshop::Stock};

    /// With room for `processors - 1` orders, whatever this machine has.
    fn workshop(processors: usize) -> (Workshop, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::within(dir.path().join("leases"), Path::new("order"), 4);
        let mut workshop = Workshop::new(Arc::new(leases), None, Stock::default(), Home::remember().unwrap());
        workshop.processors = processors;
        workshop.begin();
        workshop.wait_ready().unwrap();
        (workshop, dir)
    }

    fn collect(order: Order<'_>) -> Option<OwnedFd> {
        sys::receive_descriptor(order.line()?.as_fd()).unwrap()
    }

    fn inode(netns: &OwnedFd) -> u64 {
        rustix::fs::fstat(netns.as_fd()).unwrap().st_ino
    }

    #[test]
    fn an_order_is_one_namespace_of_its_own() {
        let (workshop, _dir) = workshop(2);
        // An inode's number is used again.
        let mut kept = Vec::new();
        let mut seen = BTreeSet::from([std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino()]);
        for _ in 0..20 {
            let Some(order) = workshop.order_network().unwrap() else { return println!("skipped: one processor") };
            // Not begun, it would be taken back.
            while workshop.shared.bench().orders.is_open() {
                std::thread::yield_now();
            }
            let netns = collect(order).unwrap();
            assert!(seen.insert(inode(&netns)), "one of another's");
            kept.push(netns);
        }
    }

    #[test]
    fn what_is_not_collected_is_nobodys() {
        let (workshop, _dir) = workshop(2);
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        for _ in 0..20 {
            drop(workshop.order_network().unwrap());
        }
        assert!(!workshop.shared.bench().orders.is_open());
        // The thread may be at the last of them; other tests have some open for a moment.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while descriptors() > before + 10 {
            assert!(std::time::Instant::now() < end, "{} descriptors, {before} before", descriptors());
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_thread_has_all_its_processors_again() {
        let (workshop, _dir) = workshop(2);
        let thread = workshop.shared.thread_id().unwrap();
        let has = || rustix::thread::sched_getaffinity(Some(thread)).unwrap();
        let before = has();
        for collected in [false, true] {
            let order = workshop.order_network().unwrap();
            if collected {
                drop(order.and_then(collect));
            } else {
                drop(order);
            }
            while workshop.shared.bench().orders.processors.is_some() {
                std::thread::yield_now();
            }
            assert_eq!(has(), before, "collected: {collected}");
        }
    }

    #[test]
    fn none_while_a_sandbox_is_being_parked() {
        let (workshop, _dir) = workshop(2);
        workshop.shared.bench().parking = true;
        assert!(workshop.order_network().unwrap().is_none());
        workshop.shared.bench().parking = false;
    }

    #[test]
    fn no_order_without_a_processor_for_it() {
        let (workshop, _dir) = workshop(2);
        let _one = workshop.start_begins();
        let _another = workshop.start_begins();
        assert!(workshop.order_network().unwrap().is_none());
    }

    #[test]
    fn as_many_orders_as_starts_and_none_is_had_twice() {
        let (workshop, _dir) = workshop(64);
        let all: Vec<u64> = std::thread::scope(|scope| {
            let start = || {
                let collect = |_| {
                    let _start = workshop.start_begins();
                    workshop.order_network().unwrap().and_then(collect)
                };
                (0..20).filter_map(collect).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            let namespaces: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            namespaces.iter().map(inode).collect()
        });
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(!workshop.shared.bench().orders.is_open());
    }
}
