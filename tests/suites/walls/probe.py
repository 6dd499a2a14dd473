"""Tries from inside a dyno what a wall should stop. Prints one line per attempt: its name and what came of it."""
import ctypes
import errno
import fcntl
import os
import socket
import stat
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)

# Numbers of x86-64 and arm64; 425 and up are the same everywhere.
NUMBERS = {
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "chroot": (161, 51), "clock_settime": (227, 112),
    "clone": (56, 220), "clone3": (435, 435), "delete_module": (176, 106), "fanotify_init": (300, 262),
    "finit_module": (313, 273), "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430),
    "init_module": (175, 105), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425), "ioctl": (16, 29), "iopl": (172, None), "ioperm": (173, None), "kcmp": (312, 272),
    "kexec_load": (246, 104), "keyctl": (250, 219), "memfd_secret": (447, 447), "mknodat": (259, 33),
    "modify_ldt": (154, None), "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438), "pivot_root": (155, 41),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60),
    "reboot": (169, 142), "request_key": (249, 218), "sethostname": (170, 161), "setns": (308, 268),
    "settimeofday": (164, 170), "socket": (41, 198), "swapon": (167, 224), "syslog": (103, 116),
    "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282),
}
COLUMN = 0 if os.uname().machine == "x86_64" else 1
HIGH = 1 << 32  # a bit that the kernel drops from what it takes as int


def raw(number, *arguments):
    """A system call by number; arguments are full registers, or bytes."""
    ctypes.set_errno(0)
    registers = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_ulong(a) for a in arguments]
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *registers)
    return errno.errorcode.get(ctypes.get_errno(), "?") if result == -1 else "allowed"


def call(name, *arguments):
    number = NUMBERS[name][COLUMN]
    return "absent" if number is None else raw(number, *arguments)


def opened(family, kind, protocol=0):
    return call("socket", family, kind, protocol)


NEWUSER, NEWNS, NEWNET, NEWPID = 0x10000000, 0x20000, 0x40000000, 0x20000000
DEVICE = stat.S_IFCHR | 0o666
AT_FDCWD = (1 << 64) - 100

CALLS = {
    "unshare user": lambda: call("unshare", NEWUSER),
    "unshare mount": lambda: call("unshare", NEWNS),
    "unshare net": lambda: call("unshare", NEWNET),
    "unshare user, high bits": lambda: call("unshare", NEWUSER | HIGH),
    "clone user": lambda: call("clone", NEWUSER | 17, 0, 0, 0, 0),
    "clone pid": lambda: call("clone", NEWPID | 17, 0, 0, 0, 0),
    "clone user, high bits": lambda: call("clone", NEWUSER | 17 | HIGH, 0, 0, 0, 0),
    "clone3": lambda: call("clone3", 0, 0),
    "setns": lambda: call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0),
    "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, 0),
    "umount2": lambda: call("umount2", b"/proc/keys", 2),
    "pivot_root": lambda: call("pivot_root", b"/tmp", b"/tmp"),
    "chroot": lambda: call("chroot", b"/tmp"),
    "fsopen": lambda: call("fsopen", b"tmpfs", 0),
    "fsconfig": lambda: call("fsconfig", 0, 6, 0, 0, 0),
    "fsmount": lambda: call("fsmount", 0, 0, 0),
    "open_tree": lambda: call("open_tree", AT_FDCWD, b"/", 1),
    "move_mount": lambda: call("move_mount", AT_FDCWD, b"/tmp", AT_FDCWD, b"/app", 0),
    "mount_setattr": lambda: call("mount_setattr", AT_FDCWD, b"/", 0, 0, 0),
    "ptrace": lambda: call("ptrace", 16, 1, 0, 0),
    "process_vm_readv": lambda: call("process_vm_readv", 1, 0, 0, 0, 0, 0),
    "process_vm_writev": lambda: call("process_vm_writev", 1, 0, 0, 0, 0, 0),
    "pidfd_getfd": lambda: call("pidfd_getfd", 0, 0, 0),
    "kcmp": lambda: call("kcmp", 1, 1, 0, 0, 0),
    "bpf": lambda: call("bpf", 0, 0, 0),
    "perf_event_open": lambda: call("perf_event_open", 0, 0, 0, 0, 0),
    "userfaultfd": lambda: call("userfaultfd", 0),
    "keyctl": lambda: call("keyctl", 0, 0, 0, 0, 0),
    "add_key": lambda: call("add_key", b"user", b"x", b"x", 1, (1 << 64) - 3),
    "request_key": lambda: call("request_key", b"user", b"x", 0, 0),
    "io_uring_setup": lambda: call("io_uring_setup", 1, 0),
    "io_uring_enter": lambda: call("io_uring_enter", 0, 0, 0, 0, 0),
    "io_uring_register": lambda: call("io_uring_register", 0, 0, 0, 0),
    "open_by_handle_at": lambda: call("open_by_handle_at", 0, 0, 0),
    "name_to_handle_at": lambda: call("name_to_handle_at", AT_FDCWD, b"/", 0, 0, 0),
    "fanotify_init": lambda: call("fanotify_init", 0, 0),
    "memfd_secret": lambda: call("memfd_secret", 0),
    "init_module": lambda: call("init_module", 0, 0, b""),
    "finit_module": lambda: call("finit_module", 0, b"", 0),
    "delete_module": lambda: call("delete_module", b"x", 0),
    "kexec_load": lambda: call("kexec_load", 0, 0, 0, 0),
    "reboot": lambda: call("reboot", 0, 0, 0, 0),
    "swapon": lambda: call("swapon", b"/tmp/x", 0),
    "acct": lambda: call("acct", b"/tmp/x"),
    "quotactl": lambda: call("quotactl", 0, 0, 0, 0),
    "syslog": lambda: call("syslog", 3, 0, 0),
    "settimeofday": lambda: call("settimeofday", 0, 0),
    "clock_settime": lambda: call("clock_settime", 0, 0),
    "sethostname": lambda: call("sethostname", b"x", 1),
    "iopl": lambda: call("iopl", 3),
    "ioperm": lambda: call("ioperm", 0, 1, 1),
    "modify_ldt": lambda: call("modify_ldt", 0, 0, 0),
    "personality without randomisation": lambda: call("personality", 0x40000),
    "a number that no kernel has": lambda: raw(9999),
    "getpid by its x32 number": lambda: raw(0x40000000 | 39) if COLUMN == 0 else "absent",
    "TIOCSTI": lambda: call("ioctl", 0, 0x5412, b"x"),
    "TIOCSTI, high bits": lambda: call("ioctl", 0, 0x5412 | HIGH, b"x"),
    "TIOCLINUX": lambda: call("ioctl", 0, 0x541C, b"x"),
    "TIOCSETD": lambda: call("ioctl", 0, 0x5423, b"x"),
    "character device": lambda: call("mknodat", AT_FDCWD, b"/tmp/c", DEVICE, os.makedev(1, 3)),
    "character device, high bits": lambda: call("mknodat", AT_FDCWD, b"/tmp/c", DEVICE | HIGH, os.makedev(1, 3)),
    "block device": lambda: call("mknodat", AT_FDCWD, b"/tmp/b", stat.S_IFBLK | 0o666, os.makedev(7, 0)),
    "named pipe": lambda: call("mknodat", AT_FDCWD, b"/tmp/f", stat.S_IFIFO | 0o666, 0),
}

SOCKETS = {
    "stream": lambda: opened(socket.AF_INET, 1),
    "datagram": lambda: opened(socket.AF_INET6, 2),
    "local": lambda: opened(socket.AF_UNIX, 1),
    "NETLINK_ROUTE": lambda: opened(16, 3, 0),
    "raw": lambda: opened(socket.AF_INET, 3, 1),
    "raw with flags": lambda: opened(socket.AF_INET, 3 | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 1),
    "raw, high bits": lambda: opened(socket.AF_INET | HIGH, 3 | HIGH, 1),
    "raw IPv6": lambda: opened(socket.AF_INET6, 3, 58),
    "packet": lambda: opened(17, 3, 0x300),
    "packet, high bits": lambda: opened(17 | HIGH, 3, 0x300),
    "vsock": lambda: opened(40, 1),
    "alg": lambda: opened(38, 5),
    "netfilter": lambda: opened(16, 3, 12),
    "audit": lambda: opened(16, 3, 9),
    "bluetooth": lambda: opened(31, 3, 1),
    "xdp": lambda: opened(44, 3),
    "tipc": lambda: opened(30, 1),
    "key": lambda: opened(15, 3, 2),
}


def reach(host, port, kind=socket.SOCK_STREAM):
    """What connecting (or sending) says, and whether it says so at once."""
    began = time.monotonic()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as s:
        s.settimeout(10)
        try:
            s.connect((host, port))
            if kind == socket.SOCK_DGRAM:
                s.send(b"x")
            said = "reached"
        except OSError as e:
            said = errno.errorcode.get(e.errno, str(e))
    return said if time.monotonic() - began < 1 else f"{said} late"


def resolve(name):
    began = time.monotonic()
    try:
        socket.getaddrinfo(name, 80)
        return "resolved"
    except socket.gaierror:
        return "unknown" if time.monotonic() - began < 3 else "unknown late"


KEY = 0x44594E4F


def hold():
    """Makes everything by which a neighbour could be met, says so, and stays."""
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0dyno-walls")
    abstract.listen()
    tcp = socket.create_server(("127.0.0.1", 7777))
    shared = libc.shmget(KEY, 4096, 0o1666)
    queue = libc.msgget(KEY, 0o1666)
    for path in ("/dev/shm/dyno-walls", "/tmp/dyno-walls"):
        open(path, "w").close()
    print("holding", tcp.fileno() > 0, shared >= 0, queue >= 0, flush=True)
    time.sleep(100000)


def seek():
    """Looks for what another dyno holds."""
    def met(attempt):
        try:
            return "met" if attempt() else "nothing"
        except OSError as e:
            return errno.errorcode[e.errno]

    abstract = socket.socket(socket.AF_UNIX)
    print("abstract", met(lambda: abstract.connect("\0dyno-walls") is None))
    print("port", reach("127.0.0.1", 7777))
    print("web", reach("127.0.0.1", 5000))
    print("shm", met(lambda: libc.shmget(KEY, 0, 0) >= 0))
    print("queue", met(lambda: libc.msgget(KEY, 0) >= 0))
    for path in ("/dev/shm/dyno-walls", "/tmp/dyno-walls"):
        print(path, met(lambda: os.path.exists(path)))


def main(what, *arguments):
    if what in ("calls", "sockets"):
        for name, attempt in (CALLS if what == "calls" else SOCKETS).items():
            print(f"{name}: {attempt()}", flush=True)
    elif what == "reach":
        for target in arguments:
            host, port = target.rsplit("@", 1)
            print(f"{target}: {reach(host, int(port))} {reach(host, int(port), socket.SOCK_DGRAM)}")
        print("name:", resolve("denied.example"))
    else:
        {"hold": hold, "seek": seek}[what]()


main(*sys.argv[1:])
