//! Which hosts a build may reach: a decision on the name first, then on the addresses it has.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::model::Egress;

/// Ports that need no mention in a list of hosts.
const PORTS: [u16; 2] = [443, 80];

/// The network policy of one build.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How wide.
    pub egress: Egress,
    /// Hosts of [`Egress::Registries`]: `host`, `.suffix` (hosts below it, not itself), either with
    /// `:port` for another port than 80 and 443. [`Egress::Open`] reaches them as well.
    pub hosts: Vec<String>,
    /// Lets hosts of the list (and only those) resolve to private addresses.
    pub allow_private: bool,
}

/// Why a request was refused, as one line for the build's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denied(pub String);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host name that the policy lets pass, in lower case and without the root's dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allowed {
    pub host: String,
    pub port: u16,
    /// On the list, and so allowed what the list is allowed.
    listed: bool,
}

impl Policy {
    /// Decides on a name.
    pub(super) fn check(&self, host: &str, port: u16) -> Result<Allowed, Denied> {
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if is_literal(&name) {
            return Err(self.denied(host, port, "is an address; builds reach hosts by name"));
        }
        if !is_host_name(&name) {
            return Err(self.denied(host, port, "is no host name"));
        }
        let listed = self.hosts.iter().any(|entry| matches(entry, &name, port));
        match self.egress {
            Egress::None => Err(self.denied(host, port, "is out of reach")),
            _ if listed => Ok(Allowed { host: name, port, listed }),
            Egress::Registries => Err(self.denied(host, port, "is not on this host's list of registries")),
            Egress::Open if !PORTS.contains(&port) => Err(self.denied(host, port, "is on a port other than 80 and 443")),
            Egress::Open => Ok(Allowed { host: name, port, listed }),
        }
    }

    /// Of the addresses that a name has, those to connect to. The name is not resolved again.
    pub(super) fn reachable(&self, to: &Allowed, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Denied> {
        let private = to.listed && self.allow_private;
        let some = !found.is_empty();
        let usable: Vec<_> = found.into_iter().filter(|address| private || is_public(address.ip())).collect();
        if usable.is_empty() && some {
            return Err(self.denied(&to.host, to.port, "has a private address"));
        }
        Ok(usable)
    }

    fn denied(&self, host: &str, port: u16, why: &str) -> Denied {
        let host: String = host.escape_default().take(100).collect();
        Denied(format!("{host}:{port} {why} (build egress: {})", self.egress))
    }
}

fn matches(entry: &str, host: &str, port: u16) -> bool {
    let entry = entry.to_ascii_lowercase();
    let (pattern, ports) = match entry.rsplit_once(':') {
        Some((pattern, own)) => (pattern, own.parse() == Ok(port)),
        None => (entry.as_str(), PORTS.contains(&port)),
    };
    ports && if pattern.starts_with('.') { host.ends_with(pattern) && host != pattern } else { host == pattern }
}

/// Also what only the C library's parser takes for an address: `127.1`, `0x7f000001`, `2130706433`.
fn is_literal(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let number = last
        .strip_prefix("0x")
        .map_or_else(|| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()), |hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    number || host.contains(':') || host.contains('[')
}

fn is_host_name(host: &str) -> bool {
    let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    host.len() <= 253 && host.split('.').all(label)
}

/// False for every range that the IANA special-purpose registries keep from the public Internet,
/// and for those that carry another address inside (NAT64, 6to4, Teredo).
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or_else(|| is_public_v6(v6), is_public_v4),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    const SPECIAL: [([u8; 4], u32); 15] = [
        ([0, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        ([100, 64, 0, 0], 10),
        ([127, 0, 0, 0], 8),
        ([169, 254, 0, 0], 16),
        ([172, 16, 0, 0], 12),
        ([192, 0, 0, 0], 24),
        ([192, 0, 2, 0], 24),
        ([192, 88, 99, 0], 24),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
        ([198, 51, 100, 0], 24),
        ([203, 0, 113, 0], 24),
        ([224, 0, 0, 0], 4),
        ([240, 0, 0, 0], 4),
    ];
    let bits = u32::from(ip);
    !SPECIAL.iter().any(|(net, length)| (bits ^ u32::from_be_bytes(*net)) >> (32 - length) == 0)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    let global = first & 0xe000 == 0x2000;
    let special = (first == 0x2001 && (second < 0x200 || second == 0xdb8)) || first == 0x2002 || (first == 0x3fff && second < 0x1000);
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(egress: Egress, host: &str, port: u16, want: Result<&str, &str>) {
        let hosts = ["registry.example", ".mirror.example", "inner.example:3141"].map(str::to_owned).to_vec();
        let policy = Policy { egress, hosts, allow_private: false };
        match (policy.check(host, port), want) {
            (Ok(got), Ok(want)) => assert_eq!(got.host, want),
            (Err(got), Err(part)) => assert!(got.0.contains(part), "{host}: {got} does not say {part:?}"),
            (got, want) => panic!("{host}:{port}: got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn the_list_is_exact_or_a_suffix() {
        let registries = |host, port, want| check(Egress::Registries, host, port, want);
        registries("registry.example", 443, Ok("registry.example"));
        registries("REGISTRY.Example.", 80, Ok("registry.example"));
        registries("a.b.mirror.example", 443, Ok("a.b.mirror.example"));
        registries("inner.example", 3141, Ok("inner.example"));
        for host in ["mirror.example", "evilmirror.example", "x.registry.example", "registry.example.evil", "example"] {
            registries(host, 443, Err("not on this host's list"));
        }
        registries("registry.example", 22, Err("not on this host's list"));
        registries("inner.example", 443, Err("not on this host's list"));
        registries("evil.test", 443, Err("evil.test:443"));
        registries("evil.test", 443, Err("(build egress: registries)"));
    }

    #[test]
    fn open_and_none() {
        check(Egress::Open, "any.test", 443, Ok("any.test"));
        check(Egress::Open, "any.test", 25, Err("a port other"));
        check(Egress::Open, "inner.example", 3141, Ok("inner.example"));
        check(Egress::None, "registry.example", 443, Err("out of reach"));
    }

    #[test]
    fn addresses_in_any_spelling_are_no_names() {
        for host in ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "10.0.0.1.", "[::1]", "::1", "017700000001", "0x"] {
            check(Egress::Open, host, 443, Err("is an address"));
        }
        for host in ["", ".", "a..b", "a b", "a/b", "a\nb", "é.test", "a%2eb", "@", &"a.".repeat(200)] {
            check(Egress::Open, host, 443, Err("is no host name"));
        }
    }

    #[test]
    fn private_addresses() {
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:0:a00:1::",
            "2001:db8::1",
            "3fff::1",
        ];
        for ip in private {
            assert!(!is_public(ip.parse().unwrap()), "{ip} passes");
        }
        for ip in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "192.0.1.1", "223.255.255.255", "2606:4700::1", "2a00::1", "::ffff:1.1.1.1"] {
            assert!(is_public(ip.parse().unwrap()), "{ip} does not pass");
        }
    }

    #[test]
    fn only_listed_hosts_may_be_private() {
        let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 443);
        let mut policy = Policy { egress: Egress::Open, hosts: vec!["mirror.test".into()], allow_private: true };
        let reach = |policy: &Policy, host: &str, ips: &[&str]| {
            let to = policy.check(host, 443).unwrap();
            policy.reachable(&to, ips.iter().map(|ip| address(ip)).collect()).map(|found| found.len())
        };
        assert_eq!(reach(&policy, "mirror.test", &["10.0.0.1"]), Ok(1));
        assert_eq!(reach(&policy, "other.test", &["10.0.0.1", "1.1.1.1"]), Ok(1));
        assert!(reach(&policy, "other.test", &["10.0.0.1"]).unwrap_err().0.contains("private address"));
        policy.allow_private = false;
        assert!(reach(&policy, "mirror.test", &["10.0.0.1"]).is_err());
    }
}
