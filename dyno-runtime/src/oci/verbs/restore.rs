//! `restore`, by CRIU.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use super::{
    Failure, Outcome,
    checkpoint::STREAMS,
    criu, delete,
    words::{Word, Words},
};
use crate::oci::{
    Global,
    cgroup::{Cgroup, Record as Groups},
    create,
    plan::Container,
    spec::{self, Spec},
    state::{First, Held, Record, StateDir},
    supervise::Signals,
};

pub(super) const HELP: &str = "\
Takes up a container that `checkpoint` has written, by CRIU; in the foreground its exit status is that of the program, as with `run`.

Usage: dyno-runtime [GLOBAL OPTIONS] restore [OPTIONS] ID

      --image-path DIR          where it is; without it `checkpoint` in the working directory
      --work-path DIR           where CRIU's log goes; without it --image-path
  -b, --bundle DIR              the bundle; without it the working directory
  -d, --detach                  return once it runs
      --pid-file FILE           gets the number of the container's first process
      --no-subreaper            do not take orphans of the container for children
      --tcp-established, --ext-unix-sk, --shell-job, --file-locks, --auto-dedup, --lazy-pages, --empty-ns network   as at `checkpoint`
      --lsm-profile TYPE:NAME, --lsm-mount-context CONTEXT   others than it had
      --manage-cgroups-mode M, --no-pivot   taken and without effect

Examples:
  dyno-runtime restore --detach --bundle /srv/web --image-path /var/lib/web.images web
";

#[derive(Default)]
struct Request {
    criu: criu::Request,
    create: create::Request,
    detach: bool,
}

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let (mut request, mut id) = (Request::default(), None);
    request.create.bundle = ".".into();
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if request.criu.option(&name, words)? || request.option(&name, words)? => {}
            Word::Value(value) if id.is_none() => id = Some(value),
            other => return Err(words.unexpected(&other)),
        }
    }
    request.create.id = words.id(id)?;
    if words.help {
        return Ok(0);
    }
    let signals = if request.detach { None } else { Some(Signals::watch(!request.create.no_subreaper)?) };
    let first = restore(global, &request)?;
    let Some(signals) = signals else { return Ok(0) };
    let status = signals.follow(first.pidfd(), None);
    delete::delete(global, &request.create.id, true)?;
    Ok(status?)
}

impl Request {
    fn option(&mut self, name: &str, words: &mut Words) -> Result<bool, Failure> {
        match name {
            "detach" | "d" => self.detach = words.flag()?,
            "bundle" | "b" => self.create.bundle = words.path()?,
            "pid-file" => self.create.pid_file = Some(words.path()?),
            "no-subreaper" => self.create.no_subreaper = words.flag()?,
            "no-pivot" => drop(words.flag()?),
            "console-socket" => return Err(words.wrong("--console-socket: containers with a terminal cannot be checkpointed")),
            "lsm-profile" | "lsm-mount-context" => {
                let value = words.value()?;
                self.criu.args.extend([format!("--{name}").into(), value]);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What was made until a failure is taken away again.
fn restore(global: &Global, request: &Request) -> Result<First, Failure> {
    let asked = &request.create;
    let bundle = asked.bundle.canonicalize().map_err(|e| Failure::new(format!("bundle {}: {e}", asked.bundle.display())))?;
    let (spec, text): (Spec, Vec<u8>) = spec::read_with_text(&bundle.join("config.json"))?;
    let container = Container::new(&spec, &bundle)?;
    criu::must_be_possible(&container)?;
    let held = StateDir::create(&global.root, &asked.id)?;
    match take_up(global, request, (&container, &bundle), &held, &text) {
        Ok(first) => Ok(first),
        Err(failure) => {
            drop(held);
            if let Err(e) = delete::delete(global, &asked.id, true) {
                global.log.warn(&e.message);
            }
            Err(failure)
        }
    }
}

fn take_up(global: &Global, request: &Request, (container, bundle): (&Container, &Path), held: &Held, text: &[u8]) -> Result<First, Failure> {
    let asked = &request.create;
    let groups = Groups::plan(&asked.id, container.cgroups_path.as_deref(), global.manager)?;
    if groups.unit.is_some() {
        return Err(Failure::new("restore: systemd makes no scope for what CRIU starts: use --cgroup-manager cgroupfs"));
    }
    let mut record = create::record(asked, bundle, container, groups)?;
    held.intend(&record)?;
    held.save_config(text)?;
    Cgroup::create(&record.cgroup, &container.resources, None)?;
    let pid = start(global, request, container, &record)?;
    (record.pid, record.start_time) = (pid, crate::proc_stat::start_time(pid)?);
    held.save(&record)?;
    held.made()?;
    if let Some(path) = &asked.pid_file {
        create::write_pid(path, pid)?;
    }
    First::of(&record)?.ok_or_else(|| Failure::new("the restored container's first process has ended already"))
}

/// Has CRIU start it as a child of ours; its number.
fn start(global: &Global, request: &Request, container: &Container, record: &Record) -> Result<u32, Failure> {
    let images = request.criu.images()?;
    let work = request.criu.work.clone().unwrap_or_else(|| images.clone());
    // Absolute paths only: CRIU changes its directory.
    let work = std::path::absolute(work).map_err(|e| Failure::new(format!("--work-path: {e}")))?;
    let pid_file = work.join(format!("{}.pid", record.id));
    fs::remove_file(&pid_file).unwrap_or_default();
    let mut args = request.criu.begin("restore", "restore.log")?;
    args.extend(["--restore-detached", "--restore-sibling", "--root"].map(OsString::from));
    args.extend([record.rootfs.clone().into(), "--pidfile".into(), pid_file.clone().into()]);
    args.extend(criu::external(container, |inside, outside| (inside.into(), outside.into())));
    args.extend(streams(&images)?);
    let dirs: Vec<PathBuf> = record.cgroup.groups.iter().map(|(dir, _)| dir.clone()).filter(|dir| dir.is_dir()).collect();
    criu::run(global, criu::helper(global, &record.rootfs, &dirs), &args, &work.join("restore.log"))?;
    let told = fs::read_to_string(&pid_file).map_err(|e| Failure::new(format!("read {}: {e}", pid_file.display())))?;
    fs::remove_file(&pid_file).map_err(|e| Failure::new(format!("unlink({}): {e}", pid_file.display())))?;
    told.trim().parse().map_err(|_| Failure::new(format!("criu: {told:?} is no number of a process")))
}

/// Pipes that the container had as streams are ours now.
fn streams(images: &Path) -> Result<Vec<OsString>, Failure> {
    let file = images.join(STREAMS);
    let wrong = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", file.display()));
    let text = fs::read(&file).map_err(|e| wrong(&e))?;
    let streams: Vec<String> = serde_json::from_slice(&text).map_err(|e| wrong(&e))?;
    let pipes = streams.iter().take(3).enumerate().filter(|(_, stream)| stream.starts_with("pipe:["));
    Ok(pipes.flat_map(|(fd, stream)| ["--inherit-fd".into(), format!("fd[{fd}]:{stream}").into()]).collect())
}
