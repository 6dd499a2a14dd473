//! The way out: what each policy lets through, and what neither wall does. In a lab of network namespaces.

mod support;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::fs::symlink,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use dyno_runtime::{Dyno, Egress, ErrorKind, Layer, Network, Policy, Protocol, Stdio, Upper};

use support::{
    Case, Stage,
    lab::{self, HOST, METADATA, PRIVATE, PUBLIC, forge, lab, tcp, udp, within},
    links::{self, DROPPED, REFUSED, address, allow, answer, egress, gateway, host_server, look, publish, reaches, sandbox, serve, start},
    same,
};

const CASES: &[Case] = &[
    ("nothing_leaves_by_default", nothing_leaves_by_default),
    ("a_list_is_net_port_and_protocol", a_list_is_net_port_and_protocol),
    ("a_wide_list_lists_nothing_special", a_wide_list_lists_nothing_special),
    ("what_is_special_can_be_listed", what_is_special_can_be_listed),
    ("open_is_the_public_internet", open_is_the_public_internet),
    ("the_hosts_wall_stands_alone", the_hosts_wall_stands_alone),
    ("a_false_source_goes_nowhere", a_false_source_goes_nowhere),
    ("a_flushed_wall_is_built_again", a_flushed_wall_is_built_again),
    ("published_ports_are_answered", published_ports_are_answered),
    ("nobody_else_is_forwarded_for", nobody_else_is_forwarded_for),
    ("a_port_is_published_once", a_port_is_published_once),
    ("name_servers", name_servers),
    ("no_place_for_name_servers", no_place_for_name_servers),
    ("the_program_itself_gets_out", the_program_itself_gets_out),
    ("who_joins_has_the_same_walls", who_joins_has_the_same_walls),
];

fn main() -> ExitCode {
    links::suite("egress", CASES)
}

fn nothing_leaves_by_default(stage: &Stage) -> Result<()> {
    let _host = host_server(7001)?;
    same("control: the host is there", tcp(HOST, 7001), answer(HOST))?;
    same("control: so is the internet", tcp(PUBLIC, 80), answer(HOST))?;
    let dyno = start(stage, Egress::default())?;
    for (to, port) in [(PUBLIC, 80), (PRIVATE, 80), (METADATA, 80), (HOST, 7001), (gateway(&dyno), 7001)] {
        reaches("nothing", &dyno, to, port, REFUSED)?;
    }
    same("udp", look(&dyno, || udp(PRIVATE, 53, "x"))?.is_err(), true)?;
    let own = look(&dyno, || fs::read_to_string("/proc/thread-self/net/if_inet6"))??;
    ensure!(!own.contains("eth0"), "IPv6 on the link: {own}");
    Ok(dyno.free()?)
}

fn a_list_is_net_port_and_protocol(stage: &Stage) -> Result<()> {
    let list = vec![allow("45.67.89.0/24", Some(80), Some(Protocol::Tcp)), allow("10.20.30.40", Some(9999), Some(Protocol::Udp))];
    let dyno = start(stage, egress(Policy::List(list)))?;
    reaches("listed", &dyno, PUBLIC, 80, answer(HOST))?;
    reaches("another port", &dyno, PUBLIC, 443, REFUSED)?;
    reaches("another net", &dyno, PRIVATE, 80, REFUSED)?;
    reaches("metadata", &dyno, METADATA, 80, REFUSED)?;
    same("listed udp", look(&dyno, || udp(PRIVATE, 9999, "a"))?, Ok("a".into()))?;
    same("name server", look(&dyno, || udp(PRIVATE, 53, "b"))?, Ok("b".into()))?;
    same("another's udp", look(&dyno, || udp(PUBLIC, 9999, "c"))?.is_err(), true)?;
    Ok(dyno.free()?)
}

fn a_wide_list_lists_nothing_special(stage: &Stage) -> Result<()> {
    let _host = host_server(7002)?;
    let other = start(stage, Egress { publish: vec![publish(HOST, 7100, 7100)], ..Egress::default() })?;
    let _other = serve(&other, 7100)?;
    let dyno = start(stage, egress(Policy::List(vec![allow("0.0.0.0/0", None, None)])))?;
    reaches("public", &dyno, PUBLIC, 443, answer(HOST))?;
    reaches("private", &dyno, PRIVATE, 80, answer(HOST))?;
    reaches("metadata", &dyno, METADATA, 80, REFUSED)?;
    reaches("another sandbox", &dyno, address(&other), 7100, REFUSED)?;
    reaches("its end of the link", &dyno, gateway(&dyno), 7002, REFUSED)?;
    reaches("the host", &dyno, HOST, 7002, DROPPED)?;
    reaches("what another has published", &dyno, HOST, 7100, DROPPED)?;
    dyno.free()?;
    Ok(other.free()?)
}

fn what_is_special_can_be_listed(stage: &Stage) -> Result<()> {
    let _host = host_server(7003)?;
    let other = start(stage, Egress { publish: vec![publish(HOST, 7101, 7101)], ..Egress::default() })?;
    let _other = serve(&other, 7101)?;
    let list = vec![allow("169.254.169.254", None, None), allow("10.9.9.1", Some(7003), None), allow("10.9.9.1", Some(7101), None)];
    let dyno = start(stage, egress(Policy::List(list)))?;
    reaches("metadata", &dyno, METADATA, 80, answer(HOST))?;
    reaches("the host", &dyno, HOST, 7003, answer(address(&dyno)))?;
    reaches("what another has published", &dyno, HOST, 7101, answer(address(&dyno)))?;
    reaches("another port of the host", &dyno, HOST, 7001, REFUSED)?;
    let direct = start(stage, egress(Policy::List(vec![allow(&address(&other).to_string(), Some(7101), None)])))?;
    reaches("another sandbox", &direct, address(&other), 7101, answer(address(&direct)))?;
    direct.free()?;
    dyno.free()?;
    Ok(other.free()?)
}

fn open_is_the_public_internet(stage: &Stage) -> Result<()> {
    let other = start(stage, Egress { publish: vec![publish(HOST, 7102, 7102)], ..Egress::default() })?;
    let dyno = start(stage, egress(Policy::Open))?;
    reaches("public", &dyno, PUBLIC, 80, answer(HOST))?;
    reaches("public", &dyno, PUBLIC, 443, answer(HOST))?;
    for (to, port) in [(PRIVATE, 80), (METADATA, 80), (HOST, 7102), (gateway(&dyno), 7102), (address(&other), 7102)] {
        reaches("open", &dyno, to, port, REFUSED)?;
    }
    same("name server", look(&dyno, || udp(PRIVATE, 53, "d"))?, Ok("d".into()))?;
    same("another port of it", look(&dyno, || udp(PRIVATE, 9999, "e"))?.is_err(), true)?;
    dyno.free()?;
    Ok(other.free()?)
}

/// Forwarding was off before the first sandbox: the host must not have become a router for its neighbours.
fn nobody_else_is_forwarded_for(stage: &Stage) -> Result<()> {
    let dyno = start(stage, egress(Policy::Open))?;
    let lab = lab()?;
    let other = Ipv4Addr::new(10, 8, 8, 2);
    let neighbour = lab::neighbour()?;
    within(&neighbour, || lab::ip("link set lo up\naddr add 10.8.8.2/24 dev near1\nlink set near1 up\nroute add default via 10.8.8.1\n"))?;
    within(&lab.internet, || lab::ip("route add 10.8.8.0/24 via 10.9.9.1\n"))?;
    let through = within(&neighbour, || Ok(lab::tcp_within(PUBLIC, 80, lab::SILENCE)))?;
    let output = Command::new("nft").args(["flush", "ruleset"]).output()?;
    ensure!(output.status.success(), "{output:?}");
    let control = within(&neighbour, || Ok(tcp(PUBLIC, 80)))?;
    within(&lab.internet, || lab::ip("route del 10.8.8.0/24 via 10.9.9.1\n"))?;
    lab::ip("link del near0\n")?;
    same("control: without the table", control, answer(other))?;
    same("through the host", through, DROPPED)?;
    Ok(dyno.free()?)
}

/// Takes the rules inside away, which nobody inside could: what is left is the host's table.
fn without_the_inner_wall(dyno: &Dyno) -> Result<()> {
    let output = look(dyno, || Command::new("nft").args(["flush", "ruleset"]).output())??;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

fn the_hosts_wall_stands_alone(stage: &Stage) -> Result<()> {
    let _host = host_server(7004)?;
    let other = start(stage, Egress { publish: vec![publish(Ipv4Addr::UNSPECIFIED, 7103, 7103)], ..Egress::default() })?;
    let _other = serve(&other, 7103)?;
    let dyno = start(stage, egress(Policy::Open))?;
    without_the_inner_wall(&dyno)?;
    without_the_inner_wall(&other)?;
    reaches("control: the inner wall is down", &dyno, PRIVATE, 80, answer(HOST))?;
    for (to, port) in [(HOST, 7004), (gateway(&dyno), 7004), (METADATA, 80), (address(&other), 7103), (HOST, 7103), (gateway(&other), 7004)] {
        reaches("host's wall", &dyno, to, port, DROPPED)?;
    }
    // A loopback address leaves only by force: it is the host's that is meant.
    let loopback = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7004);
    same("loopback", look(&dyno, || forge(address(&dyno), loopback, "x"))?, Ok(()))?;
    dyno.free()?;
    Ok(other.free()?)
}

/// What the internet's UDP servers hear next.
fn next_heard() -> Result<(String, String)> {
    let heard = lab()?.heard.lock().map_err(|e| anyhow::anyhow!("{e}"))?;
    let (peer, text) = heard.recv_timeout(std::time::Duration::from_secs(5))?;
    Ok((peer.ip().to_string(), text))
}

fn a_false_source_goes_nowhere(stage: &Stage) -> Result<()> {
    while lab()?.heard.lock().map_err(|e| anyhow::anyhow!("{e}"))?.try_recv().is_ok() {}
    let other = start(stage, egress(Policy::Open))?;
    let dyno = start(stage, egress(Policy::Open))?;
    let server = SocketAddrV4::new(PUBLIC, 9999);
    let false_sources = [address(&other), gateway(&dyno), HOST, PRIVATE, Ipv4Addr::new(8, 8, 8, 8)];
    for source in false_sources {
        same("inner wall", look(&dyno, || forge(source, server, "false"))?, Err(rustix::io::Errno::PERM))?;
    }
    same("control", look(&dyno, || forge(address(&dyno), server, "true"))?, Ok(()))?;
    same("heard", next_heard()?, (HOST.to_string(), "true".into()))?;
    without_the_inner_wall(&dyno)?;
    for source in false_sources {
        same("sent", look(&dyno, || forge(source, server, "false"))?, Ok(()))?;
    }
    // They go the same way one after the other: when the last is there, the others will not come.
    same("control", look(&dyno, || forge(address(&dyno), server, "last"))?, Ok(()))?;
    same("heard", next_heard()?, (HOST.to_string(), "last".into()))?;
    dyno.free()?;
    Ok(other.free()?)
}

fn a_flushed_wall_is_built_again(stage: &Stage) -> Result<()> {
    let first = start(stage, Egress { publish: vec![publish(HOST, 7104, 80)], ..Egress::default() })?;
    let _first = serve(&first, 80)?;
    let output = Command::new("nft").args(["flush", "ruleset"]).output()?;
    ensure!(output.status.success(), "{output:?}");
    let second = start(stage, egress(Policy::Open))?;
    same("published before", tcp(HOST, 7104).is_ok(), true)?;
    reaches("masqueraded", &second, PUBLIC, 80, answer(HOST))?;
    second.free()?;
    Ok(first.free()?)
}

fn published_ports_are_answered(stage: &Stage) -> Result<()> {
    let ports = vec![publish(Ipv4Addr::UNSPECIFIED, 8000, 80), publish(Ipv4Addr::LOCALHOST, 8001, 81)];
    let dyno = start(stage, Egress { publish: ports, ..Egress::default() })?;
    let _servers = [serve(&dyno, 80)?, serve(&dyno, 81)?, serve(&dyno, 82)?];
    let internet = &lab()?.internet;
    let outside = |port| within(internet, move || Ok(tcp(HOST, port)));
    same("from the internet", outside(8000)?, answer(Ipv4Addr::new(10, 9, 9, 2)))?;
    same("from the internet, on the loopback", outside(8001)?, Err(libc::ECONNREFUSED))?;
    same("from the host's loopback", tcp(Ipv4Addr::LOCALHOST, 8000), answer(gateway(&dyno)))?;
    same("from the host's loopback, only there", tcp(Ipv4Addr::LOCALHOST, 8001), answer(gateway(&dyno)))?;
    same("from the host's address", tcp(HOST, 8000).is_ok(), true)?;
    same("not published", lab::tcp_within(address(&dyno), 82, lab::SILENCE), DROPPED)?;
    reaches("nothing leaves", &dyno, PUBLIC, 80, REFUSED)?;
    // A neighbour that sends to the link's own address is not led in by what is published.
    let direct = within(internet, || {
        lab::ip("route add 198.19.0.0/16 via 10.9.9.1\n")?;
        let answer = lab::tcp_within(address(&dyno), 80, lab::SILENCE);
        lab::ip("route del 198.19.0.0/16 via 10.9.9.1\n")?;
        Ok(answer)
    })?;
    same("past the published port", direct, DROPPED)?;
    dyno.free()?;
    same("after the end", (outside(8000)?, tcp(Ipv4Addr::LOCALHOST, 8001)), (Err(libc::ECONNREFUSED), Err(libc::ECONNREFUSED)))
}

fn a_port_is_published_once(stage: &Stage) -> Result<()> {
    let _host = host_server(7005)?;
    let ours = |address, port| Egress { publish: vec![publish(address, port, 80)], ..Egress::default() };
    let first = start(stage, ours(HOST, 8002))?;
    for (address, port) in [(HOST, 8002), (HOST, 7005), (Ipv4Addr::new(10, 9, 9, 77), 8003)] {
        stage.leaves_nothing(|| {
            let error = stage.start(&sandbox(stage, ours(address, port), &["exit", "0"]), Stdio::Null).err().context("published")?;
            same("kind", error.kind(), ErrorKind::Invalid)?;
            ensure!(error.to_string().starts_with("network.egress.publish: "), "{error}");
            Ok(())
        })?;
    }
    first.free()?;
    start(stage, ours(HOST, 8002))?.free().map_err(Into::into)
}

fn name_servers(stage: &Stage) -> Result<()> {
    let (exit, text) = stage.output(&sandbox(stage, egress(Policy::Open), &["read", "/etc/resolv.conf"]))?;
    same("an image without /etc", (exit.status, text.as_str()), (0, "nameserver 10.20.30.40\n"))?;
    let (exit, text) = stage.output(&sandbox(stage, egress(Policy::Open), &["write", "/etc/resolv.conf", "x"]))?;
    same("read-only", (exit.status, text), (9, format!("errno {}\n", libc::EROFS)))?;
    for (found, upper) in [("link", Upper::default()), ("file", Upper::default()), ("file", Upper::ReadOnly)] {
        let root = stage.work().join(format!("root-{found}-{}", upper == Upper::ReadOnly));
        ["bin", "dev", "proc", "etc"].iter().try_for_each(|dir| fs::create_dir_all(root.join(dir)))?;
        fs::copy(stage.rootfs().join(&support::PROGRAM[1..]), root.join(&support::PROGRAM[1..]))?;
        match found {
            "link" => symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf"))?,
            _ => fs::write(root.join("etc/resolv.conf"), "nameserver 192.0.2.1\n")?,
        }
        let mut sandbox = sandbox(stage, egress(Policy::Open), &["read", "/etc/resolv.conf"]);
        (sandbox.root.layers, sandbox.root.upper) = (vec![Layer::Directory(root.clone())], upper);
        let (exit, text) = stage.output(&sandbox)?;
        same(found, (exit.status, text.as_str()), (0, "nameserver 10.20.30.40\n"))?;
        fs::remove_dir_all(root)?;
    }
    Ok(())
}

fn no_place_for_name_servers(stage: &Stage) -> Result<()> {
    let mut sandbox = sandbox(stage, egress(Policy::Open), &["exit", "0"]);
    sandbox.root.upper = Upper::ReadOnly;
    stage.leaves_nothing(|| {
        let error = stage.start(&sandbox, Stdio::Null).err().context("started")?;
        ensure!(error.kind() == ErrorKind::Invalid && error.to_string().contains("/etc/resolv.conf"), "{error}");
        Ok(())
    })
}

fn the_program_itself_gets_out(stage: &Stage) -> Result<()> {
    let (exit, text) = stage.output(&sandbox(stage, egress(Policy::Open), &["reach", "45.67.89.10:80"]))?;
    same("public", (exit.status, text), (0, format!("{HOST}\n")))?;
    let (exit, text) = stage.output(&sandbox(stage, egress(Policy::Open), &["reach", "10.20.30.40:80"]))?;
    same("private", (exit.status, text), (9, format!("errno {}\n", libc::EHOSTUNREACH)))
}

/// Also when the link's owner is freed first.
fn who_joins_has_the_same_walls(stage: &Stage) -> Result<()> {
    let owner = start(stage, egress(Policy::Open))?;
    let mut joined = stage.sandbox(&["reach", "45.67.89.10:80"]);
    joined.network = Network::Joined(owner.id().into());
    let (exit, text) = stage.output(&joined)?;
    same("public", (exit.status, text), (0, format!("{HOST}\n")))?;
    joined.argv = [support::PROGRAM, "nap", "1000000"].map(str::to_owned).to_vec();
    let joined = stage.start(&joined, Stdio::Null)?;
    owner.free()?;
    reaches("without the owner", &joined, PUBLIC, 80, answer(HOST))?;
    reaches("without the owner", &joined, PRIVATE, 80, REFUSED)?;
    reaches("without the owner", &joined, METADATA, 80, REFUSED)?;
    Ok(joined.free()?)
}
