//! `linux.netDevices`: interfaces of the host's that become the container's.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, open};

use crate::{
    error::{Context, Error, Result},
    net,
};

/// Moves each (name outside, name inside) into the network namespace of process `pid`.
///
/// # Errors
/// Those of moving, each with the interface's name.
pub fn give(devices: &[(String, String)], pid: u32) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{pid}/ns/net");
    let netns = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).wall(|| format!("open({path})"))?;
    devices.iter().try_for_each(|(name, inside)| {
        net::hand_over(name, inside, netns.as_fd()).map_err(|e| Error::refused(e.kind(), format!("linux.netDevices.{name}: {e}")))
    })
}
