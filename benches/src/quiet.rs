//! Quiet between turns: what one peer leaves to the kernel (namespaces, groups and mounts that are taken apart later) is not paid by the next.

use std::{fs, thread::sleep, time::Duration};

use crate::machine::ticks;

/// One look.
const WINDOW: Duration = Duration::from_millis(50);

/// So many looks in a row must find nothing.
const CALM: usize = 2;

/// So many are had in all.
const LOOKS: usize = 100;

/// After so many turns that found no quiet the host is taken for a busy one.
const PATIENCE: usize = 6;

/// Waits for quiet, and counts how often it was waited for in vain.
#[derive(Debug, Default)]
pub struct Quiet {
    vain: usize,
}

impl Quiet {
    /// Until the processors have had nothing to do for a tenth of a second; at most for five seconds: the network namespaces of four thousand starts take as long.
    pub fn wait(&mut self) {
        if self.vain >= PATIENCE {
            return;
        }
        let (mut before, mut calm) = (busy(), 0);
        for _ in 0..LOOKS {
            sleep(WINDOW);
            let now = busy();
            // One tick is this look itself.
            calm = if now.saturating_sub(before) <= 1 { calm + 1 } else { 0 };
            if calm == CALM {
                return;
            }
            before = now;
        }
        self.vain += 1;
    }

    /// Why the figures are to be read with care.
    pub fn complaint(&self) -> Option<String> {
        (self.vain >= PATIENCE).then(|| {
            format!(
                "the host did something else: {PATIENCE} turns began without a quiet tenth of a second before them, the rest without waiting for one"
            )
        })
    }
}

/// Ticks of all processors that were not idle: everything but the fourth and fifth field (proc_stat(5)).
fn busy() -> u64 {
    busy_in(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn busy_in(stat: &str) -> u64 {
    ticks(stat).enumerate().filter(|(at, _)| ![3, 4].contains(at)).map(|(_, ticks)| ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_ticks_are_not_busy() {
        assert_eq!(busy_in("cpu  1 2 4 1000 2000 8 16 32 64 64\ncpu0 1 1"), 63);
    }

    #[test]
    fn a_busy_host_is_given_up_on() {
        let quiet = Quiet { vain: PATIENCE };
        assert!(quiet.complaint().is_some() && Quiet::default().complaint().is_none());
    }
}
