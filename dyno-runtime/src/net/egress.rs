//! The way out of a sandbox: from a new network namespace with nothing but a loopback to one with a link, walled in before it is up.
//!
//! ```text
//!   raise the host's table, forwarding ─ rules inside, drop first ─ veth, both ends down ─ address and route inside
//!        ─ host's end: sysctls, address ─ what it publishes ─ host's end up
//! ```
//!
//! The order is the wall: whatever fails or is killed between two of these steps leaves a link that carries nothing. The namespace belongs
//! to the host's user namespace, so nobody inside may change any of it. All that the host keeps of a sandbox is the interface, which ends
//! with the namespace, and what it publishes; both are written down in its state directory before they are made.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::Mutex,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt::set_socket_reuseaddr},
};
use serde::{Deserialize, Serialize};

pub use super::probe::missing;
use super::{
    at_work,
    link::Links,
    nft::{self, Tables},
    resolver, rules, within,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    mount::Lease,
    spec::{Allow, Egress, Network, Protocol, Publish},
};

/// The links of one instance, and its table on the host.
#[derive(Debug)]
pub(crate) struct Uplink {
    /// State directory of the instance.
    pub(super) dir: PathBuf,
    /// Six hexadecimal digits that tell its table and its interfaces from another instance's.
    pub(super) tag: String,
    /// One thread at a time makes what all share.
    pub(super) raising: Mutex<()>,
}

/// What the host holds for one sandbox, as a file of its state directory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Link {
    slot: u32,
    publish: Vec<Publish>,
    /// What it may reach although the host's table forbids it to others.
    listed: Vec<Allow>,
}

impl Link {
    fn path(dyno: &Path) -> PathBuf {
        dyno.join("link.json")
    }

    fn write(&self, dyno: &Path) -> Result<()> {
        let (new, path) = (dyno.join("link.new"), Self::path(dyno));
        let json = serde_json::to_vec(self).map_err(|e| Error::refused(ErrorKind::Io, e.to_string()))?;
        std::fs::write(&new, json).io(|| format!("write {}", new.display()))?;
        std::fs::rename(&new, &path).io(|| format!("rename {}", path.display()))
    }

    /// None for a sandbox without a link.
    pub(super) fn read(dyno: &Path) -> Result<Option<Self>> {
        let path = Self::path(dyno);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| Error::refused(ErrorKind::Io, format!("{}: {e}", path.display()))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).io(|| format!("read {}", path.display())),
        }
    }

    /// What it has in the host's table.
    pub(super) fn admission(&self, tag: &str) -> Option<String> {
        rules::admit(tag, self.slot, ends(self.slot).1, &self.publish, &self.listed)
    }

    fn dismissal(&self, tag: &str) -> Option<String> {
        rules::dismiss(tag, self.slot, ends(self.slot).1, &self.publish, &self.listed)
    }
}

/// The host's address on the link of `slot`, and the one inside.
fn ends(slot: u32) -> (Ipv4Addr, Ipv4Addr) {
    let first = u32::from(rules::POOL.0) + 2 * slot;
    (first.into(), (first + 1).into())
}

/// Makes ready, before there is a process, what a sandbox with egress needs in its files. The name servers that it gets.
///
/// # Errors
/// [`ErrorKind::Invalid`] when no name server is usable, or there is no place for their file.
pub(crate) fn prepare(network: &Network, root: BorrowedFd<'_>, writable: bool, lease: &Lease, dyno: &Path) -> Result<Vec<Ipv4Addr>> {
    let Network::Egress(egress) = network else { return Ok(Vec::new()) };
    let servers = resolver::servers(egress)?;
    if !servers.is_empty() {
        resolver::write(dyno, &servers)?;
        resolver::place(root, writable, lease)?;
    }
    Ok(servers)
}

impl Uplink {
    /// That of the instance whose state is in `dir`.
    pub fn of(dir: &Path) -> Self {
        use sha2::{Digest, Sha256};
        let hash = Sha256::digest(dir.as_os_str().as_encoded_bytes());
        let tag = hash.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
        Self { dir: dir.to_owned(), tag, raising: Mutex::new(()) }
    }

    /// Links `netns`, new and with nothing running in it, of the sandbox with range `slot` and state directory `dyno`.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] naming the step, [`ErrorKind::Invalid`] for a port that is taken. [`Self::disconnect`] takes back what was
    /// done until then.
    pub fn connect(&self, dyno: &Path, slot: u32, netns: BorrowedFd<'_>, egress: &Egress, servers: &[Ipv4Addr]) -> Result<()> {
        self.raise()?;
        egress.publish.iter().try_for_each(must_be_free)?;
        let links = Links::open()?;
        let listed = rules::exceptions(egress, servers, &links.addresses()?);
        let link = Link { slot, publish: egress.publish.clone(), listed };
        link.write(dyno)?;
        let (outside, inside) = ends(slot);
        within(netns, || wall_in(dyno, inside, egress, servers))?;
        let name = format!("dy{}{slot}", self.tag);
        // That of the range's former owner goes with its network, soon; or is held by who has joined it, and ends here.
        links.index(&name)?.map_or(Ok(()), |former| links.remove(former))?;
        links.add_pair(&name, rules::INSIDE, netns, hardware_address(slot))?;
        let index = index_of(&links, &name)?;
        let (links_inside, index_inside) = within(netns, || furnish(inside, outside))?;
        set_up_outside(&name, &egress.publish)?;
        links.add_address(index, outside, inside)?;
        self.admit(dyno, &link)?;
        links.up(index)?;
        links_inside.settle(index_inside)
    }

    fn admit(&self, dyno: &Path, link: &Link) -> Result<()> {
        let Some(script) = link.admission(&self.tag) else { return Ok(()) };
        nft::load(&script, Some(dyno), "network.egress.publish: the host's table").map_err(|e| match e.to_string().contains(nft::EXISTS) {
            true => Error::refused(ErrorKind::Invalid, format!("network.egress.publish: another sandbox has published one of {:?}", link.publish)),
            false => e,
        })
    }

    /// Takes back what the sandbox with state directory `dyno` has in the host's table, wherever in [`Self::connect`] it was left. One
    /// without a link is no error. The link itself ends with the namespace, when the kernel comes to it: to wait for that would
    /// cost some 25 ms.
    ///
    /// # Errors
    /// Of the first step that failed. Its range must not be used again then.
    pub fn disconnect(&self, dyno: &Path) -> Result<()> {
        let Some(link) = Link::read(dyno)? else { return Ok(()) };
        at_work::wait_for_those_of_the_dead(dyno)?;
        if let Some(script) = link.dismissal(&self.tag)
            && Tables::open()?.has(&self.table())?
        {
            match nft::load(&script, Some(dyno), "take back what was published") {
                // Another's: ours was never there, or it would not be.
                Err(e) if e.to_string().contains(nft::EXISTS) => {}
                other => other?,
            }
        }
        let path = Link::path(dyno);
        std::fs::remove_file(&path).io(|| format!("unlink({})", path.display()))
    }
}

/// In the sandbox's network, before there is a link: no IPv6, and rules that the kernel confirms.
fn wall_in(dyno: &Path, address: Ipv4Addr, egress: &Egress, servers: &[Ipv4Addr]) -> Result<()> {
    set_ipv6_off("default")?;
    nft::load(&rules::inside(address, egress, servers), Some(dyno), "network.egress: the rules inside")?;
    let tables = Tables::open()?;
    rules::CHAINS.iter().try_for_each(|chain| tables.must_drop(rules::TABLE, chain))
}

/// In the sandbox's network: its end of the link, which has no use before the other is up.
fn furnish(inside: Ipv4Addr, outside: Ipv4Addr) -> Result<(Links, u32)> {
    let links = Links::open()?;
    let index = index_of(&links, rules::INSIDE)?;
    set_ipv6_off(rules::INSIDE)?;
    links.add_address(index, inside, outside)?;
    links.up(index)?;
    links.add_default_route(index, outside)?;
    Ok((links, index))
}

/// The host's end, still down: sources that are not the sandbox's do not come in by it, and nobody is told of other ways.
fn set_up_outside(name: &str, publish: &[Publish]) -> Result<()> {
    set_ipv6_off(name)?;
    // The host's own loopback addresses may go out by it, to where its published ports lead; the table keeps them from coming in.
    let to_loopback = publish.iter().any(|p| p.address.is_unspecified() || p.address.is_loopback());
    let settings = [
        ("rp_filter", "1"),
        ("forwarding", "1"),
        ("accept_redirects", "0"),
        ("send_redirects", "0"),
        ("accept_source_route", "0"),
        ("proxy_arp", "0"),
    ];
    let to_loopback = ("route_localnet", if to_loopback { "1" } else { "0" });
    settings.into_iter().chain([to_loopback]).try_for_each(|(setting, value)| set(&format!("ipv4/conf/{name}/{setting}"), value))
}

fn set_ipv6_off(interface: &str) -> Result<()> {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(()); // a kernel without it, or booted with ipv6.disable=1
    }
    set(&format!("ipv6/conf/{interface}/disable_ipv6"), "1")
}

/// Sets a sysctl of the calling thread's network, and reads it back.
pub(super) fn set(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    std::fs::write(&path, value).wall(|| format!("write {value} to {path}"))?;
    let is = std::fs::read_to_string(&path).wall(|| format!("read {path}"))?;
    if is.trim() == value {
        return Ok(());
    }
    Err(Error::refused(ErrorKind::Wall, format!("{path} is {:?} after {value} was written to it", is.trim())))
}

fn index_of(links: &Links, name: &str) -> Result<u32> {
    links.index(name)?.ok_or_else(|| Error::call(ErrorKind::Wall, format!("interface {name}, just made"), Errno::NODEV))
}

/// The same at both ends: see [`super::link`]. Locally administered (its first byte's second bit).
fn hardware_address(slot: u32) -> [u8; 6] {
    let [a, b, c, d] = slot.to_be_bytes();
    [0x02, 0x64, a, b, c, d]
}

/// Somebody who listens there would not be reached any more. (What other sandboxes have published, the table knows.)
fn must_be_free(publish: &Publish) -> Result<()> {
    let address = SocketAddrV4::new(publish.address, publish.host_port);
    let kind = if publish.protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).io(|| "socket(AF_INET)".into())?;
    if publish.protocol == Protocol::Tcp {
        // Connections of a former listener that are still ending are none of ours.
        set_socket_reuseaddr(&socket, true).io(|| "setsockopt(SO_REUSEADDR)".into())?;
    }
    bind(&socket, &address).context(ErrorKind::Invalid, || format!("network.egress.publish: bind({address}) on the host"))
}
