//! `spec`.

use std::{fs::OpenOptions, io::Write, path::PathBuf};

use rustix::process::{getegid, geteuid};

use super::{
    Failure, Outcome,
    words::{Word, Words},
};
use crate::oci::{Global, spec};

pub(super) const HELP: &str = "\
Writes a config.json to begin with: a shell on a terminal, in new namespaces, of a read-only `rootfs`.

Usage: dyno-runtime spec [OPTIONS]

  -b, --bundle DIR   where; without it the working directory
  -f, --file FILE    another name than config.json
      --rootless     for a user without privileges

Examples:
  mkdir -p web/rootfs && dyno-runtime spec --bundle web
";

pub(super) fn run(_: &Global, words: &mut Words) -> Outcome {
    let (mut bundle, mut file, mut rootless) = (PathBuf::from("."), PathBuf::from("config.json"), false);
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if name == "bundle" || name == "b" => bundle = words.path()?,
            Word::Option(name) if name == "file" || name == "f" => file = words.path()?,
            Word::Option(name) if name == "rootless" => rootless = words.flag()?,
            other => return Err(words.unexpected(&other)),
        }
    }
    if words.help {
        return Ok(0);
    }
    let ids = rootless.then(|| (geteuid().as_raw(), getegid().as_raw()));
    let text = spec::example_text(ids)?;
    let path = bundle.join(file);
    let made = OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    match made {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::new(format!("file {} exists: remove it first", path.display()))),
        other => other.map(|()| 0).map_err(|e| Failure::new(format!("write {}: {e}", path.display()))),
    }
}
