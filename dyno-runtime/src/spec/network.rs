//! What a sandbox reaches.

use std::{net::Ipv4Addr, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

/// What a sandbox reaches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A private network namespace with loopback up; the host reaches in by sockets made inside it.
    #[default]
    Private,
    /// Private, with a link to the host over which it may send what the policy lets out. IPv4 only. Needs the program `nft`
    /// ([`crate::net::egress::missing`] says what else), and switches the host's forwarding on (`net.ipv4.ip_forward`) until
    /// [`crate::Host::dismantle`]; if it was off, nothing but sandboxes is forwarded for.
    Egress(Egress),
    /// That of another running sandbox of the same [`crate::Host`], by id: a side-car.
    Joined(String),
    /// The host's own. No wall at all: abstract unix sockets of the host are kept out by Landlock, where the kernel has it
    /// (6.12).
    Host,
}

/// A private network with a way out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// What may leave.
    pub policy: Policy,
    /// Name servers, written to /etc/resolv.conf, and reachable on port 53 whatever the policy says (unless it is
    /// [`Policy::Nothing`], which has none). Empty: those of the host's resolv.conf that are not on its loopback, or behind
    /// systemd-resolved's stub. The file is made where the root can be written; a read-only root must hold one.
    pub dns: Vec<Ipv4Addr>,
    /// Ports of the host that lead inside.
    pub publish: Vec<Publish>,
}

/// What may leave by the link; what may not is refused at once (EHOSTUNREACH).
///
/// Other sandboxes, the host itself, link-local and metadata addresses are never reached, unless listed: by an address or network
/// of their own. One that holds them among others (`0.0.0.0/0`) does not list them. At most 8192 connections are open at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Nothing; published ports are answered.
    #[default]
    Nothing,
    /// What one of these allows.
    List(Vec<Allow>),
    /// Everything but the private, link-local and reserved networks (RFC 6890).
    Open,
}

/// One thing that may leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// Destination, an address or a network: `192.0.2.7`, `198.51.100.0/24`.
    pub net: String,
    /// Destination port or ports; None is all of them.
    #[serde(default)]
    pub ports: Option<RangeInclusive<u16>>,
    /// None is TCP and UDP.
    #[serde(default)]
    pub protocol: Option<Protocol>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host that leads to one inside, from elsewhere and from the host's own processes. Nothing of the host may use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Address of the host; unspecified (0.0.0.0) is all of them.
    #[serde(default = "Publish::everywhere")]
    pub address: Ipv4Addr,
    /// Port of the host.
    pub host_port: u16,
    /// Port inside.
    pub port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
}

impl Publish {
    fn everywhere() -> Ipv4Addr {
        Ipv4Addr::UNSPECIFIED
    }
}
