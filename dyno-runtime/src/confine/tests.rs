//! What a service that was taken over would try: each attempt on a thread without walls, where it must succeed, and on one behind them.
//! As root, so that nothing but the walls can be what refuses.

use std::{
    fs, io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::symlink,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
};

use libc::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, AF_VSOCK, PROT_EXEC, PROT_READ, PROT_WRITE, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM};
use rustix::io::Errno;

use super::{Access, Confinement, Walls, confine, landlock_abi, service};
use crate::{
    error::{self, ErrorKind},
    seccomp,
    sys::{attempt, inject},
};

/// What the attempts are made on, all of it the test's own.
struct Ground {
    dir: tempfile::TempDir,
    /// A process that sleeps.
    other: Child,
    allowed: TcpListener,
    forbidden: TcpListener,
    abstractly: SocketAddr,
    namespace: fs::File,
    _listener: UnixListener,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["state", "sockets", "elsewhere"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        for name in ["secret", "old"] {
            fs::write(dir.path().join("elsewhere").join(name), "secret").unwrap();
        }
        fs::write(dir.path().join("read"), "to be read").unwrap();
        let abstractly = SocketAddr::from_abstract_name(format!("dyno-confine-{}", dir.path().display())).unwrap();
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            other: Command::new("sleep").arg("1000").spawn().unwrap(),
            namespace: fs::File::open("/proc/self/ns/uts").unwrap(),
            allowed: listen(),
            forbidden: listen(),
            _listener: UnixListener::bind_addr(&abstractly).unwrap(),
            abstractly,
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn confinement(&self) -> Confinement {
        let files = vec![(self.path("state"), Access::Write), (self.path("sockets"), Access::Sockets), (self.path("read"), Access::Read)];
        Confinement { files, connect: vec![self.allowed.local_addr().unwrap().port()] }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.other.kill().unwrap();
        self.other.wait().unwrap();
    }
}

type Attempt = fn(&Ground) -> io::Result<()>;

/// A thread's walls are its own.
fn bare(ground: &Arc<Ground>, attempt: Attempt) -> io::Result<()> {
    let ground = ground.clone();
    std::thread::spawn(move || attempt(&ground)).join().unwrap()
}

fn behind(ground: &Arc<Ground>, attempt: Attempt) -> io::Result<()> {
    let ground = ground.clone();
    let confined = move || {
        confine(&ground.confinement()).unwrap();
        attempt(&ground)
    };
    std::thread::spawn(confined).join().unwrap()
}

fn open(path: &Path) -> io::Result<()> {
    fs::File::open(path).map(drop)
}

fn raw(result: Result<(), Errno>) -> io::Result<()> {
    result.map_err(Into::into)
}

/// Name, attempt, errno behind the walls, and the ABI of Landlock from which on it is refused (0: by the filter).
#[rustfmt::skip]
const ATTEMPTS: &[(&str, Attempt, Errno, u32)] = &[
    ("read /etc/shadow", |_| open(Path::new("/etc/shadow")), Errno::ACCESS, 2),
    ("read a file that everybody may read", |_| open(Path::new("/etc/passwd")), Errno::ACCESS, 2),
    ("read a file beside its own", |g| open(&g.path("elsewhere/secret")), Errno::ACCESS, 2),
    ("read its own file through ..", |g| open(&g.path("state/../elsewhere/secret")), Errno::ACCESS, 2),
    ("read another's memory map", |g| open(&PathBuf::from(format!("/proc/{}/maps", g.other.id()))), Errno::ACCESS, 2),
    ("list a directory", |g| fs::read_dir(g.path("elsewhere")).map(drop), Errno::ACCESS, 2),
    ("list what it may read", |_| fs::read_dir("/").map(drop), Errno::ACCESS, 2),
    ("write what it may only read", |g| fs::OpenOptions::new().write(true).open(g.path("read")).map(drop), Errno::ACCESS, 2),
    ("cut what it may only read", |g| rustix::fs::open(g.path("read"), rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::TRUNC, rustix::fs::Mode::empty()).map(drop).map_err(Into::into), Errno::ACCESS, 2),
    ("make a file elsewhere", |g| fs::write(g.path("elsewhere/new"), "x"), Errno::ACCESS, 2),
    ("remove a file elsewhere", |g| fs::remove_file(g.path("elsewhere/old")).and_then(|()| fs::write(g.path("elsewhere/old"), "x")), Errno::ACCESS, 2),
    ("move a file in", |g| fs::rename(g.path("elsewhere/secret"), g.path("state/secret")).and_then(|()| fs::rename(g.path("state/secret"), g.path("elsewhere/secret"))), Errno::ACCESS, 2),
    ("make a link", |g| symlink("/etc/shadow", g.path("state/link")).and_then(|()| fs::remove_file(g.path("state/link"))), Errno::PERM, 0),
    ("make a second name", |g| fs::hard_link(g.path("read"), g.path("state/name")).and_then(|()| fs::remove_file(g.path("state/name"))), Errno::PERM, 0),
    ("make a FIFO", |g| Ok(rustix::fs::mknodat(rustix::fs::CWD, g.path("state/fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)?).and_then(|()| fs::remove_file(g.path("state/fifo"))), Errno::PERM, 0),
    ("give a file away", |g| std::os::unix::fs::chown(g.path("state"), Some(0), Some(0)), Errno::PERM, 0),
    ("bind a socket in a place for files", |g| UnixListener::bind(g.path("state/socket")).and_then(|_| fs::remove_file(g.path("state/socket"))), Errno::ACCESS, 2),
    ("connect to a port that is not its", |g| TcpStream::connect(g.forbidden.local_addr()?).map(drop), Errno::ACCESS, 4),
    ("connect to it by sending", |g| raw(attempt::connect_by_sending(g.forbidden.local_addr()?.port())), Errno::PERM, 0),
    ("listen on a port", |_| TcpListener::bind("127.0.0.1:0").map(drop), Errno::ACCESS, 4),
    ("connect to an abstract socket", |g| UnixStream::connect_addr(&g.abstractly).map(drop), Errno::PERM, 6),
    ("signal another process", |g| raw(attempt::with_numbers(libc::SYS_kill, [i64::from(g.other.id()), 0, 0])), Errno::PERM, 0),
    ("signal another's thread", |g| raw(attempt::signal_thread(g.other.id())), Errno::PERM, 6),
    ("hold another process", |g| raw(attempt::with_numbers(libc::SYS_pidfd_open, [i64::from(g.other.id()), 0, 0])), Errno::PERM, 0),
    ("run a program", |_| Command::new("true").status().map(drop), Errno::PERM, 0),
    ("fork", |_| raw(attempt::fork(0)), Errno::PERM, 0),
    ("fork into a user namespace", |_| raw(attempt::fork(libc::CLONE_NEWUSER)), Errno::PERM, 0),
    ("trace", |g| raw(attempt::trace(g.other.id())), Errno::PERM, 0),
    ("read another's memory", |_| raw(attempt::read_memory()), Errno::PERM, 0),
    ("make a namespace", |_| raw(attempt::unshare(libc::CLONE_NEWUTS)), Errno::PERM, 0),
    ("make a network", |_| raw(attempt::unshare(libc::CLONE_NEWNET)), Errno::PERM, 0),
    ("enter a namespace", |g| raw(attempt::enter(g.namespace.as_fd())), Errno::PERM, 0),
    ("make a file system", |_| raw(attempt::with_text(libc::SYS_fsopen, c"tmpfs", [0; 3])), Errno::PERM, 0),
    ("change the root", |_| raw(attempt::unshare(libc::CLONE_FS).and_then(|()| attempt::with_text(libc::SYS_chroot, c"/", [0; 3]))), Errno::PERM, 0),
    ("a raw socket", |_| raw(attempt::socket(AF_INET, SOCK_RAW, 1).map(drop)), Errno::PERM, 0),
    ("a packet socket", |_| raw(attempt::socket(AF_PACKET, SOCK_DGRAM, 0).map(drop)), Errno::PERM, 0),
    ("a socket of the firewall", |_| raw(attempt::socket(AF_NETLINK, SOCK_RAW, 12).map(drop)), Errno::PERM, 0),
    ("a socket to the hypervisor", |_| raw(attempt::socket(AF_VSOCK, SOCK_STREAM, 0).map(drop)), Errno::PERM, 0),
    ("a stream that Landlock does not know", |_| raw(attempt::socket(AF_INET, SOCK_STREAM, 262).map(drop)), Errno::PERM, 0),
    ("memory to write and execute", |_| raw(attempt::map(PROT_READ | PROT_WRITE | PROT_EXEC, PROT_READ)), Errno::PERM, 0),
    ("memory that becomes executable", |_| raw(attempt::map(PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC)), Errno::PERM, 0),
    ("a file in memory", |_| raw(attempt::with_text(libc::SYS_memfd_create, c"x", [0; 3])), Errno::PERM, 0),
    ("io_uring", |_| raw(attempt::ring()), Errno::NOSYS, 0),
    ("userfaultfd", |_| raw(attempt::with_numbers(libc::SYS_userfaultfd, [0; 3])), Errno::PERM, 0),
    ("keys", |_| raw(attempt::with_numbers(libc::SYS_keyctl, [0, -3, 1])), Errno::PERM, 0),
    ("another execution domain", |_| raw(attempt::with_numbers(libc::SYS_personality, [0xffff_ffff, 0, 0])), Errno::PERM, 0),
    ("another user", |_| raw(attempt::with_numbers(libc::SYS_setresuid, [-1, -1, -1])), Errno::PERM, 0),
    ("memory to be read by others", |_| raw(attempt::with_numbers(libc::SYS_prctl, [i64::from(libc::PR_GET_DUMPABLE), 0, 0])), Errno::PERM, 0),
    ("notice of others' files", |_| raw(attempt::with_numbers(libc::SYS_inotify_init1, [0; 3])), Errno::PERM, 0),
];

#[test]
fn what_a_taken_over_service_cannot_do() {
    let ground = Arc::new(Ground::new());
    let abi = landlock_abi().unwrap();
    let mut wrong = Vec::new();
    for (name, attempt, errno, since) in ATTEMPTS {
        if let Err(e) = bare(&ground, *attempt) {
            // A kernel without it, or a test that is not root's: nothing is shown, and that is said.
            println!("skipped: {name}: refused without walls as well: {e}");
            if !attempt::may_be_vacuous(&e) {
                wrong.push(format!("{name}: the control fails: {e}"));
            }
            continue;
        }
        if abi < *since {
            println!("skipped: {name}: Landlock ABI {abi}, from {since} on");
            continue;
        }
        match behind(&ground, *attempt) {
            Err(e) if e.raw_os_error() == Some(errno.raw_os_error()) => {}
            other => wrong.push(format!("{name}: {other:?}, not {errno}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What every path of ours needs still works: otherwise the walls above would be an outage.
#[test]
fn what_a_service_needs() {
    let ground = Arc::new(Ground::new());
    let needs: &[(&str, Attempt)] = &[
        ("files of its own", |g| {
            let (a, b) = (g.path("state/a"), g.path("state/b"));
            fs::create_dir(g.path("state/dir"))?;
            fs::write(&a, "text")?;
            fs::rename(&a, g.path("state/dir/c"))?;
            fs::rename(g.path("state/dir/c"), &b)?;
            assert_eq!(fs::read(&b)?, b"text");
            fs::OpenOptions::new().write(true).truncate(true).open(&b)?.sync_all()?;
            assert_eq!(fs::read_dir(g.path("state"))?.count(), 2);
            fs::remove_file(&b)?;
            fs::remove_dir(g.path("state/dir"))
        }),
        ("files to read", |g| fs::read(g.path("read")).map(drop)),
        ("a socket of its own", |g| {
            let _listener = UnixListener::bind(g.path("sockets/s"))?;
            UnixStream::connect(g.path("sockets/s"))?;
            fs::remove_file(g.path("sockets/s"))
        }),
        ("its port, and connections that come", |g| {
            let stream = TcpStream::connect(g.allowed.local_addr()?)?;
            stream.set_nonblocking(true)?;
            g.allowed.accept().map(drop)
        }),
        ("datagrams", |_| UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", "127.0.0.1:9").map(drop)),
        ("threads", |_| std::thread::Builder::new().name("named".into()).spawn(|| ())?.join().map_err(|_| io::ErrorKind::Other.into())),
        ("both families, and the list of addresses", |_| {
            for (family, kind) in [(AF_INET6, SOCK_STREAM), (AF_INET6, SOCK_DGRAM), (AF_NETLINK, SOCK_RAW), (AF_UNIX, SOCK_DGRAM)] {
                attempt::socket(family, kind, 0)?;
            }
            Ok(())
        }),
        ("its own limits", |_| {
            let _limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            Ok(())
        }),
    ];
    for (name, need) in needs {
        behind(&ground, *need).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// What a thread starts is behind the same walls.
#[test]
fn threads_that_come_later_are_held_too() {
    let ground = Arc::new(Ground::new());
    let inherited: Attempt = |g| {
        let path = g.path("elsewhere/secret");
        std::thread::spawn(move || (open(&path), attempt::execute())).join().map_err(|_| io::ErrorKind::Other).map(|(read, executed)| {
            assert!(landlock_abi_of_tests() < 2 || read.is_err_and(|e| e.raw_os_error() == Some(libc::EACCES)));
            assert_eq!(executed, Err(Errno::PERM));
        })?;
        Ok(())
    };
    behind(&ground, inherited).unwrap();
}

/// Before the walls, because the call itself is behind them.
fn landlock_abi_of_tests() -> u32 {
    static ABI: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *ABI.get_or_init(|| std::thread::spawn(|| landlock_abi().unwrap_or(2)).join().unwrap())
}

/// No way around by another path of the same thing.
#[test]
fn the_filter_leaves_no_second_way() {
    let denied = seccomp::service_explained(&service().unwrap()).unwrap();
    for call in [
        "execve",
        "execveat",
        "fork",
        "vfork",
        "clone3",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "process_madvise",
        "pidfd_getfd",
        "pidfd_open",
        "pidfd_send_signal",
        "kill",
        "tkill",
        "rt_sigqueueinfo",
        "rt_tgsigqueueinfo",
        "unshare",
        "setns",
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "fsopen",
        "fsmount",
        "move_mount",
        "open_tree",
        "mount_setattr",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "keyctl",
        "add_key",
        "request_key",
        "io_uring_setup",
        "init_module",
        "finit_module",
        "kexec_load",
        "open_by_handle_at",
        "name_to_handle_at",
        "memfd_create",
        "memfd_secret",
        "shmget",
        "msgget",
        "semget",
        "mknod",
        "mknodat",
        "symlink",
        "symlinkat",
        "link",
        "linkat",
        "chown",
        "fchownat",
        "setuid",
        "setresuid",
        "setgroups",
        "capset",
        "personality",
        "seccomp",
        "pkey_mprotect",
        "remap_file_pages",
        "setrlimit",
        "inotify_init1",
        "fanotify_init",
        "quotactl",
        "swapon",
        "reboot",
        "syslog",
        "acct",
        "iopl",
        "modify_ldt",
    ] {
        assert!(denied.contains(&call.to_owned()), "{call} is allowed");
    }
}

/// What [`confine`] says on a thread that was prepared before. The filters of the preparation need no_new_privs, or root.
fn confined_after(prepare: impl FnOnce() + Send + 'static) -> error::Result<Walls> {
    // Stays with this thread: from behind the walls nothing of it could be taken away.
    let ground = Ground::new();
    let what = ground.confinement();
    let work = move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        prepare();
        confine(&what).inspect(|_| assert_eq!(attempt::execute(), Err(Errno::PERM)))
    };
    std::thread::spawn(work).join().unwrap()
}

fn hidden(number: i64, errno: Errno) -> inject::Hidden {
    inject::Hidden { number, when: inject::When::Always, errno }
}

#[test]
fn a_wall_that_is_refused_is_an_error() {
    let calls = [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self, libc::SYS_seccomp];
    for (call, named) in calls.into_iter().zip(["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"]) {
        if named.starts_with("landlock_") && landlock_abi().unwrap() == 0 {
            println!("skipped: {named}: this kernel has no Landlock");
            continue;
        }
        let error = confined_after(move || inject::hide(&[hidden(call, Errno::PERM)]).unwrap()).expect_err(named);
        assert_eq!(error.kind(), ErrorKind::Wall, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

/// A call that says yes and does nothing is what the attempts after it are for.
#[test]
fn a_wall_that_does_not_stand_is_seen() {
    for (call, wall) in [(libc::SYS_landlock_restrict_self, "Landlock"), (libc::SYS_seccomp, "the system-call filter")] {
        if wall == "Landlock" && landlock_abi().unwrap() == 0 {
            println!("skipped: {wall}: this kernel has none");
            continue;
        }
        let error = confined_after(move || inject::pretend(call).unwrap()).expect_err(wall);
        assert!(error.to_string().contains(&format!("{wall} was raised and does not hold")), "{error}");
    }
}

#[test]
fn a_kernel_without_landlock_is_told() {
    let calls = [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self];
    for errno in [Errno::NOSYS, Errno::OPNOTSUPP] {
        let walls = confined_after(move || inject::hide(&calls.map(|call| hidden(call, errno))).unwrap()).unwrap();
        assert_eq!((walls.landlock, walls.lacking.len()), (0, 4), "{walls:?}");
    }
}
