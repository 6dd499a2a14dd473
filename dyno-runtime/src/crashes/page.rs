//! `docs/crash.md`: what was swept, by scene, and by role and call.

use std::{collections::BTreeMap, fmt::Write, fs};

use anyhow::{Context, Result};

/// One call of one role in one scene.
#[derive(Debug)]
pub struct Row {
    pub scene: String,
    pub role: &'static str,
    pub call: &'static str,
    /// How often it is made when nobody is harmed.
    pub times: usize,
    /// How often somebody was killed at it, and it was failed.
    pub kills: usize,
    pub errors: usize,
    /// Moments that did not come again: processes and threads run at a time.
    pub missed: usize,
    pub failed: Vec<String>,
}

/// Times, kills, errors, not come, failed.
#[derive(Debug, Default, Clone, Copy)]
struct Sum([usize; 5]);

impl Sum {
    fn add(&mut self, row: &Row) {
        let all = [row.times, row.kills, row.errors, row.missed, row.failed.len()];
        self.0.iter_mut().zip(all).for_each(|(sum, one)| *sum += one);
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [times, kills, errors, missed, failed] = self.0;
        let verdict = if failed == 0 { "recovered".to_owned() } else { format!("**{failed} FAILED**") };
        write!(f, "{times} | {kills} | {errors} | {missed} | {verdict} |")
    }
}

/// Writes it where the variable says.
pub fn write(rows: &[Row]) -> Result<()> {
    let Some(path) = std::env::var_os("DYNO_CRASH_PAGE") else { return Ok(()) };
    let (mut scenes, mut calls, mut all) = (Vec::<(&str, Sum)>::new(), BTreeMap::<(&str, &str, &str), Sum>::new(), Sum::default());
    for row in rows {
        let kind = row.scene.split(':').next().unwrap_or_default();
        calls.entry((kind, row.role, row.call)).or_default().add(row);
        if scenes.last().is_none_or(|(scene, _)| *scene != row.scene) {
            scenes.push((&row.scene, Sum::default()));
        }
        scenes.last_mut().into_iter().for_each(|(_, sum)| sum.add(row));
        all.add(row);
    }
    let mut text = String::from(INTRODUCTION);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    writeln!(text, "\n## By scene\n\nWritten by `cargo xtask crash --write` on Linux {release}.\n")?;
    writeln!(text, "| scene | calls | kills | errors | not come | verdict |\n|---|--:|--:|--:|--:|---|")?;
    scenes.iter().try_for_each(|(scene, sum)| writeln!(text, "| {scene} | {sum}"))?;
    writeln!(text, "| all | {all}")?;
    writeln!(text, "\n## By role and call\n\n| who | call | occurrences | kills | errors | not come | verdict |\n|---|---|--:|--:|--:|--:|---|")?;
    calls.iter().try_for_each(|((kind, role, call), sum)| writeln!(text, "| {kind}: {role} | `{call}` | {sum}"))?;
    fs::write(&path, text).with_context(|| format!("write {path:?}"))
}

const INTRODUCTION: &str = "\
# Crash sweeps

What is left when somebody dies, or is refused something, in the middle of a start or of a stop. A scene is played once unharmed, and its
calls are counted by role: every system call that changes something, and the end of each process. Then it is played again for each of them,
and at that call

- its caller is killed (SIGKILL, before the call is carried out);
- the process that called the library, or the OCI command, is killed while one that it made is at that call; and an init or a
  launcher that is there already is killed while its maker is;
- it fails with ENOMEM, EMFILE, ENOSPC or EINTR, in turn (`--every-error`: with each of them).

After each the next process opens the same state directory (`Host::open_alone`, `recover`), or the next commands come on the same `--root` (`state`,
`list`, `delete --force`): the dyno runs as it should, or is gone; it can be started anew; and then nothing is left: mounts, loop devices,
control groups, files, leases, processes, descriptors, links, rules.

No init and no program may ever have done anything with half its walls. Before the first call of each is let go on, the kernel is asked: ids, groups,
capabilities, no_new_privs, the number of filters, all seven namespaces, the mount table with every flag and size, rlimits, the limits of its
groups and, of a program, its descriptors. All of it is compared with what it has unharmed. (Landlock shows nowhere in procfs; a start at
which one of its calls fails must fail.)

Calls that cannot fail so are only killed at: kill(2), pidfd_send_signal(2), setsid(2), exit_group(2).

## Who is who

| role | is |
|---|---|
| library: spawner | the thread that opens the instance, starts, stops, frees, takes the instance down |
| library: workshop | the thread that keeps parts and parked sandboxes ready |
| library: helper | processes beside it that share its memory: holders of user namespaces, closers |
| library: child | what raises the walls and becomes the init |
| library: init | pid 1 of the dyno |
| library: program to be | its child until exec; of a parked sandbox the one that waits |
| nft, mkfs.ext4 | programs that it runs |
| OCI: runtime | the command |
| OCI: helper | what makes namespaces ahead |
| OCI: first | the container's first process |
| OCI: launcher | the same, once it waits for `start` as dyno-launch |

Scenes of the library: `cold`, `parts` (a network and a group lie ready), `parked` (a sandbox waits), `large` (an image, a disk, a volume, a terminal, a
listening socket), `egress` (a link and rules, in a network namespace of the test's own). Of OCI: one command each, the others before it unharmed.

\"Not come\" are moments that did not come again, because threads and processes run at a time.

`cargo xtask crash` plays all of it; `cargo test` one call of each name that each role makes (`--short`). `--only cold,run` names scenes.
";
