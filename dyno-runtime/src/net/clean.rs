//! Whether a network namespace is as it was made, so that it may serve again.
//!
//! What a sandbox can leave in a namespace that is not its own is sockets: one that somebody else holds, and connections in TIME_WAIT,
//! which nobody holds. Interfaces, addresses, routes and rules it cannot change. The host can, so they are compared all the same with
//! those of a namespace that was made to be compared with.
//!
//! ```text
//! owner        the user namespace of this process                        NS_GET_USERNS
//! processes    none has it as its own                                    /proc/PID/ns/net
//! sockets      none of any family                                        /proc/net/sockstat, sockstat6
//! links        the loopback, up, and its settings                        RTM_GETLINK
//! addresses, routes, routing rules, settings of all and of new links     RTM_GETADDR, GETROUTE, GETRULE, GETNETCONF
//! filters      never any                                                 NFT_MSG_GETGEN, ip_tables_names, ip6_tables_names
//! ```
//!
//! What stays and is not looked at are counters (`/proc/net/snmp`, `dev`), TCP's memory of the loopback's round trips, and the number of
//! the namespace. They tell the next one of the former one, which is why a namespace stays with its tenant ([`super::Recycled`]).
//! Other settings below `/proc/sys/net` take a capability over the owner, or the host's root.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::OnceLock,
};

use rustix::{
    fs::{Dir, Mode, OFlags, fstat, open, readlinkat_raw},
    io::Errno,
};

use super::{
    fresh::fresh,
    lingering::end_lingering,
    link::{GETADDR, GETLINK, LINK_HEADER},
    netlink::{DUMP, Message, Socket, attributes},
    nft::Tables,
    within,
};
use crate::{
    cgroup::file::read_from_start,
    error::{Context, Error, ErrorKind, Result},
    sys,
};

/// True only if every check could be made and passed. Connections in TIME_WAIT, which are nobody's, are ended first where the kernel
/// can do that.
///
/// The kernel frees some sockets a grace period after they were closed, those by which this asks among them: whatever the answer was,
/// asked again within some milliseconds it may be false.
///
/// The look at all processes of the host is most of the cost, 2 us for each; who knows that none is left asks [`is_as_made`] instead.
///
/// # Errors
/// Of a check that could not be made.
pub fn prove_clean(netns: BorrowedFd<'_>) -> Result<bool> {
    // In this order: without a process in it nobody makes sockets.
    Ok(!has_process(netns)? && is_as_made(netns)?)
}

/// [`prove_clean`] without the look for processes: for a caller that knows that all have ended, because their pid namespace has, and
/// that nobody was let in beside them.
///
/// # Errors
/// Of a check that could not be made.
pub fn is_as_made(netns: BorrowedFd<'_>) -> Result<bool> {
    let made = as_made()?;
    if owner(netns)? != Some(made.owner) {
        return Ok(false);
    }
    within(netns, || {
        let mut counts = Counts::read()?;
        let mut asking = None;
        if counts.lingering > 0 && counts.sockets == 0 {
            asking = Some(end_lingering(counts.lingering)?);
            counts = Counts::read()?;
            counts.sockets = counts.sockets.saturating_sub(1);
        }
        let clean = counts == made.counts && Picture::take()? == made.picture;
        drop(asking);
        Ok(clean)
    })
}

/// What one that was just made looks like on this host.
#[derive(Debug)]
struct Made {
    owner: Number,
    counts: Counts,
    picture: Picture,
}

fn as_made() -> Result<&'static Made> {
    static MADE: OnceLock<Made> = OnceLock::new();
    if let Some(made) = MADE.get() {
        return Ok(made);
    }
    let netns = fresh()?;
    let nobody = || Error::refused(ErrorKind::Io, "a network namespace of our own has an owner above us");
    let owner = owner(netns.as_fd())?.ok_or_else(nobody)?;
    let (counts, picture) = within(netns.as_fd(), || Ok((Counts::read()?, Picture::take()?)))?;
    Ok(MADE.get_or_init(|| Made { owner, counts, picture }))
}

/// What tells one namespace from another (ioctl_ns(2)).
type Number = (u64, u64);

/// The user namespace that owns it: who has his capabilities in another one has none over it. None when that is not below ours.
fn owner(netns: BorrowedFd<'_>) -> Result<Option<Number>> {
    match sys::owner_of(netns) {
        Err(Errno::PERM) => Ok(None),
        other => {
            let stat = fstat(other.io(|| "ioctl(NS_GET_USERNS) of a network namespace".into())?).io(|| "fstat(user namespace)".into())?;
            Ok(Some((stat.st_dev, stat.st_ino)))
        }
    }
}

/// Whether a process is in it, as its first thread is.
fn has_process(netns: BorrowedFd<'_>) -> Result<bool> {
    // As the kernel writes it (namespaces(7)).
    let wanted = format!("net:[{}]", fstat(netns).io(|| "fstat(network namespace)".into())?.st_ino);
    let proc = open("/proc", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).io(|| "open(/proc)".into())?;
    let mut link = [0u8; 64];
    for entry in Dir::read_from(&proc).io(|| "list /proc".into())? {
        let entry = entry.io(|| "list /proc".into())?;
        let Some(pid) = entry.file_name().to_str().ok().filter(|name| name.starts_with(|c: char| c.is_ascii_digit())) else { continue };
        match readlinkat_raw(&proc, format!("{pid}/ns/net"), &mut link[..]) {
            Ok(length) if link.get(..length) == Some(wanted.as_bytes()) => return Ok(true),
            // It has ended, or is a zombie.
            Ok(_) | Err(Errno::NOENT | Errno::SRCH) => {}
            // The host's own first process may have rights that this one lacks; it is no sandbox's.
            Err(Errno::ACCESS) if pid == "1" => {}
            Err(e) => return Err(e).io(|| format!("readlink(/proc/{pid}/ns/net)")),
        }
    }
    Ok(false)
}

/// What there is of sockets in the calling thread's namespace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Sockets of all families.
    sockets: u64,
    /// Connections in TIME_WAIT.
    lingering: u64,
    /// Sockets by protocol, and fragments that wait for others.
    others: Vec<u64>,
}

impl Counts {
    fn read() -> Result<Self> {
        let mut counts = Self::parse(&proc_net("sockstat")?)?;
        if let Ok(text) = proc_net("sockstat6") {
            counts.others.extend(fields(&text).map(|(_, _, n)| n));
        }
        Ok(counts)
    }

    /// `sockets: used` is of this namespace and of all families (sock_inuse, Linux 4.16), and so are the counts `inuse`, `tw` and those of
    /// fragments. The others are of the whole host.
    fn parse(sockstat: &str) -> Result<Self> {
        let (mut counts, mut used) = (Self::default(), None);
        for (protocol, field, n) in fields(sockstat) {
            match (protocol, field) {
                ("sockets", "used") => used = Some(n),
                ("TCP", "tw") => counts.lingering = n,
                (_, "inuse") | ("FRAG", _) => counts.others.push(n),
                _ => {}
            }
        }
        counts.sockets = used.ok_or_else(|| Error::refused(ErrorKind::Io, format!("/proc/net/sockstat tells no number of sockets: {sockstat:?}")))?;
        Ok(counts)
    }
}

/// How the calling thread's namespace is set up.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    /// Answers of rtnetlink, without what changes by itself.
    routing: Vec<Vec<u8>>,
    /// How often rules were loaded.
    generation: std::result::Result<Vec<u8>, Errno>,
    /// Tables of the older filters.
    tables: [Option<String>; 2],
}

impl Picture {
    fn take() -> Result<Self> {
        let routing = Socket::open(None, "NETLINK_ROUTE")?;
        let generation = match Tables::open() {
            Err(e) if e.errno() == Some(Errno::PROTONOSUPPORT) => Err(Errno::PROTONOSUPPORT),
            other => other?.generation(),
        };
        let mut answers = Vec::new();
        for question in QUESTIONS {
            answers.extend(question.ask(&routing)?);
        }
        Ok(Self { routing: answers, generation, tables: ["ip_tables_names", "ip6_tables_names"].map(|file| proc_net(file).ok()) })
    }
}

/// Of the calling thread's namespace.
fn proc_net(file: &str) -> Result<String> {
    let path = format!("/proc/thread-self/net/{file}");
    let opened = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).io(|| format!("open({path})"))?;
    read_from_start(&opened).io(|| format!("read {path}"))
}

/// `TCP: inuse 0 orphan 0`: protocol, field, number.
fn fields(sockstat: &str) -> impl Iterator<Item = (&str, &str, u64)> {
    sockstat.lines().flat_map(|line| {
        let (protocol, rest) = line.split_once(':').unwrap_or((line, ""));
        let mut words = rest.split_whitespace();
        std::iter::from_fn(move || Some((protocol, words.next()?, words.next()?.parse().ok()?)))
    })
}

/// A question to rtnetlink, for all families, and what of the answers is not compared.
struct Question {
    kind: u16,
    /// Length of the family's own header.
    header: usize,
    /// Attributes that count, or tell times.
    skipped: &'static [u16],
}

const GETROUTE: u16 = 26;
const GETRULE: u16 = 34;
const GETNETCONF: u16 = 82;

/// Of a link: statistics, and what its addresses' families say (see [`Question::settled`]).
const IFLA_STATS: u16 = 7;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const IFA_CACHEINFO: u16 = 6;
const RTA_CACHEINFO: u16 = 12;

const QUESTIONS: [Question; 5] = [
    Question { kind: GETLINK, header: LINK_HEADER, skipped: &[IFLA_STATS, IFLA_STATS64] },
    Question { kind: GETADDR, header: 8, skipped: &[IFA_CACHEINFO] },
    Question { kind: GETROUTE, header: 12, skipped: &[RTA_CACHEINFO] },
    Question { kind: GETRULE, header: 12, skipped: &[] },
    Question { kind: GETNETCONF, header: 4, skipped: &[] },
];

impl Question {
    fn ask(&self, socket: &Socket) -> Result<Vec<Vec<u8>>> {
        const SKIP_STATS: u32 = 1 << 3; // RTEXT_FILTER_SKIP_STATS, Linux 4.4
        let mut message = Message::new(self.kind, DUMP, &vec![0; self.header]);
        if self.kind == GETLINK {
            message = message.attr(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        }
        let answers = socket.ask(message).io(|| format!("netlink dump, type {}", self.kind))?;
        let mut settled: Vec<Vec<u8>> = answers.iter().map(|answer| self.settled(answer)).collect();
        settled.sort_unstable();
        Ok(settled)
    }

    fn settled(&self, answer: &[u8]) -> Vec<u8> {
        let mut all = [&self.kind.to_ne_bytes(), answer.get(..self.header).unwrap_or(answer)].concat();
        for (kind, value) in attributes(answer.get(self.header..).unwrap_or_default()) {
            if self.kind == GETLINK && kind == IFLA_AF_SPEC {
                families(value, &mut all);
            } else if !self.skipped.contains(&kind) {
                add(&mut all, kind, value);
            }
        }
        all
    }
}

/// Of a link's settings for IPv6 (if_link.h) the flags, the settings themselves, the token and how addresses are generated.
const OF_IPV6: [u16; 4] = [1, 2, 7, 8];

fn families(value: &[u8], all: &mut Vec<u8>) {
    for (family, settings) in attributes(value) {
        for (kind, value) in attributes(settings) {
            if i32::from(family) != libc::AF_INET6 || OF_IPV6.contains(&kind) {
                add(all, kind, value);
            }
        }
    }
}

fn add(all: &mut Vec<u8>, kind: u16, value: &[u8]) {
    all.extend(kind.to_ne_bytes());
    all.extend(value.len().to_ne_bytes());
    all.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sockstat_counts() {
        let text =
            "sockets: used 5\nTCP: inuse 2 orphan 9 tw 3 alloc 9 mem 9\nUDP: inuse 1 mem 9\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 4 memory 7\n";
        let counts = Counts::parse(text).unwrap();
        assert_eq!((counts.sockets, counts.lingering, counts.others.as_slice()), (5, 3, &[2, 1, 0, 0, 4, 7][..]));
        // Not what it should be: no proof, whatever it says.
        for text in ["", "sockets: used many\n", "TCP: inuse 0 tw 0\n"] {
            assert!(Counts::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_changes_by_itself_is_left_out() {
        let question = &QUESTIONS[1];
        let answer = |stamp: u8, label: &str| {
            let (mut cache, mut name) = (vec![20, 0, 6, 0], vec![8, 0, 3, 0]);
            cache.extend([stamp; 16]);
            name.extend(label.bytes());
            [vec![2, 8, 128, 254, 1, 0, 0, 0], cache, name].concat()
        };
        assert_eq!(question.settled(&answer(1, "lo\0\0")), question.settled(&answer(9, "lo\0\0")));
        assert_ne!(question.settled(&answer(1, "lo\0\0")), question.settled(&answer(1, "lo:1")));
    }
}
