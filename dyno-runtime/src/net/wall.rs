//! What all sandboxes of an instance share on the host: one table, forwarding, and a network that must be nobody else's.

use std::{io::ErrorKind as Io, path::PathBuf, sync::PoisonError};

use super::{
    at_work,
    egress::{Link, Uplink, set},
    link::{self, Links, Route},
    nft::{self, Tables},
    rules,
};
use crate::error::{Context, Error, ErrorKind, Result};

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

impl Uplink {
    pub(super) fn table(&self) -> String {
        format!("dyno_{}", self.tag)
    }

    /// Holds what forwarding was before this instance had its first link, 0 or 1. Without it there never was a table.
    fn memory(&self) -> PathBuf {
        self.dir.join("ip_forward")
    }

    /// None before the first link.
    fn remembered(&self) -> Result<Option<String>> {
        match std::fs::read_to_string(self.memory()) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == Io::NotFound => Ok(None),
            Err(e) => Err(e).io(|| format!("read {}", self.memory().display())),
        }
    }

    /// Sees to it that the host's table stands and packets are forwarded. A table that somebody has flushed is made again, with what
    /// running sandboxes have in it.
    pub(super) fn raise(&self) -> Result<()> {
        let _alone = self.raising.lock().unwrap_or_else(PoisonError::into_inner);
        let is = std::fs::read_to_string(FORWARD).wall(|| format!("read {FORWARD}"))?;
        let (off, memory) = (is.trim() == "0", self.memory());
        if off || self.remembered()?.is_none() {
            std::fs::write(&memory, is.trim()).io(|| format!("write {}", memory.display()))?;
        }
        at_work::wait_for_those_of_the_dead(&self.dir)?;
        let tables = Tables::open()?;
        if !tables.has(&self.table())? {
            pool_must_be_free(&link::routes()?)?;
            let mut script = rules::host(&self.tag, &self.dir.to_string_lossy(), self.remembered()?.as_deref() != Some("1"));
            self.links()?.iter().filter_map(|link| link.admission(&self.tag)).for_each(|text| script.push_str(&text));
            let loaded = nft::load(&script, Some(&self.dir), "network.egress: the host's table");
            // Another process of this instance may have been faster.
            if !tables.has(&self.table())? {
                loaded?;
                return Err(Error::refused(ErrorKind::Wall, format!("nftables: table {} is not there after it was loaded", self.table())));
            }
        }
        if off { set("ipv4/ip_forward", "1") } else { Ok(()) }
    }

    /// Those of the sandboxes of this instance.
    fn links(&self) -> Result<Vec<Link>> {
        let dynos = self.dir.join("dynos");
        let entries = std::fs::read_dir(&dynos).io(|| format!("list {}", dynos.display()))?;
        let links = entries.filter_map(std::result::Result::ok).map(|entry| Link::read(&entry.path()));
        links.filter_map(Result::transpose).collect()
    }

    /// Takes the table off the host, and any interface that was left; forwarding is again what it was, unless another instance
    /// needs it.
    ///
    /// # Errors
    /// Of the first step that failed.
    pub fn take_down(&self) -> Result<()> {
        // Nothing is asked of netfilter where there never was a link: not everybody may.
        let Some(was) = self.remembered()? else { return Ok(()) };
        let prefix = format!("dy{}", self.tag);
        let links = Links::open()?;
        for name in interfaces()?.iter().filter(|name| name.starts_with(&prefix)) {
            links.index(name)?.map_or(Ok(()), |index| links.remove(index))?;
        }
        at_work::wait_for_those_of_the_dead(&self.dir)?;
        let tables = Tables::open()?;
        if tables.has(&self.table())? {
            nft::load(&format!("delete table inet {}\n", self.table()), Some(&self.dir), "take down the host's table")?;
        }
        if was == "0" && !tables.names()?.iter().any(|name| name.starts_with("dyno_")) {
            set("ipv4/ip_forward", "0")?;
        }
        std::fs::remove_file(self.memory()).io(|| format!("unlink({})", self.memory().display()))
    }
}

/// Names of the interfaces of the calling thread's network namespace.
fn interfaces() -> Result<Vec<String>> {
    let path = "/proc/thread-self/net/dev";
    let table = std::fs::read_to_string(path).io(|| format!("read {path}"))?;
    Ok(table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
}

/// Fails when the host has a way of its own to where the links' addresses are from. A default route, or half a one of a VPN,
/// is none.
///
/// # Errors
/// [`ErrorKind::Wall`] naming the route.
pub(super) fn pool_must_be_free(routes: &[Route]) -> Result<()> {
    let meets = |r: &Route| rules::within((r.destination, r.prefix), rules::POOL) || rules::within(rules::POOL, (r.destination, r.prefix));
    let Some(route) = routes.iter().find(|r| r.prefix >= 8 && !r.interface.starts_with("dy") && meets(r)) else { return Ok(()) };
    let (pool, prefix) = rules::POOL;
    let message = format!(
        "network.egress: links have their addresses from {pool}/{prefix}, and this host has a route there: {}/{} by {}",
        route.destination, route.prefix, route.interface
    );
    Err(Error::refused(ErrorKind::Wall, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_of_the_host_is_named() {
        let check = |destination: [u8; 4], prefix, interface: &str, free: bool| {
            let route = Route { interface: interface.into(), destination: destination.into(), prefix };
            let result = pool_must_be_free(std::slice::from_ref(&route));
            assert_eq!(result.is_ok(), free, "{route:?}");
            assert!(result.err().is_none_or(|e| e.to_string().contains(interface)));
        };
        check([0, 0, 0, 0], 0, "eth0", true);
        check([128, 0, 0, 0], 1, "tun0", true);
        check([10, 0, 0, 0], 8, "eth0", true);
        check([198, 18, 0, 0], 15, "eth1", false);
        check([198, 19, 7, 0], 24, "eth1", false);
        check([198, 19, 7, 1], 32, "dyabcdef3", true);
    }
}
