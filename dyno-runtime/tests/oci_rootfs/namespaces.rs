//! User namespaces, mount namespaces that are others', propagation.

use std::{
    fs,
    os::unix::{fs::MetadataExt, fs::PermissionsExt, process::CommandExt},
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    dev,
    mounts::Elsewhere,
    support::{Stage, same},
    world::{self, Bundle},
};

const FIRST: u32 = 400_000;

/// In a user namespace: devices work and are root's inside, file systems are the namespace's own.
pub fn user(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    bundle.with_user_namespace(FIRST)?.set("/linux/maskedPaths", json!(["/proc/keys", "/sys/firmware"])).set("/root/readonly", json!(true));
    bundle.set("/linux/devices", json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 5, "gid": 6}]));
    let created = bundle.create()?;
    dev::check(&created, FIRST)?;
    let fuse = fs::metadata(created.inside("/dev/fuse"))?;
    same("owner of a device", (fuse.uid(), fuse.gid(), fuse.mode() & 0o7777), (FIRST + 5, FIRST + 6, 0o600))?;
    ensure!(created.at("/dev/pts")?.data.contains(&format!("gid={}", FIRST + 5)), "terminals of another group");
    ensure!(!created.mounts()?.iter().any(|m| m.at.starts_with("/dev/") && m.kind == "devtmpfs"), "devices are bound one by one");
    created.delete()?;
    same("null", bundle.ask(&["write", "/dev/null", "x"])?, String::new())?;
    same("full", String::from_utf8_lossy(&bundle.run(&["write", "/dev/full", "x"])?.stdout).trim(), "errno 28")?;
    // Where the image's directory is used, the host's are bound: a user namespace makes none.
    let mut bundle = Bundle::new(stage)?;
    bundle.with_user_namespace(FIRST)?.only(|at| !at.starts_with("/dev"));
    let created = bundle.create()?;
    same("bound from the host", created.at("/dev/null")?.root, "/null".into())?;
    created.delete()?;
    same("null", bundle.ask(&["write", "/dev/null", "x"])?, String::new())?;
    // Ids that are not mapped: terminals are then nobody's group's.
    let mut bundle = Bundle::new(stage)?;
    let map = json!([{"containerID": 0, "hostID": FIRST, "size": 3}]);
    bundle.with_user_namespace(FIRST)?.set("/linux/gidMappings", map);
    let created = bundle.create()?;
    ensure!(!created.at("/dev/pts")?.data.iter().any(|d| d.starts_with("gid=")), "an unmapped group");
    created.delete()
}

/// The root is moved instead; inside nothing of the host's is seen, and a user namespace made there cannot mount a procfs without masks.
pub fn no_pivot(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    bundle.options = vec!["--no-pivot"];
    bundle.set("/linux/maskedPaths", json!(["/proc/keys"])).set("/root/readonly", json!(true));
    let text = bundle.ask(&["read", "/proc/self/mountinfo"])?;
    let seen: Vec<String> = world::table(&text).into_iter().map(|m| m.at).collect();
    same("first", seen.iter().filter(|at| *at == "/").count(), 1)?;
    ensure!(seen.contains(&"/proc/keys".to_owned()) && seen.iter().all(|at| !at.starts_with("/tmp")), "seen inside: {seen:?}");
    // The host's tools, to make a user namespace and mount a procfs in it.
    for (options, masked, want) in
        [(vec![], false, true), (vec!["--no-pivot"], false, true), (vec![], true, false), (vec!["--no-pivot"], true, false)]
    {
        let mut bundle = Bundle::new(stage)?;
        for (link, target) in [("/lib", "usr/lib"), ("/lib64", "usr/lib64")] {
            std::os::unix::fs::symlink(target, bundle.root(link))?;
        }
        let setfcap = json!(["CAP_SETFCAP", "CAP_SYS_ADMIN"]);
        bundle
            .mount("/usr", "bind", "/usr", &["rbind", "ro"])
            .set("/process/capabilities", json!({"bounding": setfcap, "permitted": setfcap, "effective": setfcap}));
        bundle.set("/linux/maskedPaths", if masked { json!(["/proc/keys"]) } else { json!([]) });
        bundle.options.clone_from(&options);
        let output = bundle.run_any(&[
            "/usr/bin/unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "--pid",
            "--fork",
            "/usr/bin/mount",
            "-t",
            "proc",
            "proc",
            "/proc",
        ])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() == want, "{options:?}, masked {masked}: {} {said}", output.status);
        ensure!(want || said.contains("/proc: permission denied"), "{options:?}: {said}");
    }
    Ok(())
}

/// In the host's mount namespace the mounts are the host's too; they come off at the latest when the container is deleted.
pub fn host(stage: &Stage) -> Result<()> {
    let here = |bundle: &Bundle| -> Result<usize> {
        let root = bundle.root("");
        let root = root.to_string_lossy();
        Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().filter(|line| line.contains(root.trim_end_matches('/'))).count())
    };
    let mut bundle = Bundle::new(stage)?;
    bundle.without_namespace("mount").bind("/data", "nothing-yet", &["bind", "ro"]);
    fs::create_dir(bundle.dir.join("nothing-yet"))?;
    let created = bundle.create()?;
    ensure!(here(&bundle)? > 5, "nothing is mounted");
    same("root", fs::read_link(format!("/proc/{}/root", created.pid))?, bundle.dir.join("rootfs"))?;
    created.delete()?;
    same("left after delete", here(&bundle)?, 0)?;
    same("run", bundle.ask(&["list", "/proc/self/fdinfo"])?.is_empty(), false)?;
    same("left after run", here(&bundle)?, 0)?;
    bundle.mount("/x", "tmpfs", "tmpfs", &["sighs=1"]);
    ensure!(bundle.refused()?.contains("sighs"), "another error");
    same("left after a failure", here(&bundle)?, 0)?;
    bundle.set("/linux/maskedPaths", json!(["/proc/keys"]));
    ensure!(bundle.refused()?.contains("mount namespace"), "masked all the same");
    same("left after a refusal", here(&bundle)?, 0)
}

/// What is mounted inside is seen outside only if the configuration says so twice; what is mounted outside comes in.
pub fn propagation(stage: &Stage) -> Result<()> {
    let shared = |bundle: &Bundle| -> Result<Elsewhere> {
        let dir = bundle.dir.join("shared");
        fs::create_dir_all(&dir)?;
        Elsewhere::new(&format!(
            "mount -t tmpfs shared {0} && mount --make-shared {0} && mkdir {0}/in {0}/out {0}/kept && mount -t tmpfs kept {0}/kept && echo up && exec cat",
            dir.display()
        ))
    };
    for (root, options, sent) in [
        (None, vec!["rbind"], false),
        (None, vec!["rbind", "rshared"], false),
        (Some("rslave"), vec!["rbind", "rshared"], false),
        (Some("rshared"), vec!["rbind", "rshared"], true),
        (Some("rprivate"), vec!["rbind"], false),
    ] {
        let what = format!("rootfsPropagation {root:?}, {options:?}");
        let mut bundle = Bundle::new(stage)?;
        let host = shared(&bundle)?;
        bundle.bind("/shared", "shared", &options);
        if let Some(root) = root {
            bundle.set("/linux/rootfsPropagation", json!(root));
        }
        let created = bundle.create_in(Some(host.pid()))?;
        let within = |pid: u32, dir: &str, command: &str| -> Result<()> {
            let output =
                Command::new("nsenter").args([&format!("--mount=/proc/{pid}/ns/mnt"), "--", "sh", "-c", command]).current_dir("/").output()?;
            ensure!(output.status.success(), "{command} at {dir}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        let out = bundle.dir.join("shared/out");
        within(host.pid(), "outside", &format!("mount -t tmpfs out {}", out.display()))?;
        let comes = created.at("/shared/out").is_ok_and(|m| m.source == "out");
        same(&format!("{what}: what is mounted outside comes in"), comes, root != Some("rprivate"))?;
        // The container has no mount(8): a bind by the kernel alone, through the test program.
        bundle.set("/process/args", json!(["/bin/program", "forever"]));
        let shows = mount_inside(created.pid)?;
        same(&format!("{what}: mounted inside"), shows, true)?;
        same(&format!("{what}: what is mounted inside is seen outside"), host.mountinfo()?.contains(" inside "), sent)?;
        ensure!(host.mountinfo()?.contains("/shared/kept "), "{what}: what was mounted outside is gone");
        created.delete()?;
        ensure!(host.mountinfo()?.contains("/shared/kept "), "{what}: what was mounted outside is gone at the end");
        ensure!(!fs::read_to_string("/proc/self/mountinfo")?.contains("shared/in"), "{what}: it reached the host");
    }
    // Of the root itself.
    for (root, want) in [("rshared", "shared:"), ("rprivate", ""), ("runbindable", "unbindable")] {
        let mut bundle = Bundle::new(stage)?;
        bundle.set("/linux/rootfsPropagation", json!(root)).set("/linux/readonlyPaths", json!(["/etc", "/proc/sys"]));
        let created = bundle.create()?;
        let is = created.at("/")?;
        ensure!(is.options.iter().skip(2).any(|o| o.starts_with(want)) != want.is_empty(), "{root}: {is:?}");
        created.delete()?;
    }
    Ok(())
}

/// A host under systemd shares every mount. Containers come and go there, and its mount table stays as it is.
pub fn shared_host(stage: &Stage) -> Result<()> {
    let below = stage.work().join("below");
    fs::create_dir_all(&below)?;
    let host = Elsewhere::new(&format!("mount -t tmpfs below {} && mount --make-rshared / && echo up && exec cat", below.display()))?;
    let before = host.mountinfo()?;
    ensure!(world::table(&before).iter().all(|m| m.options.iter().any(|o| o.starts_with("shared:"))), "not shared: {before}");
    for (no_pivot, user, root) in [
        (false, false, None),
        (true, false, None),
        (false, true, None),
        (false, false, Some("rslave")),
        (false, false, Some("rshared")),
        (false, false, Some("rprivate")),
    ] {
        let mut bundle = Bundle::new(stage)?;
        if no_pivot {
            bundle.options = vec!["--no-pivot"];
        }
        if user {
            bundle.with_user_namespace(FIRST)?;
        }
        if let Some(root) = root {
            bundle.set("/linux/rootfsPropagation", json!(root));
        }
        bundle.set("/linux/maskedPaths", json!(["/proc/keys", "/sys/firmware"])).set("/linux/readonlyPaths", json!(["/proc/sys"])).mount(
            "/host",
            "bind",
            &below.display().to_string(),
            &["rbind", "ro"],
        );
        let created = bundle.create_in(Some(host.pid()))?;
        let what = format!("no pivot {no_pivot}, user namespace {user}, rootfsPropagation {root:?}");
        same(&format!("{what}: the host's mounts"), host.mountinfo()?, before.clone())?;
        let is = created.at("/")?;
        let of = |prefix: &str| is.options.iter().any(|o| o.starts_with(prefix));
        same(&format!("{what}: the root is a slave or shared"), (of("master:"), of("shared:")), (root == Some("rslave"), root == Some("rshared")))?;
        same(
            &format!("{what}: a bind mount"),
            created.at("/host")?.options.iter().any(|o| o.starts_with("master:")),
            !matches!(root, Some("rprivate" | "rshared")),
        )?;
        created.delete()?;
        same(&format!("{what}: the host's mounts at the end"), host.mountinfo()?, before.clone())?;
    }
    Ok(())
}

/// Mounts a tmpfs at `/shared/in` of a container, by a program of the host's that has only its mount namespace.
fn mount_inside(pid: u32) -> Result<bool> {
    let tool = fs::read_link("/proc/self/exe")?;
    let output = Command::new(tool).env("DYNO_TEST_MOUNT_IN", pid.to_string()).output()?;
    ensure!(output.status.success(), "mount inside: {}", String::from_utf8_lossy(&output.stderr));
    Ok(fs::read_to_string(format!("/proc/{pid}/mountinfo"))?.lines().any(|line| line.contains("/shared/in ") && line.contains(" inside ")))
}

/// The other half of [`mount_inside`], in a process of its own.
pub fn enter_and_mount(pid: &str) -> Result<()> {
    use rustix::{
        mount::{MountFlags, mount},
        thread::{LinkNameSpaceType, move_into_link_name_space},
    };
    let namespace = fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Mount))?;
    Ok(mount("inside", "/shared/in", "tmpfs", MountFlags::empty(), c"size=4k")?)
}

/// For a user without privileges: its own id alone is mapped, and its files and mounts are as good as they can be.
pub fn rootless(stage: &Stage) -> Result<()> {
    const NOBODY: u32 = 65534;
    let outside = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir()?;
    let (state, program) = (outside.path().join("state"), outside.path().join("dyno-runtime"));
    fs::copy(world::program(), &program)?;
    let mut bundle = Bundle::new(stage)?;
    bundle.without_namespace("network").without_namespace("cgroup").only(|at| !matches!(at, "/sys" | "/sys/fs/cgroup" | "/dev/pts"));
    bundle.mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
    bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]);
    bundle.with_user_namespace(NOBODY)?;
    let map = json!([{"containerID": 0, "hostID": NOBODY, "size": 1}]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map).set("/linux/maskedPaths", json!(["/proc/keys", "/sys/firmware"]));
    bundle.set("/process/args", json!(["/bin/program", "read", "/proc/self/mountinfo"]));
    let dir = outside.path().join("bundle");
    fs::rename(&bundle.dir, &dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    fs::write(dir.join("config.json"), serde_json::to_vec(&bundle.config)?)?;
    fs::create_dir(&state)?;
    std::os::unix::fs::chown(&state, Some(NOBODY), Some(NOBODY))?;
    let mut command = Command::new(&program);
    command.arg("--root").arg(&state).args(["run", "--bundle"]).arg(&dir).arg("rootless").uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
    let output = command.env_clear().current_dir("/").output()?;
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mounts = world::table(&text);
    let at = |path: &str| mounts.iter().rfind(|m| m.at == path).cloned().unwrap_or_else(|| panic!("nothing at {path}: {text} {errors}"));
    same("proc", at("/proc").kind, "proc".into())?;
    same("sys", (at("/sys").kind.as_str(), at("/sys").has("ro")), ("sysfs", true))?;
    same("null", at("/dev/null").root, "/null".into())?;
    same("masked", at("/proc/keys").root, "/null".into())
}
