//! One launch from its start to its end.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::{Live, PORT, Phase, Supervisor, launch, lock};
use crate::{
    logs,
    model::{DynoId, Exit, ExitCause},
    schedule::{Dyno, Event},
    warden::{Started, StdioFds, ended},
};

/// While the warden is being replaced its answers are waited for this long.
const WARDEN_PATIENCE: Duration = Duration::from_secs(60);

/// A connect on a loopback that takes longer than this has met a listener.
const BUSY: Duration = Duration::from_secs(1);

impl Supervisor {
    pub(super) async fn start(self, dyno: Dyno) {
        let launch = {
            let state = lock(&self.0.state);
            match (state.app(dyno.app_id), state.release(dyno.app_id)) {
                (Some(app), Some(release)) => launch::launch(&self.0.settings, app, release, &dyno),
                _ => Err("the app has no release".to_owned()),
            }
        };
        let started = match launch {
            Ok(launch) => self.0.warden.start(&launch).await.map_err(|e| (e.message, (e.kind == "image").then_some("R17"))),
            Err(reason) => Err((reason, None)),
        };
        self.unpark(dyno.app_id);
        let Some(live) = self.live(dyno.id) else {
            // Forgotten meanwhile: nobody will ask for it to be freed.
            return self.free(dyno.id).await;
        };
        match started {
            Ok(started) => self.follow(dyno, started, live).await,
            Err((reason, code)) => {
                // The warden may have started it all the same: it was replaced before it could answer, or we ran out of descriptors.
                self.free(dyno.id).await;
                live.phase.send_replace(Phase::Failed);
                self.take(Event::StartFailed { dyno_id: dyno.id, reason, code });
            }
        }
    }

    /// From the moment that a dyno runs to the moment that nothing of it is left.
    pub(super) async fn follow(self, dyno: Dyno, started: Started, live: Arc<Live>) {
        let Started { pidfd, stdio, socket, .. } = started;
        let done = CancellationToken::new();
        let log = match stdio {
            StdioFds::Log(fifo) => {
                let follow = logs::follow(fifo, self.0.logs.clone(), dyno.app_id, dyno.name.to_string(), done.clone());
                Some(tokio::spawn(follow))
            }
            other => {
                *lock(&live.streams) = Some(other);
                None
            }
        };
        live.phase.send_replace(Phase::Started);
        self.take(Event::Started { dyno_id: dyno.id });
        if dyno.binds_port() {
            tokio::spawn(self.clone().wait_bound(dyno.id, socket, done.clone()));
        }
        if let Err(e) = ended(&pidfd).await {
            tracing::error!(dyno = %dyno.id, %e, "cannot watch a dyno; it is ended");
            lock(&live.streams).take();
        }
        let exit = self.exit_record(dyno.id).await;
        done.cancel();
        if let Some(log) = log
            && let Ok(Err(e)) = log.await
        {
            tracing::warn!(dyno = %dyno.id, %e, "its log");
        }
        self.take(Event::Exited { dyno_id: dyno.id, exit: exit.clone() });
        live.phase.send_replace(Phase::Ended(exit));
        self.free(dyno.id).await;
    }

    /// The record that the dyno's init left, through a warden that may just be coming back.
    pub(super) async fn exit_record(&self, id: DynoId) -> Exit {
        let give_up = tokio::time::Instant::now() + WARDEN_PATIENCE;
        loop {
            match self.0.warden.exit(id).await {
                Ok(exit) => return exit,
                Err(e) if e.kind == "unknown" || tokio::time::Instant::now() > give_up => {
                    tracing::warn!(dyno = %id, %e, "its exit record is lost");
                    return Exit { status: 137, cause: ExitCause::Lost, memory_peak: None, oom_kills: 0, cpu_us: 0, wall_us: 0 };
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Frees a dyno; when that fails now, later: a warden may just be coming back, and until then nobody else would.
    pub(super) async fn free(&self, id: DynoId) {
        if let Err(e) = self.0.warden.free(id).await {
            tracing::warn!(dyno = %id, %e, "could not be freed; it is tried again");
            tokio::spawn(self.clone().free_later(id));
        }
    }

    async fn free_later(self, id: DynoId) {
        let mut pause = Duration::from_millis(100);
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
            match self.0.warden.free(id).await {
                Ok(()) => return tracing::info!(dyno = %id, "freed"),
                Err(e) => tracing::debug!(dyno = %id, %e, "could not be freed"),
            }
        }
    }

    /// Whether the dyno listens on its port. Where nobody does, connect(2) is refused at once; a listener that is too busy to take
    /// the connection leaves it waiting for two minutes, which is an answer as well.
    pub(super) async fn binds(&self, id: DynoId) -> bool {
        let connect = self.0.warden.connect(id, PORT);
        tokio::time::timeout(BUSY, connect).await.map_or(true, |connected| connected.is_ok())
    }

    /// Resolves when the dyno listens on its port. The kernel has no event for that, so it is asked: over one socket inside the
    /// dyno's network, which takes any number of refusals (a refused connect on a loopback costs some 20 us and wakes nobody). The
    /// first ones follow fast and then ever slower, to twenty a second.
    pub(super) async fn wait_bound(self, id: DynoId, socket: Option<OwnedFd>, done: CancellationToken) {
        let (mut socket, mut pause, mut asked) = (socket, Duration::from_millis(1), None);
        loop {
            if socket.is_none() {
                // The warden may just be coming back.
                socket = self.0.warden.socket(id).await.inspect_err(|e| tracing::debug!(dyno = %id, %e, "no socket inside its network")).ok();
            }
            match socket.as_ref().map(try_connect) {
                Some(Ok(())) => break,
                // It has met a listener that is too busy to take it.
                Some(Err(Errno::ALREADY)) if asked.get_or_insert_with(Instant::now).elapsed() > BUSY => break,
                Some(Err(Errno::ALREADY)) => {}
                _ => asked = None,
            }
            tokio::select! {
                () = done.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 3 / 2).min(Duration::from_millis(50)),
            }
        }
        self.take(Event::Bound { dyno_id: id });
    }
}

/// One try to connect `socket`, which does not block: ECONNREFUSED, after which it can be tried again, or EALREADY as long as there is
/// no answer. A loopback has answered by the time of the second call, which tells what the first came to (connect(2)).
fn try_connect(socket: &OwnedFd) -> Result<(), Errno> {
    let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);
    match rustix::net::connect(socket, &at) {
        Err(Errno::INPROGRESS) => rustix::net::connect(socket, &at),
        other => other,
    }
}
