//! CG, FS-13, FS-14: a stated amount is asked for, a little more than the plan gives. The wall taken away is a plan that gives more.

use super::super::row::{Change::*, Control, Row, Want::*};

pub fn rows() -> Vec<Row> {
    vec![
        Row::new(
            "FS-13",
            "disk",
            "16 MiB are written where 8 are given",
            "fill {tmp}/fill 0x1000000",
            "size of the writable layer",
            Errno(libc::ENOSPC),
        )
        .given(&[DiskBytes(8 << 20)])
        .falls(&[DiskBytes(64 << 20)]),
        Row::new(
            "FS-13",
            "disk_reserved",
            "16 MiB are reserved by fallocate(2)",
            "allocate {tmp}/fill 0x1000000",
            "size of the writable layer",
            Errno(libc::ENOSPC),
        )
        .given(&[DiskBytes(8 << 20)])
        .falls(&[DiskBytes(64 << 20)]),
        Row::new("FS-14", "files", "200 files where some 100 are given", "files {tmp} 200", "inodes of the writable layer", Errno(libc::ENOSPC))
            .given(&[DiskFiles(100)])
            .falls(&[DiskFiles(1000)]),
        Row::new("CG-4", "shared_memory_as_disk", "80 MiB in /dev/shm", "fill {shm}/fill 0x5000000", "size of /dev/shm", Errno(libc::ENOSPC))
            .given(&[Memory(Some(256 << 20))]),
        Row::new("CG-1", "memory", "96 MiB where 32 are given", "memory 0x6000000", "memory controller", Killed(libc::SIGKILL))
            .given(&[Memory(Some(32 << 20))])
            .falls(&[Memory(Some(256 << 20))]),
        Row::new("CG-5", "processes", "40 processes where 16 are given", "processes 40", "pids controller", Errno(libc::EAGAIN))
            .given(&[Processes(Some(16))])
            .falls(&[Processes(Some(100))]),
        Row::new("CG-6", "threads", "40 threads where 16 are given", "threads 40", "pids controller", Errno(libc::EAGAIN))
            .given(&[Processes(Some(16))])
            .falls(&[Processes(Some(100))]),
        Row::new("CG-10", "open_files", "100 open files where 64 are given", "open-files 100", "RLIMIT_NOFILE", Errno(libc::EMFILE))
            .given(&[OpenFiles(64)])
            .falls(&[OpenFiles(256)]),
        Row::new(
            "CG-10",
            "terminals",
            "70 terminals, of which the host has 4096 for all",
            "terminals /dev/pts/ptmx 70",
            "max= of the devpts",
            Errno(libc::ENOSPC),
        )
        .bare("terminals /dev/ptmx 70")
        .control(Control::Host),
    ]
}
