//! The options before the verb.

use std::path::{Path, PathBuf};

use super::{
    Failure,
    words::{Word, Words},
};
use crate::{
    error::{Error, ErrorKind, Result},
    oci::{Global, cgroup::Manager, log::Log},
};

/// What the first arguments ask for.
#[derive(Debug)]
pub(super) enum Asked {
    /// Nothing of ours.
    Nothing,
    Version,
    Verb(String),
}

/// The options before the verb as they were given.
#[derive(Debug, Default)]
pub(super) struct Globals {
    root: Option<PathBuf>,
    log: Option<PathBuf>,
    json: bool,
    debug: bool,
    manager: Manager,
    rootless: Option<bool>,
    criu: Option<PathBuf>,
}

impl Globals {
    /// Reads up to the verb.
    pub fn read(&mut self, words: &mut Words) -> std::result::Result<Asked, Failure> {
        while let Some(word) = words.next()? {
            match word {
                Word::Value(verb) => return Ok(Asked::Verb(verb.to_string_lossy().into_owned())),
                Word::Option(name) => match name.as_str() {
                    "version" | "v" | "V" => return Ok(Asked::Version),
                    "help" | "h" => return Ok(Asked::Nothing),
                    name => self.option(name, words)?,
                },
            }
        }
        if words.is_first() { Ok(Asked::Nothing) } else { Err(words.wrong("no command")) }
    }

    fn option(&mut self, name: &str, words: &mut Words) -> std::result::Result<(), Failure> {
        match name {
            "root" => self.root = Some(words.path()?),
            "log" => self.log = Some(words.path()?).filter(|path| path.as_path() != Path::new("/dev/stderr")),
            "log-format" => {
                self.json = match words.text()?.as_str() {
                    "json" => true,
                    "text" => false,
                    other => return Err(words.wrong(&format!("--log-format {other:?} is neither text nor json"))),
                }
            }
            "debug" => self.debug = words.flag()?,
            // crun's and youki's.
            "log-level" => self.debug = matches!(words.text()?.as_str(), "debug" | "trace"),
            "systemd-cgroup" | "s" => self.manager = if words.flag()? { Manager::Systemd } else { Manager::Files },
            "cgroup-manager" => {
                self.manager = match words.text()?.as_str() {
                    "cgroupfs" => Manager::Files,
                    "systemd" => Manager::Systemd,
                    "disabled" => Manager::Disabled,
                    other => return Err(words.wrong(&format!("--cgroup-manager {other:?} is none of cgroupfs, systemd, disabled"))),
                }
            }
            "rootless" => {
                self.rootless = match words.text()?.as_str() {
                    "auto" => None,
                    "true" => Some(true),
                    "false" => Some(false),
                    other => return Err(words.wrong(&format!("--rootless {other:?} is none of true, false, auto"))),
                }
            }
            "criu" => self.criu = Some(words.path()?),
            _ => return Err(words.unexpected(&Word::Option(name.to_owned()))),
        }
        Ok(())
    }

    /// Where messages go.
    ///
    /// # Errors
    /// Of open(2).
    pub fn log(&self) -> Result<Log> {
        Log::open(self.log.as_deref(), self.json, self.debug)
    }

    /// What the verb gets.
    ///
    /// # Errors
    /// When the log cannot be opened, or there is no place for containers.
    pub fn finish(self) -> Result<Global> {
        let log = self.log()?;
        let root = match self.root {
            Some(root) => std::path::absolute(&root).map_err(|e| Error::refused(ErrorKind::Invalid, format!("--root {}: {e}", root.display())))?,
            None => default_root()?,
        };
        Ok(Global { root, log, manager: self.manager, rootless: self.rootless, criu: self.criu.unwrap_or_else(|| "criu".into()) })
    }
}

/// Root has `/run`; a user, and root of a user's namespace, have XDG_RUNTIME_DIR.
fn default_root() -> Result<PathBuf> {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    let is_root = rustix::process::geteuid().is_root();
    match runtime_dir {
        Some(dir) if !is_root || crate::oci::global::in_user_namespace() => Ok(Path::new(&dir).join("dyno-runtime")),
        _ if is_root => Ok("/run/dyno-runtime".into()),
        _ => Err(Error::refused(ErrorKind::Invalid, "no directory for containers: XDG_RUNTIME_DIR is not set: give --root")),
    }
}
