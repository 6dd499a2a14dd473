//! Terminals: made inside, joined to ours, sent to others.

use std::{
    fs,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::{fs::symlink, net::UnixListener},
    },
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{Pid, Signal, kill_process},
    termios::{LocalModes, tcgetattr, tcgetwinsize},
};
use serde_json::{Value, json};

use crate::{
    support::{PROGRAM, Stage, same},
    world::{Container, Terminal, awaited, ends, failed, said, until},
};

pub fn of_its_own(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    let mut terminal = Terminal::new(30, 100)?;
    let child = terminal.spawn(container.exec(&["--tty"], &["terminal"]))?;
    terminal.expect("true true true\r\n")?;
    terminal.types("abc\r")?;
    terminal.expect("abc\r\nABC\r\n")?;
    same("status", terminal.wait(child)?, 0)?;
    // A terminal of the container's, whose end nobody outside has: neither is it ours.
    let child = terminal.spawn(container.exec(&["--tty"], &["list", "/dev/pts"]))?;
    terminal.expect("0 ptmx\r\n")?;
    same("status", terminal.wait(child)?, 0)?;
    // ^C is for the program, which leads its own session on its own terminal.
    let child = terminal.spawn(container.exec(&["--tty"], &["forever"]))?;
    terminal.expect("here\r\n")?;
    terminal.types("\x03")?;
    same("status", terminal.wait(child)?, 130)
}

pub fn last_output(stage: &Stage) -> Result<()> {
    const BYTES: usize = 300_000;
    let container = Container::start(stage, |_| {})?;
    for _ in 0..5 {
        let mut terminal = Terminal::new(24, 80)?;
        let child = terminal.spawn(container.exec(&["--tty"], &["flood", &BYTES.to_string()]))?;
        same("status", terminal.wait(child)?, 0)?;
        same("bytes", terminal.seen.matches('x').count(), BYTES)?;
    }
    // Into a pipe whose reader is slow.
    let child = container.exec(&["--tty"], &["flood", &BYTES.to_string()]).spawn()?;
    let output = child.wait_with_output()?;
    same("through a pipe", output.stdout.len(), BYTES)
}

pub fn held(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    let mut terminal = Terminal::new(24, 80)?;
    // Its child, which ignores that the terminal is hung up, has it open for as long as the container lives.
    let child = terminal.spawn(container.exec(&["--tty"], &["leave-behind"]))?;
    same("status", terminal.wait(child)?, 3)?;
    ensure!(terminal.seen.contains("left"), "{:?}", terminal.seen);
    Ok(())
}

pub fn restored(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    let mut terminal = Terminal::new(24, 80)?;
    let modes = |terminal: &Terminal| -> Result<String> { Ok(format!("{:?}", tcgetattr(&terminal.slave)?)) };
    let before = modes(&terminal)?;
    let child = terminal.spawn(container.exec(&["--tty"], &["exit", "4"]))?;
    same("status", terminal.wait(child)?, 4)?;
    same("after an end", modes(&terminal)?, before.clone())?;
    let child = terminal.spawn(container.exec(&["--tty"], &["forever"]))?;
    terminal.expect("here")?;
    ensure!(!tcgetattr(&terminal.slave)?.local_modes.contains(LocalModes::ICANON), "raw meanwhile");
    terminal.resize(40, 120)?;
    kill_process(Pid::from_child(&child), Signal::WINCH)?;
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    same("status", terminal.wait(child)?, 143)?;
    same("after a signal", modes(&terminal)?, before.clone())?;
    let child = terminal.spawn(container.execute(&["--tty"], &["nosuch"]))?;
    same("status", terminal.wait(child)?, 255)?;
    same("after a failure", modes(&terminal)?, before)
}

/// A listener, and who connects to it sends a descriptor.
pub fn received(listener: &UnixListener) -> Result<(OwnedFd, String)> {
    ensure!(awaited(listener)?, "nobody connects");
    let (stream, _) = listener.accept()?;
    let (mut name, mut space) = ([0; 4096], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))]);
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let read = recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            fds.extend(some);
        }
    }
    same("descriptors", fds.len(), 1)?;
    Ok((fds.pop().context("one")?, String::from_utf8_lossy(&name[..read]).into_owned()))
}

pub fn socket(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    let long: PathBuf = container.file(&"long".repeat(30));
    for path in [container.file("socket"), long.join("socket")] {
        fs::create_dir_all(path.parent().context("a directory")?)?;
        // Bound by a name that fits, wherever it is then.
        let near = stage.work().join("bound");
        let listener = UnixListener::bind(&near)?;
        fs::rename(&near, &path)?;
        let process = container.file("process.json");
        let size = json!({ "height": 11, "width": 22 });
        let text =
            json!({ "terminal": true, "consoleSize": size, "cwd": "/", "args": [PROGRAM, "terminal"], "env": [], "user": { "uid": 1000, "gid": 5 } });
        fs::write(&process, text.to_string())?;
        let (socket, process) = (path.display().to_string(), process.display().to_string());
        let child = container.execute(&["--detach", "--console-socket", &socket, "--process", &process], &[]).spawn()?;
        let (master, name) = received(&listener)?;
        same("status", ends(child)?, Some(0))?;
        ensure!(!name.is_empty(), "no name");
        let is = tcgetwinsize(&master)?;
        same("size", (is.ws_row, is.ws_col), (11, 22))?;
        let mut master = fs::File::from(master);
        until(&mut master, "true true true\r\n")?;
        std::io::Write::write_all(&mut master, b"far\r")?;
        until(&mut master, "FAR\r\n")?;
    }
    Ok(())
}

fn with_terminal(config: &mut Value) {
    config["process"]["terminal"] = json!(true);
}

pub fn first(stage: &Stage) -> Result<()> {
    let mut terminal = Terminal::new(24, 80)?;
    let container = Container::bundle(stage, &["terminal"], with_terminal)?;
    let child = terminal.spawn(container.run(&["--keep"]))?;
    terminal.expect("true true true\r\n")?;
    terminal.types("abc\r")?;
    terminal.expect("ABC\r\n")?;
    same("status", terminal.wait(child)?, 0)?;
    drop(container);
    // Whoever opens the console has the terminal.
    let container = Container::bundle(stage, &["write", "/dev/console", "to the console"], with_terminal)?;
    let child = terminal.spawn(container.run(&["--keep"]))?;
    terminal.expect("to the console")?;
    same("status", terminal.wait(child)?, 0)?;
    let rest = failed(container.runtime(&["create", "--bundle", "/nowhere", "other"]))?;
    ensure!(rest.0 == 1, "{rest:?}");
    Ok(())
}

/// CVE-2025-52565, CVE-2026-88264: what the image has at `/dev/console` and `/dev/pts` leads elsewhere.
pub fn symlinks(stage: &Stage) -> Result<()> {
    let rootfs = stage.work().join("hostile");
    crate::support::make_rootfs(&rootfs)?;
    let victim = stage.work().join("victim");
    fs::write(&victim, "untouched")?;
    let before = fs::metadata(&victim)?;
    // With a devpts mounted there, so that nothing else is wrong, and without.
    type Wrong = (&'static str, &'static [(&'static str, &'static str)], bool, &'static str);
    let cases: &[Wrong] = &[
        ("a console that is a link", &[("dev/console", "/victim")], true, "console"),
        ("a console that leads to the host", &[("dev/console", "../../victim")], true, "console"),
        ("terminals that lead to procfs", &[("dev/pts", "/proc")], false, "pts"),
        ("a way in that leads to procfs", &[("dev", "/proc")], false, ""),
    ];
    for (what, links, terminals, words) in cases {
        fs::remove_dir_all(rootfs.join("dev"))?;
        fs::create_dir(rootfs.join("dev"))?;
        for (name, target) in *links {
            let at = rootfs.join(name);
            if at.is_dir() {
                fs::remove_dir(&at)?;
            }
            symlink(target, at)?;
        }
        fs::write(rootfs.join("victim"), "untouched")?;
        let container = Container::bundle(stage, &["terminal"], |config| {
            with_terminal(config);
            config["root"]["path"] = json!(rootfs);
            // The image's own /dev.
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.retain(|m| m["destination"] == "/proc" || (*terminals && m["destination"] == "/dev/pts"));
            }
        })?;
        let mut terminal = Terminal::new(24, 80)?;
        let child = terminal.spawn(container.run(&[]))?;
        let status = terminal.wait(child)?;
        ensure!(status == 1 && terminal.seen.contains(words), "{what}: {status} {:?}", terminal.seen);
        ensure!(!terminal.seen.contains("true true true"), "{what}: {:?}", terminal.seen);
        let after = fs::metadata(&victim)?;
        same(what, format!("{:?}", after.modified()?), format!("{:?}", before.modified()?))?;
        same(what, std::os::unix::fs::MetadataExt::uid(&after), std::os::unix::fs::MetadataExt::uid(&before))?;
        same(what, fs::read_to_string(rootfs.join("victim"))?, "untouched".into())?;
        if rootfs.join("dev").is_symlink() {
            fs::remove_file(rootfs.join("dev"))?;
            fs::create_dir(rootfs.join("dev"))?;
        }
    }
    Ok(())
}

pub fn user_namespace(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |config| {
        if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
            all.push(json!({ "type": "user" }));
        }
        let map = json!([{ "containerID": 0, "hostID": 2_000_000, "size": 65536 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    })?;
    let mut terminal = Terminal::new(24, 80)?;
    for user in ["0", "1000"] {
        let child = terminal.spawn(container.exec(&["--tty", "--user", user], &["terminal"]))?;
        terminal.expect("true true true\r\n")?;
        terminal.types("abc\r")?;
        terminal.expect("ABC\r\n")?;
        same(user, terminal.wait(child)?, 0)?;
    }
    Ok(())
}

/// A runtime that may join the container's pid namespace from inside its user namespace only.
pub fn without_privileges(stage: &Stage) -> Result<()> {
    let container = Container::of_user(stage, 12345)?;
    same("output", said(container.exec(&[], &["say", "inside"]))?, "inside\n".into())?;
    same("status", failed(container.exec(&[], &["exit", "7"]))?.0, 7)?;
    same("a signal", failed(container.exec(&[], &["abort"]))?.0, 134)?;
    let (status, complaint) = failed(container.execute(&[], &["nosuch"]))?;
    ensure!(status == 255 && complaint.contains("not found in $PATH"), "{status} {complaint}");
    same("open inside", said(container.exec(&[], &["list", "/proc/self/fd"]))?, "0 1 2 3\n".into())?;
    let kinds = |pid: &str| ["user", "mnt", "pid", "net", "ipc", "uts"].map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok());
    let pid_file = container.file("beside");
    said(container.exec(&["--detach", "--pid-file", &pid_file.display().to_string()], &["forever"]))?;
    same("namespaces", kinds(&fs::read_to_string(&pid_file)?), kinds(&container.pid.to_string()))?;
    let mut terminal = Terminal::new(24, 80)?;
    let child = terminal.spawn(container.exec(&["--tty"], &["terminal"]))?;
    terminal.expect("true true true\r\n")?;
    terminal.types("abc\r")?;
    terminal.expect("ABC\r\n")?;
    same("status", terminal.wait(child)?, 0)
}

/// Nobody reads our output any more: the program is hung up on, and nothing waits for ever.
pub fn nobody_reads(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    let mut child = container.exec(&["--tty"], &["flood", "100000000"]).stdout(Stdio::piped()).spawn()?;
    until(child.stdout.as_mut().context("stdout")?, "xxx")?;
    drop(child.stdout.take());
    match ends(child)? {
        // SIGHUP, or its own writes failed.
        Some(129 | 9) => {}
        other => bail!("{other:?}"),
    }
    same("the container lives", said(container.exec(&[], &["say", "yes"]))?, "yes\n".into())
}
