//! `/dev`.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use anyhow::{Result, ensure};
use rustix::fs::{major, makedev, minor};
use serde_json::json;

use super::{
    support::{Stage, same},
    world::{Bundle, Created},
};

const ALWAYS: [(&str, u32, u32); 6] = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] =
    [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx")];

/// The six devices and the links, owned by `owner`.
pub fn check(created: &Created, owner: u32) -> Result<()> {
    for (name, at, number) in ALWAYS {
        let meta = fs::symlink_metadata(created.inside(&format!("/dev/{name}")))?;
        ensure!(meta.file_type().is_char_device(), "{name} is {meta:?}");
        same(name, (major(meta.rdev()), minor(meta.rdev()), meta.mode() & 0o7777, meta.uid(), meta.gid()), (at, number, 0o666, owner, owner))?;
    }
    for (name, target) in LINKS {
        same(name, fs::read_link(created.inside(&format!("/dev/{name}")))?.as_path(), Path::new(target))?;
    }
    same("core", created.inside("/dev/core").is_symlink(), Path::new("/proc/kcore").exists())
}

/// Those of the configuration too, with mode and owner, also outside of `/dev`.
pub fn files(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    bundle.set(
        "/linux/devices",
        json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
            {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o666},
            {"path": "/dev/queue", "type": "p", "fileMode": 0o622},
            {"path": "/opt/zero", "type": "u", "major": 1, "minor": 5, "fileMode": 0o602},
            {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
        ]),
    );
    let created = bundle.create()?;
    check(&created, 0)?;
    let look = |path: &str| fs::symlink_metadata(created.inside(path)).map(|m| (m.mode(), m.rdev(), m.uid(), m.gid()));
    same("fuse", look("/dev/fuse")?, (0o20640, makedev(10, 229), 5, 6))?;
    same("tun", look("/dev/net/tun")?, (0o20666, makedev(10, 200), 0, 0))?;
    same("its directory", look("/dev/net")?.0, 0o40755)?;
    same("FIFO", look("/dev/queue")?.0, 0o10622)?;
    same("outside of /dev", look("/opt/zero")?, (0o20602, makedev(1, 5), 0, 0))?;
    created.delete()
}

/// Where no file system is mounted at `/dev` they are made in the image's directory; a second container finds them there.
pub fn plain_directory(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    bundle.only(|at| !at.starts_with("/dev"));
    for _ in 0..2 {
        let created = bundle.create()?;
        check(&created, 0)?;
        created.delete()?;
    }
    // Something else in a device's place is an error, as the specification says.
    fs::remove_file(bundle.root("/dev/full"))?;
    fs::write(bundle.root("/dev/full"), "")?;
    let said = bundle.refused()?;
    ensure!(said.contains("device /dev/full: something else exists there"), "{said:?}");
    Ok(())
}

/// A bound `/dev` is left as it is.
pub fn bound(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    fs::create_dir(bundle.dir.join("dev"))?;
    fs::write(bundle.dir.join("dev/null"), "no device")?;
    bundle.only(|at| !at.starts_with("/dev")).bind("/dev", "dev", &["bind"]);
    let created = bundle.create()?;
    same("files", fs::read_dir(bundle.dir.join("dev"))?.count(), 1)?;
    created.delete()
}
