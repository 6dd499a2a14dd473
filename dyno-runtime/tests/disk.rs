//! The writable layer on disk, as programs inside and the host around it meet it.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Cause, Dyno, ErrorKind, Found, Host, Layer, Sandbox, StartOptions, Stdio, Streams, Upper};

use support::{Case, PROGRAM, Stage, leaks, same};

const CASES: &[Case] = &[
    ("bytes_are_capped", bytes_are_capped),
    ("files_are_capped", files_are_capped),
    ("a_failure_on_a_full_layer_is_named", a_failure_on_a_full_layer_is_named),
    ("more_than_the_memory_limit_can_be_written", more_than_the_memory_limit_can_be_written),
    ("its_root_is_the_images", its_root_is_the_images),
    ("what_was_written_can_be_a_layer", what_was_written_can_be_a_layer),
    ("the_file_has_no_name_and_the_mount_no_place", the_file_has_no_name_and_the_mount_no_place),
    ("what_is_deleted_is_given_back", what_is_deleted_is_given_back),
    ("twenty_at_once", twenty_at_once),
    ("a_failed_start_leaves_nothing", a_failed_start_leaves_nothing),
    ("a_killed_owner_leaves_nothing", a_killed_owner_leaves_nothing),
    ("directories_of_others_are_refused", directories_of_others_are_refused),
    ("a_full_host_disk_is_an_error_inside", a_full_host_disk_is_an_error_inside),
];

const MIB: u64 = 1 << 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, role, run, name, rootfs, disks] = args.as_slice()
        && role == "owner"
    {
        return own(run.as_ref(), name, rootfs.as_ref(), disks.as_ref()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    support::suite("disk", &["mkfs.ext4"], CASES)
}

/// Its files are in the stage's directory, where the leak check looks for loop devices.
fn on_disk(stage: &Stage, bytes: u64, inodes: u64, args: &[&str]) -> Sandbox {
    let mut sandbox = stage.sandbox(args);
    sandbox.root.upper = Upper::Disk { directory: stage.work().into(), bytes, inodes };
    sandbox
}

fn number(text: &str) -> Result<u64> {
    text.split_whitespace().next().and_then(|n| n.parse().ok()).with_context(|| format!("no number: {text:?}"))
}

/// Of all layers under the stage's directory.
fn backing_files(stage: &Stage) -> Result<Vec<String>> {
    Ok(leaks::loops(stage.work())?.into_iter().collect())
}

fn bytes_are_capped(stage: &Stage) -> Result<()> {
    for bytes in [4 * MIB, 5 * MIB + 12345, 64 * MIB] {
        let (exit, text) = stage.output(&on_disk(stage, bytes, 64, &["fill", "/tmp/file"]))?;
        ensure!(text.ends_with(&format!("errno {}\n", libc::ENOSPC)), "{text}");
        let written = number(&text)?;
        ensure!(written <= bytes && written > bytes * 9 / 10, "{written} of {bytes}");
        same("it ended well", (exit.status, exit.cause), (0, Cause::Exited))?;
    }
    Ok(())
}

fn files_are_capped(stage: &Stage) -> Result<()> {
    for inodes in [64, 1000] {
        let text = stage.output(&on_disk(stage, 16 * MIB, inodes, &["files", "/tmp"]))?.1;
        ensure!(text.ends_with(&format!("errno {}\n", libc::ENOSPC)), "{text}");
        let made = number(&text)?;
        ensure!(made < inodes + 16 && made > inodes - 24, "{made} of {inodes}");
    }
    Ok(())
}

fn a_failure_on_a_full_layer_is_named(stage: &Stage) -> Result<()> {
    for upper in [on_disk(stage, 8 * MIB, 64, &[]).root.upper, Upper::Tmpfs { bytes: MIB, inodes: 64 }] {
        let ended = |args: &[&str]| -> Result<_> {
            let mut sandbox = stage.sandbox(args);
            sandbox.root.upper = upper.clone();
            let exit = stage.output(&sandbox)?.0;
            Ok((exit.status, exit.cause))
        };
        same("failed when it was full", ended(&["fill-and-fail", "/tmp/file"])?, (1, Cause::Disk))?;
        same("failed for another reason", ended(&["exit", "1"])?, (1, Cause::Exited))?;
        same("did not mind", ended(&["fill", "/tmp/file"])?, (0, Cause::Exited))?;
    }
    Ok(())
}

fn more_than_the_memory_limit_can_be_written(stage: &Stage) -> Result<()> {
    let mut sandbox = on_disk(stage, 256 * MIB, 100, &["fill", "/tmp/file"]);
    sandbox.limits.memory = Some(24 * MIB);
    let (exit, text) = stage.output(&sandbox)?;
    same("status", (exit.status, exit.oom_kills), (0, 0))?;
    ensure!(number(&text)? > 200 * MIB, "{text} {exit:?}");
    Ok(())
}

fn its_root_is_the_images(stage: &Stage) -> Result<()> {
    let check = |upper: Upper| -> Result<_> {
        let mut sandbox = stage.sandbox(&["forever"]);
        sandbox.root.upper = upper;
        let dyno = start_forever(stage, &sandbox)?;
        let root = format!("/proc/{}/root", dyno.pid());
        fs::write(format!("{root}/tmp/by-root"), "")?;
        let (meta, file) = (fs::metadata(&root)?, fs::metadata(format!("{root}/bin/program"))?);
        let id = (1 << 20) + dyno.record().slot * 65536;
        let mut names: Vec<String> = fs::read_dir(&root)?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", dyno.pid()))?;
        let options = table.lines().find(|l| l.split(' ').nth(4) == Some("/")).and_then(|l| l.split(' ').nth(5)).unwrap_or_default().to_owned();
        dyno.free()?;
        Ok((meta.mode() & 0o7777, meta.uid() - id, meta.gid() - id, file.uid() - id, names, options))
    };
    let disk = check(on_disk(stage, 8 * MIB, 64, &[]).root.upper)?;
    same("as on a layer in memory", &disk, &check(Upper::default())?)?;
    ensure!(!disk.4.contains(&"lost+found".to_owned()), "{:?}", disk.4);
    ensure!(disk.5.contains("nosuid") && disk.5.contains("nodev"), "{}", disk.5);
    let mut sandbox = on_disk(stage, 8 * MIB, 64, &["write", "/tmp/mine", "text"]);
    sandbox.identity.uid = 4242;
    let dyno = stage.host.start("ids", &sandbox, StartOptions { keep_upper: true, ..Default::default() })?;
    same("it may write", dyno.wait()?.status, 0)?;
    let id = (1 << 20) + dyno.record().slot * 65536;
    sandbox.argv = vec![PROGRAM.into(), "forever".into()];
    sandbox.root.layers.insert(0, Layer::UpperOf("ids".into()));
    sandbox.root.upper = Upper::ReadOnly;
    let next = stage.host.start("ids2", &sandbox, StartOptions { after: Some(&dyno), stdio: Stdio::Pipes, ..Default::default() })?;
    same("owner", fs::metadata(format!("/proc/{}/root/tmp/mine", next.pid()))?.uid(), id + 4242)?;
    next.free()?;
    Ok(dyno.free()?)
}

/// Runs, and has said so.
fn start_forever(stage: &Stage, sandbox: &Sandbox) -> Result<Dyno> {
    let mut dyno = stage.start(sandbox, Stdio::Pipes)?;
    let Streams::Pipes { stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
    let mut line = String::new();
    BufReader::new(fs::File::from(stdout)).read_line(&mut line)?;
    same("said", line.as_str(), "here\n")?;
    Ok(dyno)
}

/// As a build and its packing do it.
fn what_was_written_can_be_a_layer(stage: &Stage) -> Result<()> {
    let keep = StartOptions { keep_upper: true, ..Default::default() };
    let first = stage.host.start("build", &on_disk(stage, 8 * MIB, 64, &["write", "/tmp/result", "built"]), keep)?;
    same("status", first.wait()?.status, 0)?;
    for upper in [Upper::ReadOnly, Upper::default(), on_disk(stage, 8 * MIB, 64, &[]).root.upper] {
        let mut sandbox = stage.sandbox(&["read", "/tmp/result"]);
        sandbox.root.layers.insert(0, Layer::UpperOf("build".into()));
        sandbox.root.upper = upper;
        let mut second = stage.host.start("pack", &sandbox, StartOptions { stdio: Stdio::Pipes, after: Some(&first), ..Default::default() })?;
        let Streams::Pipes { stdout, .. } = second.take_streams() else { bail!("no pipes") };
        same("read", support::read_all(stdout)?.as_str(), "built")?;
        second.free()?;
    }
    same("one device", backing_files(stage)?.len(), 1)?;
    Ok(first.free()?)
}

fn the_file_has_no_name_and_the_mount_no_place(stage: &Stage) -> Result<()> {
    let files = fs::read_dir(stage.work())?.count();
    let dyno = start_forever(stage, &on_disk(stage, 8 * MIB, 64, &["forever"]))?;
    let backing = backing_files(stage)?;
    ensure!(backing.len() == 1 && backing[0].ends_with(" (deleted)"), "{backing:?}");
    same("files", fs::read_dir(stage.work())?.count(), files)?;
    let device = format!("/dev/{}", backing[0].split(' ').next().unwrap_or_default());
    // Others of this host mount things meanwhile, but not this device.
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!table.split([' ', '\n']).any(|word| word == device), "{table}");
    Ok(dyno.free()?)
}

/// The file on the host, which only the loop device knows, shrinks when files inside go.
fn what_is_deleted_is_given_back(stage: &Stage) -> Result<()> {
    on_a_disk_of("64m", stage, |directory, dyno| {
        let inside = format!("/proc/{}/root/tmp/large", dyno.pid());
        let used = || rustix::fs::statvfs(directory).map(|stat| (stat.f_blocks - stat.f_bfree) * stat.f_frsize);
        fs::write(&inside, vec![7; 32 << 20])?;
        fs::File::open(&inside)?.sync_all()?;
        let full = used()?;
        fs::remove_file(&inside)?;
        let after = used()?;
        ensure!(full > 32 * MIB && after < 2 * MIB, "{full} bytes, then {after}");
        Ok(())
    })
}

/// A dyno whose layer of 64 MiB is on a disk of its own of that size.
fn on_a_disk_of(size: &str, stage: &Stage, case: impl FnOnce(&Path, &Dyno) -> Result<()>) -> Result<()> {
    let directory = stage.work().join("disk");
    fs::create_dir(&directory)?;
    let options = std::ffi::CString::new(format!("size={size},mode=755"))?;
    rustix::mount::mount("disk", &directory, "tmpfs", rustix::mount::MountFlags::empty(), Some(options.as_c_str()))?;
    let mut sandbox = stage.sandbox(&["forever"]);
    sandbox.root.upper = Upper::Disk { directory: directory.clone(), bytes: 64 * MIB, inodes: 64 };
    let met = start_forever(stage, &sandbox).and_then(|dyno| {
        let met = case(&directory, &dyno);
        dyno.free()?;
        met
    });
    rustix::mount::unmount(&directory, rustix::mount::UnmountFlags::DETACH)?;
    fs::remove_dir(&directory)?;
    met
}

fn twenty_at_once(stage: &Stage) -> Result<()> {
    let sandbox = on_disk(stage, 8 * MIB, 64, &["forever"]);
    let dynos: Vec<Dyno> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(|| start_forever(stage, &sandbox))).collect();
        threads.into_iter().map(|t| t.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?).collect::<Result<_>>()
    })?;
    same("devices", backing_files(stage)?.len(), 20)?;
    let path = |dyno: &Dyno| format!("/proc/{}/root/tmp/name", dyno.pid());
    for dyno in &dynos {
        fs::write(path(dyno), dyno.id())?;
    }
    for dyno in &dynos {
        same("its own", fs::read_to_string(path(dyno))?.as_str(), dyno.id())?;
    }
    dynos.into_iter().try_for_each(|dyno| Ok(dyno.free()?))
}

fn a_failed_start_leaves_nothing(stage: &Stage) -> Result<()> {
    let mut sandbox = on_disk(stage, 8 * MIB, 64, &[]);
    sandbox.argv = vec!["/bin/nothing".into()];
    let error = stage.start(&sandbox, Stdio::Null).err().context("started")?;
    same("kind", error.kind(), ErrorKind::Exec)
}

/// What `main` does in the role of an owner: two dynos, one with its layer kept; then it waits to be killed.
fn own(run: &Path, name: &str, rootfs: &Path, disks: &Path) -> Result<()> {
    let host = Host::open(run, name)?;
    let mut sandbox = Sandbox::new(vec![Layer::Directory(rootfs.into())], [PROGRAM, "forever"]);
    sandbox.root.upper = Upper::Disk { directory: disks.into(), bytes: 8 * MIB, inodes: 64 };
    let runs = host.start("runs", &sandbox, StartOptions::default())?;
    sandbox.argv = [PROGRAM, "exit", "3"].map(str::to_owned).to_vec();
    let ended = host.start("ended", &sandbox, StartOptions { keep_upper: true, ..Default::default() })?;
    ended.wait()?;
    println!("ready");
    runs.wait()?;
    Ok(())
}

fn a_killed_owner_leaves_nothing(stage: &Stage) -> Result<()> {
    // One that ignores SIGCHLD, as its own parent may have done: it cannot see how mkfs.ext4 ended.
    let mut command = Command::new("env");
    command
        .arg("--ignore-signal=CHLD")
        .arg(std::env::current_exe()?)
        .arg("owner")
        .arg(&stage.run)
        .arg(&stage.name)
        .arg(stage.rootfs())
        .arg(stage.work())
        .stdout(std::process::Stdio::piped());
    let mut owner = command.spawn()?;
    let mut line = String::new();
    BufReader::new(owner.stdout.take().context("stdout")?).read_line(&mut line)?;
    same("said", line.as_str(), "ready\n")?;
    same("devices", backing_files(stage)?.len(), 2)?;
    owner.kill()?;
    owner.wait()?;
    let found = stage.host.recover()?;
    same("found", found.len(), 2)?;
    for found in found {
        match found {
            Found::Running(dyno) => {
                same("who runs", dyno.id(), "runs")?;
                fs::write(format!("/proc/{}/root/tmp/still-writable", dyno.pid()), "")?;
                dyno.free()?;
            }
            Found::Ended(id, exit) => {
                same("who ended", (id.as_str(), exit.status), ("ended", 3))?;
                stage.host.sweep(&id)?;
            }
        }
    }
    Ok(())
}

fn directories_of_others_are_refused(stage: &Stage) -> Result<()> {
    let dir = stage.work().join("theirs");
    fs::create_dir(&dir)?;
    let refused = |path: &Path| {
        let mut sandbox = stage.sandbox(&["exit", "0"]);
        sandbox.root.upper = Upper::Disk { directory: path.into(), bytes: 8 * MIB, inodes: 64 };
        stage.start(&sandbox, Stdio::Null).err().with_context(|| format!("{} was taken", path.display()))
    };
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
    let errors = [refused(&dir)?, refused(&dir.join("missing"))?, {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        std::os::unix::fs::chown(&dir, Some(1234), None)?;
        refused(&dir)?
    }];
    fs::remove_dir(&dir)?;
    for error in errors {
        same("kind", error.kind(), ErrorKind::Invalid)?;
        ensure!(error.to_string().starts_with("root.upper.directory /"), "{error}");
    }
    Ok(())
}

/// The file is not allocated ahead. What finds no room is told to who asks (fsync), and the rest goes on.
fn a_full_host_disk_is_an_error_inside(stage: &Stage) -> Result<()> {
    on_a_disk_of("4m", stage, |_, dyno| {
        let mut file = fs::File::create(format!("/proc/{}/root/tmp/large", dyno.pid()))?;
        let error = file.write_all(&vec![7; 20 << 20]).and_then(|()| file.sync_all()).err().context("it was written")?;
        // EIO where the loop device tells of no other error.
        ensure!(matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EIO)), "{error}");
        same("it runs on", dyno.has_ended(), false)
    })
}
