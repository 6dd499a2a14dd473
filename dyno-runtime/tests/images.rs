//! Squashfs images, layers on layers, volumes.

pub(crate) mod support;

use std::{
    fs::{self, OpenOptions, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use dyno_runtime::{ErrorKind, Layer, Sandbox, StartOptions, Stdio, Upper, Volume};

use support::{Case, PROGRAM, Stage, layer, leaks, same, sha256, squash};

pub(crate) const CASES: &[Case] = &[
    ("runs_on_an_image", runs_on_an_image),
    ("two_dynos_share_one_mount", two_dynos_share_one_mount),
    ("an_image_lives_as_long_as_its_last_dyno", an_image_lives_as_long_as_its_last_dyno),
    ("images_that_are_refused", images_that_are_refused),
    ("an_image_of_its_maker_becomes_roots_another_is_left_alone", an_image_of_its_maker_becomes_roots_another_is_left_alone),
    ("the_topmost_layer_hides_the_others", the_topmost_layer_hides_the_others),
    ("image_and_directory_stacked", image_and_directory_stacked),
    ("layers_are_never_written", layers_are_never_written),
    ("upper_of_an_ended_dyno", upper_of_an_ended_dyno),
    ("upper_that_was_not_kept", upper_that_was_not_kept),
    ("volumes", volumes),
    ("a_link_in_the_image_leads_no_volume_astray", a_link_in_the_image_leads_no_volume_astray),
];

fn main() -> ExitCode {
    support::suite("images", &["mksquashfs"], CASES)
}

fn on(layers: Vec<Layer>, args: &[&str]) -> Sandbox {
    Sandbox::new(layers, [PROGRAM].iter().chain(args).copied())
}

fn release(stage: &Stage) -> Result<()> {
    for image in stage.host.images().list()? {
        stage.host.images().release(&image)?;
    }
    Ok(())
}

fn runs_on_an_image(stage: &Stage) -> Result<()> {
    let image = stage.image("plain.sqsh")?;
    for upper in [Upper::default(), Upper::ReadOnly] {
        let mut sandbox = on(vec![layer(&image)?], &["say", "from", "squashfs"]);
        sandbox.root.upper = upper;
        same("output", stage.output(&sandbox)?.1, "from squashfs\n".into())?;
    }
    release(stage)
}

fn image_mounts(stage: &Stage) -> Result<usize> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter(|l| l.contains(&stage.name) && l.contains(" - squashfs ")).count())
}

fn two_dynos_share_one_mount(stage: &Stage) -> Result<()> {
    let sandbox = on(vec![layer(&stage.image("shared.sqsh")?)?], &["forever"]);
    let (one, two) = (stage.start(&sandbox, Stdio::Null)?, stage.start(&sandbox, Stdio::Null)?);
    same("loop devices", leaks::loops(stage.work())?.len(), 1)?;
    same("mounts", image_mounts(stage)?, 1)?;
    same("listed", stage.host.images().list()?.len(), 1)?;
    one.free()?;
    two.free()?;
    same("still mounted for the next", image_mounts(stage)?, 1)?;
    release(stage)?;
    same("mounts", image_mounts(stage)?, 0)
}

fn an_image_lives_as_long_as_its_last_dyno(stage: &Stage) -> Result<()> {
    let image = stage.image("last.sqsh")?;
    let dyno = stage.start(&on(vec![layer(&image)?], &["forever"]), Stdio::Null)?;
    release(stage)?;
    same("mounts of the host", image_mounts(stage)?, 0)?;
    same("loop devices", leaks::loops(stage.work())?.len(), 1)?;
    // Its program can still be read, though the file's name is gone as well.
    fs::remove_file(&image)?;
    let program = fs::read(format!("/proc/{}/root/bin/program", dyno.pid()))?;
    same("program", program.len() as u64, fs::metadata(stage.rootfs().join("bin/program"))?.len())?;
    same("runs", dyno.has_ended(), false)?;
    Ok(dyno.free()?) // The loop device has to go now: the leak check waits for it.
}

fn images_that_are_refused(stage: &Stage) -> Result<()> {
    let good = stage.image("good.sqsh")?;
    let hash = sha256(&good)?;
    let copy = |name: &str| -> Result<PathBuf> {
        let path = stage.work().join(name);
        fs::copy(&good, &path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o444))?;
        Ok(path)
    };
    let refused = |what: &str, path: &Path, hash: &str, want: &str| {
        let sandbox = on(vec![Layer::Image { path: path.to_owned(), sha256: hash.to_owned() }], &["exit", "0"]);
        stage.leaves_nothing(|| {
            let error = stage.start(&sandbox, Stdio::Null).err().with_context(|| format!("{what}: it started"))?;
            same(what, error.kind(), ErrorKind::Image)?;
            ensure!(error.to_string().contains(want), "{what}: want {want:?}, got {error}");
            ensure!(error.to_string().contains(&path.display().to_string()), "{what}: {error} names no file");
            Ok(())
        })
    };
    refused("another hash", &good, &"0".repeat(64), "checksum mismatch")?;
    refused("missing", &stage.work().join("no.sqsh"), &hash, "open")?;
    let truncated = copy("truncated.sqsh")?;
    OpenOptions::new().write(true).open(&truncated)?.set_len(fs::metadata(&good)?.len() / 2)?;
    refused("truncated, hash of the whole", &truncated, &hash, "checksum mismatch")?;
    refused("truncated, its own hash", &truncated, &sha256(&truncated)?, "not a squashfs")?;
    let empty = stage.work().join("empty.sqsh");
    fs::write(&empty, "")?;
    refused("empty", &empty, &sha256(&empty)?, "not a squashfs")?;
    let group = copy("group.sqsh")?;
    fs::set_permissions(&group, Permissions::from_mode(0o464))?;
    refused("writable for the group", &group, &hash, "others than root may write it")?;
    same("and left as it was", fs::metadata(&group)?.mode() & 0o777, 0o464)?;
    let link = stage.work().join("link.sqsh");
    symlink(&good, &link)?;
    refused("a symbolic link", &link, &hash, "open")?;
    refused("a directory", &stage.rootfs(), &hash, "is not a regular file")?;
    refused("a device", Path::new("/dev/null"), &hash, "is not a regular file")?;
    let open = copy("open.sqsh")?;
    let writer = OpenOptions::new().write(true).open(&open)?;
    refused("open for writing", &open, &hash, "is open for writing")?;
    drop(writer);
    same("closed, it is accepted", stage.output(&on(vec![layer(&open)?], &["exit", "7"]))?.0.status, 7)?;
    release(stage)
}

fn an_image_of_its_maker_becomes_roots_another_is_left_alone(stage: &Stage) -> Result<()> {
    let image = stage.image("foreign.sqsh")?;
    chown(&image, Some(1234), Some(1234))?;
    fs::set_permissions(&image, Permissions::from_mode(0o666))?;
    let sandbox = on(vec![layer(&image)?], &["exit", "0"]);
    let state = || fs::metadata(&image).map(|meta| (meta.uid(), meta.gid(), meta.mode() & 0o777));
    for image_maker in [None, Some(1235)] {
        let error = stage.host.start(&stage.id(), &sandbox, StartOptions { image_maker, ..Default::default() }).err().context("it started")?;
        same("kind", error.kind(), ErrorKind::Image)?;
        same("owner and mode", state()?, (1234, 1234, 0o666))?;
    }
    let dyno = stage.host.start(&stage.id(), &sandbox, StartOptions { image_maker: Some(1234), ..Default::default() })?;
    same("runs", dyno.wait()?.status, 0)?;
    dyno.free()?;
    same("owner and mode", state()?, (0, 0, 0o444))?;
    release(stage)
}

/// A directory tree of one file.
fn tree(stage: &Stage, name: &str, file: &str, text: &str) -> Result<PathBuf> {
    let dir = stage.work().join(name);
    fs::create_dir_all(&dir)?;
    fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
    fs::write(dir.join(file), text)?;
    Ok(dir)
}

fn the_topmost_layer_hides_the_others(stage: &Stage) -> Result<()> {
    let (top, middle) = (tree(stage, "top", "word", "top")?, tree(stage, "middle", "word", "middle")?);
    let dir = |path: &PathBuf| Layer::Directory(path.clone());
    let layers = |a, b| vec![a, b, Layer::Directory(stage.rootfs())];
    same("top", stage.output(&on(layers(dir(&top), dir(&middle)), &["read", "/word"]))?.1, "top".into())?;
    same("turned", stage.output(&on(layers(dir(&middle), dir(&top)), &["read", "/word"]))?.1, "middle".into())
}

fn image_and_directory_stacked(stage: &Stage) -> Result<()> {
    let slug = stage.work().join("slug.sqsh");
    squash(&tree(stage, "slug", "app", "the app")?, &slug)?;
    let stack = stage.image("stack.sqsh")?;
    for upper in [Upper::default(), Upper::ReadOnly] {
        let mut sandbox = on(vec![layer(&slug)?, layer(&stack)?, Layer::Directory(stage.rootfs())], &["read", "/app"]);
        sandbox.root.upper = upper;
        same("app", stage.output(&sandbox)?.1, "the app".into())?;
    }
    same("loop devices", leaks::loops(stage.work())?.len(), 2)?;
    release(stage)
}

fn layers_are_never_written(stage: &Stage) -> Result<()> {
    let layers = || -> Result<Vec<Layer>> { Ok(vec![Layer::Directory(tree(stage, "kept", "word", "as it was")?), Layer::Directory(stage.rootfs())]) };
    let mut sandbox = on(layers()?, &["write", "/word", "changed"]);
    sandbox.identity.uid = 0;
    let mut dyno = stage.start(&sandbox, Stdio::Pipes)?;
    drop(dyno.take_streams());
    same("root inside may write", dyno.wait()?.status, 0)?;
    dyno.free()?;
    same("on the host", fs::read_to_string(stage.work().join("kept/word"))?, "as it was".into())?;
    same("for the next", stage.output(&on(layers()?, &["read", "/word"]))?.1, "as it was".into())?;
    let mut user = on(layers()?, &["write", "/word", "changed"]);
    user.identity.uid = 1000;
    same("its files are root's", stage.output(&user)?.1, format!("errno {}\n", libc::EACCES))
}

fn upper_of_an_ended_dyno(stage: &Stage) -> Result<()> {
    let sandbox = stage.sandbox(&["write", "/tmp/made", "by the first"]);
    let first = stage.host.start(&stage.id(), &sandbox, StartOptions { keep_upper: true, ..Default::default() })?;
    same("first", first.wait()?.status, 0)?;
    let mut second = stage.sandbox(&["read", "/made"]);
    second.root.layers.insert(0, Layer::UpperOf(first.id().to_owned()));
    second.argv[2] = "/tmp/made".into();
    let options = StartOptions { after: Some(&first), stdio: Stdio::Pipes, ..Default::default() };
    let mut dyno = stage.host.start(&stage.id(), &second, options)?;
    let dyno_runtime::Streams::Pipes { stdout, .. } = dyno.take_streams() else { anyhow::bail!("no pipes") };
    same("second", support::read_all(stdout)?, "by the first".into())?;
    same("ids", (dyno.record().slot, dyno.record().leased), (first.record().slot, false))?;
    dyno.free()?;
    Ok(first.free()?)
}

fn upper_that_was_not_kept(stage: &Stage) -> Result<()> {
    let first = stage.start(&stage.sandbox(&["exit", "0"]), Stdio::Null)?;
    first.wait()?;
    let mut second = stage.sandbox(&["exit", "0"]);
    second.root.layers.insert(0, Layer::UpperOf(first.id().to_owned()));
    for after in [Some(&first), None] {
        let error = stage.host.start(&stage.id(), &second, StartOptions { after, ..Default::default() }).err().context("it started")?;
        same("kind", error.kind(), ErrorKind::Invalid)?;
        ensure!(error.to_string().contains("its layer was not kept"), "{error}");
    }
    Ok(first.free()?)
}

fn volumes(stage: &Stage) -> Result<()> {
    let source = tree(stage, "volume", "word", "shared")?;
    fs::set_permissions(&source, Permissions::from_mode(0o777))?;
    fs::set_permissions(source.join("word"), Permissions::from_mode(0o666))?;
    let with = |args: &[&str], writable| {
        let volume = Volume::Bind { source: source.clone(), target: "/data".into(), writable };
        Sandbox { volumes: vec![volume], ..stage.sandbox(args) }
    };
    same("read", stage.output(&with(&["read", "/data/word"], false))?.1, "shared".into())?;
    let refused = format!("errno {}\n", libc::EROFS);
    same("write to a read-only one", stage.output(&with(&["write", "/data/word", "x"], false))?.1, refused)?;
    same("untouched", fs::read_to_string(source.join("word"))?, "shared".into())?;
    same("write to a writable one", stage.output(&with(&["write", "/data/new", "written"], true))?.0.status, 0)?;
    same("seen by the host", fs::read_to_string(source.join("new"))?, "written".into())?;
    let meta = fs::metadata(source.join("new"))?;
    same("its owner is the id inside, not one of a range", (meta.uid(), meta.gid()), (1000, 1000))?;
    let file = Volume::Bind { source: source.join("word"), target: "/bin/program2".into(), writable: false };
    fs::write(stage.rootfs().join("bin/program2"), "")?;
    let one_file = Sandbox { volumes: vec![file], ..stage.sandbox(&["read", "/bin/program2"]) };
    same("a single file", stage.output(&one_file)?.1, "shared".into())
}

fn a_link_in_the_image_leads_no_volume_astray(stage: &Stage) -> Result<()> {
    let top = tree(stage, "traps", "word", "")?;
    symlink("/proc", top.join("trap"))?;
    let volume = Volume::Bind { source: stage.rootfs(), target: "/trap".into(), writable: false };
    let mut sandbox = Sandbox { volumes: vec![volume], ..stage.sandbox(&["exit", "0"]) };
    sandbox.root.layers.insert(0, Layer::Directory(top));
    let error = stage.start(&sandbox, Stdio::Null).err().context("it started")?;
    same("error", (error.kind(), error.errno()), (ErrorKind::Wall, Some(rustix::io::Errno::LOOP)))
}
