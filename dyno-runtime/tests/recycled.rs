//! Network namespaces made ahead and used again: whatever somebody left in one is seen.

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use dyno_runtime::{Stdio as Streams, net};
use rustix::net::{AddressFamily, SocketType, netlink};

use support::{Case, Stage, same};

const CASES: &[Case] = &[
    ("a_fresh_one", a_fresh_one),
    ("a_thousand_leave_nothing", a_thousand_leave_nothing),
    ("one_that_was_used_and_left", one_that_was_used_and_left),
    ("connections_in_time_wait_are_ended", connections_in_time_wait_are_ended),
    ("a_socket_that_somebody_holds", a_socket_that_somebody_holds),
    ("a_process", a_process),
    ("what_the_host_changed", what_the_host_changed),
    ("one_of_another_user_namespace", one_of_another_user_namespace),
    ("no_tenant_gets_anothers", no_tenant_gets_anothers),
    ("the_oldest_goes_first", the_oldest_goes_first),
    ("of_a_sandbox_that_ended", of_a_sandbox_that_ended),
];

fn main() -> ExitCode {
    support::suite("recycled", &["sleep", "unshare"], CASES)
}

/// Does `work` in `netns`, on a thread that ends with it.
fn inside<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::move_into_link_name_space(netns, Some(rustix::thread::LinkNameSpaceType::Network))?;
            work()
        });
        thread.join().map_err(|_| anyhow!("a thread panicked"))?
    })
}

fn sockets(netns: BorrowedFd<'_>) -> Result<String> {
    inside(netns, || Ok(fs::read_to_string("/proc/thread-self/net/sockstat")?.lines().next().unwrap_or_default().to_owned()))
}

/// The sockets are not the reason.
fn is_not_clean_without_sockets(netns: BorrowedFd<'_>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while sockets(netns)? != "sockets: used 0" {
        ensure!(Instant::now() < end, "{}", sockets(netns)?);
        std::thread::sleep(Duration::from_millis(1));
    }
    same("clean", net::prove_clean(netns)?, false)
}

/// The kernel frees some sockets a grace period after they were closed, and tells nobody.
fn becomes_clean(netns: BorrowedFd<'_>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while !net::prove_clean(netns)? {
        ensure!(Instant::now() < end, "not clean: {}", sockets(netns)?);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn a_fresh_one(_: &Stage) -> Result<()> {
    let here = fs::read_link("/proc/self/ns/net")?;
    let netns = net::fresh()?;
    same("the caller's", fs::read_link("/proc/thread-self/ns/net")?, here.clone())?;
    same("clean", net::prove_clean(netns.as_fd())?, true)?;
    becomes_clean(netns.as_fd())?;
    same("the caller's after a proof", fs::read_link("/proc/thread-self/ns/net")?, here)?;
    let (links, said) = inside(netns.as_fd(), || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut stream = TcpStream::connect(listener.local_addr()?)?;
        stream.write_all(b"hello")?;
        let (mut accepted, mut said) = (listener.accept()?.0, [0; 5]);
        accepted.read_exact(&mut said)?;
        UdpSocket::bind("[::1]:0")?;
        Ok((fs::read_to_string("/proc/thread-self/net/dev")?, said))
    })?;
    same("said over the loopback", &said, b"hello")?;
    same("links", links.lines().skip(2).count(), 1)
}

/// Namespaces that are there or still on their way out.
fn counted() -> Result<u64> {
    let slabs = fs::read_to_string("/proc/slabinfo")?;
    let line = slabs.lines().find(|line| line.starts_with("net_namespace ")).context("no slab net_namespace")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}

fn a_thousand_leave_nothing(_: &Stage) -> Result<()> {
    let before = counted()?;
    let rounds = if support::emulated() { 10 } else { 20 };
    for _ in 0..rounds {
        let fifty = (0..50).map(|_| net::fresh()).collect::<dyno_runtime::Result<Vec<_>>>()?;
        ensure!(counted()? >= 50, "they are not counted");
        drop(fifty);
    }
    let end = Instant::now() + Duration::from_secs(60);
    // Newer kernels count what a processor keeps for reuse (sheaves, Linux 6.18) as in use.
    while counted()? > before + 250 {
        ensure!(Instant::now() < end, "before {before}, now {}", counted()?);
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn one_that_was_used_and_left(_: &Stage) -> Result<()> {
    let netns = net::fresh()?;
    for _ in 0..3 {
        inside(netns.as_fd(), || {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.send_to(b"x", socket.local_addr()?)?;
            let six = UdpSocket::bind("[::1]:0")?;
            six.send_to(b"x", six.local_addr()?)?;
            // Refused: no connection comes to be.
            ensure!(TcpStream::connect("127.0.0.1:9").is_err());
            UnixListener::bind_addr(&SocketAddr::from_abstract_name("here")?)?;
            Ok(())
        })?;
        becomes_clean(netns.as_fd())?;
    }
    Ok(())
}

/// Connects and closes, first the one end and then the other: one of them waits for a minute then.
fn leave_time_wait(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address)?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut accepted, mut rest) = (listener.accept()?.0, Vec::new());
    drop(stream);
    accepted.read_to_end(&mut rest)?;
    Ok(())
}

fn connections_in_time_wait_are_ended(_: &Stage) -> Result<()> {
    let netns = net::fresh()?;
    let waiting = || -> Result<String> {
        inside(netns.as_fd(), || {
            let text = fs::read_to_string("/proc/thread-self/net/sockstat")?;
            Ok(text.split_once("tw ").and_then(|(_, rest)| Some(rest.split_once(' ')?.0.to_owned())).unwrap_or_default())
        })
    };
    inside(netns.as_fd(), || leave_time_wait("127.0.0.1:0").and_then(|()| leave_time_wait("[::1]:0")))?;
    same("in TIME_WAIT", waiting()?, "2".to_owned())?;
    net::prove_clean(netns.as_fd())?;
    if waiting()? == "2" {
        println!("skipped: this kernel ends no connection in TIME_WAIT (SOCK_DESTROY)");
        return is_not_clean_without_sockets(netns.as_fd());
    }
    becomes_clean(netns.as_fd())?;
    same("left", waiting()?, "0".to_owned())
}

/// A kind of socket, and how it is made.
type Held = (&'static str, fn() -> Result<Vec<OwnedFd>>);

fn raw(family: AddressFamily, kind: SocketType, protocol: Option<rustix::net::Protocol>) -> Result<Vec<OwnedFd>> {
    Ok(vec![rustix::net::socket(family, kind, protocol)?])
}

fn pair(listener: &TcpListener) -> Result<Vec<OwnedFd>> {
    let stream = TcpStream::connect(listener.local_addr()?)?;
    Ok(vec![listener.accept()?.0.into(), stream.into()])
}

/// Made inside, held by this process, which is outside: as a descriptor that a sandbox has passed on.
fn a_socket_that_somebody_holds(_: &Stage) -> Result<()> {
    let kinds: [Held; 9] = [
        ("listening", || Ok(vec![TcpListener::bind("127.0.0.1:0")?.into()])),
        ("connected", || pair(&TcpListener::bind("127.0.0.1:0")?)),
        ("udp", || Ok(vec![UdpSocket::bind("127.0.0.1:0")?.into()])),
        ("udp6", || Ok(vec![UdpSocket::bind("[::1]:0")?.into()])),
        ("unbound", || raw(AddressFamily::INET, SocketType::STREAM, None)),
        ("abstract unix", || Ok(vec![UnixListener::bind_addr(&SocketAddr::from_abstract_name("held")?)?.into()])),
        ("raw", || raw(AddressFamily::INET, SocketType::RAW, Some(rustix::net::ipproto::ICMP))),
        ("packet", || raw(AddressFamily::PACKET, SocketType::RAW, None)),
        ("netlink", || raw(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::KOBJECT_UEVENT))),
    ];
    for (kind, make) in kinds {
        let netns = net::fresh()?;
        let held = inside(netns.as_fd(), make).context(kind)?;
        same(kind, (net::is_as_made(netns.as_fd())?, net::prove_clean(netns.as_fd())?), (false, false))?;
        drop(held);
        becomes_clean(netns.as_fd()).context(kind)?;
    }
    Ok(())
}

fn a_process(_: &Stage) -> Result<()> {
    let netns = net::fresh()?;
    let mut process = inside(netns.as_fd(), || Ok(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?))?;
    let seen = net::prove_clean(netns.as_fd()).and_then(|clean| Ok((net::is_as_made(netns.as_fd())?, clean)));
    process.kill()?;
    // A zombie has no network.
    rustix::process::waitid(
        rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&process)),
        rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
    )?;
    let ended = becomes_clean(netns.as_fd());
    process.wait()?;
    same("without looking, and with", seen?, (true, false))?;
    ended
}

/// Each by its program, and what takes it back; afterwards it need not be clean, but may.
fn what_the_host_changed(_: &Stage) -> Result<()> {
    let changes = [
        ("a route", "ip route add blackhole 10.0.0.0/8"),
        ("a route in another table", "ip -6 route add blackhole fd00::/8 table 7"),
        ("a routing rule", "ip rule add from 10.0.0.1 table 7"),
        ("a veth", "ip link add one type veth peer name two"),
        ("an address", "ip address add 10.0.0.1/8 dev lo"),
        ("the loopback down", "ip link set lo down"),
        ("the loopback's size", "ip link set lo mtu 1500"),
        ("forwarding", "echo 1 > /proc/sys/net/ipv4/ip_forward"),
        ("no IPv6 on the loopback", "echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6"),
        ("a setting of the loopback", "echo 1 > /proc/sys/net/ipv4/conf/lo/route_localnet"),
        ("rules that are gone again", "nft add table inet t && nft delete table inet t"),
        ("rules", "nft add table inet t"),
    ];
    for (what, script) in changes {
        let tool = script.split(' ').next().unwrap_or_default();
        let path = "/usr/sbin:/sbin:/usr/bin:/bin";
        if tool != "echo" && !path.split(':').any(|dir| std::path::Path::new(dir).join(tool).exists()) {
            println!("skipped: {what} needs {tool}");
            continue;
        }
        let netns = net::fresh()?;
        same("before", net::prove_clean(netns.as_fd())?, true)?;
        let output = inside(netns.as_fd(), || Ok(Command::new("/bin/sh").args(["-c", script]).env("PATH", path).output()?))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if tool == "nft" && said.contains("not supported") {
            println!("skipped: {what}: a kernel without nf_tables");
            continue;
        }
        ensure!(output.status.success(), "{what}: {said}");
        is_not_clean_without_sockets(netns.as_fd()).context(what)?;
    }
    Ok(())
}

fn one_of_another_user_namespace(_: &Stage) -> Result<()> {
    let script = "ip link set lo up 2>/dev/null; echo ready; exec sleep 1000";
    let mut process = Command::new("unshare").args(["-Urn", "sh", "-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut ready = [0; 6];
    process.stdout.take().context("no pipe")?.read_exact(&mut ready)?;
    let netns = OwnedFd::from(fs::File::open(format!("/proc/{}/ns/net", process.id()))?);
    process.kill()?;
    process.wait()?;
    is_not_clean_without_sockets(netns.as_fd())
}

fn identity(netns: &OwnedFd) -> Result<u64> {
    Ok(rustix::fs::fstat(netns)?.st_ino)
}

fn tended(shelf: &net::Recycled, ready: usize) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while shelf.tend() {
        ensure!(Instant::now() < end, "{shelf:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    same("ready", shelf.count().1, ready)
}

fn no_tenant_gets_anothers(_: &Stage) -> Result<()> {
    let shelf = net::Recycled::new(8);
    let (one, two, held) = (net::fresh()?, net::fresh()?, net::fresh()?);
    let (its, socket) = (identity(&one)?, net::listen_in(held.as_fd(), 80)?);
    shelf.offer("app", one);
    same("before it is proven", shelf.take("app").is_some(), false)?;
    shelf.offer("other", two);
    shelf.offer("app", held);
    // The third is waited for, two seconds long, and then let go.
    tended(&shelf, 2)?;
    same("kept", shelf.count(), (2, 2))?;
    drop(socket);
    same("a third tenant's", shelf.take("ap").is_some(), false)?;
    same("its own", identity(&shelf.take("app").context("none")?)?, its)?;
    same("once", shelf.take("app").is_some(), false)?;
    shelf.forget("other");
    same("forgotten", shelf.count(), (0, 0))
}

fn the_oldest_goes_first(_: &Stage) -> Result<()> {
    let shelf = net::Recycled::new(2);
    let all = (0..3).map(|_| net::fresh()).collect::<dyno_runtime::Result<Vec<_>>>()?;
    let numbers = all.iter().map(identity).collect::<Result<Vec<_>>>()?;
    for netns in all {
        shelf.offer("app", netns);
    }
    tended(&shelf, 2)?;
    let taken = [shelf.take("app").context("none")?, shelf.take("app").context("none")?];
    same("taken", [identity(&taken[0])?, identity(&taken[1])?], [numbers[1], numbers[2]])?;
    same("left", shelf.count(), (0, 0))
}

/// What a real one leaves is as good as new some moments after its end.
fn of_a_sandbox_that_ended(stage: &Stage) -> Result<()> {
    let dyno = stage.start(&stage.sandbox(&["forever"]), Streams::Null)?;
    let netns = OwnedFd::from(fs::File::open(format!("/proc/{}/ns/net", dyno.pid()))?);
    let socket = dyno.socket()?;
    same("while it runs", net::prove_clean(netns.as_fd())?, false)?;
    drop(socket);
    dyno.free()?;
    let shelf = net::Recycled::new(1);
    shelf.offer("app", netns);
    tended(&shelf, 1)
}
