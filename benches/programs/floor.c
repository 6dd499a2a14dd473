/* What the kernel alone charges for a process: with every wall, written straight down as anybody would, or (`vfork`) with none. No
 * configuration, no records, no recovery. The other figures are told as multiples of these.
 *
 *   floor SCRATCH ROOT PROGRAM [vfork] [mnt] [net] [ov] [cg] [sc]
 *
 * SCRATCH  an empty directory on which a tmpfs is mounted, in the child's mount namespace
 * ROOT     the lower layer (or the root itself), with PROGRAM, /proc and /dev in it
 * mnt      mount, pid, uts, ipc and cgroup namespaces, /proc, /dev, pivot_root
 * net      a network namespace with its loopback up
 * ov       an overlay with a tmpfs of 64 MB as its writable layer
 * cg       a control group with memory, pids and cpu limits
 * sc       no_new_privs and a filter of 300 instructions
 *
 * Answers each line `RUNS IDLE_US` of its input with a line of 2 * RUNS numbers: nanoseconds from the request to the exec, and
 * from the request to the collected exit. Sleep before a run and removal of control groups are outside.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct {
  const char *scratch, *root, *program;
  int vfork, mnt, net, ov, cg, sc;
} want;

/* ---- Control groups: a directory of each tree, and what is written there. */

struct limit { const char *tree, *file, *value; };
static const struct limit V1[] = {{"memory", "memory.limit_in_bytes", "268435456"}, {"pids", "pids.max", "64"}, {"cpu", "cpu.shares", "512"}};
static const struct limit V2[] = {{"", "memory.max", "268435456"}, {"", "pids.max", "64"}, {"", "cpu.weight", "50"}};
static char parent[64]; /* of v2's groups; empty on a host with v1 controllers */

static void put(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) err(1, "write %s", path);
  close(fd);
}

static void group_path(char *to, size_t size, int i, int run) {
  if (*parent) snprintf(to, size, "%s/%d", parent, run);
  else snprintf(to, size, "/sys/fs/cgroup/%s/dyno-floor-%d-%d", V1[i].tree, getpid(), run);
}

static void groups_open(void) {
  if (access("/sys/fs/cgroup/cgroup.controllers", F_OK) != 0) return;
  put("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids +cpu");
  snprintf(parent, sizeof parent, "/sys/fs/cgroup/dyno-floor-%d", getpid());
  if (mkdir(parent, 0755) < 0) err(1, "mkdir %s", parent);
  char path[128];
  snprintf(path, sizeof path, "%s/cgroup.subtree_control", parent);
  put(path, "+memory +pids +cpu");
}

static void groups_close(void) {
  if (*parent && rmdir(parent) < 0) warn("rmdir %s", parent);
}

/* v2: a descriptor for clone3. v1: this thread moves in by `tasks`, which waits for no grace period; the child is born there. */
static int group_make(int run) {
  char dir[160], path[256];
  const struct limit *limits = *parent ? V2 : V1;
  for (int i = 0; i < 3; i++) {
    group_path(dir, sizeof dir, i, run);
    if ((i == 0 || !*parent) && mkdir(dir, 0755) < 0) err(1, "mkdir %s", dir);
    snprintf(path, sizeof path, "%s/%s", dir, limits[i].file);
    put(path, limits[i].value);
    if (*parent) continue;
    snprintf(path, sizeof path, "%s/tasks", dir);
    put(path, "0");
  }
  return *parent ? open(dir, O_DIRECTORY | O_CLOEXEC) : -1;
}

static void group_leave(void) {
  char path[128];
  for (int i = 0; i < 3 && !*parent; i++) {
    snprintf(path, sizeof path, "/sys/fs/cgroup/%s/tasks", V1[i].tree);
    put(path, "0");
  }
}

static void group_remove(int run) {
  char dir[160];
  for (int i = 0; i < (*parent ? 1 : 3); i++) {
    group_path(dir, sizeof dir, i, run);
    /* Its last process is collected before it has left in every respect. */
    for (int tries = 0; rmdir(dir) < 0; tries++) {
      if (errno != EBUSY || tries == 10000) err(1, "rmdir %s", dir);
      sched_yield();
    }
  }
}

/* ---- The child. */

static void raise_loopback(void) {
  struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP};
  int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (s < 0 || ioctl(s, SIOCSIFFLAGS, &up) < 0) err(1, "lo up");
  close(s);
}

static void take_root(void) {
  char options[600];
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) err(1, "make / private");
  if (want.ov) {
    if (mount("tmpfs", want.scratch, "tmpfs", MS_NOSUID | MS_NODEV, "size=64m") < 0 || chdir(want.scratch) < 0) err(1, "tmpfs");
    if (mkdir("upper", 0755) < 0 || mkdir("work", 0755) < 0 || mkdir("root", 0755) < 0) err(1, "mkdir");
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=upper,workdir=work", want.root);
    if (mount("overlay", "root", "overlay", MS_NOSUID | MS_NODEV, options) < 0 || chdir("root") < 0) err(1, "overlay");
  } else if (mount(want.root, want.root, NULL, MS_BIND | MS_REC, NULL) < 0 || chdir(want.root) < 0) {
    err(1, "bind %s", want.root);
  }
  if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) err(1, "proc");
  if (mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,mode=755") < 0) err(1, "dev");
  if (syscall(SYS_pivot_root, ".", ".") < 0) err(1, "pivot_root");
  if (umount2(".", MNT_DETACH) < 0) err(1, "umount");
}

/* As long as a list of calls in the order of a table, each compared in its turn. */
static void install_filter(void) {
  enum { LENGTH = 300 };
  struct sock_filter code[LENGTH] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
  for (int i = 1; i < LENGTH - 1; i++) code[i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 10000 + i, 0, 0);
  code[LENGTH - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {LENGTH, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) err(1, "no_new_privs");
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) < 0) err(1, "seccomp");
}

static void become_walled(void) {
  char path[600];
  snprintf(path, sizeof path, "%s%s", want.mnt ? "" : want.root, want.program);
  char *args[] = {path, NULL}, *env[] = {NULL};
  if (want.net) raise_loopback();
  if (want.mnt) take_root();
  if (want.sc) install_filter();
  execve(path, args, env);
  err(1, "execve %s", path);
}

/* ---- The parent. */

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void collect(pid_t pid) {
  int status;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) err(1, "waitpid");
  if (status) errx(1, "the child ended with status %x", status);
}

static void run_walled(int run, int64_t *exec, int64_t *end) {
  static const uint64_t MNT = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP;
  int64_t from = now();
  int line[2], group = want.cg ? group_make(run) : -1;
  if (pipe2(line, O_CLOEXEC) < 0) err(1, "pipe");
  struct clone_args how = {.exit_signal = SIGCHLD, .flags = (want.mnt ? MNT : 0) | (want.net ? CLONE_NEWNET : 0)};
  if (group >= 0) how.flags |= CLONE_INTO_CGROUP, how.cgroup = group;
  pid_t pid = syscall(SYS_clone3, &how, sizeof how);
  if (pid < 0) err(1, "clone3");
  if (pid == 0) become_walled();
  close(line[1]);
  if (want.cg) group_leave();
  char byte;
  /* Its end closes at exec. */
  if (read(line[0], &byte, 1) < 0) err(1, "read");
  *exec = now() - from;
  collect(pid);
  *end = now() - from;
  close(line[0]);
  if (group >= 0) close(group);
  if (want.cg) group_remove(run);
}

static void run_plain(int64_t *exec, int64_t *end) {
  char path[600];
  snprintf(path, sizeof path, "%s%s", want.root, want.program);
  char *args[] = {path, NULL}, *env[] = {NULL};
  int64_t from = now();
  /* vfork(2) is clone with CLONE_VM and CLONE_VFORK; it returns here once the exec is done. */
  pid_t pid = vfork();
  if (pid < 0) err(1, "vfork");
  if (pid == 0) {
    execve(path, args, env);
    _exit(127);
  }
  *exec = now() - from;
  collect(pid);
  *end = now() - from;
}

static void read_words(int count, char **words) {
  static const struct { const char *word; int *flag; } flags[] = {
      {"vfork", &want.vfork}, {"mnt", &want.mnt}, {"net", &want.net}, {"ov", &want.ov}, {"cg", &want.cg}, {"sc", &want.sc}};
  for (int i = 0; i < count; i++) {
    unsigned f = 0;
    while (f < sizeof flags / sizeof *flags && strcmp(flags[f].word, words[i])) f++;
    if (f == sizeof flags / sizeof *flags) errx(2, "unknown feature %s", words[i]);
    *flags[f].flag = 1;
  }
}

int main(int count, char **words) {
  if (count < 4) errx(2, "usage: floor SCRATCH ROOT PROGRAM [vfork] [mnt] [net] [ov] [cg] [sc]");
  want.scratch = words[1], want.root = words[2], want.program = words[3];
  read_words(count - 4, words + 4);
  if (want.cg) groups_open();
  int runs, idle;
  while (scanf("%d %d", &runs, &idle) == 2) {
    int64_t *figures = calloc(runs, 2 * sizeof *figures);
    if (!figures) err(1, "calloc");
    for (int i = 0; i < runs; i++) {
      if (idle) usleep(idle);
      if (want.vfork) run_plain(&figures[2 * i], &figures[2 * i + 1]);
      else run_walled(i, &figures[2 * i], &figures[2 * i + 1]);
    }
    for (int i = 0; i < 2 * runs; i++) printf("%lld ", (long long)figures[i]);
    puts("");
    fflush(stdout);
    free(figures);
  }
  if (want.cg) groups_close();
  return 0;
}
