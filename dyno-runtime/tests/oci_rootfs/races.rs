//! Somebody who shares a container's files changes them while it is made.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use anyhow::{Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    support::{self, Stage, same},
    world::Bundle,
};

/// Containers made in each race.
fn rounds() -> usize {
    if support::emulated() { 5 } else { 60 }
}

/// Exchanges two names without end while `work` is done, and fails if it never could.
fn swapping(one: &Path, other: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // The directory that both are in may itself be away for a moment.
                if renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok() {
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        done
    })?;
    let swaps = swaps.into_inner();
    println!("{swaps} swaps");
    ensure!(swaps > 0, "nothing was swapped");
    Ok(())
}

/// The host's directory that must stay empty and without mounts.
struct Victim(tempfile::TempDir);

impl Victim {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn is_untouched(&self) -> Result<()> {
        same("files of the host", fs::read_dir(self.0.path())?.count(), 0)?;
        ensure!(!fs::read_to_string("/proc/self/mountinfo")?.contains(&self.path().display().to_string()), "something was mounted on the host");
        Ok(())
    }
}

/// Creates containers until there were enough. Each is made, or refused for what it found; when made, `look` sees it.
fn many(bundle: &Bundle<'_>, look: impl Fn(&super::world::Created) -> Result<()>) -> Result<()> {
    let mut made = 0;
    for _ in 0..rounds() {
        match bundle.create() {
            Ok(created) => {
                made += 1;
                look(&created)?;
                created.delete()?;
            }
            Err(e) => {
                let said = format!("{e:#}");
                ensure!(said.contains("mount /data") || said.contains("must be mounted"), "another failure: {said}");
            }
        }
    }
    println!("{made} of {} containers were made", rounds());
    Ok(())
}

/// CVE-2021-30465: the destination is a directory at one moment and a symlink to the host's at the next.
pub fn destination(stage: &Stage) -> Result<()> {
    let victim = Victim::new()?;
    let mut bundle = Bundle::new(stage)?;
    fs::create_dir_all(bundle.dir.join("source"))?;
    fs::create_dir_all(bundle.root("/data"))?;
    symlink(victim.path(), bundle.root("/link"))?;
    bundle.bind("/data", "source", &["bind"]).mount("/data", "tmpfs", "tmpfs", &[]);
    let inside = victim.path().display().to_string();
    swapping(&bundle.root("/data"), &bundle.root("/link"), || {
        many(&bundle, |created| {
            let there = created.mounts()?.into_iter().filter(|m| [inside.as_str(), "/data", "/link"].contains(&m.at.as_str())).count();
            ensure!(there >= 1, "the mounts are elsewhere: {:#?}", created.mounts()?);
            victim.is_untouched()
        })
    })?;
    victim.is_untouched()
}

/// CVE-2024-45310: a directory on the way to a destination that is to be made is swapped for a symlink to the host's.
pub fn parent(stage: &Stage) -> Result<()> {
    let victim = Victim::new()?;
    let mut bundle = Bundle::new(stage)?;
    fs::create_dir_all(bundle.dir.join("source"))?;
    fs::write(bundle.dir.join("one"), "one")?;
    fs::create_dir_all(bundle.root("/data"))?;
    symlink(victim.path(), bundle.root("/link"))?;
    bundle.bind("/data/a/b/c", "source", &["bind"]).bind("/data/x/file", "one", &["bind"]).mount("/data/t/u", "tmpfs", "tmpfs", &["tmpcopyup"]);
    swapping(&bundle.root("/data"), &bundle.root("/link"), || {
        many(&bundle, |_| {
            for way in ["/data", "/link"] {
                let way = bundle.root(way);
                // Made anew each time.
                if fs::symlink_metadata(&way).is_ok_and(|m| m.is_dir()) {
                    for name in ["a", "x", "t"] {
                        fs::remove_dir_all(way.join(name)).unwrap_or_default();
                    }
                }
            }
            victim.is_untouched()
        })
    })?;
    victim.is_untouched()
}

/// What is copied up comes from below the destination, not from where a swapped symlink leads.
pub fn copy_up(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    let outside = tempfile::tempdir()?;
    fs::write(outside.path().join("file"), "the host's secret")?;
    fs::create_dir_all(bundle.root("/data/dir"))?;
    fs::write(bundle.root("/data/dir/file"), "the image's")?;
    symlink(outside.path(), bundle.root("/data/link"))?;
    bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    swapping(&bundle.root("/data/dir"), &bundle.root("/data/link"), || {
        many(&bundle, |created| {
            for name in ["dir", "link"] {
                let path = created.inside("/data").join(name);
                // A symlink would be resolved here, outside.
                if fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
                    let text = fs::read_to_string(path.join("file")).unwrap_or_default();
                    ensure!(text != "the host's secret", "copied from outside");
                }
            }
            Ok(())
        })
    })
}
