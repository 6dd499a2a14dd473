//! `linux.resources.memory`.
//!
//! | member            | v1                              | v2                                              |
//! |-------------------|---------------------------------|-------------------------------------------------|
//! | limit             | memory.limit_in_bytes           | memory.max                                      |
//! | swap (with memory)| memory.memsw.limit_in_bytes     | memory.swap.max = swap - limit                  |
//! | reservation       | memory.soft_limit_in_bytes      | memory.low                                      |
//! | kernelTCP         | memory.kmem.tcp.limit_in_bytes  | none                                            |
//! | swappiness        | memory.swappiness               | none                                            |
//! | disableOOMKiller  | memory.oom_control              | none                                            |
//! | kernel            | ignored (gone since Linux 6.1; the specification allows it)                        ||
//!
//! 0 stands for "not given", as Go programs write it.

use super::{Now, ask::Ask, refused};
use crate::{
    cgroup::{
        Version,
        knob::{Reads, whole_pages},
    },
    error::Result,
    oci::spec::{Memory, Resources},
};

pub(super) fn asks(resources: &Resources, version: Version, now: Now<'_>) -> Result<Vec<Ask>> {
    let Some(memory) = &resources.memory else { return Ok(Vec::new()) };
    if memory.check_before_update == Some(true) {
        must_fit(memory, now(if version == Version::V1 { "memory.usage_in_bytes" } else { "memory.current" }))?;
    }
    match version {
        Version::V1 => v1(memory),
        Version::V2 => v2(memory),
    }
}

/// Given, and not 0.
fn given(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

/// v2 would make a limit below what is used true by killing.
fn must_fit(memory: &Memory, used: Option<String>) -> Result<()> {
    let Some(used) = used.and_then(|text| text.trim().parse::<u64>().ok()) else { return Ok(()) };
    for (what, limit) in [("memory+swap", memory.swap), ("memory", memory.limit)] {
        if let Some(limit) = limit.filter(|limit| *limit > 0)
            && limit.unsigned_abs() <= used
        {
            return Err(refused(format!("linux.resources.memory: rejecting {what} limit {limit} <= usage {used}")));
        }
    }
    Ok(())
}

/// A number of bytes; what is below 0 is without limit.
fn bytes(member: &str, file: &str, value: i64, none: &str) -> Ask {
    let member = format!("memory.{member}");
    match u64::try_from(value) {
        Ok(bytes) => Ask::new(member, file, bytes).reads(match whole_pages(bytes) {
            // More than the kernel counts.
            pages if pages >= 1 << 62 => Reads::Unlimited,
            pages => Reads::Number(pages),
        }),
        Err(_) => Ask::new(member, file, none).reads(Reads::Unlimited),
    }
}

fn v1(memory: &Memory) -> Result<Vec<Ask>> {
    let mut asks = Vec::new();
    let mut ask = |member, file, value| asks.extend(given(value).map(|value| bytes(member, file, value, "-1")));
    ask("limit", "memory.limit_in_bytes", memory.limit);
    ask("swap", "memory.memsw.limit_in_bytes", memory.swap);
    ask("reservation", "memory.soft_limit_in_bytes", memory.reservation);
    ask("kernelTCP", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp);
    if memory.limit == Some(-1) && given(memory.swap).is_none() {
        // No limit of memory is none of both together either.
        asks.push(bytes("swap", "memory.memsw.limit_in_bytes", -1, "-1").optional());
    }
    if memory.use_hierarchy == Some(true) {
        asks.push(Ask::new("memory.useHierarchy", "memory.use_hierarchy", 1));
    }
    if memory.disable_oom_killer == Some(true) {
        asks.push(Ask::new("memory.disableOOMKiller", "memory.oom_control", 1));
    }
    if let Some(swappiness) = memory.swappiness.filter(|s| *s != u64::MAX) {
        if swappiness > 100 {
            return Err(refused(format!("linux.resources.memory.swappiness: {swappiness} is not from 0 to 100")));
        }
        asks.push(Ask::number("memory.swappiness", "memory.swappiness", swappiness));
    }
    Ok(asks)
}

fn v2(memory: &Memory) -> Result<Vec<Ask>> {
    let only_v1 = [
        ("kernelTCP", given(memory.kernel_tcp).is_some_and(|value| value > 0)),
        ("swappiness", memory.swappiness.is_some_and(|s| s != u64::MAX)),
        ("disableOOMKiller", memory.disable_oom_killer == Some(true)),
        ("useHierarchy", memory.use_hierarchy == Some(false)),
    ];
    if let Some((member, _)) = only_v1.into_iter().find(|(_, asked)| *asked) {
        return Err(refused(format!(
            "linux.resources.memory.{member}: only v1 control groups can do that, and this host's memory controller is on v2"
        )));
    }
    let mut asks = Vec::new();
    if let Some(swap) = swap_alone(given(memory.swap), given(memory.limit))? {
        let ask = bytes("swap", "memory.swap.max", swap, "max");
        // Without swap there is none to limit.
        asks.push(if swap <= 0 { ask.optional() } else { ask });
    }
    asks.extend(given(memory.limit).map(|limit| bytes("limit", "memory.max", limit, "max")));
    asks.extend(given(memory.reservation).map(|low| bytes("reservation", "memory.low", low, "max")));
    Ok(asks)
}

/// v2 counts swap by itself, the specification memory and swap together.
pub(super) fn swap_alone(both: Option<i64>, limit: Option<i64>) -> Result<Option<i64>> {
    match (both, limit) {
        (None, Some(-1)) => Ok(Some(-1)),
        (None, _) => Ok(None),
        (Some(both), _) if both < 0 => Ok(Some(-1)),
        (Some(both), Some(limit)) if limit < 0 => Ok(Some(both)),
        (Some(_), None) => Err(refused("linux.resources.memory.swap: memory and swap together cannot be limited without memory.limit on v2")),
        (Some(both), Some(limit)) if both < limit => {
            Err(refused(format!("linux.resources.memory: swap (memory and swap together) {both} is below limit {limit}")))
        }
        (Some(both), Some(limit)) => Ok(Some(both - limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(memory: Memory, version: Version) -> Vec<(String, String)> {
        let resources = Resources { memory: Some(memory), ..Resources::default() };
        asks(&resources, version, &|_| None).unwrap().into_iter().map(|ask| (ask.files[0].clone(), ask.value)).collect()
    }

    fn check(memory: Memory, version: Version, want: &[(&str, &str)]) {
        let is = pairs(memory.clone(), version);
        assert_eq!(is, want.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect::<Vec<_>>(), "{memory:?} {version:?}");
    }

    #[test]
    fn limits_of_both_versions() {
        use Version::{V1, V2};
        let both = Memory { limit: Some(4096), swap: Some(12_288), reservation: Some(8192), ..Memory::default() };
        check(
            both.clone(),
            V1,
            &[("memory.limit_in_bytes", "4096"), ("memory.memsw.limit_in_bytes", "12288"), ("memory.soft_limit_in_bytes", "8192")],
        );
        check(both, V2, &[("memory.swap.max", "8192"), ("memory.max", "4096"), ("memory.low", "8192")]);
        let none = Memory { limit: Some(-1), ..Memory::default() };
        check(none.clone(), V1, &[("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")]);
        check(none, V2, &[("memory.swap.max", "max"), ("memory.max", "max")]);
        let zero = Memory {
            limit: Some(0),
            swap: Some(0),
            reservation: Some(0),
            kernel: Some(5),
            kernel_tcp: Some(0),
            disable_oom_killer: Some(false),
            ..Memory::default()
        };
        check(zero.clone(), V1, &[]);
        check(zero, V2, &[]);
        check(Memory { limit: Some(4096), swap: Some(4096), ..Memory::default() }, V2, &[("memory.swap.max", "0"), ("memory.max", "4096")]);
        check(Memory { limit: Some(4096), swap: Some(-1), ..Memory::default() }, V2, &[("memory.swap.max", "max"), ("memory.max", "4096")]);
        check(Memory { limit: Some(-1), swap: Some(4096), ..Memory::default() }, V2, &[("memory.swap.max", "4096"), ("memory.max", "max")]);
    }

    #[test]
    fn the_rest_of_v1() {
        let memory = Memory { swappiness: Some(0), disable_oom_killer: Some(true), kernel_tcp: Some(-1), ..Memory::default() };
        check(memory, Version::V1, &[("memory.kmem.tcp.limit_in_bytes", "-1"), ("memory.oom_control", "1"), ("memory.swappiness", "0")]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refuse = |memory: Memory, version, used: Option<&str>, word: &str| {
            let resources = Resources { memory: Some(memory), ..Resources::default() };
            let e = asks(&resources, version, &|_| used.map(str::to_owned)).unwrap_err().to_string();
            assert!(e.contains(word), "{e}");
        };
        let memory = Memory::default;
        refuse(Memory { swappiness: Some(101), ..memory() }, Version::V1, None, "swappiness");
        refuse(Memory { swappiness: Some(5), ..memory() }, Version::V2, None, "swappiness");
        refuse(Memory { disable_oom_killer: Some(true), ..memory() }, Version::V2, None, "disableOOMKiller");
        refuse(Memory { swap: Some(5), ..memory() }, Version::V2, None, "without memory.limit");
        refuse(Memory { limit: Some(6), swap: Some(5), ..memory() }, Version::V2, None, "below limit");
        let careful = Memory { limit: Some(4096), check_before_update: Some(true), ..memory() };
        refuse(careful.clone(), Version::V2, Some("4096\n"), "<= usage 4096");
        refuse(careful, Version::V1, Some("5000\n"), "<= usage 5000");
    }

    #[test]
    fn what_the_file_says_then() {
        let reads = |value| bytes("limit", "x", value, "max").reads.unwrap();
        assert_eq!((reads(5000), reads(-1), reads(i64::MAX)), (Reads::Number(4096), Reads::Unlimited, Reads::Unlimited));
    }
}
