//! What stands and what works for a user who is not root.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::MetadataExt,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Cause, Dyno, Exec, Found, Host, Layer, Limits, Network, Sandbox, StartOptions, Stdio, Streams, Upper, Volume};

use crate::{
    support::{read_all, same},
    world::{FIRST, Kind, USER, World, forever, output},
};

/// The init and the program, as the host sees them.
fn members(dyno: &Dyno) -> Result<[u32; 2]> {
    let pid = dyno.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok([pid, children.trim().parse().with_context(|| format!("children of {pid}: {children:?}"))?])
}

fn on_live_dyno(world: &World, look: impl FnOnce(&Dyno) -> Result<()>) -> Result<()> {
    world.with_host(|host| {
        let dyno = forever(host, "t.1", &world.sandbox(&["forever"]))?;
        look(&dyno)?;
        Ok(dyno.free()?)
    })
}

fn field(pid: u32, name: &str) -> Result<Option<String>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(status.lines().find_map(|l| l.strip_prefix(name)).map(|text| text.trim().to_owned()))
}

pub fn status_of_every_process(world: &World) -> Result<()> {
    const WANT: &[(&str, &str)] = &[
        ("Groups:", ""),
        ("CapInh:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("CapEff:", "0000000000000000"),
        ("CapBnd:", "0000000000000000"),
        ("CapAmb:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
        ("Seccomp_filters:", "1"),
        ("Umask:", "0022"),
    ];
    on_live_dyno(world, |dyno| {
        for pid in members(dyno)? {
            for (name, want) in WANT {
                same(&format!("{name} of {pid}"), field(pid, name)?.as_deref(), Some(*want))?;
            }
        }
        Ok(())
    })
}

/// The host's id of user `id` inside.
fn outside(world: &World, id: u32) -> u32 {
    if world.kind.needs_helpers() && id > 0 { FIRST + id - 1 } else { USER }
}

pub fn ids_outside(world: &World) -> Result<()> {
    on_live_dyno(world, |dyno| {
        let map = if world.kind.needs_helpers() { format!("0 {USER} 1 1 {FIRST} 65535") } else { format!("1000 {USER} 1") };
        for pid in members(dyno)? {
            let ids = [outside(world, 1000); 4].map(|id| id.to_string()).join("\t");
            for name in ["Uid:", "Gid:"] {
                same(name, field(pid, name)?, Some(ids.clone()))?;
            }
            for file in ["uid_map", "gid_map"] {
                let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
                same(file, text.split_whitespace().collect::<Vec<_>>().join(" "), map.clone())?;
            }
        }
        Ok(())
    })
}

pub fn namespaces_of_its_own(world: &World) -> Result<()> {
    world.with_host(|host| {
        let (one, two) = (forever(host, "t.1", &world.sandbox(&["forever"]))?, forever(host, "t.2", &world.sandbox(&["forever"]))?);
        let link = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
            // The program keeps what its init had, having no right to anything else.
            let init = one.pid().to_string();
            let all = BTreeSet::from([link("self", kind)?, link(&init, kind)?, link(&two.pid().to_string(), kind)?]);
            ensure!(all.len() == 3, "{kind}: shared between the host and two dynos: {all:?}");
            same(kind, link(&members(&one)?[1].to_string(), kind)?, link(&init, kind)?)?;
        }
        one.free()?;
        Ok(two.free()?)
    })
}

pub fn mount_table(world: &World) -> Result<()> {
    const WANT: &[(&str, &str, &str)] = &[
        ("/", "overlay", "rw,nosuid,nodev,relatime"),
        ("/dev", "tmpfs", "ro,nosuid,noexec,relatime"),
        ("/dev/null", "devtmpfs", "ro,nosuid,noexec,relatime"),
        ("/dev/pts", "devpts", "rw,nosuid,noexec,relatime"),
        ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec,relatime"),
        ("/proc", "proc", "rw,nosuid,nodev,noexec,relatime"),
        ("/proc/sys", "proc", "ro,nosuid,nodev,noexec,relatime"),
    ];
    world.with_host(|host| {
        let table = output(host, &world.sandbox(&["read", "/proc/self/mountinfo"]))?.1;
        let parse = |line: &str| {
            let (before, after) = line.split_once(" - ")?;
            let mut before = before.split(' ').skip(4);
            Some((before.next()?.to_owned(), after.split(' ').next()?.to_owned(), before.next()?.to_owned()))
        };
        let mounts: Vec<_> = table.lines().filter_map(parse).collect();
        for (point, kind, options) in WANT {
            let is = mounts.iter().find(|m| m.0 == *point).with_context(|| format!("nothing at {point} in {table}"))?;
            same(point, (is.1.as_str(), is.2.as_str()), (*kind, *options))?;
        }
        let strange = mounts.iter().find(|m| m.0 != "/" && !m.0.starts_with("/dev") && !m.0.starts_with("/proc"));
        same("a mount that nobody asked for", strange, None)?;
        ensure!(!table.contains(" shared:") && !table.contains(" master:"), "not private: {table}");
        same(
            "/dev",
            output(host, &world.sandbox(&["list", "/dev"]))?.1,
            "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero\n".into(),
        )
    })
}

/// What a sandbox writes to its layers goes to its own; a volume is as it was asked for.
pub fn nothing_of_the_host_is_written(world: &World) -> Result<()> {
    let volume = |writable| Volume::Bind { source: world.dir.join("volume"), target: "/data".into(), writable };
    let write = |host: &Host, path: &str, volumes: Vec<Volume>| {
        Ok::<_, anyhow::Error>(output(host, &Sandbox { volumes, ..world.sandbox(&["write", path, "x"]) })?.1)
    };
    let errno = |errno: i32| format!("errno {errno}\n");
    let single = world.kind == Kind::Single;
    world.with_host(|host| {
        same("/tmp is written", write(host, "/tmp/new", Vec::new())?, String::new())?;
        // The files of the layer are the caller's: with a range root's inside, without the only user's.
        same("a file of the layer", write(host, "/etc/name", Vec::new())?, if single { String::new() } else { errno(libc::EACCES) })?;
        same("which is as before", fs::read_to_string(world.rootfs().join("etc/name"))?, "below".into())?;
        ensure!(!world.rootfs().join("tmp/new").exists(), "the layer was written");
        same("a read-only volume", write(host, "/data/new", vec![volume(false)])?, errno(libc::EROFS))?;
        same("a writable one", write(host, "/data/new", vec![volume(true)])?, if single { String::new() } else { errno(libc::EACCES) })?;
        let new = world.dir.join("volume/new");
        if single {
            same("whose file is the caller's", fs::metadata(&new)?.uid(), USER)?;
            fs::remove_file(&new)?;
        }
        let escape = output(
            host,
            &Sandbox {
                volumes: vec![Volume::Bind { source: world.dir.join("foreign"), target: "/etc/name".into(), writable: true }],
                ..world.sandbox(&["write", "/etc/name", "x"])
            },
        )?;
        same("a file of another's", escape.1, errno(libc::EACCES))?;
        same("is as before", fs::read_to_string(world.dir.join("foreign"))?, "root's".into())
    })
}

pub fn read_only_root_and_stacked_layers(world: &World) -> Result<()> {
    world.with_host(|host| {
        let mut sandbox = world.sandbox(&["write", "/tmp/x", "y"]);
        sandbox.root.upper = Upper::ReadOnly;
        same("one layer", output(host, &sandbox)?.1, format!("errno {}\n", libc::EROFS))?;
        sandbox.root.layers.insert(0, Layer::Directory(world.dir.join("over")));
        same("two layers", output(host, &sandbox)?.1, format!("errno {}\n", libc::EROFS))?;
        sandbox.root.upper = Upper::default();
        let say = |path: &str| ["/bin/program", "read", path].map(str::to_owned).to_vec();
        same("the upper layer", output(host, &Sandbox { argv: say("/bin/name"), ..sandbox.clone() })?.1, "above".into())?;
        same("the lower layer", output(host, &Sandbox { argv: say("/etc/name"), ..sandbox.clone() })?.1, "below".into())?;
        sandbox.root.upper = Upper::Tmpfs { bytes: 1 << 20, inodes: 64 };
        let full = output(host, &Sandbox { argv: ["/bin/program", "fill", "/tmp/x"].map(str::to_owned).to_vec(), ..sandbox })?.1;
        ensure!(full.ends_with(&format!("errno {}\n", libc::ENOSPC)), "{full}");
        Ok(())
    })
}

pub fn procfs_is_masked(world: &World) -> Result<()> {
    world.with_host(|host| {
        for path in ["/proc/keys", "/proc/timer_list", "/proc/cmdline"] {
            if fs::metadata(path).is_ok() {
                same(path, output(host, &world.sandbox(&["read", path]))?.1, String::new())?;
            }
        }
        let mut root = world.sandbox(&["write", "/proc/sys/kernel/hostname", "x"]);
        root.identity.uid = 0;
        same("a sysctl", output(host, &root)?.1, format!("errno {}\n", libc::EROFS))
    })
}

pub fn network_is_empty(world: &World) -> Result<()> {
    world.with_host(|host| {
        let table = output(host, &world.sandbox(&["read", "/proc/net/dev"]))?.1;
        let names: Vec<&str> = table.lines().filter_map(|l| l.split_once(':')).map(|(name, _)| name.trim()).collect();
        same("interfaces", names, vec!["lo"])?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port().to_string();
        same("the host", output(host, &world.sandbox(&["connect", &port]))?.1, format!("errno {}\n", libc::ECONNREFUSED))
    })
}

/// What connects to `listener` and writes.
fn heard(listener: TcpListener) -> Result<String> {
    listener.set_nonblocking(false)?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nonblocking(false)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub fn sockets_reach_in(world: &World) -> Result<()> {
    world.with_host(|host| {
        let options = StartOptions { listen: vec![8080], ..Default::default() };
        let mut dyno = host.start("t.1", &world.sandbox(&["connect", "8080"]), options)?;
        let listener = dyno.take_listeners().pop().context("no listener")?;
        same("through a socket made before it ran", heard(listener.into())?, "from inside".into())?;
        same("status", dyno.wait()?.status, 0)?;
        let error = rustix::net::connect(dyno.socket()?, &std::net::SocketAddrV4::new([127, 0, 0, 1].into(), 8080));
        ensure!(matches!(error, Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::INPROGRESS)), "{error:?}");
        Ok(dyno.free()?)
    })
}

pub fn a_side_car_shares_the_network(world: &World) -> Result<()> {
    world.with_host(|host| {
        let options = StartOptions { listen: vec![8080], ..Default::default() };
        let mut first = host.start("t.1", &world.sandbox(&["forever"]), options)?;
        let mut second = world.sandbox(&["connect", "8080"]);
        second.network = Network::Joined("t.1".into());
        let side_car = host.start("t.2", &second, StartOptions::default())?;
        same("heard", heard(first.take_listeners().pop().context("no listener")?.into())?, "from inside".into())?;
        same("status", side_car.wait()?.status, 0)?;
        side_car.free()?;
        Ok(first.free()?)
    })
}

pub fn exits(world: &World) -> Result<()> {
    world.with_host(|host| {
        let exit = output(host, &world.sandbox(&["exit", "7"]))?.0;
        same("exit", (exit.status, exit.signal, exit.cause), (7, None, Cause::Exited))?;
        let exit = output(host, &world.sandbox(&["abort"]))?.0;
        same("signal", (exit.status, exit.signal, exit.cause), (134, Some(6), Cause::Exited))?;
        let exit = output(host, &world.sandbox(&["spin", "30"]))?.0;
        ensure!(exit.cpu_us > 0 && exit.wall_us >= 30_000 && exit.max_rss > 0, "{exit:?}");
        let dyno = forever(host, "t.1", &world.sandbox(&["forever"]))?;
        dyno.kill()?;
        same("killed", dyno.wait()?.cause, Cause::Killed)?;
        dyno.free()?;
        let dyno = forever(host, "t.1", &world.sandbox(&["forever"]))?;
        same("stopped", dyno.stop(Duration::from_secs(10))?.status, 143)?;
        Ok(dyno.free()?)
    })
}

/// They are the init's, and need no control group.
pub fn limits_of_the_run(world: &World) -> Result<()> {
    world.with_host(|host| {
        let limited = |args: &[&str], limits: Limits| Sandbox { limits, ..world.sandbox(args) };
        let exit = output(host, &limited(&["forever"], Limits { wall_ms: Some(50), ..Limits::default() }))?.0;
        same("wall clock", exit.cause, Cause::Time)?;
        let (exit, text) = output(host, &limited(&["lines", "100000"], Limits { output: Some(1000), ..Limits::default() }))?;
        same("output", (exit.cause, text.len()), (Cause::Output, 1000))?;
        let text = output(host, &limited(&["open-files"], Limits { open_files: 16, ..Limits::default() }))?.1;
        same("open files", text, format!("13 errno {}\n", libc::EMFILE))
    })
}

pub fn streams(world: &World) -> Result<()> {
    world.with_host(|host| {
        let mut dyno = host.start("t.1", &world.sandbox(&["copy"]), StartOptions { stdio: Stdio::Pipes, ..Default::default() })?;
        let Streams::Pipes { stdin, stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
        File::from(stdin).write_all(b"in and out")?;
        same("pipes", read_all(stdout)?, "in and out".into())?;
        dyno.free()?;
        // The ends belong to the program's user.
        same("by its path", output(host, &world.sandbox(&["write", "/dev/stdout", "again"]))?.1, "again".into())?;
        let mut dyno =
            host.start("t.1", &world.sandbox(&["terminal"]), StartOptions { stdio: Stdio::Tty { rows: 24, cols: 80 }, ..Default::default() })?;
        let Streams::Tty(master) = dyno.take_streams() else { bail!("no terminal") };
        let mut typed = File::from(master.try_clone()?);
        typed.write_all(b"hello\n")?;
        let said = read_all(master)?;
        ensure!(said.contains("true true true") && said.contains("HELLO"), "{said:?}");
        drop(typed);
        dyno.free()?;
        let mut dyno = host.start("t.1", &world.sandbox(&["say", "logged"]), StartOptions { stdio: Stdio::Log, ..Default::default() })?;
        dyno.wait()?;
        let Streams::Log(reader) = dyno.take_streams() else { bail!("no log") };
        let mut records = Vec::new();
        File::from(reader).read_to_end(&mut records)?;
        ensure!(records.ends_with(b"logged\n"), "{records:?}");
        Ok(dyno.free()?)
    })
}

/// What is executed in a running sandbox stands behind the same walls.
pub fn commands_beside_it(world: &World) -> Result<()> {
    on_live_dyno(world, |dyno| {
        let mut command = Exec::new(["/bin/program", "read", "/proc/self/status"]);
        command.stdio = Stdio::Pipes;
        let mut process = dyno.exec(command)?;
        let Streams::Pipes { stdout, .. } = process.take_streams() else { bail!("no pipes") };
        let status = read_all(stdout)?;
        same("status", process.wait()?.status, 0)?;
        for want in
            ["Uid:\t1000\t1000\t1000\t1000\n", "CapBnd:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"]
        {
            ensure!(status.contains(want), "{want:?} is not in {status}");
        }
        let mut command = Exec::new(["/bin/program", "terminal"]);
        command.stdio = Stdio::Tty { rows: 24, cols: 80 };
        let mut process = dyno.exec(command)?;
        let Streams::Tty(master) = process.take_streams() else { bail!("no terminal") };
        File::from(master.try_clone()?).write_all(b"hello\n")?;
        let said = read_all(master)?;
        ensure!(said.contains("HELLO"), "{said:?}");
        same("status", process.wait()?.status, 0)
    })
}

/// By another handle, as after a restart.
pub fn taken_up_again(world: &World) -> Result<()> {
    let host = world.open()?;
    drop(forever(&host, "t.1", &world.sandbox(&["forever"]))?);
    let ended = host.start("t.2", &world.sandbox(&["exit", "3"]), StartOptions::default())?;
    same("status", ended.wait()?.status, 3)?;
    drop((ended, host));
    let host = world.open()?;
    let mut found = host.recover()?;
    found.sort_by_key(|f| f.id().to_owned());
    let [Found::Running(running), Found::Ended(id, exit)] = &found[..] else { bail!("{found:?}") };
    same("found", (running.id(), id.as_str(), exit.status), ("t.1", "t.2", 3))?;
    ensure!(!running.has_ended());
    let pid = running.pid();
    drop(found);
    host.sweep("t.1")?;
    host.sweep("t.2")?;
    ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it still runs");
    Ok(host.dismantle()?)
}

/// The threads of one process share its dumpability, and so the right to write maps.
pub fn many_threads(world: &World) -> Result<()> {
    world.with_host(|host| {
        std::thread::scope(|scope| {
            // As many as there are slices.
            let start = |thread: usize| {
                for turn in 0..5 {
                    let dyno = host.start(&format!("t.{thread}.{turn}"), &world.sandbox(&["exit", "5"]), StartOptions::default())?;
                    same("status", dyno.wait()?.status, 5)?;
                    dyno.free()?;
                }
                Ok::<_, anyhow::Error>(())
            };
            let threads: Vec<_> = (0..2).map(|thread| scope.spawn(move || start(thread))).collect();
            threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
        })
    })
}

pub fn slices_of_the_range(world: &World) -> Result<()> {
    world.with_host(|host| {
        let (one, two) = (forever(host, "t.1", &world.sandbox(&["forever"]))?, forever(host, "t.2", &world.sandbox(&["forever"]))?);
        let first = |dyno: &Dyno| Ok::<_, anyhow::Error>(field(dyno.pid(), "Uid:")?.and_then(|ids| ids.split('\t').next()?.parse::<u32>().ok()));
        let both = BTreeSet::from([first(&one)?, first(&two)?]);
        same("user 1000 of both", both, BTreeSet::from([Some(FIRST + 999), Some(FIRST + 65535 + 999)]))?;
        let third = host.start("t.3", &world.sandbox(&["forever"]), StartOptions::default());
        ensure!(third.is_err_and(|e| e.to_string().contains("all 2 id ranges are in use")), "a third slice of two");
        one.free()?;
        two.free()?;
        let again = forever(host, "t.3", &world.sandbox(&["forever"]))?;
        Ok(again.free()?)
    })
}
