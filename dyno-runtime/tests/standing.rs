//! Who the program is inside: capabilities on request, groups, devices, Landlock, other networks than its own.

pub(crate) mod support;

use std::{
    fs,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use dyno_runtime::{Capability, Cause, Network, Profile, Sandbox, Stdio, Upper, Volume};

use support::{Case, PROGRAM, Stage, same};

pub(crate) const CASES: &[Case] = &[
    ("capabilities_asked_for_are_held_and_no_others", capabilities_asked_for_are_held_and_no_others),
    ("capabilities_do_what_they_are_for", capabilities_do_what_they_are_for),
    ("supplementary_groups", supplementary_groups),
    ("devices_by_name", devices_by_name),
    ("masked_and_read_only_paths", masked_and_read_only_paths),
    ("volumes_in_memory", volumes_in_memory),
    ("landlock_lets_ordinary_things_pass", landlock_lets_ordinary_things_pass),
    ("landlock_alone_refuses_device_nodes", landlock_alone_refuses_device_nodes),
    ("securebits_are_locked", securebits_are_locked),
    ("a_session_keyring_of_its_own", a_session_keyring_of_its_own),
    ("a_side_car_shares_the_network", a_side_car_shares_the_network),
    ("the_hosts_network", the_hosts_network),
    ("its_description_is_kept", its_description_is_kept),
];

fn main() -> ExitCode {
    support::suite("standing", &[], CASES)
}

fn with_capabilities(stage: &Stage, names: &[&str], uid: u32, args: &[&str]) -> Result<Sandbox> {
    let mut sandbox = stage.sandbox(args);
    sandbox.identity.uid = uid;
    sandbox.identity.capabilities = names.iter().map(|n| n.parse()).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    Ok(sandbox)
}

fn capabilities_asked_for_are_held_and_no_others(stage: &Stage) -> Result<()> {
    let all: Vec<&str> = Capability::all().map(Capability::name).collect();
    for names in [&["CHOWN", "CHECKPOINT_RESTORE"][..], &["NET_RAW", "SYS_ADMIN"], &all] {
        let bits = names.iter().map(|n| n.parse::<Capability>().map(Capability::bit)).sum::<Result<u64, _>>().map_err(anyhow::Error::msg)?;
        for uid in [0, 1000] {
            let (exit, status) = stage.output(&with_capabilities(stage, names, uid, &["read", "/proc/self/status"])?)?;
            same("status", exit.status, 0)?;
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                let is = status.lines().find_map(|l| l.strip_prefix(set)?.strip_prefix(":\t")).context(set)?;
                same(&format!("{set} of uid {uid} with {names:?}"), is, &format!("{bits:016x}"))?;
            }
            ensure!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
        }
    }
    Ok(())
}

/// Each with it and without it.
fn capabilities_do_what_they_are_for(stage: &Stage) -> Result<()> {
    let cases: &[(&str, u32, &[&str], i32)] = &[
        ("CHOWN", 1000, &["chown", "/tmp/mine", "77"], libc::EPERM),
        ("NET_BIND_SERVICE", 1000, &["bind", "80"], libc::EACCES),
        ("DAC_OVERRIDE", 1000, &["write", "/bin/new", "x"], libc::EACCES),
    ];
    fs::write(stage.rootfs().join("tmp/mine"), "")?;
    for (name, uid, args, errno) in cases {
        let check = |names: &[&str], want: (i32, String)| -> Result<()> {
            let (exit, text) = stage.output(&with_capabilities(stage, names, *uid, args)?)?;
            same(&format!("{args:?} with {names:?}"), (exit.status, text), want)
        };
        check(&[name], (0, String::new()))?;
        check(&[], (9, format!("errno {errno}\n")))?;
    }
    Ok(())
}

fn supplementary_groups(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["read", "/proc/self/status"]);
    sandbox.identity.groups = vec![5, 44, 65535];
    let (_, status) = stage.output(&sandbox)?;
    let groups = status.lines().find_map(|l| l.strip_prefix("Groups:\t")).context("no groups")?;
    same("groups", groups.trim(), "5 44 65535")
}

fn devices_by_name(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["list", "/dev"]);
    sandbox.devices = vec!["kmsg".into()];
    let (_, names) = stage.output(&sandbox)?;
    same("/dev", names, "fd full kmsg null ptmx pts random shm stderr stdin stdout tty urandom zero\n".into())?;
    let other = stage.ask(&["list", "/dev"])?;
    ensure!(!other.contains("kmsg"), "another sandbox has it too: {other}");
    sandbox.argv = vec![PROGRAM.into(), "write".into(), "/dev/null".into(), "x".into()];
    same("the six work beside it", stage.output(&sandbox)?.0.status, 0)?;
    for (name, want) in [("nothing", "devices \"nothing\": stat(/dev/nothing)"), ("fd", "devices \"fd\": /dev/fd is no device")] {
        sandbox.devices = vec![name.into()];
        stage.leaves_nothing(|| {
            let error = stage.start(&sandbox, Stdio::Null).err().context(name)?.to_string();
            ensure!(error.starts_with(want), "{error}");
            Ok(())
        })?;
    }
    Ok(())
}

fn masked_and_read_only_paths(stage: &Stage) -> Result<()> {
    fs::create_dir_all(stage.rootfs().join("secret/deep"))?;
    fs::write(stage.rootfs().join("word"), "told")?;
    let mut sandbox = stage.sandbox(&["list", "/secret"]);
    sandbox.masked = ["/secret", "/word", "/not/there"].map(Into::into).to_vec();
    sandbox.read_only = vec!["/tmp".into()];
    same("directory", stage.output(&sandbox)?.1, "\n".into())?;
    let mut run = |args: &[&str]| {
        sandbox.argv = [PROGRAM].iter().chain(args).map(|a| (*a).to_owned()).collect();
        stage.output(&sandbox).map(|o| o.1)
    };
    same("file", run(&["read", "/word"])?, String::new())?;
    same("a write", run(&["write", "/tmp/x", "y"])?, format!("errno {}\n", libc::EROFS))
}

fn volumes_in_memory(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["fill", "/data/x"]);
    sandbox.root.upper = Upper::ReadOnly;
    sandbox.volumes = vec![Volume::Tmpfs { target: "/data".into(), bytes: 65536, inodes: 10 }];
    same("its size", stage.output(&sandbox)?.1, format!("65536 errno {}\n", libc::ENOSPC))?;
    sandbox.argv = vec![PROGRAM.into(), "files".into(), "/data".into()];
    same("its inodes", stage.output(&sandbox)?.1, format!("9 errno {}\n", libc::ENOSPC))
}

/// A ruleset that forgets REFER breaks every package manager.
fn landlock_lets_ordinary_things_pass(stage: &Stage) -> Result<()> {
    fs::write(stage.rootfs().join("tmp/file"), "x")?;
    let mut sandbox = stage.sandbox(&["rename", "/tmp/file", "/data/file"]);
    sandbox.identity.uid = 0;
    let (exit, text) = stage.output(&sandbox)?;
    same("from one directory to another", (exit.status, text), (0, String::new()))?;
    sandbox.root.upper = Upper::ReadOnly;
    sandbox.volumes = vec![Volume::Tmpfs { target: "/data".into(), bytes: 65536, inodes: 10 }];
    sandbox.argv = vec![PROGRAM.into(), "write".into(), "/data/y".into(), "z".into()];
    same("a volume below a read-only root", stage.output(&sandbox)?.0.status, 0)?;
    sandbox.argv = vec![PROGRAM.into(), "write".into(), "/dev/null".into(), "z".into()];
    same("a device below a read-only root", stage.output(&sandbox)?.0.status, 0)
}

/// Without a filter the kernel asks Landlock first (EACCES), then for the capability (EPERM): what it answers tells who refused.
fn landlock_alone_refuses_device_nodes(stage: &Stage) -> Result<()> {
    // Not a whiteout, a character device of number 0, which newer kernels count among the plain files (7.2).
    let mut sandbox = stage.sandbox(&["mknod", "/tmp/disk", &(libc::S_IFBLK | 0o600).to_string(), "0"]);
    let (exit, text) = stage.output(&sandbox)?;
    same("the filter comes first", (exit.status, text), (9, format!("errno {}\n", libc::EPERM)))?;
    sandbox.seccomp = Profile::Unconfined;
    let want = if landlock_abi() >= 2 { libc::EACCES } else { libc::EPERM };
    let (exit, text) = stage.output(&sandbox)?;
    same("without a filter", (exit.status, text), (9, format!("errno {want}\n")))
}

fn securebits_are_locked(stage: &Stage) -> Result<()> {
    let ask = [libc::SYS_prctl.to_string(), libc::PR_GET_SECUREBITS.to_string()];
    let mut sandbox = stage.sandbox(&["call", &ask[0], &ask[1]]);
    // NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each with its lock, and KEEP_CAPS_LOCKED: capabilities(7).
    same("bits", stage.output(&sandbox)?.1, format!("answer {}\n", 0b1110_1111))?;
    sandbox.identity.uid = 0;
    same("bits of root", stage.output(&sandbox)?.1, format!("answer {}\n", 0b1110_1111))
}

/// KEYCTL_GET_KEYRING_ID of the session keyring: the caller's must not be there.
fn a_session_keyring_of_its_own(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["call", &libc::SYS_keyctl.to_string(), "0", "18446744073709551613", "0"]);
    sandbox.seccomp = Profile::Unconfined;
    let (one, two) = (stage.output(&sandbox)?.1, stage.output(&sandbox)?.1);
    ensure!(one.starts_with("answer ") && two.starts_with("answer ") && one != two, "{one:?} {two:?}");
    // SAFETY: numbers only.
    #[allow(unsafe_code, reason = "the kernel tells this by a system call only")]
    let ours = unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) };
    ensure!(one != format!("answer {ours}\n"), "it has the caller's: {ours}");
    Ok(())
}

fn a_side_car_shares_the_network(stage: &Stage) -> Result<()> {
    let mut server = stage.start(&stage.sandbox(&["serve", "8080"]), Stdio::Pipes)?;
    let dyno_runtime::Streams::Pipes { stdout, .. } = server.take_streams() else { anyhow::bail!("no pipes") };
    let mut listening = [0; 10];
    std::io::Read::read_exact(&mut fs::File::from(stdout.try_clone()?), &mut listening)?;
    let mut sandbox = stage.sandbox(&["connect", "8080"]);
    sandbox.network = Network::Joined(server.id().to_owned());
    same("a side-car connects", stage.output(&sandbox)?.0.status, 0)?;
    same("the server has served", server.wait()?.status, 0)?;
    let net = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net"));
    let id = server.id().to_owned();
    server.free()?;
    let first = stage.forever()?;
    let beside = stage.start(&Sandbox { network: Network::Joined(first.id().into()), ..stage.sandbox(&["forever"]) }, Stdio::Null)?;
    same("one network", net(first.pid())?, net(beside.pid())?)?;
    for kind in ["user", "mnt", "pid", "ipc", "uts", "cgroup"] {
        let link = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        ensure!(link(first.pid())? != link(beside.pid())?, "{kind} is shared too");
    }
    first.free()?;
    same("it outlives the one it joined", beside.has_ended(), false)?;
    beside.free()?;
    sandbox.network = Network::Joined(id.clone());
    stage.leaves_nothing(|| {
        let error = stage.start(&sandbox, Stdio::Null).err().context("it has ended")?.to_string();
        same("error", error, format!("network joined {id:?} does not run"))
    })
}

fn the_hosts_network(stage: &Stage) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port().to_string();
    let mut sandbox = stage.sandbox(&["connect", &port]);
    same("its own network has no such port", stage.output(&sandbox)?.1, format!("errno {}\n", libc::ECONNREFUSED))?;
    sandbox.network = Network::Host;
    same("the host's has", stage.output(&sandbox)?.0.status, 0)?;
    let name = format!("{}-abstract", stage.name);
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    sandbox.argv = vec![PROGRAM.into(), "abstract".into(), name];
    let want = if landlock_abi() >= 6 { (9, format!("errno {}\n", libc::EPERM)) } else { (0, String::new()) };
    let (exit, text) = stage.output(&sandbox)?;
    same("abstract sockets of the host", (exit.status, text), want)?;
    same("cause", exit.cause, Cause::Exited)
}

fn landlock_abi() -> i64 {
    const VERSION: i32 = 1;
    // SAFETY: with this flag the call takes no attributes.
    #[allow(unsafe_code, reason = "the kernel tells this by a system call only")]
    unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, VERSION)
    }
}

fn its_description_is_kept(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["forever"]);
    sandbox.env.insert("A".into(), "1".into());
    let dyno = stage.start(&sandbox, Stdio::Null)?;
    same("description", dyno.sandbox()?, sandbox)?;
    Ok(dyno.free()?)
}
