//! What a dyno reaches of others and of the world: nothing.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use dyno_tests::Platform;

use super::{APP, deployed, inside, others_are_well};

/// The host's own address, if it has a route anywhere. Nothing is sent: connecting a datagram socket only looks a route up.
fn address_of_the_host() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

pub(super) fn no_network(platform: &Platform) -> Result<()> {
    let client = platform.client()?;
    let port = |key: &str| client[key].as_str().and_then(|u| u.rsplit_once(':')).map(|(_, port)| port.to_owned()).context("port");
    let (api, router) = (port("url")?, port("router")?);
    let mut unreachable = vec![
        "192.0.2.1@80".to_owned(),       // the world
        "10.0.0.1@80".to_owned(),        // a network of the house
        "169.254.169.254@80".to_owned(), // a cloud's metadata
        "224.0.0.1@80".to_owned(),       // neighbours on the link
        "2001:db8::1@80".to_owned(),     // the world, by IPv6
    ];
    match address_of_the_host() {
        Some(ip) => unreachable.push(format!("{ip}@{api}")),
        None => println!("vacuous: the host's own address: it has none but loopback"),
    }
    // The loopback is the dyno's own: the platform's ports are not on it.
    let refused = [format!("127.0.0.1@{api}"), format!("127.0.0.1@{router}"), "127.0.0.1@22".to_owned(), "::1@80".to_owned()];
    let targets: Vec<String> = unreachable.iter().chain(&refused).cloned().collect();
    // The network namespace: it has a loopback and no route.
    let output = inside(platform, &format!("cat /proc/net/dev /proc/net/route; python3 probe.py reach {}", targets.join(" ")))?;
    let interfaces: Vec<&str> =
        output.lines().filter_map(|l| l.split_once(':')).filter(|(_, r)| r.split_whitespace().count() == 16).map(|(n, _)| n.trim()).collect();
    ensure!(interfaces == ["lo"], "interfaces: {interfaces:?}\n{output}");
    for target in unreachable {
        ensure!(output.contains(&format!("{target}: ENETUNREACH ENETUNREACH\n")), "{target} is not out of reach at once:\n{output}");
    }
    for target in refused {
        ensure!(output.contains(&format!("{target}: ECONNREFUSED ")), "{target} is not refused at once:\n{output}");
    }
    ensure!(output.contains("name: unknown\n"), "names:\n{output}");
    Ok(())
}

pub(super) fn neighbours(platform: &Platform) -> Result<()> {
    deployed(platform)?;
    platform.ok(&["run:detached", "-a", APP, "python3 probe.py hold"])?;
    let held = platform.await_log(APP, "holding", 20)?;
    ensure!(held.ends_with("holding True True True"), "{held}");
    let output = inside(platform, "python3 probe.py seek")?;
    for row in [
        "abstract ECONNREFUSED",       // the network namespace has the names of abstract sockets
        "port ECONNREFUSED",           // … and the ports
        "web ECONNREFUSED",            // web.1 and web.2 listen there, each on a loopback of its own
        "shm nothing",                 // the ipc namespace
        "queue nothing",               // the ipc namespace
        "/dev/shm/dyno-walls nothing", // a tmpfs of its own
        "/tmp/dyno-walls nothing",     // a writable layer of its own
    ] {
        ensure!(output.lines().any(|l| l == row), "no {row:?} in\n{output}");
    }
    platform.ok(&["ps:stop", "run", "-a", APP])?;
    others_are_well(platform)
}
