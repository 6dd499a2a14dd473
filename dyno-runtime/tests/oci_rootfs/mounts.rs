//! Mounts of every kind.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{
    support::{Stage, same},
    world::Bundle,
};

/// The mount table of the configuration that `spec` writes: each mount with its options, the root read-only.
pub fn usual(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    bundle.set("/root/readonly", json!(true));
    let created = bundle.create()?;
    let mounts = created.mounts()?;
    let usual = ["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"];
    let mut at: Vec<&str> = mounts.iter().map(|m| m.at.as_str()).filter(|at| !at.starts_with("/sys/fs/cgroup/")).collect();
    at.sort_by_key(|at| usual.iter().position(|u| u == at));
    same("mount points", at, usual.to_vec())?;
    ensure!(!mounts.iter().any(|m| m.options.iter().any(|o| o.starts_with("shared:"))), "something is shared: {mounts:#?}");
    for (at, kind, source, options) in [
        ("/proc", "proc", "proc", vec!["rw", "relatime"]),
        ("/dev", "tmpfs", "tmpfs", vec!["rw", "nosuid"]),
        ("/dev/pts", "devpts", "devpts", vec!["rw", "nosuid", "noexec", "relatime"]),
        ("/dev/shm", "tmpfs", "shm", vec!["rw", "nosuid", "nodev", "noexec", "relatime"]),
        ("/dev/mqueue", "mqueue", "mqueue", vec!["rw", "nosuid", "nodev", "noexec", "relatime"]),
        ("/sys", "sysfs", "sysfs", vec!["ro", "nosuid", "nodev", "noexec", "relatime"]),
    ] {
        let is = created.at(at)?;
        same(at, (is.kind.as_str(), is.source.as_str(), is.options.iter().map(String::as_str).collect()), (kind, source, options))?;
    }
    ensure!(created.at("/")?.has("ro"), "the root is writable");
    for option in ["gid=5", "mode=620", "ptmxmode=666"] {
        ensure!(created.at("/dev/pts")?.data.iter().any(|d| d == option), "devpts without {option}");
    }
    ensure!(created.at("/sys/fs/cgroup")?.has("ro"), "control groups are writable");
    created.delete()
}

fn sources(bundle: &Bundle<'_>) -> Result<()> {
    fs::create_dir_all(bundle.dir.join("source/below"))?;
    fs::write(bundle.dir.join("source/file"), "of the host")?;
    Ok(fs::write(bundle.dir.join("one"), "one")?)
}

/// Directories and files, with the attributes asked for and no others.
pub fn binds(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    sources(&bundle)?;
    bundle.bind("/made/a", "source", &["bind", "ro", "nosuid", "nodev", "noexec"]).bind("/made/b", "source", &["rbind"]).bind(
        "/etc/one",
        "one",
        &["bind", "ro"],
    );
    let created = bundle.create()?;
    let is = created.at("/made/a")?;
    same("attributes", ["ro", "nosuid", "nodev", "noexec"].map(|o| is.has(o)), [true; 4])?;
    ensure!(is.root.ends_with("/source"), "another directory: {is:?}");
    let is = created.at("/made/b")?;
    same("attributes that nobody asked for", ["rw", "nosuid", "nodev", "noexec"].map(|o| is.has(o)), [true, false, false, false])?;
    same("a directory", fs::read_to_string(created.inside("/made/a/file"))?, "of the host".into())?;
    same("a file", fs::read_to_string(created.inside("/etc/one"))?, "one".into())?;
    created.delete()?;
    same("a write to a read-only file", bundle.ask(&["write", "/etc/one", "x"]).is_err(), true)?;
    bundle.ask(&["write", "/made/b/new", "from inside"])?;
    same("a write to a directory", fs::read_to_string(bundle.dir.join("source/new"))?, "from inside".into())
}

/// Parents and files are made with plain modes whatever the caller's umask, also where a symlink of the image dangles.
pub fn destinations(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    sources(&bundle)?;
    symlink("../run/resolve/stub.conf", bundle.root("/etc/resolv.conf"))?;
    symlink("/data/later", bundle.root("/link"))?;
    bundle.bind("/etc/resolv.conf", "one", &["bind"]).bind("/link/below", "source", &["bind"]).mount("/deep/er/still", "tmpfs", "tmpfs", &[]);
    bundle.create()?.delete()?;
    for (path, mode) in [
        ("/run/resolve/stub.conf", 0o100_644),
        ("/run/resolve", 0o40755),
        ("/data/later/below", 0o40755),
        ("/deep/er", 0o40755),
        ("/deep/er/still", 0o40755),
    ] {
        same(path, fs::symlink_metadata(bundle.root(path))?.mode(), mode)?;
    }
    same("what was made", fs::read(bundle.root("/run/resolve/stub.conf"))?.len(), 0)
}

/// `rro` reaches what is mounted below, `ro` does not; `bind` leaves what is mounted below behind.
pub fn recursive(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    sources(&bundle)?;
    let below = bundle.dir.join("source/below");
    // In a mount namespace that is gone with its only process.
    let script = format!("mount -t tmpfs sub {} && echo up && exec cat", below.display());
    let host = Elsewhere::new(&script)?;
    bundle.bind("/all", "source", &["rbind", "rro"]).bind("/top", "source", &["rbind", "ro"]).bind("/alone", "source", &["bind", "rnosuid"]);
    let created = bundle.create_in(Some(host.pid()))?;
    for (at, ro) in [("/all", true), ("/all/below", true), ("/top", true), ("/top/below", false)] {
        same(at, created.at(at)?.has("ro"), ro)?;
    }
    same("attributes of one mount", created.at("/alone")?.has("nosuid"), true)?;
    ensure!(created.at("/alone/below").is_err(), "bind has brought what is mounted below");
    created.delete()
}

/// A mount namespace beside the host's, with what `script` mounts in it.
pub struct Elsewhere(std::process::Child);

impl Elsewhere {
    /// Returns once the script has said `up`; it must stay until its input ends.
    pub fn new(script: &str) -> Result<Self> {
        use std::io::{BufRead, BufReader};
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
        let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn()?;
        let mut said = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut said)?;
        let this = Self(child);
        ensure!(said.trim() == "up", "{script}: said {said:?}");
        Ok(this)
    }

    /// Of a process in it.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The text of its mount table.
    pub fn mountinfo(&self) -> Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/mountinfo", self.pid()))?)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().map(drop).unwrap_or_else(|e| eprintln!("{e}"));
    }
}

/// Name, change of a bundle, words of the error.
type Refused = (&'static str, fn(&mut Bundle<'_>), &'static [&'static str]);

/// Errors name the mount and what is wrong with it.
pub fn refused(stage: &Stage) -> Result<()> {
    let cases: [Refused; 5] = [
        (
            "no source",
            |b| {
                b.bind("/x", "nothing", &["bind"]);
            },
            &["mount /x", "/nothing", "no such file or directory"],
        ),
        (
            "directory on file",
            |b| {
                b.bind("/bin/program", "source", &["bind"]);
            },
            &["mount /bin/program", "not a directory"],
        ),
        (
            "file on directory",
            |b| {
                b.bind("/tmp", "one", &["bind"]);
            },
            &["mount /tmp", "not a directory"],
        ),
        (
            "unknown option",
            |b| {
                b.mount("/x", "tmpfs", "tmpfs", &["sighs=1"]);
            },
            &["mount /x (tmpfs)", "Unknown parameter 'sighs'"],
        ),
        (
            "unknown type",
            |b| {
                b.mount("/x", "nofs", "none", &[]);
            },
            &["mount /x", "nofs"],
        ),
    ];
    for (name, change, words) in cases {
        let mut bundle = Bundle::new(stage)?;
        sources(&bundle)?;
        change(&mut bundle);
        let said = bundle.refused()?;
        ensure!(words.iter().all(|word| said.contains(word)), "{name}: {said:?} lacks one of {words:?}");
    }
    Ok(())
}

/// A tmpfs has the mode of the directory that it covers unless it is given one; a read-only one still gets its mount points.
pub fn tmpfs(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    fs::create_dir(bundle.root("/mode"))?;
    fs::set_permissions(bundle.root("/mode"), fs::Permissions::from_mode(0o2751))?;
    bundle.mount("/mode", "tmpfs", "tmpfs", &[]).mount("/given", "tmpfs", "tmpfs", &["mode=711"]).mount("/etc", "tmpfs", "tmpfs", &["mode=700"]);
    bundle.mount("/ro", "tmpfs", "tmpfs", &["ro"]).mount("/ro/below", "tmpfs", "tmpfs", &["size=4k"]);
    let created = bundle.create()?;
    let mode = |path: &str| fs::metadata(created.inside(path)).map(|m| m.mode() & 0o7777);
    same("modes", [mode("/mode")?, mode("/given")?, mode("/etc")?], [0o2751, 0o711, 0o700])?;
    same("read-only", [created.at("/ro")?.has("ro"), created.at("/ro/below")?.has("ro")], [true, false])?;
    created.delete()
}

/// What the image has below the destination, with owners and modes, and without following its symlinks.
pub fn copy_up(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    fs::create_dir_all(bundle.root("/data/dir"))?;
    fs::write(bundle.root("/data/dir/file"), "copied")?;
    std::os::unix::fs::chown(bundle.root("/data/dir/file"), Some(5), Some(6))?;
    fs::set_permissions(bundle.root("/data/dir/file"), fs::Permissions::from_mode(0o4640))?;
    symlink("/etc/passwd", bundle.root("/data/link"))?;
    bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let created = bundle.create()?;
    same("kind", created.at("/data")?.kind, "tmpfs".into())?;
    same("data", fs::read_to_string(created.inside("/data/dir/file"))?, "copied".into())?;
    let meta = fs::metadata(created.inside("/data/dir/file"))?;
    same("owner and mode", (meta.uid(), meta.gid(), meta.mode() & 0o7777), (5, 6, 0o4640))?;
    same("link", fs::read_link(created.inside("/data/link"))?, "/etc/passwd".into())?;
    created.delete()
}

/// An overlay of layers whose names together are longer than a string of fsconfig(2).
pub fn long_overlay(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    let layers: Vec<String> = (0..20).map(|n| bundle.dir.join(format!("layer{n:02}")).display().to_string()).collect();
    for layer in &layers {
        fs::create_dir(layer)?;
    }
    fs::write(bundle.dir.join("layer07/file"), "seven")?;
    for name in ["upper", "work"] {
        fs::create_dir(bundle.dir.join(name))?;
    }
    let lower = format!("lowerdir={}", layers.join(":"));
    let [upper, work] = ["upper", "work"].map(|name| format!("{name}dir={}", bundle.dir.join(name).display()));
    ensure!(lower.len() > 256, "too short to be a test");
    bundle.mount("/over", "overlay", "overlay", &[&lower, &upper, &work, "nosuid", "noatime"]);
    let created = bundle.create()?;
    let is = created.at("/over")?;
    same("attributes", [is.has("nosuid"), is.has("noatime"), is.has("ro")], [true, true, false])?;
    same("a layer", fs::read_to_string(created.inside("/over/file"))?, "seven".into())?;
    same("the host's working directory", fs::read_link(format!("/proc/{}/cwd", created.pid))?, "/".into())?;
    created.delete()
}

/// Mounts with shifted ids, with maps of their own and with the container's.
pub fn idmapped(stage: &Stage) -> Result<()> {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    let mut bundle = Bundle::new(stage)?;
    sources(&bundle)?;
    std::os::unix::fs::chown(bundle.dir.join("source/file"), Some(7), Some(8))?;
    bundle.bind("/shifted", "source", &["bind"]).bind("/again", "one", &["bind", "ro"]).bind("/plain", "source", &["bind"]);
    let mounts = bundle.config["mounts"].as_array().map_or(0, Vec::len);
    for n in [mounts - 3, mounts - 2] {
        bundle.set(&format!("/mounts/{n}/uidMappings"), map.clone()).set(&format!("/mounts/{n}/gidMappings"), map.clone());
    }
    let created = bundle.create()?;
    let owner = |path: &str| fs::metadata(created.inside(path)).map(|m| (m.uid(), m.gid()));
    same(
        "owners",
        [owner("/shifted/file")?, owner("/shifted")?, owner("/again")?, owner("/plain/file")?],
        [(100_007, 100_008), (100_000, 100_000), (100_000, 100_000), (7, 8)],
    )?;
    same("read-only", created.at("/again")?.has("ro"), true)?;
    created.delete()?;
    let mut bundle = Bundle::new(stage)?;
    sources(&bundle)?;
    bundle.with_user_namespace(300_000)?.bind("/shifted", "source", &["bind", "idmap"]);
    bundle.ask(&["write", "/shifted/new", "x"])?;
    let meta = fs::metadata(bundle.dir.join("source/new"))?;
    same("owner of what root inside has made", (meta.uid(), meta.gid()), (0, 0))
}

/// It is made if the image lacks it, also below a root that will be read-only.
pub fn working_directory(stage: &Stage) -> Result<()> {
    let mut bundle = Bundle::new(stage)?;
    bundle.set("/process/cwd", json!("/made/for/it")).set("/root/readonly", json!(true));
    same("cwd", bundle.ask(&["cwd"])?, "/made/for/it\n".into())
}
