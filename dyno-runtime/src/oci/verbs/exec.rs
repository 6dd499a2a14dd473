//! `exec`.

use std::path::PathBuf;

use super::{
    Failure, Outcome,
    words::{Word, Words},
};
use crate::oci::{Global, exec};

pub(super) const HELP: &str = "\
Runs another program in a container. Its exit status is that of the program, 128 and the number for a signal, 255 if it did not run.

Usage: dyno-runtime [GLOBAL OPTIONS] exec [OPTIONS] ID PROGRAM [ARGUMENTS]
       dyno-runtime [GLOBAL OPTIONS] exec [OPTIONS] --process FILE ID

  -p, --process FILE          a process as config.json has it, instead of these:
      --cwd DIR               working directory inside
  -e, --env NAME=VALUE        on top of the container's own; repeatable
  -u, --user UID[:GID]        ids inside
  -g, --additional-gids GID   repeatable
  -c, --cap NAME              a capability more; repeatable
      --no-new-privs          no new privileges by exec
      --apparmor PROFILE      of AppArmor
      --process-label LABEL   of SELinux
  -t, --tty                   on a terminal of its own
  -d, --detach                return once the program runs
      --console-socket S      Unix socket that gets the master end of the terminal (with --detach)
      --pid-file FILE         gets the number of the process
      --pidfd-socket S        Unix socket that gets a pidfd of it
      --preserve-fds N        so many descriptors from 3 on (after those of LISTEN_FDS) are the program's
      --cgroup [CTRLS:]PATH   a group below the container's; repeatable with different controllers
      --ignore-paused         in a paused container too: it stands still until `resume`

Examples:
  dyno-runtime exec web ps -ef
  dyno-runtime exec --tty --env TERM=xterm web sh
";

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let asked = parse(words);
    let done = match asked {
        Ok(_) if words.help => Ok(0),
        Ok(request) => exec::exec(&global.root, request).map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    done.map_err(|failure| Failure { status: 255, message: format!("exec failed: {}", failure.message) })
}

fn parse(words: &mut Words) -> Result<exec::Request, Failure> {
    let (mut request, mut id) = (exec::Request::default(), None);
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if about_the_process(&mut request, &name, words)? || about_the_run(&mut request, &name, words)? => {}
            Word::Option(name) => return Err(words.unexpected(&Word::Option(name))),
            Word::Value(value) if id.is_none() => id = Some(value),
            Word::Value(program) => {
                request.args.push(program.into_string().map_err(|program| words.wrong(&format!("argument {program:?} is no UTF-8")))?);
                request.args.extend(words.rest()?);
                break;
            }
        }
    }
    request.id = words.id(id)?;
    if request.args.is_empty() && request.process.is_none() && !words.help {
        return Err(words.wrong("exec needs a program, or --process"));
    }
    Ok(request)
}

fn about_the_process(request: &mut exec::Request, name: &str, words: &mut Words) -> Result<bool, Failure> {
    match name {
        "process" | "p" => request.process = Some(words.path()?),
        "cwd" => request.cwd = Some(words.path()?),
        "env" | "e" => request.env.push(words.text()?),
        "user" | "u" => {
            let text = words.text()?;
            request.user = Some(user(&text).ok_or_else(|| words.wrong(&format!("--user {text:?} is not UID or UID:GID")))?);
        }
        "additional-gids" | "g" => request.additional_gids.push(words.number()?),
        "cap" | "c" => request.capabilities.push(words.text()?),
        "no-new-privs" => request.no_new_privs = Some(words.flag()?),
        "apparmor" => request.apparmor = Some(words.text()?),
        "process-label" => request.process_label = Some(words.text()?),
        "tty" | "t" => request.tty = words.flag()?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn about_the_run(request: &mut exec::Request, name: &str, words: &mut Words) -> Result<bool, Failure> {
    match name {
        "detach" | "d" => request.detach = words.flag()?,
        "console-socket" => request.console_socket = Some(words.path()?),
        "pid-file" => request.pid_file = Some(words.path()?),
        "pidfd-socket" => request.pidfd_socket = Some(words.path()?),
        "preserve-fds" => request.preserve_fds = words.number()?,
        "cgroup" => {
            let text = words.text()?;
            request.cgroups.push(group(&text));
        }
        "ignore-paused" => request.ignore_paused = words.flag()?,
        "no-subreaper" => request.no_subreaper = words.flag()?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn user(text: &str) -> Option<(u32, Option<u32>)> {
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    Some((number(uid)?, gid.map(number).map_or(Some(None), |gid| gid.map(Some))?))
}

/// Controllers, separated by commas, and a path below the container's group.
fn group(text: &str) -> (Vec<String>, PathBuf) {
    match text.split_once(':') {
        Some((controllers, path)) => (controllers.split(',').map(str::to_owned).collect(), path.into()),
        None => (Vec::new(), text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        for (text, want) in [
            ("1000", Some((1000, None))),
            ("0:5", Some((0, Some(5)))),
            ("4294967294", Some((u32::MAX - 1, None))),
            ("4294967295", None),
            ("4294967296", None),
            ("-1", None),
            ("root", None),
            ("1:", None),
            (":1", None),
            ("1:2:3", None),
        ] {
            assert_eq!(user(text), want, "{text}");
        }
    }
}
