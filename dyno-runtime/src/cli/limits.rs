//! The options of `dyno-runtime sandbox` that limit.

use super::{Failure, units};
use crate::Limits;

/// They all have a value.
pub(super) const KNOWN: &[&str] = &[
    "memory",
    "memory-high",
    "swap",
    "pids",
    "cpu-weight",
    "cpus",
    "cpuset",
    "memory-nodes",
    "io-weight",
    "open-files",
    "file-size",
    "wall",
    "cpu-time",
    "output",
];

/// Sets the one that `flag` names. `none` takes a limit away.
pub(super) fn set(limits: &mut Limits, flag: &str, value: &str) -> Result<(), Failure> {
    let size = || optional(value, |v| units::bytes(flag, v));
    let time = || optional(value, |v| units::millis(flag, v));
    let count = || optional(value, |v| units::count(flag, v));
    match flag {
        "--memory" => limits.memory = size()?,
        "--memory-high" => limits.memory_high = size()?,
        "--swap" => limits.swap = units::bytes(flag, value)?,
        "--pids" => limits.pids = count()?,
        "--cpu-weight" => limits.cpu_weight = count()?,
        "--cpus" => limits.cpu_millis = optional(value, |v| units::processors(flag, v))?,
        "--cpuset" => limits.cpus = Some(value.to_owned()),
        "--memory-nodes" => limits.memory_nodes = Some(value.to_owned()),
        "--io-weight" => limits.io_weight = count()?,
        "--open-files" => limits.open_files = units::count(flag, value)?,
        "--file-size" => limits.file_size = size()?,
        "--wall" => limits.wall_ms = time()?,
        "--cpu-time" => limits.cpu_ms = time()?,
        _ => limits.output = size()?,
    }
    Ok(())
}

fn optional(value: &str, parse: impl Fn(&str) -> Result<u64, Failure>) -> Result<Option<u64>, Failure> {
    if value == "none" { Ok(None) } else { parse(value).map(Some) }
}
