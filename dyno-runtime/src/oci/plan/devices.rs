//! `linux.devices`, and those that the specification supplies always (config-linux.md, Default Devices).

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
};

use super::{
    Device,
    member::{below_root, quoted, quoted_path, refuse},
};
use crate::{Result, oci::spec};

/// Path and number of the character devices that every container has.
const ALWAYS: [(&str, u32, u32); 6] =
    [("/dev/null", 1, 3), ("/dev/zero", 1, 5), ("/dev/full", 1, 7), ("/dev/random", 1, 8), ("/dev/urandom", 1, 9), ("/dev/tty", 5, 0)];

/// Of a device file for which the configuration gives none, as runc and crun have it.
const MODE: u32 = 0o666;

/// In this order: the specification's, unless the configuration has others at their paths; then the configuration's.
pub fn lower(given: &[spec::Device]) -> Result<Vec<Device>> {
    let mut configured: Vec<Device> = Vec::new();
    let mut at: HashMap<PathBuf, usize> = HashMap::new();
    for (i, one) in given.iter().enumerate() {
        let device = device(&format!("linux.devices[{i}]"), one)?;
        match at.entry(device.path.clone()) {
            Entry::Occupied(other) if configured[*other.get()] == device => {}
            Entry::Occupied(_) => return refuse(format!("linux.devices[{i}].path"), format!("{} is given twice", quoted_path(&device.path))),
            Entry::Vacant(free) => {
                free.insert(configured.len());
                configured.push(device);
            }
        }
    }
    let mut devices: Vec<Device> = ALWAYS
        .iter()
        .map(|&(path, major, minor)| Device { path: PathBuf::from(path), kind: libc::S_IFCHR, major, minor, mode: MODE, uid: 0, gid: 0 })
        .filter(|always| !at.contains_key(&always.path))
        .collect();
    devices.append(&mut configured);
    Ok(devices)
}

fn device(member: &str, given: &spec::Device) -> Result<Device> {
    let kind = match given.kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        other => return refuse(format!("{member}.type"), format!("{} is none of c, u, b, p", quoted(other))),
    };
    let path = below_root(format_args!("{member}.path"), &given.path)?;
    // A dev_t of the kernel has 12 bits of major and 20 of minor number (linux/kdev_t.h).
    let (major, minor) = match kind {
        libc::S_IFIFO => (0, 0),
        _ => (number(member, "major", given.major, 12)?, number(member, "minor", given.minor, 20)?),
    };
    let mode = given.file_mode.unwrap_or(MODE);
    // Callers pass on what stat(2) says, file type and all.
    if mode & !(libc::S_IFMT | 0o7777) != 0 {
        return refuse(format!("{member}.fileMode"), format!("{mode:#o} has bits that no mode has"));
    }
    let (uid, gid) = (given.uid.unwrap_or(0), given.gid.unwrap_or(0));
    for (name, id) in [("uid", uid), ("gid", gid)] {
        if id == u32::MAX {
            return refuse(format!("{member}.{name}"), format!("{id} is no id"));
        }
    }
    Ok(Device { path, kind, major, minor, mode: mode & 0o7777, uid, gid })
}

fn number(member: &str, name: &str, given: i64, bits: u32) -> Result<u32> {
    match u32::try_from(given) {
        Ok(n) if n >> bits == 0 => Ok(n),
        _ => refuse(format!("{member}.{name}"), format!("{given} is not within 0 and {}", (1 << bits) - 1)),
    }
}
