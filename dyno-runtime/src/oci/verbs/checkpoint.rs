//! `checkpoint`, by CRIU.

use std::{ffi::OsString, fs, path::PathBuf, process::Command};

use super::{
    Failure, Outcome, criu, delete,
    words::{Word, Words},
};
use crate::oci::{
    Global,
    plan::Container,
    spec::{self, Spec},
    state::{Held, StateDir, Status},
};

pub(super) const HELP: &str = "\
Writes a running container to files, by CRIU, and deletes it, so that `restore` can take it up again.

Usage: dyno-runtime [GLOBAL OPTIONS] checkpoint [OPTIONS] ID

      --image-path DIR          where; without it `checkpoint` in the working directory
      --work-path DIR           where CRIU's log goes; without it --image-path
      --leave-running           the container goes on
      --pre-dump                its memory only; it goes on
      --parent-path DIR         of an earlier one whose memory need not be written again, relative to --image-path
      --tcp-established         open TCP connections too
      --ext-unix-sk             sockets that the host has the other end of
      --shell-job               streams and session of the caller
      --file-locks              locks of files
      --lazy-pages, --status-fd N, --page-server ADDRESS:PORT   memory over the network (CRIU's manual)
      --auto-dedup              memory that was written before is punched out of earlier files
      --empty-ns network        the network namespace's inside is somebody else's
      --manage-cgroups-mode M   taken and without effect: groups are made from config.json

Examples:
  dyno-runtime checkpoint --image-path /var/lib/web.images web
  dyno-runtime restore --detach --bundle /srv/web --image-path /var/lib/web.images web
";

#[derive(Default)]
struct Request {
    criu: criu::Request,
    leave_running: bool,
    pre_dump: bool,
}

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let (mut request, mut id) = (Request::default(), None);
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if request.criu.option(&name, words)? || request.option(&name, words)? => {}
            Word::Value(value) if id.is_none() => id = Some(value),
            other => return Err(words.unexpected(&other)),
        }
    }
    let id = words.id(id)?;
    if words.help {
        return Ok(0);
    }
    let held = StateDir::open(&global.root, &id)?.hold()?;
    dump(global, &request, &held)?;
    drop(held);
    if !request.leave_running && !request.pre_dump {
        delete::delete(global, &id, true)?;
    }
    Ok(0)
}

impl Request {
    fn option(&mut self, name: &str, words: &mut Words) -> Result<bool, Failure> {
        let args = &mut self.criu.args;
        match name {
            "leave-running" => self.leave_running = words.flag()?,
            "pre-dump" => self.pre_dump = words.flag()?,
            "parent-path" => {
                let path = words.path()?;
                if path.is_absolute() {
                    return Err(words.wrong("--parent-path must be relative to --image-path"));
                }
                args.extend(["--prev-images-dir".into(), path.into(), "--track-mem".into()]);
            }
            "status-fd" => args.extend(["--status-fd".into(), words.number::<u32>()?.to_string().into()]),
            "page-server" => {
                let text = words.text()?;
                let Some((address, port)) = text.rsplit_once(':') else {
                    return Err(words.wrong(&format!("--page-server {text:?} is not ADDRESS:PORT")));
                };
                args.extend(["--page-server", "--address", address, "--port", port].map(OsString::from));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn dump(global: &Global, request: &Request, held: &Held) -> Result<(), Failure> {
    let record = held.known()?;
    let (Status::Running, Some(first)) = held.status(&record)? else {
        return Err(Failure::new(format!("cannot checkpoint container {} that is not running", record.id)));
    };
    let spec: Spec = spec::parse(&held.config()?)?;
    let container = Container::new(&spec, &record.bundle)?;
    criu::must_be_possible(&container)?;
    let images = request.criu.images()?;
    for dir in [Some(&images), request.criu.work.as_ref()].into_iter().flatten() {
        fs::create_dir_all(dir).map_err(|e| Failure::new(format!("mkdir({}): {e}", dir.display())))?;
    }
    let mut args = request.criu.begin(if request.pre_dump { "pre-dump" } else { "dump" }, "dump.log")?;
    args.extend(["--tree".into(), first.pid.to_string().into()]);
    if request.pre_dump {
        args.push("--track-mem".into());
    } else {
        args.extend(["--root".into(), record.rootfs.clone().into()]);
        args.extend(criu::external(&container, |inside, _| (inside.into(), inside.into())));
        let streams: Vec<String> = (0..3).map(|fd| stream(first.pid, fd)).collect();
        fs::write(images.join(STREAMS), serde_json::json!(streams).to_string())
            .map_err(|e| Failure::new(format!("write {}/{STREAMS}: {e}", images.display())))?;
        if request.leave_running {
            args.push("--leave-running".into());
        }
    }
    let log = request.criu.work.clone().unwrap_or(images).join("dump.log");
    criu::run(global, Command::new(&global.criu), &args, &log)
}

/// What its streams were, beside the images: as runc and crun have it.
pub(super) const STREAMS: &str = "descriptors.json";

fn stream(pid: u32, fd: u32) -> String {
    let link: PathBuf = format!("/proc/{pid}/fd/{fd}").into();
    fs::read_link(link).map(|target| target.display().to_string()).unwrap_or_default()
}
