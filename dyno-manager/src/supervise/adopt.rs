//! The daemon's start: what runs is read from the warden, never from memory.

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Phase, Supervisor};
use crate::{
    logs::{self, Source},
    model::DynoState,
    platform::Engine,
    schedule::{Dyno, Event},
    warden::{Held, Started, StdioFds, WardenError},
};

impl Supervisor {
    /// Tells the scheduler of every dyno that the warden holds, takes up the wanted ones and ends the rest. Comes after the
    /// desired state was loaded; what is missing is started at its end.
    ///
    /// # Errors
    /// When the warden cannot be reached.
    pub async fn adopt(&self) -> Result<(), WardenError> {
        for held in self.0.warden.list().await? {
            match serde_json::from_value::<Dyno>(held.meta.clone()) {
                Ok(dyno) if dyno.id == held.id => self.adopt_one(dyno, &held).await,
                // The dynos of a build have lost the daemon that waited for them.
                _ => self.free(held.id).await,
            }
        }
        // Whoever slept is started now.
        if let Err(e) = self.0.warden.park_none().await {
            tracing::warn!(%e, "what a former daemon had parked stays parked");
        }
        self.take(Event::Settled);
        Ok(())
    }

    async fn adopt_one(&self, mut dyno: Dyno, held: &Held) {
        let id: Uuid = dyno.id;
        let live = self.expect(id);
        dyno.state = DynoState::Starting;
        dyno.exit = None;
        if !held.running {
            // It ended while nobody watched; its status is not lost.
            dyno.state = DynoState::Up;
            self.take(Event::Adopted { dyno: dyno.clone() });
            self.last_words(&dyno).await;
            let exit = self.exit_record(id).await;
            self.take(Event::Exited { dyno_id: id, exit: exit.clone() });
            live.phase.send_replace(Phase::Ended(exit));
            return self.free(id).await;
        }
        let started = match self.0.warden.open(id).await {
            Ok(started) => started,
            Err(e) => {
                tracing::warn!(dyno = %id, %e, "could not be taken up; it is ended");
                return self.free(id).await;
            }
        };
        if !dyno.binds_port() || self.binds(id).await {
            dyno.state = DynoState::Up;
        }
        let lost_client = dyno.attached && matches!(started.stdio, StdioFds::Gone);
        self.take(Event::Adopted { dyno: dyno.clone() });
        if lost_client {
            let text = "Client connection closed. Sending SIGHUP to all processes";
            self.0.logs.publish(dyno.app_id, Source::Platform, &dyno.name.to_string(), text, jiff::Timestamp::now());
            self.signal(id, 1).await;
        }
        tokio::spawn(self.clone().follow(dyno, started, live));
    }

    /// What an ended dyno wrote and nobody read. Gone if the warden was away, too, when it ended.
    async fn last_words(&self, dyno: &Dyno) {
        let Ok(Started { stdio: StdioFds::Log(fifo), .. }) = self.0.warden.open(dyno.id).await else { return };
        let ended = CancellationToken::new();
        ended.cancel();
        if let Err(e) = logs::follow(fifo, self.0.logs.clone(), dyno.app_id, dyno.name.to_string(), ended).await {
            tracing::warn!(dyno = %dyno.id, %e, "its log");
        }
    }
}
