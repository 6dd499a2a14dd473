//! System-call filters: profiles as data (JSON) compiled to classic BPF. Pure: installing is `sys`'s job.
//!
//! A profile is a list of allowed calls, calls allowed only with certain arguments, and calls that answer a
//! certain errno. Everything else answers the default errno (EPERM), or ENOSYS when it is newer than
//! the table, so that C libraries fall back as they do on old kernels. The number is looked up by a balanced
//! tree over ranges: the kernel runs a new filter once per call number to fill its bitmap of
//! always-allowed calls, and a linear list costs four times as much there (`docs/decisions.md`).

mod compile;
mod profile;
mod table;

pub use compile::compile;
pub use profile::{Condition, ProfileData, Rule};

use crate::{
    error::{Error, ErrorKind, Result},
    spec::Profile,
    sys::Filter,
};

/// The compiled program of a shipped profile.
///
/// # Errors
/// Never for the shipped ones (a test compiles them); the type leaves room for a caller's own.
pub fn program(profile: &Profile) -> Result<Vec<Filter>> {
    let data = match profile {
        Profile::Dyno => ProfileData::parse(include_str!("dyno.json"), None),
        Profile::Docker | Profile::Unconfined => Err("is not there yet".to_owned()),
        Profile::Custom(data) => Ok((**data).clone()),
        Profile::Build => ProfileData::parse(include_str!("build.json"), Some(include_str!("dyno.json"))),
    };
    let data = data.map_err(|e| Error::refused(ErrorKind::Invalid, format!("seccomp profile {profile:?}: {e}")))?;
    compile(&data).map_err(|e| Error::refused(ErrorKind::Invalid, format!("seccomp profile {profile:?}: {e}")))
}
