//! FS, SL, LL: the root file system, its flags, and Landlock behind them.

use dyno_runtime::broken::Part;

use super::super::row::{Change::*, Control, Row, Want::*};

const IS_THERE: &str = "status Uid -";

pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row::new(
            "FS-1",
            "write_to_the_image",
            "a file is made in a read-only root",
            "write {tmp}/x y",
            "layers are read-only mounts",
            Errno(libc::EROFS),
        )
        .given(&[ReadOnlyRoot])
        .then(&[Without(Part::ReadOnlyRoot)], Errno(libc::EACCES))
        .falls(&[Without(Part::ReadOnlyRoot), Without(Part::Landlock)]),
        Row::new("FS-1", "remount_writable", "mount(2) with MS_REMOUNT on the root", "remount-writable /", "system-call filter", Errno(libc::EPERM))
            .then(&[Allow("mount")], Errno(libc::EPERM))
            .falls(&[Allow("mount"), Grant("SYS_ADMIN")])
            .control(Control::Apart)
            .bare("remount-writable /"),
        Row::new(
            "FS-2",
            "file_of_the_host",
            "a file of the host that anybody may read, by its path",
            "read /data/canary",
            "a root of its own",
            Errno(libc::ENOENT),
        )
        .falls(&[HostDirectory])
        .bare("read {work}/canary"),
        Row::new(
            "FS-2",
            "file_of_the_hosts_root",
            "… that only root may read, should a directory of the host be in view",
            "read /data/secret",
            "the app is not uid 0",
            Errno(libc::EACCES),
        )
        .given(&[HostDirectory])
        .falls(&[Root])
        .bare("read {work}/secret"),
        Row::new("FS-3", "chroot", "chroot(2)", "chroot {tmp}", "system-call filter", Errno(libc::EPERM))
            .then(&[Allow("chroot")], Errno(libc::EPERM))
            .falls(&[Allow("chroot"), Grant("SYS_CHROOT")]),
        Row::new(
            "FS-3",
            "out_of_a_chroot",
            "the old way out of chroot(2), by one who may call it",
            "escape {tmp}/inner {work}/canary",
            "a root that is a mount namespace's, not chroot's",
            Errno(libc::ENOENT),
        )
        .given(&[NoFilter, Grant("SYS_CHROOT")]),
        Row::new("FS-3", "beneath_the_root", "… and what lies there", "escape-and-list {tmp}/inner", "nothing lies beneath the root", Nothing)
            .given(&[NoFilter, Grant("SYS_CHROOT")])
            .control(Control::None("bare there is no root above another")),
        Row::new(
            "FS-4",
            "root_of_pid_1",
            "the file system through /proc/1/root",
            "read /proc/1/root/bin/probe",
            "pid 1 cannot be looked into (not dumpable)",
            Errno(libc::EACCES),
        )
        .falls(&[Without(Part::Undumpable)])
        .bare("read /proc/{pid}/root{probe}"),
        Row::new("FS-5", "setuid_bit", "a setuid program of root's in the image", "become /bin/suid", "nosuid on every mount; no_new_privs", Nothing)
            .then(&[Without(Part::NoSuid)], Nothing)
            .then(&[Without(Part::NoNewPrivs), Without(Part::SelfCheck), Without(Part::Landlock), NoFilter], Nothing)
            .falls(&[Without(Part::NoSuid), Without(Part::NoNewPrivs), Without(Part::SelfCheck), Without(Part::Landlock), NoFilter])
            .control(Control::Nobody)
            .bare("become {work}/suid"),
        Row::new(
            "FS-5",
            "setuid_bit_with_new_privileges",
            "the same where no_new_privs is off",
            "become /bin/suid",
            "nosuid on every mount",
            Nothing,
        )
        .given(&[Without(Part::NoNewPrivs), Without(Part::SelfCheck), Without(Part::Landlock), NoFilter])
        .falls(&[Without(Part::NoSuid)])
        .control(Control::Nobody)
        .bare("become {work}/suid"),
        Row::new(
            "FS-17",
            "device_of_the_image",
            "a device node that the image brings along",
            "open /bin/node",
            "nodev on the root",
            Errno(libc::EACCES),
        )
        .falls(&[Without(Part::NoDev)])
        .bare("open {work}/node"),
        // Behind the filter stands Landlock, which newer kernels (7.2) do not ask for this one node: 0:0 is overlayfs's mark of a deleted file.
        Row::new(
            "FS-17",
            "device_made",
            "mknod(2) of a character device, 0:0, which an ordinary user may make",
            "mknod {shm}/w 0x2180 0",
            "system-call filter",
            Errno(libc::EPERM),
        )
        .falls(&[Allow("mknod"), Without(Part::Landlock)])
        .landlock(2),
        Row::new("FS-17", "device_made_at", "the same by mknodat(2)", "mknodat {shm}/w 0x2180 0", "system-call filter", Errno(libc::EPERM))
            .falls(&[Allow("mknodat"), Without(Part::Landlock)])
            .landlock(2),
        Row::new(
            "LL-1",
            "write_past_the_mounts",
            "a file is made in a root whose mount is writable by mistake",
            "write {tmp}/x y",
            "Landlock",
            Errno(libc::EACCES),
        )
        .given(&[ReadOnlyRoot, Without(Part::ReadOnlyRoot)])
        .falls(&[Without(Part::Landlock)])
        .landlock(2),
        Row::new(
            "FS-1",
            "program_in_shared_memory",
            "a program is written to /dev/shm and executed",
            "execute-in {shm}",
            "noexec on /dev/shm",
            Errno(libc::EACCES),
        ),
    ];
    rows.extend([("proc", "FS-6"), ("dev", "FS-7")].map(|(name, id)| {
        let what = if name == "proc" { "the image's /proc is a symlink" } else { "the image's /dev is a symlink (CVE-2026-41579)" };
        let test = if name == "proc" { "proc_is_a_symlink" } else { "dev_is_a_symlink" };
        Row::new(id, test, what, IS_THERE, "RESOLVE_NO_SYMLINKS at every mount point", NoStart("symbolic links"))
            .given(&[Symlink(name, "data")])
            .falls(&[Without(Part::NoSymlinks)])
            .control(Control::None("the start itself is what is attacked"))
    }));
    rows
}
