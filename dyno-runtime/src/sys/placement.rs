//! On which processor another thread of ours goes on. The scheduler leaves a thread that we make or wake in the queue of our own processor,
//! where its turn comes when we sleep, also when another one is idle (unless they share a cache and it looks there).

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity},
};

/// The processors that a thread had before [`keep_off_ours`].
#[derive(Debug, Clone, Copy)]
pub struct Processors(CpuSet);

/// Takes the processor that we are on from those of `thread`, whether it sleeps or waits for its turn. What it makes meanwhile has as few. None,
/// and nothing is changed, where it has no other one.
pub fn keep_off_ours(thread: Pid) -> Option<Processors> {
    let allowed = sched_getaffinity(Some(thread)).ok()?;
    let mut others = allowed;
    others.unset(sched_getcpu());
    (others.count() > 0 && sched_setaffinity(Some(thread), &others).is_ok()).then_some(Processors(allowed))
}

/// How many the calling thread may use, whatever its share of them.
pub fn usable() -> usize {
    sched_getaffinity(None).map_or(1, |allowed| allowed.count() as usize)
}

impl Processors {
    /// Gives them back to `thread`, or to the calling one. It stays where it is until the scheduler moves it.
    pub fn give_back(self, thread: Option<Pid>) {
        // Refused, it is slower at most.
        sched_setaffinity(thread, &self.0).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_kept_off_and_given_back() {
        let all = sched_getaffinity(None).unwrap();
        if all.count() < 2 {
            return println!("skipped: one processor");
        }
        let (tell, told) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid()).unwrap();
            gone.recv().unwrap();
        });
        let other_id = told.recv().unwrap();
        let kept = keep_off_ours(other_id).unwrap();
        assert_eq!(sched_getaffinity(Some(other_id)).unwrap().count(), all.count() - 1);
        kept.give_back(Some(other_id));
        assert_eq!(sched_getaffinity(Some(other_id)).unwrap(), all);
        go.send(()).unwrap();
        other.join().unwrap();
    }

    #[test]
    fn with_one_processor_nothing_is_changed() {
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        let all = sched_getaffinity(None).unwrap();
        sched_setaffinity(None, &here).unwrap();
        assert!(keep_off_ours(rustix::thread::gettid()).is_none());
        assert_eq!(sched_getaffinity(None).unwrap(), here);
        sched_setaffinity(None, &all).unwrap();
    }
}
