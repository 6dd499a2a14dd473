//! A host with an internet, both in network namespaces of the test's own: no packet leaves the machine, and no sysctl, rule or
//! interface of the real host is touched.
//!
//! ```text
//!   sandbox ── dy… ── "host": this process, 10.9.9.1 on up0 ── up1, 10.9.9.2 ── "internet": PUBLIC, PRIVATE and METADATA
//! ```
//!
//! The internet has no way back to the links' addresses, so whoever is answered was masqueraded.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Command, Stdio},
    sync::{OnceLock, mpsc},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 1);
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(45, 67, 89, 10);
pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 20, 30, 40);
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Where something is not answered by a drop: there is no event to wait for.
pub const SILENCE: Duration = Duration::from_millis(300);

/// Set in the process that runs inside the lab.
pub const INSIDE: &str = "DYNO_TEST_LAB";

/// The internet's end, and what its UDP servers have heard.
#[derive(Debug)]
pub struct Lab {
    pub internet: File,
    pub heard: std::sync::Mutex<mpsc::Receiver<(SocketAddr, String)>>,
    servers: Vec<Server>,
}

static LAB: OnceLock<Lab> = OnceLock::new();

pub fn lab() -> Result<&'static Lab> {
    LAB.get().context("no lab")
}

/// Starts this program again with network and mounts of its own, unless it has them.
pub fn enter() {
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    // Returns only when it fails; then the suite says what is missing.
    let error = Command::new("unshare").args(["--net", "--mount", "--"]).arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1").exec();
    println!("unshare: {error}");
}

pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Builds it.
pub fn build() -> Result<()> {
    ip("link set lo up\n")?;
    let internet = linked("up0", "10.9.9.1/24", "up1")?;
    ip("route add default via 10.9.9.2\n")?;
    within(&internet, || {
        ip("link set lo up\naddr add 10.9.9.2/24 dev up1\nlink set up1 up\n")?;
        [PUBLIC, PRIVATE, METADATA].iter().try_for_each(|address| ip(&format!("addr add {address}/32 dev lo\n")))
    })?;
    let (send, heard) = mpsc::channel();
    let mut servers = Vec::new();
    for address in [PUBLIC, PRIVATE, METADATA] {
        within(&internet, || {
            for port in [80, 443] {
                servers.push(greet((address, port).into())?);
            }
            [53, 9999].into_iter().try_for_each(|port| echo((address, port).into(), send.clone()))
        })?;
    }
    ensure!(LAB.set(Lab { internet, heard: heard.into(), servers }).is_ok(), "a second lab");
    Ok(())
}

/// A network at the other end of a link, with `peer` as its end and nothing else yet.
fn linked(name: &str, address: &str, peer: &str) -> Result<File> {
    let mut holder = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (mut to, mut from) = (holder.stdin.take().context("stdin")?, holder.stdout.take().context("stdout")?);
    to.write_all(b"x")?;
    from.read_exact(&mut [0])?; // It is cat by now, inside.
    let network = File::open(format!("/proc/{}/ns/net", holder.id()))?;
    let made = ip(&format!(
        "link add {name} type veth peer name {peer}\naddr add {address} dev {name}\nlink set {name} up\nlink set {peer} netns {}\n",
        holder.id()
    ));
    holder.kill()?;
    holder.wait()?;
    made.map(|()| network)
}

/// Another network beside the host, at 10.8.8.1.
pub fn neighbour() -> Result<File> {
    linked("near0", "10.8.8.1/24", "near1")
}

pub fn ip(batch: &str) -> Result<()> {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().context("run ip")?;
    child.stdin.take().context("stdin")?.write_all(batch.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip: {}: {batch}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Does `work` on a thread of its own inside `netns`; what that thread makes or starts stays there.
pub fn within<T: Send>(netns: &File, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join().map_err(|_| anyhow::anyhow!("panicked"))?
    })
}

/// The network of a sandbox.
pub fn network_of(pid: u32) -> Result<File> {
    Ok(File::open(format!("/proc/{pid}/ns/net"))?)
}

/// Tells whoever connects who it is, until it is dropped.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // A listener that is shut down accepts nobody any more (EINVAL).
        let down = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let joined = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(down.is_ok() && joined.is_none_or(|j| j.is_ok()), "a server of the test did not end");
    }
}

/// A [`Server`] in this thread's network.
pub fn greet(address: SocketAddr) -> Result<Server> {
    let listener = TcpListener::bind(address).with_context(|| address.to_string())?;
    let ours = listener.try_clone()?;
    let serve = move || {
        while let Ok((mut stream, peer)) = ours.accept() {
            if let Err(e) = stream.write_all(peer.ip().to_string().as_bytes()) {
                println!("greet {peer}: {e}");
            }
        }
    };
    Ok(Server { listener, thread: Some(std::thread::spawn(serve)) })
}

/// Sends back what it gets, and tells the test.
fn echo(address: SocketAddr, heard: mpsc::Sender<(SocketAddr, String)>) -> Result<()> {
    let socket = UdpSocket::bind(address).with_context(|| address.to_string())?;
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let told = heard.send((peer, String::from_utf8_lossy(&buffer[..length]).into_owned()));
            if told.is_err() || socket.send_to(&buffer[..length], peer).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// What is said at `address`, or the errno.
pub fn tcp(address: Ipv4Addr, port: u16) -> Result<String, i32> {
    tcp_within(address, port, Duration::from_secs(5))
}

/// The same where nothing is expected to be said.
pub fn tcp_within(address: Ipv4Addr, port: u16, time: Duration) -> Result<String, i32> {
    let number = |e: io::Error| e.raw_os_error().unwrap_or(if e.kind() == io::ErrorKind::TimedOut { libc::ETIMEDOUT } else { -1 });
    let mut stream = TcpStream::connect_timeout(&SocketAddrV4::new(address, port).into(), time).map_err(number)?;
    let mut text = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(5))).and_then(|()| stream.read_to_string(&mut text)).map_err(number)?;
    Ok(text)
}

/// What comes back from `address`, or the errno.
pub fn udp(address: Ipv4Addr, port: u16, text: &str) -> Result<String, i32> {
    let number = |e: io::Error| e.raw_os_error().unwrap_or(-1);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(number)?;
    let mut buffer = [0; 512];
    let mut talk = || {
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect((address, port))?;
        socket.send(text.as_bytes())?;
        socket.recv(&mut buffer)
    };
    let length = talk().map_err(number)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A UDP packet to `to` with any source, as the network would get it from a hostile sandbox.
pub fn forge(from: Ipv4Addr, to: SocketAddrV4, text: &str) -> Result<(), rustix::io::Errno> {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
    let socket = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
    let length = u16::try_from(28 + text.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]); // the kernel adds the checksum
    packet.extend(from.octets());
    packet.extend(to.ip().octets());
    packet.extend(4000u16.to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend((length - 20).to_be_bytes());
    packet.extend([0, 0]); // no checksum
    packet.extend(text.as_bytes());
    sendto(&socket, &packet, SendFlags::empty(), &to).map(drop)
}
