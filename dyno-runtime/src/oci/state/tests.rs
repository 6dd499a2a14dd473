//! Directories of containers: taken once, read whole, given back; status as the kernel has it.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::*;
use crate::proc_stat::start_time;

fn root() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn record(id: &str) -> Record {
    Record { id: id.into(), oci_version: "1.2.0".into(), bundle: "/bundle".into(), program: true, ..Record::default() }
}

fn left(root: &Path) -> Vec<String> {
    std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A process that waits on the FIFO like a container's first, says so, and sleeps after that.
struct Waits(Child);

impl Waits {
    fn start(fifo: &Path) -> Self {
        use std::io::Read;
        let script = "exec 3<>\"$0\"; echo ready; head -c 1 <&3 >/dev/null; exec sleep 1000 3>&-";
        let mut child = Command::new("sh").arg("-c").arg(script).arg(fifo).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        Self(child)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn ids() {
    for id in ["a", "web-1", "A.b_c+d", "...", "-rf", &"x".repeat(255)] {
        valid_id(id).unwrap();
    }
    for id in ["", ".", "..", "a/b", "../x", "a b", "a\n", "ü", "a,b", "@new.1", "a\0", &"x".repeat(256), &"x".repeat(100_000)] {
        let said = valid_id(id).unwrap_err().to_string();
        assert!(said.starts_with("invalid container ID format") && said.len() < 200, "{said}");
    }
}

#[test]
fn an_id_is_one_containers() {
    let dir = root();
    let below = dir.path().join("not/there/yet");
    let taken = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| match StateDir::create(&below, "web") {
                Ok(held) => {
                    taken.fetch_add(1, Ordering::SeqCst);
                    held.save(&record("web")).unwrap();
                }
                Err(e) => assert_eq!(e.to_string(), "container with id web already exists"),
            });
        }
    });
    assert_eq!((taken.into_inner(), left(&below)), (1, vec!["web".to_owned()]));
    assert_eq!(below.metadata().unwrap().mode() & 0o777, 0o700);
    assert_eq!(below.join("web").metadata().unwrap().mode() & 0o777, 0o700);
    StateDir::open(&below, "web").unwrap().hold().unwrap().remove().unwrap();
    assert_eq!(StateDir::open(&below, "web").unwrap_err().to_string(), "container does not exist: web");
    assert!(left(&below).is_empty());
}

/// Makers and deleters of one id at once: each sees all of a container or none.
#[test]
fn made_and_deleted_at_once() {
    let dir = root();
    let (made, deleted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for n in 0..8 {
            let (made, deleted, dir) = (&made, &deleted, dir.path());
            scope.spawn(move || {
                for _ in 0..100 {
                    if n % 2 == 0 {
                        if let Ok(held) = StateDir::create(dir, "x") {
                            held.save(&record("x")).unwrap();
                            made.fetch_add(1, Ordering::SeqCst);
                        }
                    } else if let Some(found) = StateDir::find(dir, "x").unwrap() {
                        match found.hold() {
                            Ok(held) => {
                                assert!(held.record().unwrap().is_some(), "it was seen before it was whole");
                                held.remove().unwrap();
                                deleted.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(e) => assert_eq!(e.to_string(), "container does not exist: x"),
                        }
                    }
                }
            });
        }
    });
    let still = StateDir::find(dir.path(), "x").unwrap().map(|found| found.hold().unwrap().remove().unwrap()).map_or(0, |()| 1);
    assert_eq!(made.into_inner(), deleted.into_inner() + still);
    assert!(left(dir.path()).is_empty(), "{:?}", left(dir.path()));
}

#[test]
fn what_killed_runtimes_left_is_swept() {
    let dir = root();
    for name in ["@new.1.1", "@gone.2.2"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("lock"), "").unwrap();
    }
    // A maker that was killed before it came to its lock.
    std::fs::create_dir(dir.path().join("@new.3.3")).unwrap();
    assert!(StateDir::list(dir.path()).unwrap().is_empty());
    StateDir::create(dir.path(), "a").unwrap().remove().unwrap();
    assert!(left(dir.path()).is_empty());
}

#[test]
fn status_is_what_the_kernel_says() {
    let dir = root();
    let held = StateDir::create(dir.path(), "web").unwrap();
    let seen = || {
        let found = StateDir::open(dir.path(), "web").unwrap();
        let record = found.known().unwrap();
        found.status(&record).unwrap().0
    };
    assert_eq!(StateDir::open(dir.path(), "web").unwrap().known().unwrap_err().to_string(), "container does not exist: web");
    let mut of = record("web");
    held.save(&of).unwrap();
    assert_eq!(seen(), Status::Creating);
    drop(held.make_start().unwrap());
    let waits = Waits::start(&dir.path().join("web/start"));
    (of.pid, of.start_time) = (waits.0.id(), start_time(waits.0.id()).unwrap());
    held.save(&of).unwrap();
    assert_eq!(seen(), Status::Created);
    drop(held);
    assert_eq!(seen(), Status::Created);
    let mut starter = StateDir::open(dir.path(), "web").unwrap().starter().unwrap().unwrap();
    std::io::Write::write_all(&mut starter, &[GO]).unwrap();
    rustix::event::poll(&mut [rustix::event::PollFd::new(&starter, rustix::event::PollFlags::empty())], None).unwrap();
    assert_eq!(seen(), Status::Running);
    // A zombie has ended, and its number may be another's later.
    let mut other = of.clone();
    other.start_time += 1;
    StateDir::open(dir.path(), "web").unwrap().hold().unwrap().save(&other).unwrap();
    assert_eq!(seen(), Status::Stopped);
    StateDir::open(dir.path(), "web").unwrap().hold().unwrap().save(&of).unwrap();
    let first = First::of(&of).unwrap().unwrap();
    first.signal(0).unwrap();
    first.signal(libc::SIGKILL).unwrap();
    assert!(first.ends_within(Some(10_000)).unwrap());
    assert_eq!(seen(), Status::Stopped);
    assert!(First::of(&of).unwrap().is_none());
    drop(waits);
    assert_eq!(first.signal(libc::SIGTERM).unwrap_err().to_string(), "container not running: no such process");
    assert_eq!(seen(), Status::Stopped);
    of.pid = 0;
    let held = StateDir::open(dir.path(), "web").unwrap().hold().unwrap();
    held.save(&of).unwrap();
    drop(held);
    // Whoever made it was killed.
    assert_eq!(seen(), Status::Stopped);
}

#[test]
fn what_others_may_write_is_not_believed() {
    let dir = root();
    std::fs::create_dir(dir.path().join("open")).unwrap();
    std::fs::set_permissions(dir.path().join("open"), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(StateDir::open(dir.path(), "open").unwrap_err().to_string().contains("others may write there"));
    symlink("open", dir.path().join("link")).unwrap();
    StateDir::open(dir.path(), "link").unwrap_err();
    assert!(StateDir::open(&dir.path().join("open"), "web").unwrap_err().to_string().starts_with("--root "));
    assert!(StateDir::create(&dir.path().join("open"), "web").unwrap_err().to_string().starts_with("--root "));
}

#[test]
fn a_broken_record_is_told() {
    let dir = root();
    drop(StateDir::create(dir.path(), "web").unwrap());
    for text in ["", "{", "{\"id\": 7}", "\u{feff}{}"] {
        std::fs::write(dir.path().join("web/state.json"), text).unwrap();
        let said = StateDir::open(dir.path(), "web").unwrap().record().unwrap_err().to_string();
        assert!(said.contains("web/state.json: "), "{said}");
    }
}
