//! `delete`.

use rustix::process::Signal;

use super::{
    Failure, Outcome,
    kill::let_die,
    must_end,
    words::{Word, Words},
};
use crate::{
    error::Context,
    oci::{
        Global,
        afterwards::LetGo,
        cgroup::Cgroup,
        hooks, rootfs,
        state::{First, Held, Record, StateDir, Status, missing},
    },
    sys,
};

pub(super) const HELP: &str = "\
Deletes a container that has stopped or was never started: its control groups and its directory; then runs its poststop hooks.

Usage: dyno-runtime [GLOBAL OPTIONS] delete [OPTIONS] ID

  -f, --force   kill it first if it runs; no error if there is none
  -r, --regex   ID is an extended regular expression: all containers that it fits

Examples:
  dyno-runtime delete web
  dyno-runtime delete --force --regex '^test-'
";

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let (mut force, mut regex, mut id) = (false, false, None);
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if name == "force" || name == "f" => force = words.flag()?,
            Word::Option(name) if name == "regex" || name == "r" => regex = words.flag()?,
            Word::Value(value) if id.is_none() => id = Some(value),
            other => return Err(words.unexpected(&other)),
        }
    }
    let id = words.id(id)?;
    if words.help {
        return Ok(0);
    }
    let ids = if regex { fitting(global, &id)? } else { vec![id] };
    for id in ids {
        delete(global, &id, force)?;
    }
    Ok(0)
}

/// Ids that a regular expression fits.
pub(super) fn fitting(global: &Global, regex: &str) -> Result<Vec<String>, Failure> {
    let fits = sys::Regex::new(regex).map_err(|e| Failure::new(format!("{regex:?} is no regular expression: {e}")))?;
    Ok(StateDir::list(&global.root)?.into_iter().filter(|id| fits.is_in(id)).collect())
}

/// Deletes one.
pub(super) fn delete(global: &Global, id: &str, force: bool) -> Result<(), Failure> {
    let Some(dir) = StateDir::find(&global.root, id)? else {
        StateDir::sweep(&global.root)?;
        return if force { Ok(()) } else { Err(missing(id).into()) };
    };
    if force && dir.is_held()? {
        // Whoever holds it may wait for a process that stands still.
        release(&dir)?;
    }
    let held = match dir.hold() {
        Ok(held) => held,
        // Somebody else deleted it while we waited.
        Err(_) if force && StateDir::find(&global.root, id)?.is_none() => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    // Killed before it wrote any, its maker had made nothing else.
    let Some(record) = held.record()? else { return Ok(held.remove()?) };
    let group = Cgroup::open(&record.cgroup)?;
    end(&held, &record, &group, force)?;
    give_back(global, &record, &group)?;
    held.remove()?;
    hooks::poststop(global, &record);
    Ok(())
}

/// Deletes one whose first process, our child, has ended, with what is at hand of it. No error if somebody else has deleted it.
pub(super) fn ended(global: &Global, dir: StateDir, record: &Record, group: &Cgroup, mounts: LetGo) -> Result<(), Failure> {
    let Some(held) = dir.hold_if_there()? else { return Ok(()) };
    give_back(global, record, group)?;
    held.remove()?;
    // A hook may unmount what the container's mounts were of.
    drop(mounts);
    hooks::poststop(global, record);
    Ok(())
}

/// Ends the first process, so that a `start` which waits for it lets go.
fn release(dir: &StateDir) -> Result<(), Failure> {
    // As long as it is made it is not waited for by a `start`, and its maker ends it or lets go.
    let Some(record) = dir.record()?.filter(|record| record.pid != 0) else { return Ok(()) };
    if dir.is_making()? {
        return Ok(());
    }
    let Some(first) = First::of(&record)? else { return Ok(()) };
    match first.signal(libc::SIGKILL) {
        Err(e) if !first.ends_within(Some(0))? => Err(e.into()),
        _ => Ok(let_die(&record, Some(&first))?),
    }
}

/// The first process must be gone. What it has left behind goes with the groups.
fn end(held: &Held, record: &Record, group: &Cgroup, force: bool) -> Result<(), Failure> {
    let (status, first) = held.status(record)?;
    let Some(first) = first else { return Ok(()) };
    if status != Status::Created && !force {
        return Err(Failure::new(format!("cannot delete container {} that is not stopped: {}", record.id, status.name())));
    }
    if let Err(e) = first.signal(libc::SIGKILL)
        && !first.ends_within(Some(0))?
    {
        return Err(e.into());
    }
    // What stands still in a freezer of v1 does not die before it is let go.
    group.kill(Signal::KILL)?;
    must_end(&first)
}

/// What the host gave.
fn give_back(global: &Global, record: &Record, group: &Cgroup) -> Result<(), Failure> {
    if record.pid != 0 {
        group.remove()?;
    } else if let Err(e) = group.remove_if_unused() {
        // Its maker was killed on the way, perhaps before it saw that groups of this name were in use already.
        global.log.warn(&e.to_string());
    }
    if let Some(below) = record.mount_below {
        rootfs::detach(&record.rootfs, below)?;
    }
    if let Some(class) = &record.intel_rdt {
        match std::fs::remove_dir(class) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.io(|| format!("rmdir({})", class.display()))?,
        }
    }
    Ok(())
}
