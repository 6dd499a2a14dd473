//! A scope of systemd's around a container: systemd makes the group, moves the first process into it, and is told of the limits, because
//! it writes what it believes to be right whenever it looks after its groups (a `daemon-reload` is enough).

use super::{
    Cgroup,
    bus::{Bus, Value},
    cpu, memory, refused,
};
use crate::{cgroup::file::list_of, error::Result, oci::spec::Resources};

/// Starts the scope `unit` with `pid` in it, and waits until it is there.
pub(super) fn start(unit: &str, slice: &str, pid: u32, resources: &Resources, devices: Vec<(&'static str, Value)>) -> Result<()> {
    let mut properties = vec![
        ("Description", Value::Text(format!("container {unit}"))),
        ("Slice", Value::Text(slice.to_owned())),
        ("Delegate", Value::Flag(true)),
        ("PIDs", Value::Pids(vec![pid])),
        ("DefaultDependencies", Value::Flag(false)),
        ("MemoryAccounting", Value::Flag(true)),
        ("CPUAccounting", Value::Flag(true)),
        ("IOAccounting", Value::Flag(true)),
        ("TasksAccounting", Value::Flag(true)),
    ];
    properties.extend(limits(resources, true)?);
    properties.extend(devices);
    let mut bus = Bus::connect()?;
    // Only a broker's connection needs it; the other one answers that it knows.
    let _known = bus.manager("Subscribe", "", |_| {});
    let begin = |bus: &mut Bus| {
        bus.manager("StartTransientUnit", "ssa(sv)a(sa(sv))", |out| {
            out.text(unit);
            out.text("replace");
            out.properties(&properties);
            out.array(8, |_| {});
        })
    };
    let answer = match begin(&mut bus) {
        // One that failed before is kept to be looked at.
        Err(e) if e.to_string().contains(".UnitExists") => {
            reset_failed(&mut bus, unit);
            begin(&mut bus)?
        }
        other => other?,
    };
    let job = answer.first().ok_or_else(|| refused("systemd: StartTransientUnit: it names no job"))?;
    match bus.wait(job)?.as_str() {
        "done" => Ok(()),
        result => {
            reset_failed(&mut bus, unit);
            Err(refused(format!("systemd: {unit} did not start: {result}")))
        }
    }
}

fn reset_failed(bus: &mut Bus, unit: &str) {
    if let Err(e) = bus.manager("ResetFailedUnit", "s", |out| out.text(unit)) {
        tracing::debug!(%e, "nothing to reset");
    }
}

impl Cgroup {
    /// The scope goes with its last process; where it does not, it is stopped.
    pub(super) fn stop_unit(&self) -> Result<()> {
        let Some(unit) = self.record.unit.as_deref() else { return Ok(()) };
        // systemd would ask politely, for a minute and a half.
        self.kill(rustix::process::Signal::KILL)?;
        let mut bus = Bus::connect()?;
        let _known = bus.manager("Subscribe", "", |_| {});
        let stopped = bus.manager("StopUnit", "ss", |out| {
            out.text(unit);
            out.text("replace");
        });
        match stopped {
            Ok(answer) => {
                let result = answer.first().map_or(Ok(String::new()), |job| bus.wait(job))?;
                tracing::debug!(unit, result, "stopped");
            }
            Err(e) if e.to_string().contains(".NoSuchUnit") => {}
            Err(e) => return Err(e),
        }
        reset_failed(&mut bus, unit);
        Ok(())
    }

    /// Tells systemd of other limits.
    pub(super) fn update_unit(&self, resources: &Resources) -> Result<()> {
        let Some(unit) = self.record.unit.as_deref() else { return Ok(()) };
        let properties = limits(resources, false)?;
        if properties.is_empty() {
            return Ok(());
        }
        Bus::connect()?
            .manager("SetUnitProperties", "sba(sv)", |out| {
                out.text(unit);
                // Until the next boot.
                out.word(1);
                out.properties(&properties);
            })
            .map(drop)
    }
}

/// systemd.resource-control(5). A `fresh` scope is given no limit of tasks where none is asked for: systemd has one of its own.
fn limits(resources: &Resources, fresh: bool) -> Result<Vec<(&'static str, Value)>> {
    let mut properties = Vec::new();
    // What is below 0 is without limit: u64::MAX, as systemd has it.
    let mut number = |name, value: Option<u64>| properties.extend(value.map(|value| (name, Value::Number(value))));
    let bytes = |value: Option<i64>| value.filter(|value| *value != 0).map(|value| u64::try_from(value).unwrap_or(u64::MAX));
    if let Some(asked) = &resources.memory {
        number("MemoryMax", bytes(asked.limit));
        number("MemoryLow", bytes(asked.reservation));
        let swap = memory::swap_alone(asked.swap.filter(|n| *n != 0), asked.limit.filter(|n| *n != 0))?;
        number("MemorySwapMax", swap.map(|swap| u64::try_from(swap).unwrap_or(u64::MAX)));
    }
    if let Some(asked) = &resources.cpu {
        number("CPUWeight", if asked.idle == Some(1) { Some(0) } else { asked.shares.filter(|shares| *shares != 0).map(cpu::weight) });
        let period = asked.period.filter(|period| *period != 0);
        number("CPUQuotaPeriodUSec", period);
        number("CPUQuotaPerSecUSec", asked.quota.filter(|quota| *quota != 0).map(|quota| per_second(quota, period.unwrap_or(100_000))));
    }
    match resources.pids.as_ref().and_then(|pids| pids.limit) {
        Some(limit) => number("TasksMax", Some(u64::try_from(limit).map_or(u64::MAX, |limit| limit.max(1)))),
        None if fresh => number("TasksMax", Some(u64::MAX)),
        None => {}
    }
    let cpu = resources.cpu.as_ref();
    for (name, list) in [("AllowedCPUs", cpu.and_then(|cpu| cpu.cpus.as_ref())), ("AllowedMemoryNodes", cpu.and_then(|cpu| cpu.mems.as_ref()))] {
        properties.extend(list.filter(|list| !list.is_empty()).map(|list| (name, Value::Bytes(bits(list)))));
    }
    Ok(properties)
}

/// Microseconds of each second, in whole hundredths: systemd counts in per cent, and what is below must not be allowed more.
fn per_second(quota: i64, period: u64) -> u64 {
    let Ok(quota) = u64::try_from(quota) else { return u64::MAX };
    quota.saturating_mul(1_000_000).div_ceil(period).next_multiple_of(10_000)
}

/// A set of numbers as bits, the lowest first.
fn bits(list: &str) -> Vec<u8> {
    let mut bits = Vec::new();
    for n in list_of(list) {
        let (byte, bit) = (n as usize / 8, n % 8);
        if bits.len() <= byte {
            bits.resize(byte + 1, 0u8);
        }
        bits[byte] |= 1 << bit;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::spec::{Cpu, Memory, Pids};

    #[test]
    fn limits_as_properties() {
        let resources = Resources {
            memory: Some(Memory { limit: Some(4096), swap: Some(8192), reservation: Some(-1), ..Memory::default() }),
            cpu: Some(Cpu { shares: Some(1024), quota: Some(5000), cpus: Some("0-1,9".into()), ..Cpu::default() }),
            pids: Some(Pids { limit: Some(0) }),
            ..Resources::default()
        };
        let number = |n| Value::Number(n);
        let want = vec![
            ("MemoryMax", number(4096)),
            ("MemoryLow", number(u64::MAX)),
            ("MemorySwapMax", number(4096)),
            ("CPUWeight", number(100)),
            ("CPUQuotaPerSecUSec", number(50_000)),
            ("TasksMax", number(1)),
            ("AllowedCPUs", Value::Bytes(vec![3, 2])),
        ];
        assert_eq!(limits(&resources, true).unwrap(), want);
        assert_eq!(limits(&Resources::default(), true).unwrap(), [("TasksMax", number(u64::MAX))]);
        assert_eq!(limits(&Resources::default(), false).unwrap(), []);
        let idle = Resources { cpu: Some(Cpu { shares: Some(1024), idle: Some(1), quota: Some(-1), ..Cpu::default() }), ..Resources::default() };
        assert_eq!(limits(&idle, false).unwrap(), [("CPUWeight", number(0)), ("CPUQuotaPerSecUSec", number(u64::MAX))]);
    }

    #[test]
    fn quotas_are_rounded_up() {
        assert_eq!(
            [(1, 1000), (33_333, 100_000), (200_000, 100_000), (-1, 100)].map(|(q, p)| per_second(q, p)),
            [10_000, 340_000, 2_000_000, u64::MAX]
        );
        assert_eq!((bits("0"), bits("7,8"), bits("")), (vec![1], vec![128, 1], vec![]));
    }
}
