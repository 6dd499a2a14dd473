//! The link of one sandbox: a pair of interfaces, an address at each end, a route out. All by rtnetlink(7): no program is run.
//!
//! Both ends do without ARP and have the same hardware address, so a frame is always for whoever gets it: there is no
//! neighbour table to fill or to lie to, and nothing but IP packets crosses.

use std::{
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use rustix::{io::Errno, net::netdevice};

use super::netlink::{CREATE, DUMP, Message, Socket, attributes, text};
use crate::error::{Context, Error, ErrorKind, Result};

pub(super) const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
pub(super) const GETLINK: u16 = 18;
pub(super) const NEWADDR: u16 = 20;
pub(super) const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;

const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
const IFLA_QDISC: u16 = 6;
const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const IFF_UP: u32 = 0x1;
const IFF_NOARP: u32 = 0x80;

/// Interfaces, addresses and routes of the network namespace in which this was opened, from whatever thread it is used.
pub(super) struct Links {
    socket: Socket,
    /// Tells of changes.
    news: Socket,
}

impl Links {
    /// # Errors
    /// Of socket(2).
    pub fn open() -> Result<Self> {
        const RTMGRP_LINK: u32 = 1;
        Ok(Self { socket: Socket::open(None, "NETLINK_ROUTE")?, news: Socket::listen(None, "NETLINK_ROUTE", RTMGRP_LINK)? })
    }

    /// Any other request.
    #[cfg(feature = "oci")]
    pub fn ask(&self, message: Message) -> std::result::Result<Vec<Vec<u8>>, Errno> {
        self.socket.ask(message)
    }

    /// A veth pair, both ends down: `name` here, `inside` in `netns`.
    ///
    /// # Errors
    /// EEXIST; EOPNOTSUPP without CONFIG_VETH; EPERM.
    pub fn add_pair(&self, name: &str, inside: &str, netns: BorrowedFd<'_>, hardware: [u8; 6]) -> Result<()> {
        let quiet = link_header(0, IFF_NOARP, IFF_NOARP);
        let message = Message::new(NEWLINK, CREATE, &quiet).text(IFLA_IFNAME, name).attr(IFLA_ADDRESS, &hardware);
        let message = message.nest(IFLA_LINKINFO, &[], |m| {
            m.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, &[], |m| {
                m.nest(VETH_INFO_PEER, &quiet, |m| {
                    m.text(IFLA_IFNAME, inside).attr(IFLA_ADDRESS, &hardware).attr(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes())
                })
            })
        });
        self.socket.ask(message).wall(|| format!("netlink RTM_NEWLINK(veth {name}, peer {inside} in the dyno's network)")).map(drop)
    }

    /// The number of the interface `name`; None when there is none.
    ///
    /// # Errors
    /// Of SIOCGIFINDEX.
    pub fn index(&self, name: &str) -> Result<Option<u32>> {
        match netdevice::name_to_index(&self.socket, name) {
            Err(Errno::NODEV) => Ok(None),
            other => other.map(Some).wall(|| format!("ioctl(SIOCGIFINDEX, {name})")),
        }
    }

    /// Gives the interface the address `own`, with `peer` alone at the other end.
    ///
    /// # Errors
    /// Of RTM_NEWADDR.
    pub fn add_address(&self, index: u32, own: Ipv4Addr, peer: Ipv4Addr) -> Result<()> {
        let [a, b, c, d] = index.to_ne_bytes();
        let header = [libc::AF_INET as u8, 32, 0, 0, a, b, c, d];
        let message = Message::new(NEWADDR, CREATE, &header).attr(IFA_LOCAL, &own.octets()).attr(IFA_ADDRESS, &peer.octets());
        self.socket.ask(message).wall(|| format!("netlink RTM_NEWADDR({own} peer {peer})")).map(drop)
    }

    /// # Errors
    /// Of RTM_NEWLINK.
    pub fn up(&self, index: u32) -> Result<()> {
        self.socket.ask(Message::new(NEWLINK, 0, &link_header(index, IFF_UP, IFF_UP))).wall(|| format!("netlink RTM_NEWLINK({index}, up)")).map(drop)
    }

    /// Waits until what is sent by the interface leaves: a peer that was up before this end gets its queue a moment after, and what is
    /// sent until then is lost (a lost SYN costs a second). Since Linux 6.8 the question itself brings that about.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] when that does not happen.
    pub fn settle(&self, index: u32) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(2);
        while self.discipline(index)? == "noop" {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::refused(ErrorKind::Wall, format!("the link (interface {index} inside) does not come up")));
            }
            self.news.wait(left).wall(|| "poll(netlink RTMGRP_LINK)".into())?;
        }
        Ok(())
    }

    /// The name of what sends the interface's packets; `noop` drops them.
    fn discipline(&self, index: u32) -> Result<String> {
        let question = Message::new(GETLINK, 0, &link_header(index, 0, 0));
        let answer = self.socket.ask(question).wall(|| format!("netlink RTM_GETLINK({index})"))?;
        let entry = answer.first().and_then(|a| a.get(LINK_HEADER..)).unwrap_or_default();
        Ok(attributes(entry).find(|(kind, _)| *kind == IFLA_QDISC).map_or_else(String::new, |(_, value)| text(value)))
    }

    /// Everything goes by `gateway`.
    ///
    /// # Errors
    /// Of RTM_NEWROUTE.
    pub fn add_default_route(&self, index: u32, gateway: Ipv4Addr) -> Result<()> {
        const MAIN: u8 = 254; // RT_TABLE_MAIN
        const BOOT: u8 = 3; // RTPROT_BOOT, as of the program ip
        const UNICAST: u8 = 1; // RTN_UNICAST
        let header = [libc::AF_INET as u8, 0, 0, 0, MAIN, BOOT, 0, UNICAST, 0, 0, 0, 0];
        let message = Message::new(NEWROUTE, CREATE, &header).attr(RTA_GATEWAY, &gateway.octets()).attr(RTA_OIF, &index.to_ne_bytes());
        self.socket.ask(message).wall(|| format!("netlink RTM_NEWROUTE(default via {gateway})")).map(drop)
    }

    /// Removes the interface and with it the other end. One that has gone is no error.
    ///
    /// # Errors
    /// Of RTM_DELLINK.
    pub fn remove(&self, index: u32) -> Result<()> {
        match self.socket.ask(Message::new(DELLINK, 0, &link_header(index, 0, 0))) {
            Err(Errno::NODEV) => Ok(()),
            other => other.io(|| format!("netlink RTM_DELLINK({index})")).map(drop),
        }
    }

    /// Every IPv4 address of this namespace.
    ///
    /// # Errors
    /// Of RTM_GETADDR.
    pub fn addresses(&self) -> Result<Vec<Ipv4Addr>> {
        const HEADER: usize = 8;
        let mut header = [0; HEADER];
        header[0] = libc::AF_INET as u8;
        let all = self.socket.ask(Message::new(GETADDR, DUMP, &header)).wall(|| "netlink RTM_GETADDR".into())?;
        let local = |entry: &Vec<u8>| {
            let (_, value) = attributes(entry.get(HEADER..)?).find(|(kind, _)| *kind == IFA_LOCAL)?;
            value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
        };
        Ok(all.iter().filter_map(local).collect())
    }
}

pub(super) const LINK_HEADER: usize = 16;

/// `struct ifinfomsg`.
pub(super) fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// A route of the main table of the calling thread's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub interface: String,
    pub destination: Ipv4Addr,
    pub prefix: u32,
}

/// The main table.
///
/// # Errors
/// Of reading /proc/thread-self/net/route.
pub(super) fn routes() -> Result<Vec<Route>> {
    let path = "/proc/thread-self/net/route";
    Ok(parse_routes(&std::fs::read_to_string(path).io(|| format!("read {path}"))?))
}

/// proc_pid_net(5): addresses are hexadecimal, in the machine's byte order.
fn parse_routes(table: &str) -> Vec<Route> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        let address = |at: usize| Some(Ipv4Addr::from(number(at)?.to_ne_bytes()));
        Some(Route { interface: (*fields.first()?).to_owned(), destination: address(1)?, prefix: u32::from(address(7)?).leading_ones() })
    };
    table.lines().skip(1).filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
                     eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\n\
                     eth1\t000012C6\t00000000\t0001\t0\t0\t0\t0000FEFF\t0\nodd\n";
        let route = |interface: &str, destination: [u8; 4], prefix| Route { interface: interface.into(), destination: destination.into(), prefix };
        assert_eq!(parse_routes(table), [route("eth0", [0; 4], 0), route("eth1", [198, 18, 0, 0], 15)]);
    }
}
