//! Links that are not made, or not by an owner who lives: the order of a start, its failures, and what is left.

mod support;

use std::{
    fs,
    io::Write,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, ExitCode},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Dyno, Egress, ErrorKind, Found, Host, Layer, Network, Policy, Sandbox, StartOptions, Stdio};

use support::{
    Case, Stage,
    lab::{HOST, PUBLIC, tcp},
    links::{self, answer, egress, publish, reaches, sandbox, serve, start},
    same,
};

const CASES: &[Case] = &[
    ("rules_stand_before_there_is_a_link", rules_stand_before_there_is_a_link),
    ("rules_that_do_not_load_start_nothing", rules_that_do_not_load_start_nothing),
    ("without_nft_nothing_starts", without_nft_nothing_starts),
    ("the_owner_is_killed", the_owner_is_killed),
    ("the_owner_is_killed_in_a_start", the_owner_is_killed_in_a_start),
    ("rules_of_the_dead_are_waited_for", rules_of_the_dead_are_waited_for),
    ("many_at_once", many_at_once),
    ("nothing_is_missing_here", nothing_is_missing_here),
];

/// The second life of this program, as somebody who owns a sandbox and is killed.
const OWNER: &str = "DYNO_TEST_OWNER";

fn main() -> ExitCode {
    if let Some(dir) = std::env::var_os(OWNER) {
        if let Err(e) = own(Path::new(&dir)) {
            eprintln!("the owner: {e:#}");
        }
        return ExitCode::FAILURE;
    }
    links::suite("egress-starts", CASES)
}

/// Something else in nft's place while `work` is done, as long as its mount lasts.
fn instead_of_nft<T>(stage: &Stage, script: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let path = std::env::split_paths(&std::env::var_os("PATH").context("PATH")?).map(|dir| dir.join("nft")).find(|p| p.is_file()).context("nft")?;
    let (real, other) = (stage.work().join("real-nft"), stage.work().join("nft"));
    fs::copy(&path, &real)?;
    fs::write(&other, script.replace("REAL", &real.display().to_string()))?;
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755))?;
    let place = path.canonicalize()?;
    rustix::mount::mount_bind(if script.is_empty() { Path::new("/dev/null") } else { &other }, &place)?;
    let result = work();
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH)?;
    fs::remove_file(&real).and_then(|()| fs::remove_file(&other))?;
    result
}

/// At each run of nft, what interfaces there are where it runs.
fn rules_stand_before_there_is_a_link(stage: &Stage) -> Result<()> {
    start(stage, egress(Policy::Open))?.free()?; // The host's table stands after that.
    let notes = stage.work().join("notes");
    let script = format!("#!/bin/sh\n/bin/cat /proc/self/net/dev > {0}.new; /bin/cat {0}.new >> {0}; exec REAL \"$@\"\n", notes.display());
    let dyno = instead_of_nft(stage, &script, || start(stage, egress(Policy::Open)))?;
    let seen = fs::read_to_string(&notes)?;
    let names: Vec<&str> = seen.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).filter(|name| *name != "up0").collect();
    same("interfaces while the rules were loaded", names, vec!["lo"])?;
    dyno.free()?;
    for file in ["notes", "notes.new"] {
        fs::remove_file(stage.work().join(file))?;
    }
    Ok(())
}

/// Nor do rules that load, and are not those that were asked for.
fn rules_that_do_not_load_start_nothing(stage: &Stage) -> Result<()> {
    for script in
        ["#!/bin/sh\necho no such rule >&2; exit 1\n", "#!/bin/sh\nexit 0\n", "#!/bin/sh\n/bin/sed 's/policy drop/policy accept/' | REAL -f -\n"]
    {
        stage.leaves_nothing(|| {
            instead_of_nft(stage, script, || {
                let error = stage.start(&sandbox(stage, egress(Policy::Open), &["exit", "0"]), Stdio::Null).err().context("started")?;
                same(script, error.kind(), ErrorKind::Wall)
            })
        })?;
    }
    Ok(())
}

fn without_nft_nothing_starts(stage: &Stage) -> Result<()> {
    stage.leaves_nothing(|| {
        instead_of_nft(stage, "", || {
            let error = stage.start(&sandbox(stage, egress(Policy::Open), &["exit", "0"]), Stdio::Null).err().context("started")?;
            ensure!(error.kind() == ErrorKind::Wall && error.to_string().contains("apt-get install nftables"), "{error}");
            ensure!(dyno_runtime::net::egress::missing().iter().any(|m| m.contains("nftables")), "the probe says nothing");
            Ok(())
        })
    })
}

/// Has an owner take down what it has made.
const LEAVE: &str = "DYNO_TEST_OWNER_LEAVES";

/// Owns a sandbox in `dir`, and says its pid.
fn own(dir: &Path) -> Result<()> {
    let host = Host::open(&dir.join("run"), &dir.file_name().context("name")?.to_string_lossy())?;
    let dyno = start_orphan(&host, dir)?;
    if std::env::var_os(LEAVE).is_some() {
        dyno.free()?;
        return Ok(host.dismantle()?);
    }
    println!("{}", dyno.pid());
    loop {
        std::thread::park();
    }
}

fn start_orphan(host: &Host, dir: &Path) -> Result<Dyno> {
    let mut sandbox = Sandbox::new(vec![Layer::Directory(dir.with_file_name("rootfs"))], [support::PROGRAM, "nap", "1000000"]);
    sandbox.network = Network::Egress(Egress { publish: vec![publish(Ipv4Addr::UNSPECIFIED, 8010, 80)], ..egress(Policy::Open) });
    Ok(host.start("orphan", &sandbox, StartOptions::default())?)
}

/// An owner in a directory of its own, killed once it has said a line, or by itself.
fn killed_owner(stage: &Stage, name: &str, kill: bool) -> Result<Host> {
    use std::io::BufRead;
    let dir = stage.work().join(name);
    fs::create_dir(&dir)?;
    let mut owner = Command::new(std::env::current_exe()?).env(OWNER, &dir).stdout(std::process::Stdio::piped()).spawn()?;
    let mut line = String::new();
    std::io::BufReader::new(owner.stdout.take().context("stdout")?).read_line(&mut line)?;
    same("it has said its pid", !line.is_empty(), kill)?;
    if kill {
        owner.kill()?;
    }
    same("its signal", std::os::unix::process::ExitStatusExt::signal(&owner.wait()?), Some(libc::SIGKILL))?;
    Ok(Host::open(&dir.join("run"), name)?)
}

fn own_name(what: &str) -> String {
    format!("dyno-test-{what}-{}", std::process::id())
}

fn the_owner_is_killed(stage: &Stage) -> Result<()> {
    let host = killed_owner(stage, &own_name("owner"), true)?;
    let Some(Found::Running(dyno)) = host.recover()?.pop() else { bail!("it does not run") };
    let _dyno = serve(&dyno, 80)?;
    same("published", tcp(HOST, 8010).is_ok(), true)?;
    reaches("it still gets out", &dyno, PUBLIC, 80, answer(HOST))?;
    dyno.free()?;
    same("published no more", tcp(HOST, 8010), Err(libc::ECONNREFUSED))?;
    host.dismantle()?;
    Ok(fs::remove_dir_all(stage.work().join(own_name("owner")))?)
}

/// Killed by the program that it runs: before and after the rules inside are loaded, and its port is published.
fn the_owner_is_killed_in_a_start(stage: &Stage) -> Result<()> {
    for word in ["chain output", "add element"] {
        for last in ["", "echo \"$rules\" | REAL -f -;"] {
            let script = format!(
                "#!/bin/sh\nrules=$(/bin/cat)\ncase \"$rules\" in *'{word}'*) {last} kill -9 $PPID; exit;; esac\necho \"$rules\" | REAL -f -\n"
            );
            let host = instead_of_nft(stage, &script, || killed_owner(stage, &own_name("early"), false))?;
            // Its process waits for a byte that will not come, and ends.
            host.recover()?.iter().try_for_each(|found| host.sweep(found.id()))?;
            same(word, tcp(HOST, 8010), Err(libc::ECONNREFUSED))?;
            host.dismantle()?;
            fs::remove_dir_all(stage.work().join(own_name("early")))?;
        }
    }
    Ok(())
}

/// What a next process does with the instance; it calls the function where what nft left must be decided.
type Next = fn(Host, &Path, &dyn Fn()) -> Result<()>;

/// An nft that is still at work when its owner is dead, and the next process has come.
fn rules_of_the_dead_are_waited_for(stage: &Stage) -> Result<()> {
    late(stage, "add element", false, |host, _, decided| {
        decided();
        same("published", tcp(HOST, 8010), Err(libc::ECONNREFUSED))?;
        Ok(host.dismantle()?)
    })?;
    late(stage, "create table", false, |host, _, decided| {
        host.dismantle()?;
        decided();
        Ok(())
    })?;
    late(stage, "delete table", true, |host, dir, decided| {
        let dyno = start_orphan(&host, dir)?;
        decided();
        let served = serve(&dyno, 80)?;
        let published = tcp(HOST, 8010);
        dyno.free()?;
        drop(served);
        ensure!(published.is_ok(), "published: {published:?}");
        Ok(host.dismantle()?)
    })
}

/// The nft that an owner has load `word` is held until the owner is dead, and the next process has recovered and decided, or waits.
fn late(stage: &Stage, word: &str, leaves: bool, next: Next) -> Result<()> {
    let (dir, name) = (stage.work().join(own_name("late")), own_name("late"));
    fs::create_dir(&dir)?;
    let (mut held, mut gate, mut over) = (fifo(&dir.join("held"))?, fifo(&dir.join("gate"))?, fifo(&dir.join("over"))?);
    let script = format!(
        "#!/bin/sh\nrules=$(/bin/cat)\ncase \"$rules\" in *'{word}'*) if /bin/mkdir {0}/once; then\n\
         echo > {0}/held; read go < {0}/gate; echo \"$rules\" | REAL -f -; echo > {0}/over; exit\nfi;; esac\necho \"$rules\" | REAL -f -\n",
        dir.display()
    );
    instead_of_nft(stage, &script, || {
        killed_when(&dir, leaves, || line(&mut held))?;
        let ((decided, is_decided), (ended, has_ended)) = (mpsc::channel(), mpsc::channel());
        let after = || -> Result<()> {
            let host = Host::open(&dir.join("run"), &name)?;
            host.recover()?.iter().try_for_each(|found| host.sweep(found.id()))?;
            next(host, &dir, &move || {
                decided.send(()).ok();
                has_ended.recv().ok();
            })
        };
        std::thread::scope(|scope| {
            let after = scope.spawn(after);
            let waits = is_decided.recv_timeout(Duration::from_millis(300)) == Err(mpsc::RecvTimeoutError::Timeout);
            gate.write_all(b"go\n")?;
            line(&mut over)?;
            ended.send(()).ok();
            after.join().map_err(|_| anyhow::anyhow!("panicked"))??;
            same(&format!("{word}: the next process waits"), waits, true)
        })
    })?;
    let rules = Command::new("nft").args(["list", "ruleset"]).output()?;
    ensure!(!String::from_utf8_lossy(&rules.stdout).contains(&name), "{word}: {rules:?}");
    Ok(fs::remove_dir_all(dir)?)
}

/// An owner that starts, or takes down what it has made, and is killed when `moment` has come.
fn killed_when(dir: &Path, leaves: bool, moment: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut owner = Command::new(std::env::current_exe()?);
    owner.env(OWNER, dir).stdout(std::process::Stdio::null());
    if leaves {
        owner.env(LEAVE, "1");
    }
    let mut owner = owner.spawn()?;
    let come = moment();
    owner.kill()?;
    owner.wait()?;
    come
}

/// Open at both ends, so that nobody has to wait for the other to open it.
fn fifo(path: &Path) -> Result<fs::File> {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)?;
    Ok(fs::OpenOptions::new().read(true).write(true).open(path)?)
}

/// Waits for a line that comes soon.
fn line(fifo: &mut fs::File) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let time = Timespec { tv_sec: 30, tv_nsec: 0 };
    ensure!(poll(&mut [PollFd::new(fifo, PollFlags::IN)], Some(&time))? == 1, "nothing came");
    Ok(std::io::Read::read(fifo, &mut [0; 8]).map(drop)?)
}

fn many_at_once(stage: &Stage) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u16)
            .map(|n| {
                scope.spawn(move || -> Result<()> {
                    let home = fs::read_link("/proc/thread-self/ns/net")?;
                    for round in 0..3 {
                        let port = 8100 + n * 3 + round;
                        let dyno = start(stage, Egress { publish: vec![publish(HOST, port, 80)], ..egress(Policy::Open) })?;
                        let _dyno = serve(&dyno, 80)?;
                        let published = tcp(HOST, port);
                        ensure!(published.is_ok(), "published {port}, {round}: {published:?}");
                        reaches("out", &dyno, PUBLIC, 80, answer(HOST))?;
                        dyno.free()?;
                    }
                    same("at home", fs::read_link("/proc/thread-self/ns/net")?, home)
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("panicked"))?)
    })
}

fn nothing_is_missing_here(_: &Stage) -> Result<()> {
    same("missing", dyno_runtime::net::egress::missing(), Vec::<String>::new())
}
