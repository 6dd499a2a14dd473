//! SC, TTY, NS: what the filter keeps from the kernel. The arguments are those with which an ordinary user would succeed, so that
//! wherever one could, the filter is all that says no. What every call answers is in `calls.txt`.

use super::super::row::{Change::*, Control, Row, Want::*};

const EPERM: i32 = libc::EPERM;

pub fn rows() -> Vec<Row> {
    let mut rows = [calls(), mounts(), sockets(), terminal()].concat();
    rows.extend([
        Row::new(
            "SC-2",
            "int_0x80",
            "getpid by the gate of 32-bit programs",
            "i386 20",
            "the filter looks at the architecture first",
            Killed(libc::SIGSYS),
        )
        .falls(&[NoFilter])
        .vacuous(&[libc::ENOSYS]),
        Row::new("SC-3", "x32", "getpid by its x32 number", "call 0x40000027", "system-call filter", Errno(libc::ENOSYS)).vacuous(&[libc::ENOSYS]),
        Row::new(
            "SC-4",
            "filter_on_top",
            "a filter of its own that allows everything, then unshare(2)",
            "unfilter",
            "the kernel takes the strictest filter",
            Errno(EPERM),
        )
        .falls(&[NoFilter]),
        Row::new(
            "SC-12",
            "what_must_work",
            "no attack: sockets, pipes, files, threads, processes that every program needs",
            "must-work",
            "none",
            Succeeds,
        )
        .control(Control::Nobody)
        .bare("status Uid -"),
    ]);
    rows
}

/// By the filter alone.
fn held(id: &'static str, name: &'static str, attack: &'static str, call: &'static str) -> Row {
    Row::new(id, name, attack, attack, "system-call filter", Errno(EPERM)).falls(&[Allow(call)]).control(Control::Nobody)
}

fn calls() -> Vec<Row> {
    let told = |row: Row, what| Row { what, ..row };
    vec![
        told(held("NS-1", "unshare_user", "call 272 0x10000000", "unshare"), "unshare(CLONE_NEWUSER)").control(Control::Host),
        told(held("NS-1", "clone_user", "clone 0x10000000", "clone"), "clone(CLONE_NEWUSER)").control(Control::Host),
        told(held("NS-1", "clone_user_high_bits", "clone 0x100000010000000", "clone"), "clone(CLONE_NEWUSER) with high bits").control(Control::Host),
        told(held("NS-1", "unshare_mounts", "call 272 0x20000", "unshare"), "unshare(CLONE_NEWNS)")
            .control(Control::Host)
            .two_walls("unshare", "SYS_ADMIN"),
        Row::new(
            "NS-1",
            "clone3_user",
            "clone3(CLONE_NEWUSER), whose arguments no filter can see",
            "clone3 0x10000000",
            "system-call filter",
            Errno(libc::ENOSYS),
        )
        .falls(&[Allow("clone3")]),
        told(held("NS-2", "setns", "join /proc/self/ns/uts 0x4000000", "setns"), "setns(2) into a namespace")
            .control(Control::Host)
            .two_walls("setns", "SYS_ADMIN"),
        Row::new("SC-5", "io_uring", "io_uring_setup(2)", "ring", "system-call filter", Errno(libc::ENOSYS))
            .falls(&[Allow("io_uring_setup")])
            .control(Control::Nobody)
            .vacuous(&[libc::ENOSYS, EPERM]),
        told(held("SC-5", "userfaultfd", "userfault", "userfaultfd"), "userfaultfd(UFFD_USER_MODE_ONLY)").vacuous(&[libc::ENOSYS]),
        told(held("SC-5", "perf_event_open", "perf", "perf_event_open"), "a counter of itself by perf_event_open(2)").vacuous(&[
            libc::ENOSYS,
            libc::EACCES,
            EPERM,
        ]),
        told(held("SC-5", "memfd_secret", "call 447 0", "memfd_secret"), "memfd_secret(2)").vacuous(&[libc::ENOSYS]),
        told(held("SC-5", "fanotify_init", "call 300 0x200 0", "fanotify_init"), "fanotify_init(2) for itself").vacuous(&[libc::ENOSYS]),
        told(held("SC-5", "ptrace", "call 101 0", "ptrace"), "ptrace(PTRACE_TRACEME)"),
        told(held("SC-5", "process_vm_readv", "call 310 1 0 0 0 0 0", "process_vm_readv"), "process_vm_readv(2) of nothing"),
        told(held("SC-5", "modify_ldt", "call 154 0 0 0", "modify_ldt"), "modify_ldt(2), reading").vacuous(&[libc::ENOSYS]),
        told(held("SC-11", "personality", "call 135 0x40000", "personality"), "personality(ADDR_NO_RANDOMIZE)"),
    ]
}

impl Row {
    /// The call, and the capability that it takes where it is let through.
    fn two_walls(mut self, call: &'static str, capability: &'static str) -> Self {
        self.without.clear();
        self.then(&[Allow(call)], Errno(EPERM)).falls(&[Allow(call), Grant(capability)])
    }
}

fn mounts() -> Vec<Row> {
    let row = |name, what, attack, call| {
        Row::new("SC-6", name, what, attack, "system-call filter", Errno(EPERM)).control(Control::Apart).two_walls(call, "SYS_ADMIN")
    };
    vec![row("mount", "mount(2) of a tmpfs", "mount tmpfs {tmp}", "mount"), row("fsopen", "fsopen(2) of a tmpfs", "fsopen tmpfs", "fsopen")]
}

fn sockets() -> Vec<Row> {
    let row = |name, attack, what| {
        Row { what, ..held("SC-7", name, attack, "socket") }.vacuous(&[libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT, libc::ESOCKTNOSUPPORT])
    };
    let raw = |name, attack, what| row(name, attack, what).control(Control::Apart).two_walls("socket", "NET_RAW");
    let empowered = |name, attack, what| row(name, attack, what).control(Control::Apart).given(&[Grant("NET_RAW")]);
    let netlink = |name, attack, what| Row { id: "SC-9", ..row(name, attack, what) };
    vec![
        raw("raw", "socket 2 3 1", "AF_INET, SOCK_RAW"),
        raw("raw_high_bits", "socket 2 0x100000003 1", "the same with high bits in the type"),
        raw("raw_ipv6", "socket 10 3 58", "AF_INET6, SOCK_RAW"),
        empowered("raw_with_its_capability", "socket 2 3 1", "AF_INET, SOCK_RAW, by one who has the capability for it"),
        empowered("raw_tcp_with_its_capability", "socket 2 3 6", "the same with a number that a stream may have"),
        empowered("raw_udp_with_its_capability", "socket 2 3 17", "the same with a number that a datagram may have"),
        empowered("raw_ipv6_with_its_capability", "socket 10 3 58", "AF_INET6, SOCK_RAW, by one who has the capability for it"),
        empowered("raw_tcp_ipv6_with_its_capability", "socket 10 3 6", "the same with a number that a stream may have"),
        empowered("raw_udp_ipv6_with_its_capability", "socket 10 3 17", "the same with a number that a datagram may have"),
        row("mptcp", "socket 2 1 262", "Multipath TCP"),
        row("mptcp_ipv6", "socket 10 1 262", "Multipath TCP over IPv6"),
        row("mptcp_high_bits", "socket 2 1 0x100000106", "the same with high bits in the protocol"),
        row("sctp", "socket 2 1 132", "SCTP, which the kernel would load a module for"),
        row("sctp_packets", "socket 2 5 132", "SCTP, SOCK_SEQPACKET"),
        row("smc", "socket 2 1 256", "SMC"),
        row("dccp", "socket 2 6 33", "DCCP"),
        row("udp_lite", "socket 2 2 136", "UDP-Lite"),
        row("udp_lite_ipv6", "socket 10 2 136", "UDP-Lite over IPv6"),
        row("l2tp", "socket 2 2 115", "L2TP, which the kernel would load a module for"),
        raw("packet", "socket 17 3 0", "AF_PACKET"),
        raw("xdp", "socket 44 3 0", "AF_XDP"),
        row("vsock", "socket 40 1 0", "AF_VSOCK, towards the hypervisor"),
        row("alg", "socket 38 5 0", "AF_ALG (CVE-2026-31431)"),
        row("rxrpc", "socket 33 2 2", "AF_RXRPC"),
        row("qrtr", "socket 42 2 0", "AF_QIPCRTR").one_step("socket", libc::EAFNOSUPPORT),
        row("key", "socket 15 3 2", "AF_KEY").control(Control::Apart).two_walls("socket", "NET_ADMIN"),
        row("tipc", "socket 30 5 0", "AF_TIPC"),
        row("local_seqpacket_pair", "socketpair 16", "socketpair(AF_NETLINK)").one_step("socketpair", libc::ESOCKTNOSUPPORT),
        netlink("sock_diag", "socket 16 3 4", "NETLINK_SOCK_DIAG"),
        netlink("netlink_xfrm", "socket 16 3 6", "NETLINK_XFRM"),
        netlink("netlink_audit", "socket 16 3 9", "NETLINK_AUDIT"),
        netlink("netlink_connector", "socket 16 3 11", "NETLINK_CONNECTOR"),
        netlink("netlink_netfilter", "socket 16 3 12", "NETLINK_NETFILTER (nf_tables)"),
        netlink("netlink_uevent", "socket 16 3 15", "NETLINK_KOBJECT_UEVENT"),
        netlink("netlink_generic", "socket 16 3 16", "NETLINK_GENERIC"),
    ]
}

impl Row {
    /// What the kernel says itself once the filter lets it.
    fn one_step(mut self, call: &'static str, errno: i32) -> Self {
        self.without.clear();
        self.control = Control::None("the kernel has no such thing; only the filter's answer is told apart");
        self.then(&[Allow(call)], Errno(errno))
    }
}

fn terminal() -> Vec<Row> {
    let row =
        |id, name, what, attack| Row::new(id, name, what, attack, "system-call filter", Errno(EPERM)).given(&[Terminal]).control(Control::Terminal);
    vec![
        row("TTY-1", "tiocsti", "a byte is typed into its terminal (TIOCSTI)", "ioctl /dev/tty 0x5412")
            .falls(&[Allow("ioctl")])
            .vacuous(&[libc::EIO]),
        row("TTY-2", "tiocsti_high_bits", "the same with high bits (CVE-2019-10063)", "ioctl /dev/tty 0x100005412")
            .falls(&[Allow("ioctl")])
            .vacuous(&[libc::EIO]),
        row("TTY-2", "tioclinux", "TIOCLINUX", "ioctl /dev/tty 0x541c")
            .then(&[Allow("ioctl")], Errno(libc::ENOTTY))
            .control(Control::None("only a virtual console has it")),
        row("TTY-2", "tiocsetd", "another line discipline (TIOCSETD)", "ioctl /dev/tty 0x5423").falls(&[Allow("ioctl")]),
    ]
}
