//! Picks a dyno and gets a connection to it.
//!
//! Two dynos are drawn at random and the one with fewer exchanges under way is taken: nearly as even as asking all of
//! them, without the herd that "the least loaded" makes. A dyno that refuses is avoided for a while and another one is
//! tried; nothing of the request has been sent by then, so that is safe for any request.

use std::{io, sync::Arc, time::Duration};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::{
    Dial,
    code::Code,
    dyno::DynoStream,
    line::Ticket,
    pool::{Lane, Sender, Slot, Upstream},
    settings::Settings,
};

/// Dynos tried for one request; Heroku's router gives up after as many.
const ATTEMPTS: usize = 10;

/// An idle connection used within this time is taken to be alive, even for a request that cannot be sent twice. Common
/// servers keep idle connections for 2 s (gunicorn) and more.
const SURE: Duration = Duration::from_secs(1);

/// Largest response head that is accepted from a dyno (H17 above it), and read buffer per connection; bytes.
const RESPONSE_BUFFER: usize = 256 * 1024;

/// Finds a lane to one of `upstreams`; `replayable` if the request may be sent a second time.
pub(super) async fn connect(
    dial: &dyn Dial,
    settings: &Settings,
    upstreams: &[Arc<Upstream>],
    replayable: bool,
    ticket: &mut Ticket,
) -> Result<Lane, Code> {
    let from = Instant::now();
    let mut tried: Vec<Arc<Upstream>> = Vec::new();
    let mut answer = Code::H11;
    while tried.len() < ATTEMPTS {
        let Some(slot) = pick(upstreams, &tried, settings.active_per_dyno) else { break };
        let upstream = slot.upstream.clone();
        ticket.dyno = Some(upstream.backend.name.clone());
        let idle = upstream.take_idle(if replayable { settings.keep } else { SURE.min(settings.keep) }).await;
        let lane = match idle {
            Some(sender) => Ok(Lane { slot, sender, used: true }),
            None => open(dial, settings, slot).await,
        };
        ticket.connect_ms = Some(from.elapsed().as_millis());
        match lane {
            Ok(lane) => return Ok(lane),
            Err(code) => answer = code,
        }
        tried.push(upstream);
    }
    Err(answer)
}

/// A new connection to the dyno of `slot`.
pub(super) async fn open(dial: &dyn Dial, settings: &Settings, slot: Slot) -> Result<Lane, Code> {
    let dialled = timeout(settings.connect, handshake(dial, &slot.upstream)).await;
    match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(sender) => Ok(Lane { slot, sender, used: false }),
        Err(error) => {
            slot.upstream.shun(settings.quarantine);
            let code = if error.kind() == io::ErrorKind::TimedOut { Code::H19 } else { Code::H21 };
            tracing::debug!(dyno = %slot.upstream.backend.name, %error, ?code, "cannot connect");
            Err(code)
        }
    }
}

async fn handshake(dial: &dyn Dial, upstream: &Upstream) -> io::Result<Sender> {
    let tcp = dial.dial(upstream.backend.dyno).await?;
    tcp.set_nodelay(true)?;
    let (sender, connection) =
        http1::Builder::new().max_buf_size(RESPONSE_BUFFER).handshake(TokioIo::new(DynoStream::new(tcp))).await.map_err(io::Error::other)?;
    // Ends when the sender and the exchange are gone; its error is also the exchange's, and is reported there.
    tokio::spawn(async move { connection.with_upgrades().await.ok() });
    Ok(sender)
}

/// A place at the less busy of two random dynos, else at any that has room. Shunned dynos only when there is no other.
fn pick(upstreams: &[Arc<Upstream>], tried: &[Arc<Upstream>], limit: usize) -> Option<Slot> {
    let fresh = |u: &&Arc<Upstream>| !tried.iter().any(|t| Arc::ptr_eq(t, u));
    let mut rest: Vec<_> = upstreams.iter().filter(fresh).collect();
    if rest.iter().any(|u| !u.is_shunned()) {
        rest.retain(|u| !u.is_shunned());
    }
    let n = rest.len();
    if n > 2 {
        let first = rand::random_range(0..n);
        let second = (first + rand::random_range(1..n)) % n;
        let (a, b) = (rest[first], rest[second]);
        let less = if a.active() <= b.active() { a } else { b };
        if let Some(slot) = less.admit(limit) {
            return Some(slot);
        }
    }
    let turn = if n > 1 { rand::random_range(0..n) } else { 0 };
    rest.rotate_left(turn); // so that equals are drawn, not always the first
    rest.sort_by_key(|u| u.active());
    rest.into_iter().find_map(|u| u.admit(limit))
}

#[cfg(test)]
mod tests {
    use super::super::table::Backend;
    use super::*;

    fn upstreams(n: u32) -> Vec<Arc<Upstream>> {
        let backend = |n| Backend { dyno: uuid::Uuid::new_v4(), name: format!("web.{n}").parse().unwrap() };
        (1..=n).map(|n| Upstream::new(backend(n))).collect()
    }

    #[test]
    fn load_spreads_and_stops_at_the_limit() {
        for n in [1, 2, 3, 10] {
            let dynos = upstreams(n);
            let half: Vec<_> = (0..n * 5).map(|_| pick(&dynos, &[], 10).unwrap()).collect();
            let (low, high) = (dynos.iter().map(|u| u.active()).min(), dynos.iter().map(|u| u.active()).max());
            assert!(high.unwrap() - low.unwrap() <= 5, "{n} dynos got between {low:?} and {high:?} exchanges");
            let rest: Vec<_> = (0..n * 5).map(|_| pick(&dynos, &[], 10).unwrap()).collect();
            assert!(pick(&dynos, &[], 10).is_none());
            drop((half, rest));
            assert!(dynos.iter().all(|u| u.active() == 0));
        }
    }

    #[test]
    fn a_shunned_dyno_is_the_last_choice() {
        let dynos = upstreams(2);
        dynos[0].shun(Duration::from_secs(5));
        for _ in 0..20 {
            assert!(Arc::ptr_eq(&pick(&dynos, &[], 50).unwrap().upstream, &dynos[1]));
        }
        assert!(Arc::ptr_eq(&pick(&dynos, &dynos[1..], 50).unwrap().upstream, &dynos[0]));
        dynos[0].shun(Duration::ZERO);
        assert!(!dynos[0].is_shunned());
    }
}
