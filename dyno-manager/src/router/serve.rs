//! Accepts connections and hands their requests to the router, until told to stop.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{
    Dial, Settings, Table,
    client::{Client, ClientStream},
    proxy::Router,
};

/// Read and write buffer per client connection, bytes. Bounds what is held of a body, and the heads that get as far as
/// a page and a log line; a longer head gets a bare 431.
const CLIENT_BUFFER: usize = 64 * 1024;

/// How often idle connections to dynos are looked through, and how long accepting rests after an error.
const SWEEP: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_millis(100);

/// Serves HTTP/1.1 on `listener` until `shutdown`, then lets exchanges finish for [`Settings::drain`].
///
/// `log` gets one line per exchange of a known app: the app's id and the text of a `heroku[router]` line. It is called
/// from the exchange's own task and must not block.
pub async fn serve(
    listener: TcpListener,
    table: Arc<Table>,
    dial: Arc<dyn Dial>,
    log: impl Fn(Uuid, String) + Send + Sync + 'static,
    settings: Settings,
    shutdown: CancellationToken,
) {
    let port = listener.local_addr().map_or(80, |address| address.port());
    let tasks = TaskTracker::new();
    let places = Arc::new(Semaphore::new(settings.connections));
    let (drain, forced) = (settings.drain, CancellationToken::new());
    let router = Arc::new(Router { table, dial, log: Arc::new(log), settings, port, shutdown: shutdown.clone(), tasks: tasks.clone() });
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = sweep(&router) => {}
        () = accept(&listener, &places, &router, &forced) => {}
    }
    drop(listener);
    tasks.close();
    if timeout(drain, tasks.wait()).await.is_err() {
        forced.cancel();
        tasks.wait().await;
    }
}

async fn sweep(router: &Router) {
    let every = SWEEP.min(router.settings.keep).max(Duration::from_millis(1));
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        router.table.sweep(router.settings.keep);
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>, router: &Arc<Router>, forced: &CancellationToken) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((tcp, peer)) => {
                router.tasks.spawn(connection(router.clone(), tcp, peer, place, forced.clone()));
            }
            // The client is gone already, or descriptors have run out: others may end meanwhile.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "router: cannot accept connections");
                sleep(REST).await;
            }
        }
    }
}

async fn connection(router: Arc<Router>, tcp: TcpStream, peer: SocketAddr, _place: OwnedSemaphorePermit, forced: CancellationToken) {
    if tcp.set_nodelay(true).is_err() {
        return; // closed before it was looked at
    }
    let client = Arc::new(Client::default());
    let stream = ClientStream::new(tcp, client.clone(), router.settings.idle);
    let service = service_fn(|request| router.clone().handle(client.clone(), peer.ip(), request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(router.settings.head)
        .max_buf_size(CLIENT_BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = router.shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                served = serving => served,
                () = forced.cancelled() => return client.cut(),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "router: connection ended");
    }
}
