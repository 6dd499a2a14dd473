//! The workshop's thread: what it does next, and how.

use std::{
    os::fd::AsRawFd,
    sync::{PoisonError, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::{Bench, LEASES, Shared};
use crate::{
    cgroup::Cgroups,
    error::{Context, Result},
    host::{Host, Inner},
    net,
    spec::Sandbox,
    sys,
};

/// As long as starts come thicker than this, what is kept ready is not topped up: it would take processors and locks from those that are
/// under way.
const QUIET: Duration = Duration::from_millis(5);

/// A namespace that is not yet as new is looked at again after this: what is left in it goes with a grace period of the kernel.
const SOON: Duration = Duration::from_millis(4);

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

impl Shared {
    /// The thread.
    pub(super) fn work(&self) {
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

    /// Whether all is there that should lie ready.
    pub(super) fn has_all(&self, bench: &Bench) -> bool {
        self.lacking(bench).is_none()
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
                #[cfg(test)]
                if self.bench().losing {
                    return Ok(());
                }
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
