//! System-call names and numbers, from the kernel's own headers (asm/unistd_{64,x32,32}.h, asm-generic/unistd.h and ARM's, of Linux 6.1)
//! with the calls that came since, up to `file_setattr` (6.17).

/// Highest number that this table knows of the target; what is above is newer than the profiles and answers ENOSYS.
pub const NEWEST: u32 = 469;

/// A way to call the kernel: its numbers are a column of the table.
#[cfg_attr(not(feature = "oci"), allow(dead_code, reason = "an OCI configuration names them"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Abi {
    /// 64-bit programs of a PC.
    X86_64,
    /// Programs with 32-bit pointers on a 64-bit PC; numbers here are without [`super::X32_BIT`].
    X32,
    /// 32-bit programs of a PC.
    X86,
    /// 32-bit programs on ARM (EABI).
    Arm,
    /// 64-bit programs on ARM.
    Aarch64,
}

/// The target's.
#[cfg(target_arch = "x86_64")]
pub const NATIVE: Abi = Abi::X86_64;
/// The target's.
#[cfg(target_arch = "aarch64")]
pub const NATIVE: Abi = Abi::Aarch64;

/// There is no such call.
const O: u32 = u32::MAX;

/// By name; numbers in the order of [`Abi`].
#[rustfmt::skip]
const CALLS: &[(&str, [u32; 5])] = &[
    ("_llseek", [O, O, 140, 140, O]), ("_newselect", [O, O, 142, 142, O]), ("_sysctl", [156, O, 149, 149, O]),
    ("accept", [43, 43, O, 285, 202]), ("accept4", [288, 288, 364, 366, 242]), ("access", [21, 21, 33, 33, O]),
    ("acct", [163, 163, 51, 51, 89]), ("add_key", [248, 248, 286, 309, 217]), ("adjtimex", [159, 159, 124, 124, 171]),
    ("afs_syscall", [183, 183, 137, O, O]), ("alarm", [37, 37, 27, O, O]), ("arch_prctl", [158, 158, 384, O, O]),
    ("arm_fadvise64_64", [O, O, O, 270, O]), ("arm_sync_file_range", [O, O, O, 341, O]), ("bdflush", [O, O, 134, 134, O]),
    ("bind", [49, 49, 361, 282, 200]), ("bpf", [321, 321, 357, 386, 280]), ("break", [O, O, 17, O, O]),
    ("breakpoint", [O, O, O, 983041, O]), ("brk", [12, 12, 45, 45, 214]), ("cacheflush", [O, O, O, 983042, O]),
    ("cachestat", [451, 451, 451, 451, 451]), ("capget", [125, 125, 184, 184, 90]), ("capset", [126, 126, 185, 185, 91]),
    ("chdir", [80, 80, 12, 12, 49]), ("chmod", [90, 90, 15, 15, O]), ("chown", [92, 92, 182, 182, O]), ("chown32", [O, O, 212, 212, O]),
    ("chroot", [161, 161, 61, 61, 51]), ("clock_adjtime", [305, 305, 343, 372, 266]), ("clock_adjtime64", [O, O, 405, 405, O]),
    ("clock_getres", [229, 229, 266, 264, 114]), ("clock_getres_time64", [O, O, 406, 406, O]), ("clock_gettime", [228, 228, 265, 263, 113]),
    ("clock_gettime64", [O, O, 403, 403, O]), ("clock_nanosleep", [230, 230, 267, 265, 115]),
    ("clock_nanosleep_time64", [O, O, 407, 407, O]), ("clock_settime", [227, 227, 264, 262, 112]), ("clock_settime64", [O, O, 404, 404, O]),
    ("clone", [56, 56, 120, 120, 220]), ("clone3", [435, 435, 435, 435, 435]), ("close", [3, 3, 6, 6, 57]),
    ("close_range", [436, 436, 436, 436, 436]), ("connect", [42, 42, 362, 283, 203]), ("copy_file_range", [326, 326, 377, 391, 285]),
    ("creat", [85, 85, 8, 8, O]), ("create_module", [174, O, 127, O, O]), ("delete_module", [176, 176, 129, 129, 106]),
    ("dup", [32, 32, 41, 41, 23]), ("dup2", [33, 33, 63, 63, O]), ("dup3", [292, 292, 330, 358, 24]),
    ("epoll_create", [213, 213, 254, 250, O]), ("epoll_create1", [291, 291, 329, 357, 20]), ("epoll_ctl", [233, 233, 255, 251, 21]),
    ("epoll_ctl_old", [214, O, O, O, O]), ("epoll_pwait", [281, 281, 319, 346, 22]), ("epoll_pwait2", [441, 441, 441, 441, 441]),
    ("epoll_wait", [232, 232, 256, 252, O]), ("epoll_wait_old", [215, O, O, O, O]), ("eventfd", [284, 284, 323, 351, O]),
    ("eventfd2", [290, 290, 328, 356, 19]), ("execve", [59, 520, 11, 11, 221]), ("execveat", [322, 545, 358, 387, 281]),
    ("exit", [60, 60, 1, 1, 93]), ("exit_group", [231, 231, 252, 248, 94]), ("faccessat", [269, 269, 307, 334, 48]),
    ("faccessat2", [439, 439, 439, 439, 439]), ("fadvise64", [221, 221, 250, O, 223]), ("fadvise64_64", [O, O, 272, O, O]),
    ("fallocate", [285, 285, 324, 352, 47]), ("fanotify_init", [300, 300, 338, 367, 262]), ("fanotify_mark", [301, 301, 339, 368, 263]),
    ("fchdir", [81, 81, 133, 133, 50]), ("fchmod", [91, 91, 94, 94, 52]), ("fchmodat", [268, 268, 306, 333, 53]),
    ("fchmodat2", [452, 452, 452, 452, 452]), ("fchown", [93, 93, 95, 95, 55]), ("fchown32", [O, O, 207, 207, O]),
    ("fchownat", [260, 260, 298, 325, 54]), ("fcntl", [72, 72, 55, 55, 25]), ("fcntl64", [O, O, 221, 221, O]),
    ("fdatasync", [75, 75, 148, 148, 83]), ("fgetxattr", [193, 193, 231, 231, 10]), ("file_getattr", [468, 468, 468, 468, 468]),
    ("file_setattr", [469, 469, 469, 469, 469]), ("finit_module", [313, 313, 350, 379, 273]), ("flistxattr", [196, 196, 234, 234, 13]),
    ("flock", [73, 73, 143, 143, 32]), ("fork", [57, 57, 2, 2, O]), ("fremovexattr", [199, 199, 237, 237, 16]),
    ("fsconfig", [431, 431, 431, 431, 431]), ("fsetxattr", [190, 190, 228, 228, 7]), ("fsmount", [432, 432, 432, 432, 432]),
    ("fsopen", [430, 430, 430, 430, 430]), ("fspick", [433, 433, 433, 433, 433]), ("fstat", [5, 5, 108, 108, 80]),
    ("fstat64", [O, O, 197, 197, O]), ("fstatat64", [O, O, 300, 327, O]), ("fstatfs", [138, 138, 100, 100, 44]),
    ("fstatfs64", [O, O, 269, 267, O]), ("fsync", [74, 74, 118, 118, 82]), ("ftime", [O, O, 35, O, O]), ("ftruncate", [77, 77, 93, 93, 46]),
    ("ftruncate64", [O, O, 194, 194, O]), ("futex", [202, 202, 240, 240, 98]), ("futex_requeue", [456, 456, 456, 456, 456]),
    ("futex_time64", [O, O, 422, 422, O]), ("futex_wait", [455, 455, 455, 455, 455]), ("futex_waitv", [449, 449, 449, 449, 449]),
    ("futex_wake", [454, 454, 454, 454, 454]), ("futimesat", [261, 261, 299, 326, O]), ("get_kernel_syms", [177, O, 130, O, O]),
    ("get_mempolicy", [239, 239, 275, 320, 236]), ("get_robust_list", [274, 531, 312, 339, 100]), ("get_thread_area", [211, O, 244, O, O]),
    ("get_tls", [O, O, O, 983046, O]), ("getcpu", [309, 309, 318, 345, 168]), ("getcwd", [79, 79, 183, 183, 17]),
    ("getdents", [78, 78, 141, 141, O]), ("getdents64", [217, 217, 220, 217, 61]), ("getegid", [108, 108, 50, 50, 177]),
    ("getegid32", [O, O, 202, 202, O]), ("geteuid", [107, 107, 49, 49, 175]), ("geteuid32", [O, O, 201, 201, O]),
    ("getgid", [104, 104, 47, 47, 176]), ("getgid32", [O, O, 200, 200, O]), ("getgroups", [115, 115, 80, 80, 158]),
    ("getgroups32", [O, O, 205, 205, O]), ("getitimer", [36, 36, 105, 105, 102]), ("getpeername", [52, 52, 368, 287, 205]),
    ("getpgid", [121, 121, 132, 132, 155]), ("getpgrp", [111, 111, 65, 65, O]), ("getpid", [39, 39, 20, 20, 172]),
    ("getpmsg", [181, 181, 188, O, O]), ("getppid", [110, 110, 64, 64, 173]), ("getpriority", [140, 140, 96, 96, 141]),
    ("getrandom", [318, 318, 355, 384, 278]), ("getresgid", [120, 120, 171, 171, 150]), ("getresgid32", [O, O, 211, 211, O]),
    ("getresuid", [118, 118, 165, 165, 148]), ("getresuid32", [O, O, 209, 209, O]), ("getrlimit", [97, 97, 76, O, 163]),
    ("getrusage", [98, 98, 77, 77, 165]), ("getsid", [124, 124, 147, 147, 156]), ("getsockname", [51, 51, 367, 286, 204]),
    ("getsockopt", [55, 542, 365, 295, 209]), ("gettid", [186, 186, 224, 224, 178]), ("gettimeofday", [96, 96, 78, 78, 169]),
    ("getuid", [102, 102, 24, 24, 174]), ("getuid32", [O, O, 199, 199, O]), ("getxattr", [191, 191, 229, 229, 8]),
    ("getxattrat", [464, 464, 464, 464, 464]), ("gtty", [O, O, 32, O, O]), ("idle", [O, O, 112, O, O]),
    ("init_module", [175, 175, 128, 128, 105]), ("inotify_add_watch", [254, 254, 292, 317, 27]), ("inotify_init", [253, 253, 291, 316, O]),
    ("inotify_init1", [294, 294, 332, 360, 26]), ("inotify_rm_watch", [255, 255, 293, 318, 28]), ("io_cancel", [210, 210, 249, 247, 3]),
    ("io_destroy", [207, 207, 246, 244, 1]), ("io_getevents", [208, 208, 247, 245, 4]), ("io_pgetevents", [333, 333, 385, 399, 292]),
    ("io_pgetevents_time64", [O, O, 416, 416, O]), ("io_setup", [206, 543, 245, 243, 0]), ("io_submit", [209, 544, 248, 246, 2]),
    ("io_uring_enter", [426, 426, 426, 426, 426]), ("io_uring_register", [427, 427, 427, 427, 427]),
    ("io_uring_setup", [425, 425, 425, 425, 425]), ("ioctl", [16, 514, 54, 54, 29]), ("ioperm", [173, 173, 101, O, O]),
    ("iopl", [172, 172, 110, O, O]), ("ioprio_get", [252, 252, 290, 315, 31]), ("ioprio_set", [251, 251, 289, 314, 30]),
    ("ipc", [O, O, 117, O, O]), ("kcmp", [312, 312, 349, 378, 272]), ("kexec_file_load", [320, 320, O, 401, 294]),
    ("kexec_load", [246, 528, 283, 347, 104]), ("keyctl", [250, 250, 288, 311, 219]), ("kill", [62, 62, 37, 37, 129]),
    ("landlock_add_rule", [445, 445, 445, 445, 445]), ("landlock_create_ruleset", [444, 444, 444, 444, 444]),
    ("landlock_restrict_self", [446, 446, 446, 446, 446]), ("lchown", [94, 94, 16, 16, O]), ("lchown32", [O, O, 198, 198, O]),
    ("lgetxattr", [192, 192, 230, 230, 9]), ("link", [86, 86, 9, 9, O]), ("linkat", [265, 265, 303, 330, 37]),
    ("listen", [50, 50, 363, 284, 201]), ("listmount", [458, 458, 458, 458, 458]), ("listxattr", [194, 194, 232, 232, 11]),
    ("listxattrat", [465, 465, 465, 465, 465]), ("llistxattr", [195, 195, 233, 233, 12]), ("lock", [O, O, 53, O, O]),
    ("lookup_dcookie", [212, 212, 253, 249, 18]), ("lremovexattr", [198, 198, 236, 236, 15]), ("lseek", [8, 8, 19, 19, 62]),
    ("lsetxattr", [189, 189, 227, 227, 6]), ("lsm_get_self_attr", [459, 459, 459, 459, 459]),
    ("lsm_list_modules", [461, 461, 461, 461, 461]), ("lsm_set_self_attr", [460, 460, 460, 460, 460]), ("lstat", [6, 6, 107, 107, O]),
    ("lstat64", [O, O, 196, 196, O]), ("madvise", [28, 28, 219, 220, 233]), ("map_shadow_stack", [453, 453, 453, 453, 453]),
    ("mbind", [237, 237, 274, 319, 235]), ("membarrier", [324, 324, 375, 389, 283]), ("memfd_create", [319, 319, 356, 385, 279]),
    ("memfd_secret", [447, 447, 447, O, 447]), ("migrate_pages", [256, 256, 294, 400, 238]), ("mincore", [27, 27, 218, 219, 232]),
    ("mkdir", [83, 83, 39, 39, O]), ("mkdirat", [258, 258, 296, 323, 34]), ("mknod", [133, 133, 14, 14, O]),
    ("mknodat", [259, 259, 297, 324, 33]), ("mlock", [149, 149, 150, 150, 228]), ("mlock2", [325, 325, 376, 390, 284]),
    ("mlockall", [151, 151, 152, 152, 230]), ("mmap", [9, 9, 90, O, 222]), ("mmap2", [O, O, 192, 192, O]),
    ("modify_ldt", [154, 154, 123, O, O]), ("mount", [165, 165, 21, 21, 40]), ("mount_setattr", [442, 442, 442, 442, 442]),
    ("move_mount", [429, 429, 429, 429, 429]), ("move_pages", [279, 533, 317, 344, 239]), ("mprotect", [10, 10, 125, 125, 226]),
    ("mpx", [O, O, 56, O, O]), ("mq_getsetattr", [245, 245, 282, 279, 185]), ("mq_notify", [244, 527, 281, 278, 184]),
    ("mq_open", [240, 240, 277, 274, 180]), ("mq_timedreceive", [243, 243, 280, 277, 183]), ("mq_timedreceive_time64", [O, O, 419, 419, O]),
    ("mq_timedsend", [242, 242, 279, 276, 182]), ("mq_timedsend_time64", [O, O, 418, 418, O]), ("mq_unlink", [241, 241, 278, 275, 181]),
    ("mremap", [25, 25, 163, 163, 216]), ("mseal", [462, 462, 462, 462, 462]), ("msgctl", [71, 71, 402, 304, 187]),
    ("msgget", [68, 68, 399, 303, 186]), ("msgrcv", [70, 70, 401, 302, 188]), ("msgsnd", [69, 69, 400, 301, 189]),
    ("msync", [26, 26, 144, 144, 227]), ("munlock", [150, 150, 151, 151, 229]), ("munlockall", [152, 152, 153, 153, 231]),
    ("munmap", [11, 11, 91, 91, 215]), ("name_to_handle_at", [303, 303, 341, 370, 264]), ("nanosleep", [35, 35, 162, 162, 101]),
    ("newfstatat", [262, 262, O, O, 79]), ("nfsservctl", [180, O, 169, 169, 42]), ("nice", [O, O, 34, 34, O]),
    ("oldfstat", [O, O, 28, O, O]), ("oldlstat", [O, O, 84, O, O]), ("oldolduname", [O, O, 59, O, O]), ("oldstat", [O, O, 18, O, O]),
    ("olduname", [O, O, 109, O, O]), ("open", [2, 2, 5, 5, O]), ("open_by_handle_at", [304, 304, 342, 371, 265]),
    ("open_tree", [428, 428, 428, 428, 428]), ("open_tree_attr", [467, 467, 467, 467, 467]), ("openat", [257, 257, 295, 322, 56]),
    ("openat2", [437, 437, 437, 437, 437]), ("pause", [34, 34, 29, 29, O]), ("pciconfig_iobase", [O, O, O, 271, O]),
    ("pciconfig_read", [O, O, O, 272, O]), ("pciconfig_write", [O, O, O, 273, O]), ("perf_event_open", [298, 298, 336, 364, 241]),
    ("personality", [135, 135, 136, 136, 92]), ("pidfd_getfd", [438, 438, 438, 438, 438]), ("pidfd_open", [434, 434, 434, 434, 434]),
    ("pidfd_send_signal", [424, 424, 424, 424, 424]), ("pipe", [22, 22, 42, 42, O]), ("pipe2", [293, 293, 331, 359, 59]),
    ("pivot_root", [155, 155, 217, 218, 41]), ("pkey_alloc", [330, 330, 381, 395, 289]), ("pkey_free", [331, 331, 382, 396, 290]),
    ("pkey_mprotect", [329, 329, 380, 394, 288]), ("poll", [7, 7, 168, 168, O]), ("ppoll", [271, 271, 309, 336, 73]),
    ("ppoll_time64", [O, O, 414, 414, O]), ("prctl", [157, 157, 172, 172, 167]), ("pread64", [17, 17, 180, 180, 67]),
    ("preadv", [295, 534, 333, 361, 69]), ("preadv2", [327, 546, 378, 392, 286]), ("prlimit64", [302, 302, 340, 369, 261]),
    ("process_madvise", [440, 440, 440, 440, 440]), ("process_mrelease", [448, 448, 448, 448, 448]),
    ("process_vm_readv", [310, 539, 347, 376, 270]), ("process_vm_writev", [311, 540, 348, 377, 271]), ("prof", [O, O, 44, O, O]),
    ("profil", [O, O, 98, O, O]), ("pselect6", [270, 270, 308, 335, 72]), ("pselect6_time64", [O, O, 413, 413, O]),
    ("ptrace", [101, 521, 26, 26, 117]), ("putpmsg", [182, 182, 189, O, O]), ("pwrite64", [18, 18, 181, 181, 68]),
    ("pwritev", [296, 535, 334, 362, 70]), ("pwritev2", [328, 547, 379, 393, 287]), ("query_module", [178, O, 167, O, O]),
    ("quotactl", [179, 179, 131, 131, 60]), ("quotactl_fd", [443, 443, 443, 443, 443]), ("read", [0, 0, 3, 3, 63]),
    ("readahead", [187, 187, 225, 225, 213]), ("readdir", [O, O, 89, O, O]), ("readlink", [89, 89, 85, 85, O]),
    ("readlinkat", [267, 267, 305, 332, 78]), ("readv", [19, 515, 145, 145, 65]), ("reboot", [169, 169, 88, 88, 142]),
    ("recv", [O, O, O, 291, O]), ("recvfrom", [45, 517, 371, 292, 207]), ("recvmmsg", [299, 537, 337, 365, 243]),
    ("recvmmsg_time64", [O, O, 417, 417, O]), ("recvmsg", [47, 519, 372, 297, 212]), ("remap_file_pages", [216, 216, 257, 253, 234]),
    ("removexattr", [197, 197, 235, 235, 14]), ("removexattrat", [466, 466, 466, 466, 466]), ("rename", [82, 82, 38, 38, O]),
    ("renameat", [264, 264, 302, 329, 38]), ("renameat2", [316, 316, 353, 382, 276]), ("request_key", [249, 249, 287, 310, 218]),
    ("restart_syscall", [219, 219, 0, 0, 128]), ("rmdir", [84, 84, 40, 40, O]), ("rseq", [334, 334, 386, 398, 293]),
    ("rt_sigaction", [13, 512, 174, 174, 134]), ("rt_sigpending", [127, 522, 176, 176, 136]), ("rt_sigprocmask", [14, 14, 175, 175, 135]),
    ("rt_sigqueueinfo", [129, 524, 178, 178, 138]), ("rt_sigreturn", [15, 513, 173, 173, 139]),
    ("rt_sigsuspend", [130, 130, 179, 179, 133]), ("rt_sigtimedwait", [128, 523, 177, 177, 137]),
    ("rt_sigtimedwait_time64", [O, O, 421, 421, O]), ("rt_tgsigqueueinfo", [297, 536, 335, 363, 240]),
    ("sched_get_priority_max", [146, 146, 159, 159, 125]), ("sched_get_priority_min", [147, 147, 160, 160, 126]),
    ("sched_getaffinity", [204, 204, 242, 242, 123]), ("sched_getattr", [315, 315, 352, 381, 275]),
    ("sched_getparam", [143, 143, 155, 155, 121]), ("sched_getscheduler", [145, 145, 157, 157, 120]),
    ("sched_rr_get_interval", [148, 148, 161, 161, 127]), ("sched_rr_get_interval_time64", [O, O, 423, 423, O]),
    ("sched_setaffinity", [203, 203, 241, 241, 122]), ("sched_setattr", [314, 314, 351, 380, 274]),
    ("sched_setparam", [142, 142, 154, 154, 118]), ("sched_setscheduler", [144, 144, 156, 156, 119]),
    ("sched_yield", [24, 24, 158, 158, 124]), ("seccomp", [317, 317, 354, 383, 277]), ("security", [185, 185, O, O, O]),
    ("select", [23, 23, 82, O, O]), ("semctl", [66, 66, 394, 300, 191]), ("semget", [64, 64, 393, 299, 190]),
    ("semop", [65, 65, O, 298, 193]), ("semtimedop", [220, 220, O, 312, 192]), ("semtimedop_time64", [O, O, 420, 420, O]),
    ("send", [O, O, O, 289, O]), ("sendfile", [40, 40, 187, 187, 71]), ("sendfile64", [O, O, 239, 239, O]),
    ("sendmmsg", [307, 538, 345, 374, 269]), ("sendmsg", [46, 518, 370, 296, 211]), ("sendto", [44, 44, 369, 290, 206]),
    ("set_mempolicy", [238, 238, 276, 321, 237]), ("set_mempolicy_home_node", [450, 450, 450, 450, 450]),
    ("set_robust_list", [273, 530, 311, 338, 99]), ("set_thread_area", [205, O, 243, O, O]), ("set_tid_address", [218, 218, 258, 256, 96]),
    ("set_tls", [O, O, O, 983045, O]), ("setdomainname", [171, 171, 121, 121, 162]), ("setfsgid", [123, 123, 139, 139, 152]),
    ("setfsgid32", [O, O, 216, 216, O]), ("setfsuid", [122, 122, 138, 138, 151]), ("setfsuid32", [O, O, 215, 215, O]),
    ("setgid", [106, 106, 46, 46, 144]), ("setgid32", [O, O, 214, 214, O]), ("setgroups", [116, 116, 81, 81, 159]),
    ("setgroups32", [O, O, 206, 206, O]), ("sethostname", [170, 170, 74, 74, 161]), ("setitimer", [38, 38, 104, 104, 103]),
    ("setns", [308, 308, 346, 375, 268]), ("setpgid", [109, 109, 57, 57, 154]), ("setpriority", [141, 141, 97, 97, 140]),
    ("setregid", [114, 114, 71, 71, 143]), ("setregid32", [O, O, 204, 204, O]), ("setresgid", [119, 119, 170, 170, 149]),
    ("setresgid32", [O, O, 210, 210, O]), ("setresuid", [117, 117, 164, 164, 147]), ("setresuid32", [O, O, 208, 208, O]),
    ("setreuid", [113, 113, 70, 70, 145]), ("setreuid32", [O, O, 203, 203, O]), ("setrlimit", [160, 160, 75, 75, 164]),
    ("setsid", [112, 112, 66, 66, 157]), ("setsockopt", [54, 541, 366, 294, 208]), ("settimeofday", [164, 164, 79, 79, 170]),
    ("setuid", [105, 105, 23, 23, 146]), ("setuid32", [O, O, 213, 213, O]), ("setxattr", [188, 188, 226, 226, 5]),
    ("setxattrat", [463, 463, 463, 463, 463]), ("sgetmask", [O, O, 68, O, O]), ("shmat", [30, 30, 397, 305, 196]),
    ("shmctl", [31, 31, 396, 308, 195]), ("shmdt", [67, 67, 398, 306, 197]), ("shmget", [29, 29, 395, 307, 194]),
    ("shutdown", [48, 48, 373, 293, 210]), ("sigaction", [O, O, 67, 67, O]), ("sigaltstack", [131, 525, 186, 186, 132]),
    ("signal", [O, O, 48, O, O]), ("signalfd", [282, 282, 321, 349, O]), ("signalfd4", [289, 289, 327, 355, 74]),
    ("sigpending", [O, O, 73, 73, O]), ("sigprocmask", [O, O, 126, 126, O]), ("sigreturn", [O, O, 119, 119, O]),
    ("sigsuspend", [O, O, 72, 72, O]), ("socket", [41, 41, 359, 281, 198]), ("socketcall", [O, O, 102, O, O]),
    ("socketpair", [53, 53, 360, 288, 199]), ("splice", [275, 275, 313, 340, 76]), ("ssetmask", [O, O, 69, O, O]),
    ("stat", [4, 4, 106, 106, O]), ("stat64", [O, O, 195, 195, O]), ("statfs", [137, 137, 99, 99, 43]), ("statfs64", [O, O, 268, 266, O]),
    ("statmount", [457, 457, 457, 457, 457]), ("statx", [332, 332, 383, 397, 291]), ("stime", [O, O, 25, O, O]), ("stty", [O, O, 31, O, O]),
    ("swapoff", [168, 168, 115, 115, 225]), ("swapon", [167, 167, 87, 87, 224]), ("symlink", [88, 88, 83, 83, O]),
    ("symlinkat", [266, 266, 304, 331, 36]), ("sync", [162, 162, 36, 36, 81]), ("sync_file_range", [277, 277, 314, O, 84]),
    ("syncfs", [306, 306, 344, 373, 267]), ("sysfs", [139, 139, 135, 135, O]), ("sysinfo", [99, 99, 116, 116, 179]),
    ("syslog", [103, 103, 103, 103, 116]), ("tee", [276, 276, 315, 342, 77]), ("tgkill", [234, 234, 270, 268, 131]),
    ("time", [201, 201, 13, O, O]), ("timer_create", [222, 526, 259, 257, 107]), ("timer_delete", [226, 226, 263, 261, 111]),
    ("timer_getoverrun", [225, 225, 262, 260, 109]), ("timer_gettime", [224, 224, 261, 259, 108]), ("timer_gettime64", [O, O, 408, 408, O]),
    ("timer_settime", [223, 223, 260, 258, 110]), ("timer_settime64", [O, O, 409, 409, O]), ("timerfd_create", [283, 283, 322, 350, 85]),
    ("timerfd_gettime", [287, 287, 326, 354, 87]), ("timerfd_gettime64", [O, O, 410, 410, O]),
    ("timerfd_settime", [286, 286, 325, 353, 86]), ("timerfd_settime64", [O, O, 411, 411, O]), ("times", [100, 100, 43, 43, 153]),
    ("tkill", [200, 200, 238, 238, 130]), ("truncate", [76, 76, 92, 92, 45]), ("truncate64", [O, O, 193, 193, O]),
    ("tuxcall", [184, 184, O, O, O]), ("ugetrlimit", [O, O, 191, 191, O]), ("ulimit", [O, O, 58, O, O]), ("umask", [95, 95, 60, 60, 166]),
    ("umount", [O, O, 22, O, O]), ("umount2", [166, 166, 52, 52, 39]), ("uname", [63, 63, 122, 122, 160]), ("unlink", [87, 87, 10, 10, O]),
    ("unlinkat", [263, 263, 301, 328, 35]), ("unshare", [272, 272, 310, 337, 97]), ("uretprobe", [335, O, O, O, O]),
    ("uselib", [134, O, 86, 86, O]), ("userfaultfd", [323, 323, 374, 388, 282]), ("usr26", [O, O, O, 983043, O]),
    ("usr32", [O, O, O, 983044, O]), ("ustat", [136, 136, 62, 62, O]), ("utime", [132, 132, 30, O, O]),
    ("utimensat", [280, 280, 320, 348, 88]), ("utimensat_time64", [O, O, 412, 412, O]), ("utimes", [235, 235, 271, 269, O]),
    ("vfork", [58, 58, 190, 190, O]), ("vhangup", [153, 153, 111, 111, 58]), ("vm86", [O, O, 166, O, O]), ("vm86old", [O, O, 113, O, O]),
    ("vmsplice", [278, 532, 316, 343, 75]), ("vserver", [236, O, 273, 313, O]), ("wait4", [61, 61, 114, 114, 260]),
    ("waitid", [247, 529, 284, 280, 95]), ("waitpid", [O, O, 7, O, O]), ("write", [1, 1, 4, 4, 64]), ("writev", [20, 516, 146, 146, 66]),
];

/// Numbers of the calls of one name.
#[derive(Debug, Clone, Copy)]
pub struct Numbers(&'static [u32; 5]);

impl Numbers {
    /// None where `abi` has no such call.
    pub fn of(self, abi: Abi) -> Option<u32> {
        Some(self.0[abi as usize]).filter(|number| *number != O)
    }
}

/// The calls of that name; None if no architecture has one.
pub fn numbers(name: &str) -> Option<Numbers> {
    CALLS.binary_search_by(|(n, _)| (*n).cmp(name)).ok().map(|at| Numbers(&CALLS[at].1))
}

/// Whether some architecture that this library runs on has a call of that name.
pub fn exists(name: &str) -> bool {
    [Abi::X86_64, Abi::Aarch64].into_iter().any(|abi| number_in(abi, name).is_some())
}

/// The number of a call by name; None where `abi` has no such call.
pub fn number_in(abi: Abi, name: &str) -> Option<u32> {
    numbers(name)?.of(abi)
}

/// [`number_in`] the target's.
pub fn number(name: &str) -> Option<u32> {
    number_in(NATIVE, name)
}

/// Names and numbers of the target, by name.
pub fn calls() -> impl Iterator<Item = (&'static str, u32)> {
    CALLS.iter().filter_map(|(name, numbers)| Some((*name, Numbers(numbers).of(NATIVE)?)))
}

/// The name of a call of the target by number.
pub fn name(number: u32) -> Option<&'static str> {
    calls().find(|(_, nr)| *nr == number).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_as_libc_has_it() {
        assert!(CALLS.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(calls().map(|(_, number)| number).max(), Some(NEWEST));
        for (name, number) in [("read", libc::SYS_read), ("clone3", libc::SYS_clone3), ("execveat", libc::SYS_execveat), ("setns", libc::SYS_setns)] {
            assert_eq!(super::number(name).map(i64::from), Some(number), "{name}");
        }
        let of = |name: &str| *numbers(name).unwrap().0;
        assert_eq!(of("execve"), [59, 520, 11, 11, 221]);
        assert_eq!(of("socketcall"), [O, O, 102, O, O]);
        assert!(!exists("stat64") && exists("stat") && numbers("statt").is_none());
    }
}
