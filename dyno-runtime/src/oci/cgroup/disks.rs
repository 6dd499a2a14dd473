//! `linux.resources.blockIO`. Weights are 10 to 1000; BFQ's files take them as they are, iocost's `io.weight` counts from 1 to 10000.

use super::{Now, ask::Ask, refused};
use crate::{
    cgroup::{Version, knob::Reads},
    error::{Error, ErrorKind, Result},
    oci::spec::{BlockIo, Resources, ThrottleDevice},
};

pub(super) fn asks(resources: &Resources, version: Version, now: Now<'_>) -> Result<Vec<Ask>> {
    let Some(io) = &resources.block_io else { return Ok(Vec::new()) };
    let mut asks = weights(io, version, now)?;
    let throttles = [
        ("throttleReadBpsDevice", &io.throttle_read_bps_device, "read_bps", "rbps"),
        ("throttleWriteBpsDevice", &io.throttle_write_bps_device, "write_bps", "wbps"),
        ("throttleReadIOPSDevice", &io.throttle_read_iops_device, "read_iops", "riops"),
        ("throttleWriteIOPSDevice", &io.throttle_write_iops_device, "write_iops", "wiops"),
    ];
    for (member, devices, v1, v2) in throttles {
        asks.extend(devices.iter().map(|device| throttle(member, device, version, v1, v2)));
    }
    Ok(asks)
}

/// A ceiling; 0 takes it off.
fn throttle(member: &str, device: &ThrottleDevice, version: Version, v1: &str, v2: &'static str) -> Ask {
    let (name, rate) = (format!("{}:{}", device.major, device.minor), Some(device.rate).filter(|rate| *rate != 0));
    let member = format!("blockIO.{member}");
    match version {
        Version::V1 => {
            let value = format!("{name} {}", device.rate);
            Ask::new(member, format!("blkio.throttle.{v1}_device"), value).reads(Reads::Device(name, vec![("", rate)]))
        }
        Version::V2 => {
            let value = format!("{name} {v2}={}", rate.map_or("max".to_owned(), |rate| rate.to_string()));
            Ask::new(member, "io.max", value).reads(Reads::Device(name, vec![(v2, rate)]))
        }
    }
}

fn weights(io: &BlockIo, version: Version, now: Now<'_>) -> Result<Vec<Ask>> {
    let mut asks = Vec::new();
    let given = |weight: Option<u16>| weight.filter(|weight| *weight != 0).map(u64::from);
    let leaf = io.leaf_weight.into_iter().chain(io.weight_device.iter().filter_map(|d| d.leaf_weight)).any(|weight| weight != 0);
    if version == Version::V2 && leaf {
        return Err(refused("linux.resources.blockIO.leafWeight: only v1 control groups can do that, and this host's io controller is on v2"));
    }
    // Asked once; iocost counts otherwise.
    let bfq = version == Version::V1 || now("io.bfq.weight").is_some();
    if let Some(weight) = given(io.weight) {
        check_weight("weight", weight)?;
        asks.push(match version {
            Version::V1 => Ask::new("blockIO.weight", "blkio.weight", weight).or("blkio.bfq.weight").reads(Reads::Default(weight)),
            Version::V2 if bfq => Ask::new("blockIO.weight", "io.bfq.weight", weight).reads(Reads::Default(weight)),
            Version::V2 => Ask::new("blockIO.weight", "io.weight", iocost(weight)).reads(Reads::Default(iocost(weight))),
        });
    }
    if let Some(weight) = given(io.leaf_weight) {
        asks.push(Ask::number("blockIO.leafWeight", "blkio.leaf_weight", weight));
    }
    for device in &io.weight_device {
        let name = format!("{}:{}", device.major, device.minor);
        let of_device = |weight: u64| format!("{name} {weight}");
        if let Some(weight) = given(device.weight) {
            check_weight("weightDevice", weight)?;
            asks.push(match version {
                Version::V1 => Ask::new("blockIO.weightDevice", "blkio.weight_device", of_device(weight)).or("blkio.bfq.weight_device"),
                Version::V2 if bfq => Ask::new("blockIO.weightDevice", "io.bfq.weight", of_device(weight)),
                Version::V2 => Ask::new("blockIO.weightDevice", "io.weight", of_device(iocost(weight))),
            });
        }
        asks.extend(given(device.leaf_weight).map(|weight| Ask::new("blockIO.weightDevice", "blkio.leaf_weight_device", of_device(weight))));
    }
    Ok(asks)
}

/// The specification's range; BFQ's own is 1 to 1000.
fn check_weight(member: &str, weight: u64) -> Result<()> {
    if (10..=1000).contains(&weight) {
        return Ok(());
    }
    Err(Error::refused(ErrorKind::Invalid, format!("linux.resources.blockIO.{member}: {weight} is not from 10 to 1000")))
}

/// From 10 to 1000 to 1 to 10000, along a line.
fn iocost(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::spec::WeightDevice;

    fn pairs(io: &BlockIo, version: Version, files: &[&str]) -> Vec<(String, String)> {
        let resources = Resources { block_io: Some(io.clone()), ..Resources::default() };
        let now = |file: &str| files.contains(&file).then(String::new);
        asks(&resources, version, &now).unwrap().into_iter().map(|ask| (ask.files.join("|"), ask.value)).collect()
    }

    fn check(io: &BlockIo, version: Version, files: &[&str], want: &[(&str, &str)]) {
        assert_eq!(pairs(io, version, files), want.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect::<Vec<_>>());
    }

    #[test]
    fn ceilings() {
        let device = |rate| vec![ThrottleDevice { major: 8, minor: 16, rate }];
        let io = BlockIo { throttle_read_bps_device: device(600), throttle_write_iops_device: device(0), ..BlockIo::default() };
        check(&io, Version::V1, &[], &[("blkio.throttle.read_bps_device", "8:16 600"), ("blkio.throttle.write_iops_device", "8:16 0")]);
        check(&io, Version::V2, &[], &[("io.max", "8:16 rbps=600"), ("io.max", "8:16 wiops=max")]);
        let all = asks(&Resources { block_io: Some(io), ..Resources::default() }, Version::V2, &|_| None).unwrap();
        assert!(all[0].reads.as_ref().unwrap().holds("8:16 rbps=600 wbps=max riops=max wiops=max\n"));
        assert!(all[1].reads.as_ref().unwrap().holds(""));
    }

    #[test]
    fn weights_of_two_schedulers() {
        let io = BlockIo {
            weight: Some(500),
            weight_device: vec![WeightDevice { major: 8, minor: 0, weight: Some(10), leaf_weight: None }],
            ..BlockIo::default()
        };
        check(&io, Version::V1, &[], &[("blkio.weight|blkio.bfq.weight", "500"), ("blkio.weight_device|blkio.bfq.weight_device", "8:0 10")]);
        check(&io, Version::V2, &["io.bfq.weight"], &[("io.bfq.weight", "500"), ("io.bfq.weight", "8:0 10")]);
        check(&io, Version::V2, &[], &[("io.weight", "4950"), ("io.weight", "8:0 1")]);
        assert_eq!([10, 1000].map(iocost), [1, 10_000]);
        check(&BlockIo { weight: Some(0), leaf_weight: Some(0), ..BlockIo::default() }, Version::V1, &[], &[]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for io in [
            BlockIo { weight: Some(5), ..BlockIo::default() },
            BlockIo { weight: Some(1001), ..BlockIo::default() },
            BlockIo { leaf_weight: Some(50), ..BlockIo::default() },
        ] {
            assert!(asks(&Resources { block_io: Some(io), ..Resources::default() }, Version::V2, &|_| None).is_err());
        }
    }
}
