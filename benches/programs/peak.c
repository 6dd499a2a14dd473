/* peak COMMAND [ARGUMENT...]: runs the command and prints the largest resident set of it and of all that it waited for, in KiB.
 *
 * execve(2) counts what the process had before it among its largest (fs/exec.c, setmax_mm_hiwater_rss), so whoever starts the command
 * has to be smaller than what it measures: this, statically linked, has some 700 KiB. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  pid_t child = fork();
  if (child == 0) {
    execvp(argv[1], argv + 1);
    _exit(127);
  }
  int status;
  struct rusage usage;
  if (child < 0 || waitpid(child, &status, 0) < 0 || getrusage(RUSAGE_CHILDREN, &usage)) return 1;
  printf("%ld\n", usage.ru_maxrss);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
