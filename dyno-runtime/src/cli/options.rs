//! The options of `dyno-runtime sandbox`: flags to a description, in the order in which they are given.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use lexopt::prelude::*;

use super::{Failure, limits, networks, sandbox_from, seccomp, units};
use crate::{Layer, Sandbox, Upper, Volume};

/// Whether the program gets a terminal of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terminal {
    /// If stdin, stdout and stderr are terminals.
    Auto,
    Yes,
    No,
}

/// What was asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub help: bool,
    pub sandbox: Sandbox,
    pub terminal: Terminal,
    pub id: String,
    /// Directory of a lasting instance.
    pub state: Option<PathBuf>,
    /// Where the exit record goes.
    pub record: Option<PathBuf>,
    pub log_denied: bool,
    pub dry_run: bool,
}

impl Request {
    /// Reads the arguments.
    pub fn parse(args: Vec<OsString>) -> Result<Self, Failure> {
        let mut request = Self {
            help: false,
            sandbox: Sandbox::new(Vec::new(), Vec::<String>::new()),
            terminal: Terminal::Auto,
            id: format!("sandbox-{}", std::process::id()),
            state: None,
            record: None,
            log_denied: false,
            dry_run: false,
        };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Short('h') => request.help = true,
                Long(name) => {
                    let name = name.to_owned();
                    request.option(&name, &mut parser)?;
                }
                Value(program) => {
                    let mut argv = vec![program.string()?];
                    for word in parser.raw_args()? {
                        argv.push(word.string()?);
                    }
                    request.sandbox.argv = argv;
                    break;
                }
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(request)
    }

    fn option(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), Failure> {
        match name {
            "help" => self.help = true,
            "dry-run" => self.dry_run = true,
            "log-denied" => self.log_denied = true,
            "read-only" => self.sandbox.root.upper = Upper::ReadOnly,
            _ => {
                let value = |parser: &mut lexopt::Parser| parser.value().map_err(|e| Failure::new(format!("{e}: see `dyno-runtime sandbox --help`")));
                let known = KNOWN.contains(&name) || limits::KNOWN.contains(&name) || networks::KNOWN.contains(&name);
                if !known {
                    return Err(Failure::new(format!("option --{name} does not exist: see `dyno-runtime sandbox --help`")));
                }
                let value = value(parser)?.string()?;
                let flag = format!("--{name}");
                if limits::KNOWN.contains(&name) {
                    limits::set(&mut self.sandbox.limits, &flag, &value)?;
                } else if networks::KNOWN.contains(&name) {
                    networks::set(&mut self.sandbox.network, &flag, &value)?;
                } else {
                    self.run(name, &flag, &value)?;
                }
            }
        }
        Ok(())
    }

    /// Options about the run, and about what the sandbox is.
    fn run(&mut self, name: &str, flag: &str, value: &str) -> Result<(), Failure> {
        match name {
            "spec" => self.sandbox = sandbox_from(Path::new(value))?,
            "id" => value.clone_into(&mut self.id),
            "state" => self.state = Some(absolute(value)?),
            "record" => self.record = Some(PathBuf::from(value)),
            "tty" => {
                self.terminal = match value {
                    "auto" => Terminal::Auto,
                    "yes" => Terminal::Yes,
                    "no" => Terminal::No,
                    _ => return Err(Failure::new(format!("{flag} {value:?} is not one of auto, yes, no"))),
                }
            }
            _ => sandbox(&mut self.sandbox, name, flag, value)?,
        }
        Ok(())
    }
}

/// Options with a value, beside those of limits and networks.
const KNOWN: &[&str] = &[
    "spec",
    "id",
    "state",
    "record",
    "tty",
    "layer",
    "upper",
    "volume",
    "tmpfs",
    "env",
    "cwd",
    "hostname",
    "uid",
    "gid",
    "group",
    "cap-add",
    "seccomp",
    "device",
    "mask",
    "read-only-path",
];

fn sandbox(sandbox: &mut Sandbox, name: &str, flag: &str, value: &str) -> Result<(), Failure> {
    match name {
        "layer" => sandbox.root.layers.push(layer(value)?),
        "upper" => sandbox.root.upper = upper(flag, value)?,
        "volume" => sandbox.volumes.push(volume(flag, value)?),
        "tmpfs" => sandbox.volumes.push(tmpfs(flag, value)?),
        "env" => {
            let (name, value) = variable(value)?;
            sandbox.env.insert(name, value);
        }
        "cwd" => sandbox.cwd = PathBuf::from(value),
        "hostname" => value.clone_into(&mut sandbox.hostname),
        "uid" => sandbox.identity.uid = units::count(flag, value)?,
        "gid" => sandbox.identity.gid = units::count(flag, value)?,
        "group" => sandbox.identity.groups.push(units::count(flag, value)?),
        "cap-add" => sandbox.identity.capabilities.push(value.parse().map_err(|e| Failure::new(format!("{flag}: {e}")))?),
        "seccomp" => sandbox.seccomp = seccomp::profile(value)?,
        "device" => sandbox.devices.push(value.strip_prefix("/dev/").unwrap_or(value).to_owned()),
        "mask" => sandbox.masked.push(PathBuf::from(value)),
        _ => sandbox.read_only.push(PathBuf::from(value)),
    }
    Ok(())
}

/// `NAME=VALUE`, or `NAME` for the caller's own.
fn variable(text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => {
            std::env::var(text).map(|value| (text.to_owned(), value)).map_err(|e| Failure::new(format!("--env {text}: {e}: give it as {text}=VALUE")))
        }
    }
}

/// Paths of the host may be relative; the description takes absolute ones.
fn absolute(text: &str) -> Result<PathBuf, Failure> {
    std::path::absolute(text).map_err(|e| Failure::new(format!("path {text:?}: {e}")))
}

/// `DIRECTORY`, or `IMAGE@SHA256`.
fn layer(text: &str) -> Result<Layer, Failure> {
    let image = text.rsplit_once('@').map(|(path, hash)| (path, hash.strip_prefix("sha256:").unwrap_or(hash)));
    match image {
        Some((path, hash)) if hash.len() == 64 => Ok(Layer::Image { path: absolute(path)?, sha256: hash.to_owned() }),
        _ if Path::new(text).is_file() => Err(Failure::new(format!("--layer {text:?} is an image: give it as {text}@SHA256, as sha256sum tells it"))),
        _ => Ok(Layer::Directory(absolute(text)?)),
    }
}

/// `tmpfs:SIZE[:INODES]`, `disk:DIRECTORY:SIZE[:INODES]`, `read-only`.
fn upper(flag: &str, text: &str) -> Result<Upper, Failure> {
    let parts: Vec<&str> = text.split(':').collect();
    let inodes = |text: &str| units::count(flag, text);
    // As many as mkfs would make: one for 16 KiB.
    let usual = |bytes: u64| (bytes / 16384).max(1024);
    Ok(match parts.as_slice() {
        ["read-only"] => Upper::ReadOnly,
        ["tmpfs", size] => Upper::Tmpfs { bytes: units::bytes(flag, size)?, inodes: usual(units::bytes(flag, size)?) },
        ["tmpfs", size, count] => Upper::Tmpfs { bytes: units::bytes(flag, size)?, inodes: inodes(count)? },
        ["disk", directory, size] => {
            Upper::Disk { directory: absolute(directory)?, bytes: units::bytes(flag, size)?, inodes: usual(units::bytes(flag, size)?) }
        }
        ["disk", directory, size, count] => Upper::Disk { directory: absolute(directory)?, bytes: units::bytes(flag, size)?, inodes: inodes(count)? },
        _ => return Err(Failure::new(format!("{flag} {text:?} is none of tmpfs:SIZE[:INODES], disk:DIRECTORY:SIZE[:INODES], read-only"))),
    })
}

/// `SOURCE:TARGET[:ro|:rw]`.
fn volume(flag: &str, text: &str) -> Result<Volume, Failure> {
    let (rest, writable) = match text.rsplit_once(':') {
        Some((rest, "rw")) => (rest, true),
        Some((rest, "ro")) => (rest, false),
        _ => (text, false),
    };
    let (source, target) =
        rest.split_once(':').ok_or_else(|| Failure::new(format!("{flag} {text:?} is not SOURCE:TARGET, SOURCE:TARGET:ro or SOURCE:TARGET:rw")))?;
    Ok(Volume::Bind { source: absolute(source)?, target: PathBuf::from(target), writable })
}

/// `TARGET[:SIZE]`.
fn tmpfs(flag: &str, text: &str) -> Result<Volume, Failure> {
    let (target, size) = text.split_once(':').unwrap_or((text, "16M"));
    Ok(Volume::Tmpfs { target: PathBuf::from(target), bytes: units::bytes(flag, size)?, inodes: 16384 })
}
