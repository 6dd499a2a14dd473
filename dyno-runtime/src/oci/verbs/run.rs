//! `run`: `create`, `start`, and unless detached to its end and `delete`.

use super::{
    Outcome,
    create::option,
    delete, start,
    words::{Word, Words},
};
use crate::oci::{
    Global,
    afterwards::Mounts,
    create::{self, Created},
    state::First,
    supervise::Signals,
};

pub(super) const HELP: &str = "\
Makes a container of a bundle and starts it. In the foreground its exit status is that of the program (128 and the number for a
signal), signals and the terminal are passed on, and the container is deleted after it.

Usage: dyno-runtime [GLOBAL OPTIONS] run [OPTIONS] ID

  -d, --detach             return once the program runs
      --keep               do not delete the container after its end
      --no-subreaper       do not take orphans of the container for children
  -b, --bundle DIR         the bundle; without it the working directory
  -f, --config FILE        another configuration than the bundle's config.json
      --console-socket S   Unix socket that gets the master end of the terminal (with --detach and process.terminal)
      --pid-file FILE      gets the number of the container's first process
      --pidfd-socket S     Unix socket that gets a pidfd of it
      --preserve-fds N     so many descriptors from 3 on (after those of LISTEN_FDS) are the program's
      --no-pivot           do not use pivot_root(2), for a root on a ramdisk
      --no-new-keyring     keep the caller's session keyring

Examples:
  dyno-runtime run --bundle /srv/web web
  dyno-runtime run --detach --pid-file /run/web.pid --bundle /srv/web web
";

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let (mut request, mut id) = (create::Request { bundle: ".".into(), ..Default::default() }, None);
    let (mut detach, mut keep) = (false, false);
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if option(&mut request, &name, words)? => {}
            Word::Option(name) if name == "detach" || name == "d" => detach = words.flag()?,
            Word::Option(name) if name == "keep" => keep = words.flag()?,
            Word::Value(value) if id.is_none() => id = Some(value),
            other => return Err(words.unexpected(&other)),
        }
    }
    request.id = words.id(id)?;
    if words.help {
        return Ok(0);
    }
    (request.foreground, request.begins) = (!detach, true);
    carry_out(global, request, detach, keep)
}

fn carry_out(global: &Global, request: create::Request, detach: bool, keep: bool) -> Outcome {
    let (id, subreaper) = (request.id.clone(), !request.no_subreaper);
    // From here on they are the program's: none is lost, and none ends this process before the container is deleted.
    let signals = if detach { None } else { Some(Signals::watch(subreaper)?) };
    let Created { held, record, group, pidfd, console, begun } = create::create(global, request)?;
    let first = First::child(pidfd, record.pid);
    let started = match begun {
        Some(fifo) => start::begun(global, held, &record, &first, &fifo),
        None => start::begin(global, held, &record, &group, &first, detach),
    };
    let dir = match started {
        Ok(dir) => dir,
        Err(failure) => {
            // What never ran is not kept.
            if let Err(e) = delete::delete(global, &id, true) {
                global.log.warn(&e.message);
            }
            return Err(failure);
        }
    };
    let Some(signals) = signals else { return Ok(0) };
    let mounts = Mounts::of(&first);
    let status = signals.follow(first.pidfd(), console);
    let mounts = mounts.let_go();
    if !keep {
        // No error if the caller has done it meanwhile.
        delete::ended(global, dir, &record, &group, mounts)?;
    }
    Ok(status?)
}
