//! Sandboxes with a link, in the lab: how they are made and what they reach.

use std::{fs, net::Ipv4Addr, process::ExitCode};

use anyhow::{Result, ensure};
use dyno_runtime::{Allow, Dyno, Egress, Network, Policy, Protocol, Publish, Sandbox, Stdio};

use super::{
    Case, Stage,
    lab::{self, PRIVATE, Server, network_of, tcp, within},
};

pub const REFUSED: Result<String, i32> = Err(libc::EHOSTUNREACH);
pub const DROPPED: Result<String, i32> = Err(libc::ETIMEDOUT);

/// Runs `cases` in the lab.
pub fn suite(name: &'static str, cases: &[Case]) -> ExitCode {
    const TOOLS: &[&str] = &["nft", "ip", "unshare"];
    if super::missing(TOOLS).is_none() {
        lab::enter();
        if let Err(e) = lab::build() {
            eprintln!("the lab could not be built: {e:#}");
            return ExitCode::FAILURE;
        }
    }
    let before = forwarding();
    let code = super::suite(name, TOOLS, cases);
    if lab::is_inside() && (before, forwarding()) != (Some(false), Some(false)) {
        eprintln!("forwarding was not put back");
        return ExitCode::FAILURE;
    }
    code
}

fn forwarding() -> Option<bool> {
    Some(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").ok()?.trim() == "1")
}

pub fn egress(policy: Policy) -> Egress {
    Egress { policy, dns: vec![PRIVATE], publish: Vec::new() }
}

pub fn allow(net: &str, ports: Option<u16>, protocol: Option<Protocol>) -> Allow {
    Allow { net: net.into(), ports: ports.map(|port| port..=port), protocol }
}

pub fn publish(address: Ipv4Addr, host_port: u16, port: u16) -> Publish {
    Publish { address, host_port, port, protocol: Protocol::Tcp }
}

pub fn sandbox(stage: &Stage, egress: Egress, args: &[&str]) -> Sandbox {
    let mut sandbox = stage.sandbox(args);
    sandbox.network = Network::Egress(egress);
    sandbox
}

/// One that runs until it is freed.
pub fn start(stage: &Stage, egress: Egress) -> Result<Dyno> {
    Ok(stage.start(&sandbox(stage, egress, &["nap", "1000000"]), Stdio::Null)?)
}

/// What `work` finds in its network.
pub fn look<T: Send>(dyno: &Dyno, work: impl FnOnce() -> T + Send) -> Result<T> {
    within(&network_of(dyno.pid())?, || Ok(work()))
}

/// Its address.
pub fn address(dyno: &Dyno) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 19, 0, 1)) + 2 * dyno.record().slot)
}

/// The host's on its link.
pub fn gateway(dyno: &Dyno) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address(dyno)) - 1)
}

pub fn answer(from: Ipv4Addr) -> Result<String, i32> {
    Ok(from.to_string())
}

pub fn reaches(what: &str, dyno: &Dyno, to: Ipv4Addr, port: u16, want: Result<String, i32>) -> Result<()> {
    let is = look(dyno, || if want == DROPPED { lab::tcp_within(to, port, lab::SILENCE) } else { tcp(to, port) })?;
    ensure!(is == want, "{what}: {to}:{port}: is {is:?}, should be {want:?}");
    Ok(())
}

/// A server on every address of the host.
pub fn host_server(port: u16) -> Result<Server> {
    lab::greet((Ipv4Addr::UNSPECIFIED, port).into())
}

/// A server in the sandbox's network.
pub fn serve(dyno: &Dyno, port: u16) -> Result<Server> {
    look(dyno, || lab::greet((Ipv4Addr::UNSPECIFIED, port).into()))?
}
