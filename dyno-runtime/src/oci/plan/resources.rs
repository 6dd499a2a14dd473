//! `linux.resources`, and the file that `update --resources` takes: what no host could carry out is refused, nothing is changed.

use super::{
    list,
    member::{quoted, refuse, without_nul},
};
use crate::{
    Result,
    oci::spec::{BlockIo, Cpu, DeviceRule, Memory, Resources},
};

/// Whether a value is there and fails the test.
fn fails<T: Copy>(value: Option<T>, good: impl Fn(T) -> bool) -> Option<T> {
    value.filter(|v| !good(*v))
}

/// As they stand.
pub(super) fn checked(given: Option<&Resources>) -> Result<Resources> {
    let resources = given.cloned().unwrap_or_default();
    check(&resources)?;
    Ok(resources)
}

/// Refuses limits that are none.
///
/// # Errors
/// One line that names the member.
pub fn check(resources: &Resources) -> Result<()> {
    for (i, rule) in resources.devices.iter().enumerate() {
        device_rule(&format!("linux.resources.devices[{i}]"), rule)?;
    }
    resources.memory.as_ref().map_or(Ok(()), memory)?;
    resources.cpu.as_ref().map_or(Ok(()), cpu)?;
    resources.block_io.as_ref().map_or(Ok(()), block_io)?;
    if let Some(limit) = fails(resources.pids.as_ref().and_then(|p| p.limit), |n| n >= -1) {
        return refuse("linux.resources.pids.limit", format!("{limit} is less than -1, which is no limit"));
    }
    for (i, one) in resources.hugepage_limits.iter().enumerate() {
        let digits = one.page_size.trim_end_matches("B").trim_end_matches(['K', 'M', 'G']);
        if digits.is_empty()
            || !one.page_size.ends_with('B')
            || !digits.bytes().all(|b| b.is_ascii_digit())
            || one.page_size.len() - digits.len() != 2
        {
            return refuse(format!("linux.resources.hugepageLimits[{i}].pageSize"), format!("{} is no size such as 2MB", quoted(&one.page_size)));
        }
    }
    for (i, one) in resources.network.iter().flat_map(|n| &n.priorities).enumerate() {
        interface(&format!("linux.resources.network.priorities[{i}].name"), &one.name)?;
    }
    for device in resources.rdma.keys() {
        let member = format!("linux.resources.rdma[{}]", quoted(device));
        if device.is_empty() || device.contains(|c: char| c.is_whitespace() || c == '\0') {
            return refuse(member, "is no name of a device");
        }
    }
    for (file, value) in &resources.unified {
        let member = format!("linux.resources.unified[{}]", quoted(file));
        if file.contains(['/', '\0', '\n']) || matches!(file.as_str(), "" | "." | "..") {
            return refuse(member, "is no name of a file of a control group");
        }
        without_nul(member, value)?;
    }
    Ok(())
}

/// A name that the kernel takes for a network interface (`dev_valid_name`).
pub fn interface(member: &str, name: &str) -> Result<()> {
    const LONGEST: usize = 15;
    // `%d` would make the kernel choose a number.
    if name.is_empty()
        || name.len() > LONGEST
        || matches!(name, "." | "..")
        || name.contains(|c: char| c.is_whitespace() || matches!(c, '/' | ':' | '%' | '\0'))
    {
        return refuse(member, format!("{} is no name of a network interface", quoted(name)));
    }
    Ok(())
}

fn device_rule(member: &str, rule: &DeviceRule) -> Result<()> {
    if let Some(kind) = rule.kind.as_deref().filter(|kind| !matches!(*kind, "" | "a" | "b" | "c")) {
        return refuse(format!("{member}.type"), format!("{} is none of a, b, c", quoted(kind)));
    }
    for (name, number, bits) in [("major", rule.major, 12), ("minor", rule.minor, 20)] {
        if let Some(number) = fails(number, |n| n == -1 || n >= 0 && n >> bits == 0) {
            return refuse(format!("{member}.{name}"), format!("{number} is not within -1 and {}", (1 << bits) - 1));
        }
    }
    match rule.access.as_deref() {
        Some(access) if access.len() > 3 || !access.bytes().all(|b| b"rwm".contains(&b)) => {
            refuse(format!("{member}.access"), format!("{} is not of the letters r, w, m", quoted(access)))
        }
        _ => Ok(()),
    }
}

fn memory(memory: &Memory) -> Result<()> {
    let limits = [
        ("limit", memory.limit),
        ("reservation", memory.reservation),
        ("swap", memory.swap),
        ("kernel", memory.kernel),
        ("kernelTCP", memory.kernel_tcp),
    ];
    for (name, value) in limits {
        if let Some(value) = fails(value, |v| v >= -1) {
            return refuse(format!("linux.resources.memory.{name}"), format!("{value} is less than -1, which is no limit"));
        }
    }
    if let Some(value) = fails(memory.swappiness, |v| v <= 100) {
        return refuse("linux.resources.memory.swappiness", format!("{value} is greater than 100"));
    }
    match (memory.limit, memory.swap) {
        (Some(limit), Some(swap)) if limit > 0 && swap > 0 && swap < limit => {
            refuse("linux.resources.memory.swap", format!("{swap} is less than the limit, {limit}: it is memory and swap together"))
        }
        (Some(-1), Some(swap)) if swap > 0 => refuse("linux.resources.memory.swap", format!("{swap} is less than the limit, which is none")),
        _ => Ok(()),
    }
}

fn cpu(cpu: &Cpu) -> Result<()> {
    if let Some(quota) = fails(cpu.quota, |v| v >= -1) {
        return refuse("linux.resources.cpu.quota", format!("{quota} is less than -1, which is no limit"));
    }
    if let Some(idle) = fails(cpu.idle, |v| v == 0 || v == 1) {
        return refuse("linux.resources.cpu.idle", format!("{idle} is neither 0 nor 1"));
    }
    for (name, text) in [("cpus", &cpu.cpus), ("mems", &cpu.mems)] {
        if let Some(Err(why)) = text.as_deref().map(|text| list::bits(text, 1 << 16)) {
            return refuse(format!("linux.resources.cpu.{name}"), why);
        }
    }
    Ok(())
}

fn block_io(block: &BlockIo) -> Result<()> {
    // 0 stands for absent.
    let weight = |member: &str, value: Option<u16>| match fails(value, |v| v == 0 || (10..=1000).contains(&v)) {
        Some(value) => refuse(member, format!("{value} is not within 10 and 1000")),
        None => Ok(()),
    };
    weight("linux.resources.blockIO.weight", block.weight)?;
    weight("linux.resources.blockIO.leafWeight", block.leaf_weight)?;
    for (i, one) in block.weight_device.iter().enumerate() {
        let member = format!("linux.resources.blockIO.weightDevice[{i}]");
        disk(&member, one.major, one.minor)?;
        weight(&format!("{member}.weight"), one.weight)?;
        weight(&format!("{member}.leafWeight"), one.leaf_weight)?;
    }
    let limits = [
        ("throttleReadBpsDevice", &block.throttle_read_bps_device),
        ("throttleWriteBpsDevice", &block.throttle_write_bps_device),
        ("throttleReadIOPSDevice", &block.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", &block.throttle_write_iops_device),
    ];
    for (name, all) in limits {
        for (i, one) in all.iter().enumerate() {
            disk(&format!("linux.resources.blockIO.{name}[{i}]"), one.major, one.minor)?;
        }
    }
    Ok(())
}

fn disk(member: &str, major: i64, minor: i64) -> Result<()> {
    if !(0..1 << 12).contains(&major) || !(0..1 << 20).contains(&minor) {
        return refuse(member, format!("{major}:{minor} is no number of a device"));
    }
    Ok(())
}
