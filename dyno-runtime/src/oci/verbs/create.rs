//! `create`.

use super::{
    Failure, Outcome,
    words::{Word, Words},
};
use crate::oci::{Global, create};

pub(super) const HELP: &str = "\
Makes a container of a bundle: a directory with config.json and (usually) a root file system. Its program waits for `start`.

Usage: dyno-runtime [GLOBAL OPTIONS] create [OPTIONS] ID

  -b, --bundle DIR         the bundle; without it the working directory
  -f, --config FILE        another configuration than the bundle's config.json
      --console-socket S   Unix socket that gets the master end of the terminal (needed with process.terminal)
      --pid-file FILE      gets the number of the container's first process
      --pidfd-socket S     Unix socket that gets a pidfd of it
      --preserve-fds N     so many descriptors from 3 on (after those of LISTEN_FDS) are the program's
      --no-pivot           do not use pivot_root(2), for a root on a ramdisk
      --no-new-keyring     keep the caller's session keyring

Examples:
  dyno-runtime create --bundle /srv/web web && dyno-runtime start web
";

/// Options that `create` and `run` share; false for one that is neither's.
pub(super) fn option(request: &mut create::Request, name: &str, words: &mut Words) -> Result<bool, Failure> {
    match name {
        "bundle" | "b" => request.bundle = words.path()?,
        "config" | "f" => request.config = Some(words.path()?),
        "console-socket" => request.console_socket = Some(words.path()?),
        "pid-file" => request.pid_file = Some(words.path()?),
        "pidfd-socket" => request.pidfd_socket = Some(words.path()?),
        "preserve-fds" => request.preserve_fds = words.number()?,
        "no-pivot" => request.no_pivot = words.flag()?,
        "no-new-keyring" => request.no_new_keyring = words.flag()?,
        "no-subreaper" => request.no_subreaper = words.flag()?,
        _ => return Ok(false),
    }
    Ok(true)
}

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let (mut request, mut id) = (create::Request { bundle: ".".into(), ..Default::default() }, None);
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if option(&mut request, &name, words)? => {}
            Word::Value(value) if id.is_none() => id = Some(value),
            other => return Err(words.unexpected(&other)),
        }
    }
    request.id = words.id(id)?;
    if words.help {
        return Ok(0);
    }
    create::create(global, request)?;
    Ok(0)
}
