//! System-call filters: profiles as data (JSON) compiled to classic BPF. Pure: installing is `sys`'s job.
//!
//! A profile says which calls are allowed, which depend on their arguments or on the sandbox's capabilities, and which answer a
//! certain errno ([`ProfileData`] has the format). Everything else answers the default errno (EPERM), or ENOSYS when it is newer than
//! the table, so that C libraries fall back as they do on old kernels. The number is looked up by a balanced
//! tree over ranges: the kernel runs a new filter once per call number to fill its bitmap of
//! always-allowed calls, and a linear list costs four times as much there (`docs/decisions.md`).
//!
//! | profile | for | lets through, beside what every program needs |
//! |---|---|---|
//! | `dyno` | apps | nothing that concerns other processes' memory, namespaces, mounts, the host |
//! | `build` | builds | as `dyno`; no setuid or setgid bits |
//! | `docker` | programs made for Docker | ptrace, more sockets; with a capability what it is for |
//! | `unconfined` | those who know | everything: no filter |

pub(crate) mod compile;
pub(crate) mod condition;
mod errno;
mod explain;
mod filters;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod machine;
mod needs;
mod profile;
pub(crate) mod table;
pub(crate) mod tree;
mod verdict;

use self::verdict::Verdicts;
pub(crate) use self::{
    compile::Denied,
    filters::{Compiled, Filters},
};
pub use self::{
    condition::{Op, RawCondition},
    explain::{Explanation, explain, explain_all},
    profile::{Action, ProfileData, Rule},
};
use crate::{
    error::{Error, ErrorKind, Result},
    one_line::cut,
    spec::{Capability, Profile},
    sys::Filter,
};

/// Whether `profile` can be compiled for a sandbox with these capabilities, and lets through what starting one takes.
///
/// # Errors
/// [`ErrorKind::Invalid`] naming the field: `seccomp.rules.socket.when.value "0xx" is not a 64-bit number`.
pub fn check(profile: &Profile, capabilities: &[Capability]) -> Result<()> {
    Compiled::new(profile, bits(capabilities), Denied::Answer).map(drop)
}

/// The program for a process of ours, which needs not let through what a sandbox's start takes.
pub(crate) fn service(profile: &ProfileData) -> Result<Vec<Filter>> {
    let compiled = Verdicts::new(profile, 0).and_then(|verdicts| compile::compile(&verdicts, Denied::Answer));
    compiled.map_err(invalid)
}

/// For tests: the calls that no arguments get past such a filter.
#[cfg(test)]
pub(crate) fn service_explained(profile: &ProfileData) -> std::result::Result<Vec<String>, String> {
    let verdicts = Verdicts::new(profile, 0)?;
    let never = |name: &&str| match table::number(name).and_then(|number| verdicts.calls.get(number as usize)) {
        Some((verdict::Verdict::Always(action), _)) => !action.runs(),
        Some((verdict::Verdict::When(..), _)) => false,
        None => true,
    };
    Ok(table::calls().map(|(name, _)| name).filter(never).map(str::to_owned).collect())
}

fn bits(capabilities: &[Capability]) -> u64 {
    capabilities.iter().fold(0, |bits, c| bits | c.bit())
}

/// The verdicts of `profile`; None for no filter.
fn verdicts(profile: &Profile, capabilities: u64) -> Result<Option<Verdicts>> {
    let verdicts = match profile {
        Profile::Unconfined => return Ok(None),
        Profile::Dyno => shipped("dyno"),
        Profile::Build => shipped("build"),
        Profile::Docker => shipped("docker"),
        Profile::Custom(data) => based(data),
    };
    let verdicts = verdicts.and_then(|data| Verdicts::new(&data, capabilities));
    verdicts.map(Some).map_err(invalid)
}

/// What is wrong with a profile, of whose words only so much is repeated.
fn invalid(what: String) -> Error {
    Error::refused(ErrorKind::Invalid, cut(&format!("seccomp.{what}")))
}

/// A profile on top of what it extends.
fn based(data: &ProfileData) -> std::result::Result<ProfileData, String> {
    Ok(match &data.extends {
        Some(name) => data.onto(shipped(name)?),
        None => data.clone(),
    })
}

fn shipped(name: &str) -> std::result::Result<ProfileData, String> {
    based(&ProfileData::parse(match name {
        "dyno" => include_str!("dyno.json"),
        "build" => include_str!("build.json"),
        "docker" => include_str!("docker.json"),
        other => return Err(format!("extends {other:?} is not one of dyno, build, docker")),
    })?)
}
