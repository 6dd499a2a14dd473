//! Moving an interface of the host's into another network namespace, with its addresses (OCI runtime specification 1.3, `netDevices`).

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{
    link::{GETADDR, IFLA_IFNAME, IFLA_NET_NS_FD, Links, NEWADDR, NEWLINK, link_header},
    netlink::{CREATE, DUMP, Message, attributes},
    within,
};
use crate::error::{Context, Error, ErrorKind, Result};

/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

const IFA_LABEL: u16 = 3;
const IFA_CACHEINFO: u16 = 6;

/// RT_SCOPE_UNIVERSE: the others the kernel gives by itself.
const GLOBAL: u8 = 0;

/// Moves the interface `name` into `netns`, where it is called `inside`, has its global addresses again and is up. Its namespace gets it
/// back when the other one ends, if it is a physical one.
///
/// # Errors
/// [`ErrorKind::Invalid`] when there is no such interface; EEXIST when the name is taken inside; EPERM.
pub(crate) fn hand_over(name: &str, inside: &str, netns: BorrowedFd<'_>) -> Result<()> {
    let here = Links::open()?;
    let index = here.index(name)?.ok_or_else(|| Error::refused(ErrorKind::Invalid, format!("network interface {name:?} does not exist")))?;
    let addresses = addresses(&here, index)?;
    let message =
        Message::new(NEWLINK, 0, &link_header(index, 0, 0)).text(IFLA_IFNAME, inside).attr(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
    here.ask(message).wall(|| format!("netlink RTM_NEWLINK(move {name} as {inside})"))?;
    within(netns, || {
        let there = Links::open()?;
        let index = there.index(inside)?.ok_or_else(|| Error::refused(ErrorKind::Wall, format!("interface {inside} did not arrive")))?;
        for (mut header, attributes) in addresses {
            header[4..8].copy_from_slice(&index.to_ne_bytes());
            let message = attributes.iter().fold(Message::new(NEWADDR, CREATE, &header), |m, (kind, value)| m.attr(*kind, value));
            there.ask(message).wall(|| format!("netlink RTM_NEWADDR({inside}, as it was outside)"))?;
        }
        there.up(index)
    })
}

type Address = ([u8; ADDRESS_HEADER], Vec<(u16, Vec<u8>)>);

/// Those of an interface, without their label (it is named after the interface) and lifetimes.
fn addresses(links: &Links, index: u32) -> Result<Vec<Address>> {
    let all = links.ask(Message::new(GETADDR, DUMP, &[0; ADDRESS_HEADER])).wall(|| "netlink RTM_GETADDR".into())?;
    let wanted = all.iter().filter_map(|entry| Some((*entry.first_chunk::<ADDRESS_HEADER>()?, entry.get(ADDRESS_HEADER..)?)));
    let wanted = wanted.filter(|(header, _)| header[4..8] == index.to_ne_bytes() && header[3] == GLOBAL);
    let kept =
        |rest| attributes(rest).filter(|(kind, _)| ![IFA_LABEL, IFA_CACHEINFO].contains(kind)).map(|(kind, value)| (kind, value.to_vec())).collect();
    Ok(wanted.map(|(header, rest)| (header, kept(rest))).collect())
}
