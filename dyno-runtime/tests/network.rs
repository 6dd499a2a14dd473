//! The private network, and how the host reaches into it.

mod support;

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Dyno, StartOptions, Stdio, Streams};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use support::{Case, Stage, same};

const CASES: &[Case] = &[
    ("only_a_loopback", only_a_loopback),
    ("socket_reaches_in", socket_reaches_in),
    ("listener_is_there_before_the_program", listener_is_there_before_the_program),
    ("listener_on_a_port_that_is_taken", listener_on_a_port_that_is_taken),
    ("the_host_is_out_of_reach", the_host_is_out_of_reach),
    ("two_dynos_have_the_same_port", two_dynos_have_the_same_port),
    ("socket_into_an_ended_dyno", socket_into_an_ended_dyno),
    ("socket_into_one_that_ended_at_once", socket_into_one_that_ended_at_once),
];

fn main() -> ExitCode {
    support::suite("network", &[], CASES)
}

fn only_a_loopback(stage: &Stage) -> Result<()> {
    let table = stage.ask(&["read", "/proc/net/dev"])?;
    let names: Vec<&str> = table.lines().filter_map(|l| l.split_once(':')).map(|(name, _)| name.trim()).collect();
    same("interfaces", names, vec!["lo"])?;
    let routes = stage.ask(&["read", "/proc/net/route"])?;
    same("routes", routes.lines().count(), 1)
}

/// The program listening on `port`, once it does.
fn server(stage: &Stage, port: u16) -> Result<(Dyno, OwnedFd)> {
    let mut dyno = stage.start(&stage.sandbox(&["serve", &port.to_string()]), Stdio::Pipes)?;
    let Streams::Pipes { stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
    let mut line = [0; 10];
    File::from(stdout.try_clone()?).read_exact(&mut line)?;
    same("said", &line, b"listening\n")?;
    Ok((dyno, stdout))
}

fn connect(dyno: &Dyno, port: u16) -> Result<TcpStream> {
    let socket = dyno.socket()?;
    match rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            poll(&mut [PollFd::new(&socket, PollFlags::OUT)], None)?;
            rustix::net::sockopt::socket_error(&socket)??;
        }
        Err(e) => return Err(e.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn talk(dyno: &Dyno, port: u16, text: &str) -> Result<String> {
    let mut stream = connect(dyno, port)?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn socket_reaches_in(stage: &Stage) -> Result<()> {
    let home = std::fs::read_link("/proc/thread-self/ns/net")?;
    let (dyno, _out) = server(stage, 5000)?;
    same("answer", talk(&dyno, 5000, "over the wall")?, "OVER THE WALL".into())?;
    same("we are still at home", std::fs::read_link("/proc/thread-self/ns/net")?, home)?;
    let refused = connect(&dyno, 5001).err().context("a port where nobody listens")?;
    same("elsewhere", refused.downcast_ref::<Errno>().copied(), Some(Errno::CONNREFUSED))?;
    same("status", dyno.wait()?.status, 0)?;
    Ok(dyno.free()?)
}

fn with_listeners(stage: &Stage, args: &[&str], ports: &[u16]) -> dyno_runtime::Result<Dyno> {
    let options = StartOptions { stdio: Stdio::Pipes, listen: ports.to_vec(), ..Default::default() };
    stage.host.start(&stage.id(), &stage.sandbox(args), options)
}

/// The program connects at once and does not try again. Fifty times, for the race that it would be.
fn listener_is_there_before_the_program(stage: &Stage) -> Result<()> {
    for _ in 0..50 {
        let mut dyno = with_listeners(stage, &["connect", "8081"], &[8080, 8081])?;
        let mut listeners = dyno.take_listeners();
        same("listeners", listeners.len(), 2)?;
        ensure!(dyno.take_listeners().is_empty(), "listeners are taken once");
        same("status", dyno.wait()?.status, 0)?;
        let listener = TcpListener::from(listeners.remove(1));
        let mut text = String::new();
        let (mut stream, peer) = listener.accept()?;
        stream.set_nonblocking(false)?;
        stream.read_to_string(&mut text)?;
        same("text", text.as_str(), "from inside")?;
        ensure!(peer.ip().is_loopback());
        dyno.free()?;
    }
    Ok(())
}

fn listener_on_a_port_that_is_taken(stage: &Stage) -> Result<()> {
    stage.leaves_nothing(|| {
        let error = with_listeners(stage, &["exit", "0"], &[8080, 8080]).err().context("twice the same port")?;
        same("errno", error.errno(), Some(Errno::ADDRINUSE))?;
        ensure!(error.to_string().contains("127.0.0.1:8080"), "{error}");
        Ok(())
    })
}

fn the_host_is_out_of_reach(stage: &Stage) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port().to_string();
    let (exit, text) = stage.output(&stage.sandbox(&["connect", &port]))?;
    same("refused", (exit.status, text), (9, format!("errno {}\n", libc::ECONNREFUSED)))
}

fn two_dynos_have_the_same_port(stage: &Stage) -> Result<()> {
    let (one, _a) = server(stage, 5000)?;
    let (two, _b) = server(stage, 5000)?;
    same("one", talk(&one, 5000, "one")?, "ONE".into())?;
    same("two", talk(&two, 5000, "two")?, "TWO".into())?;
    one.free()?;
    Ok(two.free()?)
}

/// The handle of one that was seen at work keeps the empty network: nobody listens there, and lo is still up.
fn socket_into_an_ended_dyno(stage: &Stage) -> Result<()> {
    let (dyno, _out) = server(stage, 5000)?;
    same("answer", talk(&dyno, 5000, "the last word")?, "THE LAST WORD".into())?;
    dyno.wait()?;
    let refused = connect(&dyno, 5000).err().context("nobody is there")?;
    same("errno", refused.downcast_ref::<Errno>().copied(), Some(Errno::CONNREFUSED))?;
    Ok(dyno.free()?)
}

/// One that ended before its start returned may have no network left: then that is the error, and never another's network.
fn socket_into_one_that_ended_at_once(stage: &Stage) -> Result<()> {
    for _ in 0..50 {
        let dyno = stage.start(&stage.sandbox(&["exit", "0"]), Stdio::Null)?;
        dyno.wait()?;
        let error = connect(&dyno, 5000).err().context("nobody is there")?;
        let refused = error.downcast_ref::<Errno>() == Some(&Errno::CONNREFUSED);
        ensure!(refused || format!("{error:#}").contains("its network is gone"), "{error:#}");
        dyno.free()?;
    }
    Ok(())
}
