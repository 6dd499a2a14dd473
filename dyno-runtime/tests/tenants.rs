//! Networks of ended sandboxes: the tenant's next one has it, as it was made; nobody else, ever.

mod support;

use std::{fs, os::unix::fs::MetadataExt, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Dyno, Host, HostOptions, Network, Sandbox, StartOptions, Stdio, Streams, Tier};

use support::{Case, Stage, read_all, same};

const CASES: &[Case] = &[
    ("the_tenants_next_one_has_it", the_tenants_next_one_has_it),
    ("nobody_elses_has_it", nobody_elses_has_it),
    ("a_parked_one_leaves_it_as_well", a_parked_one_leaves_it_as_well),
    ("into_which_another_was_let", into_which_another_was_let),
    ("one_with_a_socket_is_waited_for", one_with_a_socket_is_waited_for),
    ("it_looks_as_new_from_inside", it_looks_as_new_from_inside),
    ("no_more_than_were_asked_for", no_more_than_were_asked_for),
    ("none_is_kept_unasked", none_is_kept_unasked),
];

fn main() -> ExitCode {
    support::suite("tenants", &["sleep"], CASES)
}

/// What a case asks of a host that keeps such networks.
struct Landlord<'s> {
    host: Host,
    stage: &'s Stage,
}

impl Landlord<'_> {
    fn start(&self, tenant: Option<&str>, sandbox: &Sandbox) -> Result<Dyno> {
        Ok(self.host.start(&self.stage.id(), sandbox, StartOptions { tenant, stdio: Stdio::Null, ..StartOptions::default() })?)
    }

    fn stay(&self, tenant: Option<&str>) -> Result<Dyno> {
        self.start(tenant, &self.stage.sandbox(&["forever"]))
    }

    /// Ends it, and waits until its network was looked at.
    fn leave(&self, dyno: Dyno) -> Result<()> {
        dyno.free()?;
        Ok(self.host.wait_ready()?)
    }
}

fn with(stage: &Stage, recycled: usize, work: impl FnOnce(&Landlord<'_>) -> Result<()>) -> Result<()> {
    let name = format!("{}-landlord", stage.name);
    let host = Host::open_with(&stage.run.with_file_name(&name), &name, &HostOptions { recycled, ..HostOptions::default() })?;
    let landlord = Landlord { host, stage };
    let worked = work(&landlord);
    for found in landlord.host.recover()? {
        landlord.host.sweep(found.id())?;
    }
    landlord.host.dismantle()?;
    worked
}

/// The number of its network namespace. Numbers are used again, so two that are to differ must be alive at once.
fn network(dyno: &Dyno) -> Result<u64> {
    Ok(fs::metadata(format!("/proc/{}/ns/net", dyno.pid()))?.ino())
}

fn the_tenants_next_one_has_it(stage: &Stage) -> Result<()> {
    with(stage, 4, |host| {
        let first = host.stay(Some("app"))?;
        same("the first one's tier", first.tier(), Tier::Cold)?;
        let its = network(&first)?;
        host.leave(first)?;
        for round in 1..=3 {
            let next = host.stay(Some("app"))?;
            same("tier", next.tier(), Tier::Parts).with_context(|| format!("round {round}"))?;
            same("network", network(&next)?, its)?;
            host.leave(next)?;
        }
        Ok(())
    })
}

fn nobody_elses_has_it(stage: &Stage) -> Result<()> {
    with(stage, 4, |host| {
        let first = host.stay(Some("app"))?;
        let its = network(&first)?;
        host.leave(first)?;
        let others = [Some("ap"), Some("app2"), Some(""), None].map(|tenant| host.stay(tenant));
        for other in others {
            let other = other?;
            same("tier", other.tier(), Tier::Cold)?;
            ensure!(network(&other)? != its, "it has the network that another tenant left");
            host.leave(other)?;
        }
        // What a sandbox of nobody's left is nobody's.
        let again = host.stay(None)?;
        same("tier of nobody's next one", again.tier(), Tier::Cold)?;
        again.free()?;
        let next = host.stay(Some("app"))?;
        same("network", network(&next)?, its)?;
        host.leave(next)
    })
}

fn a_parked_one_leaves_it_as_well(stage: &Stage) -> Result<()> {
    with(stage, 4, |host| {
        let sandbox = stage.sandbox(&["forever"]);
        host.host.keep_parked(&sandbox, 1)?;
        host.host.wait_ready()?;
        let first = host.start(Some("app"), &sandbox)?;
        same("tier", first.tier(), Tier::Parked)?;
        let its = network(&first)?;
        host.host.keep_parked(&sandbox, 0)?;
        host.leave(first)?;
        let next = host.start(Some("app"), &sandbox)?;
        same("network", network(&next)?, its)?;
        host.leave(next)
    })
}

fn into_which_another_was_let(stage: &Stage) -> Result<()> {
    with(stage, 4, |host| {
        let first = host.stay(Some("app"))?;
        let its = network(&first)?;
        let beside = host.start(Some("app"), &Sandbox { network: Network::Joined(first.id().into()), ..stage.sandbox(&["forever"]) })?;
        same("joined", network(&beside)?, its)?;
        host.leave(first)?;
        let next = host.stay(Some("app"))?;
        ensure!(network(&next)? != its, "a sandbox has a network in which another one's programs run");
        next.free()?;
        host.leave(beside)?;
        // The one that was alone has left a network; the two that were not have not.
        let (a, b) = (host.stay(Some("app"))?, host.stay(Some("app"))?);
        same("tiers", (a.tier(), b.tier()), (Tier::Parts, Tier::Cold))?;
        a.free()?;
        host.leave(b)
    })
}

fn one_with_a_socket_is_waited_for(stage: &Stage) -> Result<()> {
    with(stage, 4, |host| {
        let first = host.stay(Some("app"))?;
        let socket = first.socket()?;
        first.free()?;
        let next = host.stay(Some("app"))?;
        same("tier while somebody holds a socket in it", next.tier(), Tier::Cold)?;
        drop(socket);
        host.host.wait_ready()?;
        let after = host.stay(Some("app"))?;
        same("tier once nobody does", after.tier(), Tier::Parts)?;
        next.free()?;
        host.leave(after)
    })
}

fn it_looks_as_new_from_inside(stage: &Stage) -> Result<()> {
    with(stage, 4, |host| {
        host.leave(host.stay(Some("app"))?)?;
        for path in ["/proc/net/route", "/proc/net/ipv6_route", "/proc/net/if_inet6", "/proc/net/tcp", "/proc/net/unix"] {
            let read = |tenant| -> Result<(Tier, String)> {
                let options = StartOptions { tenant, stdio: Stdio::Pipes, ..StartOptions::default() };
                let mut dyno = host.host.start(&stage.id(), &stage.sandbox(&["read", path]), options)?;
                let Streams::Pipes { stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
                let (said, tier) = (read_all(stdout)?, dyno.tier());
                same("status", dyno.wait()?.status, 0).with_context(|| format!("read {path}: {said}"))?;
                host.leave(dyno)?;
                Ok((tier, said))
            };
            let (new, used) = (read(None)?, read(Some("app"))?);
            same("tiers", (new.0, used.0), (Tier::Cold, Tier::Parts))?;
            same(path, used.1, new.1)?;
        }
        Ok(())
    })
}

fn no_more_than_were_asked_for(stage: &Stage) -> Result<()> {
    with(stage, 2, |host| {
        let all = (0..3).map(|_| host.stay(Some("app"))).collect::<Result<Vec<_>>>()?;
        all.into_iter().try_for_each(|dyno| host.leave(dyno))?;
        let next = (0..3).map(|_| host.stay(Some("app"))).collect::<Result<Vec<_>>>()?;
        same("tiers", next.iter().map(Dyno::tier).collect(), vec![Tier::Parts, Tier::Parts, Tier::Cold])?;
        next.into_iter().try_for_each(|dyno| host.leave(dyno))
    })
}

fn none_is_kept_unasked(stage: &Stage) -> Result<()> {
    with(stage, 0, |host| {
        host.leave(host.stay(Some("app"))?)?;
        let next = host.stay(Some("app"))?;
        same("tier", next.tier(), Tier::Cold)?;
        host.leave(next)
    })
}
