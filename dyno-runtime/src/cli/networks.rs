//! The options of `dyno-runtime sandbox` that say what is reachable.

use std::net::Ipv4Addr;

use super::{Failure, units};
use crate::{Allow, Egress, Network, Policy, Protocol, Publish};

/// They all have a value.
pub(super) const KNOWN: &[&str] = &["network", "allow", "dns", "publish"];

/// Sets the network, or adds to one with a way out.
pub(super) fn set(network: &mut Network, flag: &str, value: &str) -> Result<(), Failure> {
    match flag {
        "--network" => {
            *network = match (value, value.split_once(':')) {
                ("none", _) => Network::Private,
                ("host", _) => Network::Host,
                ("egress", _) => Network::Egress(Egress::default()),
                ("open", _) => Network::Egress(Egress { policy: Policy::Open, ..Egress::default() }),
                (_, Some(("join", id))) => Network::Joined(id.to_owned()),
                _ => return Err(Failure::new(format!("{flag} {value:?} is none of none, host, egress, open, join:ID"))),
            };
        }
        "--allow" => {
            let allow = allow(flag, value)?;
            match &mut way_out(network, flag)?.policy {
                Policy::List(list) => list.push(allow),
                Policy::Open => {
                    return Err(Failure::new(format!("{flag} {value:?} says nothing more: --network open lets everything out that is public")));
                }
                policy @ Policy::Nothing => *policy = Policy::List(vec![allow]),
            }
        }
        "--dns" => way_out(network, flag)?.dns.push(address(flag, value)?),
        _ => way_out(network, flag)?.publish.push(publish(flag, value)?),
    }
    Ok(())
}

/// These options ask for a way out where none was asked for.
fn way_out<'a>(network: &'a mut Network, flag: &str) -> Result<&'a mut Egress, Failure> {
    if *network == Network::Private {
        *network = Network::Egress(Egress::default());
    }
    match network {
        Network::Egress(egress) => Ok(egress),
        _ => Err(Failure::new(format!("{flag} goes with --network egress or open, not with a network of others"))),
    }
}

/// `NET[:PORT[-PORT]][/tcp|/udp]`.
fn allow(flag: &str, text: &str) -> Result<Allow, Failure> {
    let (rest, protocol) = protocol(text);
    let Some((net, ports)) = rest.split_once(':') else { return Ok(Allow { net: rest.to_owned(), ports: None, protocol }) };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    Ok(Allow { net: net.to_owned(), ports: Some(units::count(flag, first)?..=units::count(flag, last)?), protocol })
}

/// `[ADDRESS:]HOST-PORT:PORT[/udp]`.
fn publish(flag: &str, text: &str) -> Result<Publish, Failure> {
    let (rest, protocol) = protocol(text);
    let parts: Vec<&str> = rest.split(':').collect();
    let (address, host, port) = match parts.as_slice() {
        [host, port] => (Ipv4Addr::UNSPECIFIED, host, port),
        [at, host, port] => (address(flag, at)?, host, port),
        _ => return Err(Failure::new(format!("{flag} {text:?} is not [ADDRESS:]HOST-PORT:PORT[/udp]"))),
    };
    Ok(Publish { address, host_port: units::count(flag, host)?, port: units::count(flag, port)?, protocol: protocol.unwrap_or_default() })
}

fn protocol(text: &str) -> (&str, Option<Protocol>) {
    match text.rsplit_once('/') {
        Some((rest, "tcp")) => (rest, Some(Protocol::Tcp)),
        Some((rest, "udp")) => (rest, Some(Protocol::Udp)),
        _ => (text, None),
    }
}

fn address(flag: &str, text: &str) -> Result<Ipv4Addr, Failure> {
    text.parse().map_err(|_| Failure::new(format!("{flag} {text:?} is no IPv4 address")))
}
