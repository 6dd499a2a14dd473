//! The measurements, each a module with one function.

pub mod alive;
pub mod apps;
pub mod concurrent;
mod latency;
pub mod stop;
pub mod surroundings;
pub mod sustained;

use anyhow::{Result, bail};

pub use self::latency::{BURST, IDLE, REST, TABLE as LATENCY};
use crate::whole::Bench;

/// One of them.
pub type Measure = fn(&mut Bench) -> Result<()>;

/// All, in order: what needs a quiet host before what disturbs it.
const ALL: [(&str, Measure); 7] = [
    ("latency", latency::measure),
    ("stop", stop::measure),
    ("surroundings", surroundings::measure),
    ("concurrent", concurrent::measure),
    ("apps", apps::measure),
    ("alive", alive::measure),
    ("sustained", sustained::measure),
];

/// Those named, or all.
///
/// # Errors
/// For a name that does not exist.
pub fn chosen(only: &[String]) -> Result<Vec<(&'static str, Measure)>> {
    if let Some(unknown) = only.iter().find(|name| ALL.iter().all(|(known, _)| known != name)) {
        bail!("no measurement {unknown:?}; there are: {}", ALL.map(|(name, _)| name).join(", "));
    }
    Ok(ALL.into_iter().filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name)).collect())
}
