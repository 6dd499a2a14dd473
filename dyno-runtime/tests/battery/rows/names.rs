//! NS, CAP, NET: namespaces, identity, capabilities, sockets of others; and the check that ends a start with a wall missing.

use dyno_runtime::broken::Part;

use super::super::row::{
    Change::{self, *},
    Control, Row,
    Want::*,
};

/// What any process can say of itself.
const RUNS: &str = "status Uid -";
/// Where the host's user namespace is kept, changing ids has taken the capabilities with which the others are dropped: that start fails too.
const NO_IDS: [Change; 3] = [Without(Part::UserNamespace), Without(Part::Capabilities), Without(Part::SelfCheck)];
const IN_STARTS: Control = Control::None("the start itself is what is attacked");

pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row::new("NS-4", "host_root_is_mapped", "the host's uid 0 is somebody inside", "maps-root", "user namespace with ids of its own", Nothing)
            .then(&[Without(Part::UserNamespace)], NoStart("drop capabilities"))
            .falls(&NO_IDS),
        Row::new("NS-5", "signal", "signal 0 to a process of the host's uid 1000", "kill {pid} 0", "pid namespace", Errno(libc::ESRCH))
            .then(&[Without(Part::PidNamespace)], Errno(libc::EPERM))
            .falls(&[Without(Part::PidNamespace), Without(Part::UserNamespace), Without(Part::Capabilities), Without(Part::SelfCheck)]),
        Row::new(
            "NS-6",
            "shared_memory",
            "a System V segment of the host that all may read, by its key",
            "shared-memory {segment}",
            "ipc namespace",
            Errno(libc::ENOENT),
        )
        .falls(&[Without(Part::IpcNamespace)]),
        Row::new("NS-7", "host_name", "sethostname(2)", "host-name", "system-call filter", Errno(libc::EPERM))
            .then(&[Allow("sethostname")], Errno(libc::EPERM))
            .falls(&[Allow("sethostname"), Grant("SYS_ADMIN")])
            .control(Control::Apart),
        Row::new("TTY-3", "session", "it is in a session of somebody outside", "session", "setsid, by the start and once more by the init", Nothing)
            .control(Control::None("outside of a pid namespace every session has a number")),
        Row::new(
            "TTY-3",
            "terminal_of_the_host",
            "/dev/tty without a terminal of its own",
            "open /dev/tty",
            "setsid, by the start and once more by the init",
            Errno(libc::ENXIO),
        )
        .control(Control::Terminal),
        Row::new("CAP-1", "bounding_set", "a capability in the bounding set", "status CapBnd 0", "all five sets are emptied", Nothing)
            .falls(&[Without(Part::Capabilities), Without(Part::SelfCheck)]),
        Row::new(
            "CAP-1",
            "effective_set_of_uid_0",
            "an effective capability, as uid 0 of the sandbox",
            "status CapEff 0",
            "all five sets are emptied",
            Nothing,
        )
        .given(&[Root])
        .falls(&[Without(Part::Capabilities), Without(Part::SelfCheck)]),
        Row::new("CAP-1", "no_new_privs", "a process that may gain privileges by exec", "status NoNewPrivs 1", "no_new_privs", Nothing).falls(&[
            NoFilter,
            Without(Part::NoNewPrivs),
            Without(Part::Landlock),
            Without(Part::SelfCheck),
        ]),
        Row::new("CAP-1", "unfiltered", "a process without a filter", "status Seccomp 2", "system-call filter", Nothing)
            .falls(&[Without(Part::Filter), Without(Part::SelfCheck)]),
        Row::new("CAP-4", "setuid", "setuid(0)", "call 105 0", "no capabilities", Errno(libc::EPERM)).falls(&[Grant("SETUID")]),
        Row::new("CAP-4", "chown", "chown(2) of its own file to another", "chown {tmp}/own 5", "no capabilities", Errno(libc::EPERM))
            .falls(&[Grant("CHOWN")])
            .bare("chown {work}/own 5"),
        Row::new("CAP-4", "low_port", "bind(2) to port 81", "bind 81", "no capabilities", Errno(libc::EACCES)).falls(&[Grant("NET_BIND_SERVICE")]),
        Row::new(
            "NET-2",
            "listener_of_the_host",
            "a listener on the host's loopback",
            "connect {port}",
            "network namespace",
            Errno(libc::ECONNREFUSED),
        )
        .falls(&[HostNetwork]),
        Row::new(
            "NET-9",
            "abstract_socket",
            "an abstract socket of the host (CVE-2020-15257)",
            "abstract {abstract}",
            "network namespace",
            Errno(libc::ECONNREFUSED),
        )
        .then(&[HostNetwork], Errno(libc::EPERM))
        .falls(&[HostNetwork, Without(Part::Landlock)])
        .landlock(6),
        Row::new(
            "LL-2",
            "abstract_socket_on_a_shared_network",
            "the same on the host's network",
            "abstract {abstract}",
            "Landlock",
            Errno(libc::EPERM),
        )
        .given(&[HostNetwork])
        .falls(&[Without(Part::Landlock)])
        .landlock(6),
        Row::new("NET-8", "interface_down", "its loopback is taken down", "interface-down", "no capabilities", Errno(libc::EPERM))
            .falls(&[Grant("NET_ADMIN")])
            .control(Control::Apart),
    ];
    let own = |kind: &str, test, attack, changes: &[Change]| {
        Row::new("NS-3", test, leak(format!("it is in the host's {kind} namespace")), attack, "a namespace of its own", Nothing).falls(changes)
    };
    rows.extend([
        own("pid", "pid_namespace", "namespace pid {ns:pid}", &[Without(Part::PidNamespace)]),
        own("ipc", "ipc_namespace", "namespace ipc {ns:ipc}", &[Without(Part::IpcNamespace)]),
        own("cgroup", "cgroup_namespace", "namespace cgroup {ns:cgroup}", &[Without(Part::CgroupNamespace)]),
        own("user", "user_namespace", "namespace user {ns:user}", &NO_IDS),
        own("network", "network_namespace", "namespace net {ns:net}", &[HostNetwork]),
        Row::new("NS-3", "mount_namespace", "it is in the host's mount namespace", "namespace mnt {ns:mnt}", "a namespace of its own", Nothing),
        Row::new("NS-3", "uts_namespace", "it is in the host's uts namespace", "namespace uts {ns:uts}", "a namespace of its own", Nothing),
    ]);
    rows.extend(fail_closed());
    rows
}

/// A wall that was not raised although its step said so: the kernel is asked before the init is executed.
fn fail_closed() -> [Row; 4] {
    let row = |test, what, given: &[Change]| {
        Row::new("OP-2", test, what, RUNS, "the kernel is asked whether the walls are up", NoStart("self-check"))
            .given(given)
            .falls(&[Without(Part::SelfCheck)])
            .control(IN_STARTS)
    };
    [
        row("capabilities_are_left", "a start whose capabilities were not dropped", &[Without(Part::Capabilities)]),
        row("privileges_can_be_gained", "a start without no_new_privs", &[NoFilter, Without(Part::Landlock), Without(Part::NoNewPrivs)]),
        row("no_filter_was_installed", "a start without its filter", &[Without(Part::Filter)]),
        row("ids_are_the_starters", "a start with the ids of whoever started it", &[Without(Part::Ids)]),
    ]
}

fn leak(text: String) -> &'static str {
    text.leak()
}
