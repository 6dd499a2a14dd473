//! The two rule sets as text, pure functions of what is asked for: one inside each sandbox's network, one on the host.
//!
//! Inside stands the policy: what may leave, and that only published ports are answered. It is the namespace's own table, so it costs
//! the host nothing and goes with the namespace. The host's table trusts none of that: it drops what a sandbox could not have
//! sent by those rules (a foreign source, other sandboxes, the host itself), hides sandboxes behind the host's address, and leads
//! published ports in. It is written once; a sandbox adds to it only what it publishes, and what it lists of the host's own.

use std::net::Ipv4Addr;

use crate::spec::{Allow, Egress, Policy, Protocol, Publish};

/// Name of the interface inside.
pub(super) const INSIDE: &str = "eth0";
/// Name of the table inside.
pub(super) const TABLE: &str = "dyno";
/// Its chains; all of them drop what no rule accepts.
pub(super) const CHAINS: [&str; 3] = ["output", "input", "forward"];

/// The addresses of all links of all instances of a host: two for each id range. Of the network for benchmarks (RFC 2544), which no
/// network that is in use has, unlike 100.64.0.0/10 (carriers, clouds and VPNs).
pub(super) const POOL: (Ipv4Addr, u32) = (Ipv4Addr::new(198, 19, 0, 0), 16);

/// What a network that holds it as one of many does not list: only an entry within one of these lists it.
const SPECIAL: [(Ipv4Addr, u32); 5] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16), // link-local, and every cloud's metadata service
    POOL,
    (Ipv4Addr::new(224, 0, 0, 0), 3), // multicast, class E and broadcast
];

/// What is not the public internet (RFC 6890, and 192.88.99.0/24, withdrawn by RFC 7526).
const RESERVED: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.0.2.0/24, \
                        192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/3";

/// Connections that one sandbox may have open: the host's table of them (nf_conntrack_max) is everybody's.
const CONNECTIONS: u32 = 8192;

/// First address and prefix of what validation has found to be a network.
pub(super) fn network(net: &str) -> (Ipv4Addr, u32) {
    let (address, prefix) = net.split_once('/').unwrap_or((net, "32"));
    (address.parse().unwrap_or(Ipv4Addr::BROADCAST), prefix.parse().unwrap_or(32))
}

/// Whether `inner` lies in `outer`.
pub(super) fn within(inner: (Ipv4Addr, u32), outer: (Ipv4Addr, u32)) -> bool {
    let mask = u32::MAX.checked_shl(32 - outer.1).unwrap_or(0);
    inner.1 >= outer.1 && u32::from(inner.0) & mask == u32::from(outer.0) & mask
}

/// Whether an entry means a special address, rather than happening to hold one.
fn is_special(allow: &Allow) -> bool {
    SPECIAL.iter().any(|special| within(network(&allow.net), *special))
}

/// Name servers, as entries of a list.
fn name_servers(servers: &[Ipv4Addr]) -> impl Iterator<Item = Allow> {
    servers.iter().map(|server| Allow { net: server.to_string(), ports: Some(53..=53), protocol: None })
}

/// What of a sandbox's reach the host's table has to let through: what is special, or the host's own.
pub(super) fn exceptions(egress: &Egress, servers: &[Ipv4Addr], own: &[Ipv4Addr]) -> Vec<Allow> {
    let listed = match &egress.policy {
        Policy::List(list) => list.clone(),
        Policy::Nothing | Policy::Open => Vec::new(),
    };
    let is_own = |allow: &Allow| own.iter().any(|address| network(&allow.net) == (*address, 32));
    name_servers(servers).chain(listed).filter(|allow| is_special(allow) || is_own(allow)).collect()
}

/// `ip daddr … accept`.
fn accept(allow: &Allow) -> String {
    let protocol = match allow.protocol {
        None => "{ tcp, udp }",
        Some(protocol) => name(protocol),
    };
    let (low, high) = allow.ports.as_ref().map_or((0, u16::MAX), |ports| (*ports.start(), *ports.end()));
    format!("ip daddr {} meta l4proto {protocol} th dport {low}-{high} accept", allow.net)
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// The table inside the network of the sandbox with that address.
pub(super) fn inside(address: Ipv4Addr, egress: &Egress, servers: &[Ipv4Addr]) -> String {
    const REFUSE: &str = "counter reject with icmpx admin-prohibited";
    let mut leaving: Vec<_> = name_servers(servers).map(|server| accept(&server)).collect();
    match &egress.policy {
        Policy::Nothing => {}
        Policy::List(list) => {
            let (special, broad): (Vec<_>, Vec<_>) = list.iter().partition(|allow| is_special(allow));
            leaving.extend(special.into_iter().map(accept));
            leaving.push(format!("ip daddr {{ {} }} {REFUSE}", special_networks()));
            leaving.extend(broad.into_iter().map(accept));
        }
        Policy::Open => leaving.extend([format!("ip daddr {{ {RESERVED} }} {REFUSE}"), "accept".to_owned()]),
    }
    let mut arriving: Vec<_> = egress.publish.iter().map(|p| format!("{} dport {} accept", name(p.protocol), p.port)).collect();
    if !arriving.is_empty() {
        arriving.insert(0, format!("ct count over {CONNECTIONS} counter drop"));
    }
    let [leaving, arriving] = [leaving, arriving].map(|rules| rules.join("\n\t\t"));
    fill(
        include_str!("inside.nft"),
        &[("ADDRESS", &address.to_string()), ("CONNECTIONS", &CONNECTIONS.to_string()), ("LEAVING", &leaving), ("ARRIVING", &arriving)],
    )
}

/// A rule set with its words written over; its comments are not for the kernel.
fn fill(template: &str, words: &[(&str, &str)]) -> String {
    let lines: Vec<_> = template.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    words.iter().fold(lines.join("\n") + "\n", |text, (word, value)| text.replace(word, value))
}

fn special_networks() -> String {
    SPECIAL.map(|(address, prefix)| format!("{address}/{prefix}")).join(", ")
}

/// The host's table for the instance `tag`, whose state is in `directory`; with `guard`, whatever is not of a
/// sandbox (of any instance) is not forwarded.
pub(super) fn host(tag: &str, directory: &str, guard: bool) -> String {
    let guard = if guard { "iifname != \"dy*\" oifname != \"dy*\" counter drop comment \"forwarding was off on this host\"" } else { "" };
    // A comment has at most 128 bytes, and the path is somebody's choice.
    let comment: String = directory.chars().filter(|c| c.is_ascii_alphanumeric() || "/-_.".contains(*c)).take(100).collect();
    let pool = format!("{}/{}", POOL.0, POOL.1);
    // The comment last: it may hold any word.
    fill(include_str!("host.nft"), &[("TAG", tag), ("POOL", &pool), ("SPECIAL", &special_networks()), ("GUARD", guard), ("COMMENT", &comment)])
}

/// What the sandbox of `slot` with that address has in the host's table. None when it needs nothing there. Loaded again it changes
/// nothing; what is another's it does not replace (EEXIST).
pub(super) fn admit(tag: &str, slot: u32, address: Ipv4Addr, publish: &[Publish], listed: &[Allow]) -> Option<String> {
    let mut script = Vec::new();
    for (map, key, port) in published(publish) {
        script.push(format!("add element inet dyno_{tag} {map} {{ {key} : {address} . {port} }}"));
    }
    if !listed.is_empty() {
        script.push(format!("add chain inet dyno_{tag} of_{slot}"));
        script.push(format!("flush chain inet dyno_{tag} of_{slot}"));
        for allow in listed {
            script.push(format!("add rule inet dyno_{tag} of_{slot} {}", accept(allow)));
        }
        script.push(format!("add element inet dyno_{tag} listed {{ {address} : jump of_{slot} }}"));
    }
    (!script.is_empty()).then(|| script.join("\n") + "\n")
}

/// Takes back what [`admit`] has added, or would have: it adds it first, so that it need not be known whether it is there.
pub(super) fn dismiss(tag: &str, slot: u32, address: Ipv4Addr, publish: &[Publish], listed: &[Allow]) -> Option<String> {
    let mut script = vec![admit(tag, slot, address, publish, listed)?];
    for (map, key, _) in published(publish) {
        script.push(format!("delete element inet dyno_{tag} {map} {{ {key} }}\n"));
    }
    if !listed.is_empty() {
        script.push(format!("delete element inet dyno_{tag} listed {{ {address} }}\n"));
        script.push(format!("flush chain inet dyno_{tag} of_{slot}\n"));
        script.push(format!("delete chain inet dyno_{tag} of_{slot}\n"));
    }
    Some(script.concat())
}

/// Map, key and port inside.
fn published(publish: &[Publish]) -> impl Iterator<Item = (&'static str, String, u16)> {
    publish.iter().map(|p| {
        let key = format!("{} . {}", name(p.protocol), p.host_port);
        if p.address.is_unspecified() { ("published", key, p.port) } else { ("published_at", format!("{} . {key}", p.address), p.port) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(net: &str) -> Allow {
        Allow { net: net.into(), ports: None, protocol: None }
    }

    #[test]
    fn networks_within_networks() {
        let check = |inner: &str, outer: &str, want: bool| assert_eq!(within(network(inner), network(outer)), want, "{inner} in {outer}");
        check("10.1.0.0/16", "10.0.0.0/8", true);
        check("10.0.0.0/8", "10.1.0.0/16", false);
        check("11.0.0.0/16", "10.0.0.0/8", false);
        check("0.0.0.0/0", "0.0.0.0/0", true);
        check("192.0.2.7", "0.0.0.0/0", true);
        check("192.0.2.7", "192.0.2.7", true);
    }

    #[test]
    fn a_wide_network_lists_nothing_special() {
        let list = |net: &str| Egress { policy: Policy::List(vec![allow(net)]), ..Egress::default() };
        let own = [Ipv4Addr::new(10, 0, 0, 5)];
        let check = |net: &str, want: usize| assert_eq!(exceptions(&list(net), &[], &own).len(), want, "{net}");
        check("0.0.0.0/0", 0);
        check("10.0.0.0/8", 0);
        check("10.0.0.5", 1);
        check("10.0.0.6", 0);
        check("169.254.169.254", 1);
        check("198.19.4.0/24", 1);
        // Only port 53 of a name server that is the host itself.
        let server = exceptions(&Egress { policy: Policy::Open, ..Egress::default() }, &own, &own);
        assert_eq!(server[0].ports, Some(53..=53));
    }

    #[test]
    fn refusal_comes_between_what_is_special_and_what_is_wide() {
        let policy = Policy::List(vec![allow("0.0.0.0/0"), allow("169.254.169.254")]);
        let text = inside(Ipv4Addr::new(198, 19, 0, 1), &Egress { policy, ..Egress::default() }, &[]);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
        assert!(at("ip daddr 169.254.169.254 ") < at("198.19.0.0/16") && at("198.19.0.0/16") < at("ip daddr 0.0.0.0/0 "));
        assert!(at("ip saddr != 198.19.0.1") < at("established"));
    }

    #[test]
    fn what_is_added_is_taken_back() {
        let publish = [Publish { address: Ipv4Addr::LOCALHOST, host_port: 80, port: 8080, protocol: Protocol::Tcp }];
        let address = Ipv4Addr::new(198, 19, 0, 1);
        let add = "add element inet dyno_t published_at { 127.0.0.1 . tcp . 80 : 198.19.0.1 . 8080 }\n";
        let delete = "delete element inet dyno_t published_at { 127.0.0.1 . tcp . 80 }\n";
        assert_eq!(admit("t", 0, address, &publish, &[]).unwrap(), add);
        assert_eq!(dismiss("t", 0, address, &publish, &[]).unwrap(), format!("{add}{delete}"));
        assert_eq!((admit("t", 0, address, &[], &[]), dismiss("t", 0, address, &[], &[])), (None, None));
        let listed = [allow("10.0.0.5")];
        let (add, delete) = (admit("t", 7, address, &[], &listed).unwrap(), dismiss("t", 7, address, &[], &listed).unwrap());
        assert_eq!((add.lines().count(), delete.lines().count()), (4, 7));
    }
}
