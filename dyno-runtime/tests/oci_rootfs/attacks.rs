//! Images that are made to lead the runtime astray.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::PathBuf,
};

use anyhow::{Result, ensure};
use rustix::fs::makedev;
use serde_json::json;

use super::{
    support::{Stage, same},
    world::Bundle,
};

/// A directory of the host's that an image's symlinks lead to, and that must stay as it is.
struct Target(tempfile::TempDir);

impl Target {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::create_dir_all(dir.path().join("below"))?;
        fs::write(dir.path().join("file"), "the host's")?;
        Ok(Self(dir))
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Fails when something was made or mounted there.
    fn is_untouched(&self) -> Result<()> {
        let mut names: Vec<_> = fs::read_dir(self.path())?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
        names.sort();
        same("what is in the host's directory", names, vec!["below".into(), "file".into()])?;
        same("below it", fs::read_dir(self.path().join("below"))?.count(), 0)?;
        same("its file", fs::read_to_string(self.path().join("file"))?, "the host's".into())?;
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(!table.contains(&self.path().display().to_string()), "something is mounted on the host: {table}");
        Ok(())
    }
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2025-54867: `/proc` or `/sys` of the image is a symlink, or lies behind one.
pub fn proc_symlinks(stage: &Stage) -> Result<()> {
    let host = Target::new()?;
    for name in ["/proc", "/sys"] {
        for target in [host.path(), "/etc".into(), "nowhere".into(), "/".into()] {
            let mut bundle = Bundle::new(stage)?;
            fs::remove_dir(bundle.root(name))?;
            symlink(&target, bundle.root(name))?;
            let said = bundle.refused()?;
            ensure!(said.contains("must be mounted on ordinary directory"), "{name} -> {}: {said:?}", target.display());
            ensure!(!bundle.root("/nowhere").exists(), "{name}: the target was made");
            // A file there is refused too.
            fs::remove_file(bundle.root(name))?;
            fs::write(bundle.root(name), "")?;
            ensure!(bundle.refused()?.contains("must be mounted on ordinary directory"), "{name} is a file");
            bundle.only(|_| false);
        }
    }
    host.is_untouched()
}

/// CVE-2026-41579: `/dev` of the image leads out, or to another directory of the image.
pub fn dev_symlink(stage: &Stage) -> Result<()> {
    let host = Target::new()?;
    for target in [host.path(), PathBuf::from("../../../../../../..").join(host.path().strip_prefix("/")?)] {
        for with_mount in [true, false] {
            let mut bundle = Bundle::new(stage)?;
            fs::remove_dir(bundle.root("/dev"))?;
            symlink(&target, bundle.root("/dev"))?;
            if !with_mount {
                bundle.only(|at| !at.starts_with("/dev"));
            }
            let created = bundle.create()?;
            // It is the directory of that name inside.
            let inside = created.inside(&host.path().display().to_string());
            same("null", fs::symlink_metadata(inside.join("null"))?.rdev(), makedev(1, 3))?;
            host.is_untouched()?;
            created.delete()?;
        }
    }
    Ok(())
}

/// CVE-2025-31133, CVE-2026-88265: what masks a file is the null device, whatever the image has in its place.
pub fn null(stage: &Stage) -> Result<()> {
    let host = Target::new()?;
    let pattern = fs::read("/proc/sys/kernel/core_pattern")?;
    for with_mount in [true, false] {
        let mut bundle = Bundle::new(stage)?;
        symlink("/proc/sys/kernel/core_pattern", bundle.root("/dev/null"))?;
        symlink(host.path(), bundle.root("/dev/pts"))?;
        fs::write(bundle.root("/secret"), "secret")?;
        bundle.set("/linux/maskedPaths", json!(["/secret", "/proc/keys"]));
        if with_mount {
            let created = bundle.create()?;
            for path in ["/secret", "/dev/null"] {
                same(path, fs::metadata(created.inside(path))?.rdev(), makedev(1, 3))?;
            }
            created.delete()?;
        } else {
            bundle.only(|at| !at.starts_with("/dev"));
            let said = bundle.refused()?;
            ensure!(said.contains("device /dev/null: something else exists there"), "{said:?}");
        }
    }
    same("core_pattern", fs::read("/proc/sys/kernel/core_pattern")?, pattern)?;
    host.is_untouched()
}

/// CVE-2019-16884, CVE-2021-30465, CVE-2024-45310 without a race: symlinks on the way to a destination lead where they lead inside.
pub fn destinations(stage: &Stage) -> Result<()> {
    let host = Target::new()?;
    let mut bundle = Bundle::new(stage)?;
    fs::create_dir(bundle.dir.join("source"))?;
    fs::write(bundle.dir.join("one"), "one")?;
    let up = PathBuf::from("../../../../../../../..");
    for (link, target) in
        [("/a", host.path()), ("/b", up.join(host.path().strip_prefix("/")?)), ("/c", host.path().join("file")), ("/d", host.path().join("new/er"))]
    {
        symlink(target, bundle.root(link))?;
    }
    bundle.bind("/a/below", "source", &["bind"]).bind("/b/other", "source", &["bind"]).bind("/c", "one", &["bind"]).bind("/d/file", "one", &["bind"]);
    bundle.mount("/a/made", "tmpfs", "tmpfs", &[]);
    let created = bundle.create()?;
    let inside = host.path().display().to_string();
    for (path, kind) in [("below", "dir"), ("other", "dir"), ("file", "file"), ("new/er/file", "file"), ("made", "dir")] {
        let is = created.at(&format!("{inside}/{path}"))?;
        same(path, fs::metadata(created.inside(&is.at))?.is_dir(), kind == "dir")?;
    }
    created.delete()?;
    host.is_untouched()?;
    // To the top of the root, where a mount would hide from us what `exec` comes to; and by a magic link of procfs.
    for (link, target, words) in [("/top", "/", "the top of the root"), ("/magic", "/proc/self/root", "too many levels of symbolic links")] {
        let mut bundle = Bundle::new(stage)?;
        symlink(target, bundle.root(link))?;
        bundle.mount(link, "tmpfs", "tmpfs", &[]);
        let said = bundle.refused()?;
        ensure!(said.contains(words), "{link}: {said:?}");
    }
    // A loop ends.
    let mut bundle = Bundle::new(stage)?;
    symlink("/y", bundle.root("/x"))?;
    symlink("/x", bundle.root("/y"))?;
    bundle.mount("/x/z", "tmpfs", "tmpfs", &[]);
    ensure!(bundle.refused()?.contains("too many levels of symbolic links"), "a loop of symlinks");
    Ok(())
}

/// CVE-2019-16884: nothing is mounted over procfs, by its name or through a symlink, but what emulates a file of it.
pub fn over_procfs(stage: &Stage) -> Result<()> {
    let fresh = |link: Option<(&str, &str)>| -> Result<Bundle<'_>> {
        let bundle = Bundle::new(stage)?;
        fs::create_dir(bundle.dir.join("source"))?;
        fs::write(bundle.dir.join("one"), "one")?;
        if let Some((link, target)) = link {
            symlink(target, bundle.root(link))?;
        }
        Ok(bundle)
    };
    for (to, link, file) in [
        ("/proc/self/attr", None, false),
        ("/proc/sys/kernel", None, false),
        ("/x", Some(("/x", "/proc/sys")), false),
        ("/x/version", Some(("/x", "proc")), true),
        ("/proc", None, false),
    ] {
        let mut bundle = fresh(link)?;
        bundle.bind(to, if file { "one" } else { "source" }, &["bind"]);
        let said = bundle.refused()?;
        ensure!(said.contains("proc"), "{to}: {said:?}");
    }
    let mut bundle = fresh(None)?;
    bundle.mount("/proc/sys", "tmpfs", "tmpfs", &[]);
    ensure!(bundle.refused()?.contains("/proc"), "a tmpfs over /proc/sys");
    let mut bundle = fresh(None)?;
    bundle.bind("/proc/meminfo", "one", &["bind"]);
    let created = bundle.create()?;
    same("an emulated file", fs::read_to_string(created.inside("/proc/meminfo"))?, "one".into())?;
    created.delete()
}

/// CVE-2025-52881: a kernel parameter is written to a procfs, never to what the image has under its name.
pub fn sysctl(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    fs::create_dir_all(bundle.root("/proc/sys/net/ipv4"))?;
    fs::write(bundle.root("/proc/sys/net/ipv4/ip_forward"), "the image's")?;
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})).only(|at| at != "/proc");
    bundle.create()?.delete()?;
    same("the image's file", fs::read_to_string(bundle.root("/proc/sys/net/ipv4/ip_forward"))?, "the image's".into())
}
