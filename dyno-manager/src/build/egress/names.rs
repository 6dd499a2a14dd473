//! Names of hosts, looked up once and remembered for a minute.
//!
//! Package clients open a connection per file (npm: some 140 for a small app); a look-up for each is slow, and
//! resolvers under such bursts lose queries. Callers that ask for one name at the same time share one look-up.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{net::lookup_host, sync::OnceCell, time::timeout};

const KEEP: Duration = Duration::from_secs(60);
/// One try; a lost query is asked again once.
const TRY: Duration = Duration::from_secs(5);
/// Names remembered at once; a build that asks for more gets them looked up each time.
const MOST: usize = 256;

/// What one build's proxy has looked up.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<String, (Instant, Answer)>>);

type Answer = Arc<OnceCell<Vec<IpAddr>>>;

impl Names {
    /// The addresses of `host`; None when it has none.
    pub async fn find(&self, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
        let answer = self.slot(host);
        let addresses = answer.get_or_try_init(|| look_up(host)).await.ok()?;
        Some(addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }

    fn slot(&self, host: &str) -> Answer {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        known.retain(|_, (since, _)| now.duration_since(*since) < KEEP);
        if known.len() >= MOST && !known.contains_key(host) {
            return Answer::default();
        }
        known.entry(host.to_owned()).or_insert_with(|| (now, Answer::default())).1.clone()
    }
}

/// A failure is not remembered.
async fn look_up(host: &str) -> Result<Vec<IpAddr>, ()> {
    for _ in 0..2 {
        if let Ok(Ok(found)) = timeout(TRY, resolve(host)).await
            && !found.is_empty()
        {
            return Ok(found);
        }
    }
    Err(())
}

/// The root's dot keeps the resolver from trying the host's search domains. /etc/hosts has names
/// without it, and a name of one part is for it (or for the search domains) anyway.
async fn resolve(host: &str) -> std::io::Result<Vec<IpAddr>> {
    if host.contains('.')
        && let Ok(found) = lookup_host((format!("{host}."), 0)).await
    {
        return Ok(found.map(|a| a.ip()).collect());
    }
    Ok(lookup_host((host, 0)).await?.map(|a| a.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_looked_up_once_and_a_failure_is_forgotten() {
        let names = Names::default();
        let found = names.find("localhost", 8080).await.unwrap();
        assert!(found.iter().all(|a| a.port() == 8080 && a.ip().is_loopback()), "{found:?}");
        assert!(Arc::ptr_eq(&names.slot("localhost"), &names.slot("localhost")));
        assert!(names.slot("localhost").initialized());
        assert!(names.find("nothing.invalid", 80).await.is_none());
        assert!(!names.slot("nothing.invalid").initialized());
    }
}
