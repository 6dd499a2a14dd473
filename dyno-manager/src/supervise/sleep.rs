//! Apps that nobody visits fall asleep. That a request wakes one is the router's word (`router::Dial::wake`); that none came is seen here.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Supervisor, lock};
use crate::schedule::Event;

impl Supervisor {
    /// Tells the scheduler of each app whose web dynos have had nothing to do for `patience`. It wakes at the moment at which the next
    /// of those that it knows can be due; what happens in the meantime makes nobody due earlier.
    pub(super) async fn keep_quiet(self, patience: Duration) {
        loop {
            let now = Instant::now();
            let mut next = now + patience;
            let apps: Vec<_> = lock(&self.0.routed).iter().map(|(id, name)| (*id, name.clone())).collect();
            for (app_id, name) in apps {
                match self.0.table.quiet_since(&name).map(|since| since + patience) {
                    Some(due) if due > now => next = next.min(due),
                    Some(_) if self.0.table.close_if_quiet(&name, now - patience) => self.take(Event::Quiet { app_id }),
                    _ => {}
                }
            }
            sleep_until(next).await;
        }
    }
}
