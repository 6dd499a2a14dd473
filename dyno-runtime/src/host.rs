//! One instance of the runtime on one host: what all its sandboxes share.

mod recovery;

pub use recovery::Found;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount},
};

use crate::{
    cgroup::{CgroupParent, Cgroups},
    error::{Context, Error, ErrorKind, Result},
    mount::{Disks, Images, Leases, empty_namespace, new_dev},
    net::{Home, egress::Uplink},
    plan::Plan,
    rootless::Rootless,
    seccomp::{Denied, Filters},
    spawn::parked,
    spec::{Profile, Sandbox},
    sys::{self, Seats},
    workshop::{Stock, Workshop},
};

static INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dyno-init"));

/// The shared parts: mounted images, id ranges, cgroup parents, compiled filters, the init. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    dir: PathBuf,
    boot_id: String,
    images: Images,
    disks: Disks,
    leases: Arc<Leases>,
    /// None: no group is the caller's to make, which it has accepted.
    cgroups: Option<Cgroups>,
    /// None: opened by root.
    rootless: Option<Rootless>,
    /// None: opened by an unprivileged user.
    workshop: Option<Workshop>,
    /// A mount namespace without mounts, where the host has one for us.
    nowhere: Option<OwnedFd>,
    init: OwnedFd,
    /// Where the start of a child finds room for what it gives it.
    seats: Option<Seats>,
    filters: Filters,
    uplink: Uplink,
}

/// How an instance is opened.
///
/// Open it before the process holds hundreds of descriptors: it reserves some low numbers, and with them a start costs the same however
/// many the process comes to hold; without them, half a microsecond more for each.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// Where its control groups are.
    pub cgroups: CgroupParent,
    /// As [`Host::open_alone`].
    pub alone: bool,
    /// On a host whose controllers are on v1 and which has the v2 tree beside them: every dyno is born in a group of that tree too. It
    /// tells pressure and processor time to the microsecond, and a pause moves no process. It makes a start 3 % slower, 11 % on a
    /// busy host. (Where the controllers are on v2 it is always so.)
    pub v2_tree: bool,
    /// Network namespaces and control groups that are kept ready for the next starts, each some 160 KB of the kernel's memory (an
    /// unprivileged user's host keeps none). See [`Host::keep_parked`] for what is faster.
    pub spares: usize,
    /// Network namespaces of ended sandboxes that are kept for the next ones of the same tenants ([`crate::StartOptions::tenant`]), of
    /// all tenants together; the oldest go first. Each is some 150 KB of the kernel's memory (an unprivileged user's host keeps none).
    pub recycled: usize,
}

impl Host {
    /// Opens (or creates) the instance whose state is in `dir`, a directory of root's on a file system that a reboot empties
    /// (`/run/…`). Its cgroups are named `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`] naming what this host lacks.
    pub fn open(dir: &Path, name: &str) -> Result<Self> {
        Self::open_with(dir, name, &HostOptions::default())
    }

    /// [`Self::open`] for who is going to [`Self::recover`], which ends whatever it finds in the cgroups and does not know: they are
    /// this handle's alone as long as it lives.
    ///
    /// # Errors
    /// As [`Self::open`]; [`ErrorKind::Invalid`] when another process has the cgroups of that name.
    pub fn open_alone(dir: &Path, name: &str) -> Result<Self> {
        Self::open_with(dir, name, &HostOptions { alone: true, ..HostOptions::default() })
    }

    /// [`Self::open`] with options.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::open_alone`].
    pub fn open_with(dir: &Path, name: &str, options: &HostOptions) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::refused(ErrorKind::Wall, "this needs root (mounting images, cgroups); for others there is open_rootless"));
        }
        has_needed_calls()?;
        std::fs::create_dir_all(dir).io(|| format!("mkdir({})", dir.display()))?;
        rustix::fs::chmod(dir, rustix::fs::Mode::from_raw_mode(0o700)).io(|| format!("chmod({}, 0700)", dir.display()))?;
        let dir = dir.canonicalize().io(|| format!("realpath({})", dir.display()))?;
        let fresh = make_private(&dir)?;
        let opened = Self::furnish(&dir, name, options);
        let unused = || match std::fs::read_dir(dir.join("dynos")) {
            Ok(mut dynos) => dynos.next().is_none(),
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        };
        if opened.is_err() && fresh && unused() {
            // What cannot be opened is not left half made; the error of interest is the first one.
            if let Err(e) = take_down(&dir) {
                tracing::warn!(%e, "a failed start left its directory");
            }
        }
        opened
    }

    fn furnish(dir: &Path, name: &str, options: &HostOptions) -> Result<Self> {
        for sub in ["dynos", "root"] {
            std::fs::create_dir_all(dir.join(sub)).io(|| format!("mkdir({}/{sub})", dir.display()))?;
        }
        // A host that makes no device nodes (CAP_MKNOD) is told of now and not at the first start.
        drop(new_dev(&[])?);
        let stock = Stock { spares: options.spares, recycled: options.recycled };
        Self::with(dir, Leases::of(dir), None, stock, || Cgroups::open(name, options).map(Some))
    }

    /// With its parts; `cgroups` last, because it undoes itself when it fails.
    pub(crate) fn with(
        dir: &Path,
        leases: Leases,
        rootless: Option<Rootless>,
        stock: Stock,
        cgroups: impl FnOnce() -> Result<Option<Cgroups>>,
    ) -> Result<Self> {
        let filters = Filters::default();
        // What nearly every start uses is compiled before the first of them.
        filters.get(&Profile::Dyno, 0, Denied::Answer)?;
        let leases = Arc::new(leases);
        let rootful = rootless.is_none();
        let nowhere = rootful.then(|| empty_namespace(&dir.join("root"))).transpose()?;
        let home = rootful.then(Home::remember).transpose()?;
        let init = sealed_init()?;
        let seats = if rootful {
            Seats::reserve().io(|| "low descriptor numbers: close_range, open(/dev/null) or fcntl(F_DUPFD_CLOEXEC)".into())?
        } else {
            None
        };
        let boot_id = boot_id()?;
        let images = Images::open(dir.join("images"))?;
        let cgroups = cgroups()?;
        Ok(Self(Arc::new(Inner {
            workshop: home.map(|home| Workshop::new(leases.clone(), cgroups.clone(), stock, home)),
            nowhere,
            boot_id,
            images,
            disks: Disks::default(),
            leases,
            uplink: Uplink::of(dir),
            init,
            seats,
            filters,
            rootless,
            cgroups,
            dir: dir.to_owned(),
        })))
    }

    /// From the other side of a weak reference.
    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self(inner)
    }

    /// Keeps `count` sandboxes like `like` parked from now on: raised with every wall up, waiting for a program. [`Host::start`] takes one
    /// for whoever asks for the same walls; program, environment, working directory, host name, streams and listening sockets are free to
    /// choose. They are made in the background, while no start is under way; 0 ends those that are left and returns when they are gone. Each costs some 500 KB of memory,
    /// an id range and two processes, and ends with this process.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a bad description and for one that cannot wait: with egress or a network of others, with limits of the
    /// whole run (`wall_ms`, `cpu_ms`, `output`), with capabilities, on what another dyno wrote; and for an unprivileged user's host.
    pub fn keep_parked(&self, like: &Sandbox, count: usize) -> Result<()> {
        Plan::new(like)?;
        let refused = |why: &str| Error::refused(ErrorKind::Invalid, format!("cannot be parked: {why}"));
        let workshop = self.workshop().ok_or_else(|| refused("this host is an unprivileged user's"))?;
        if let Some(why) = parked::refusal(like) {
            return Err(refused(why));
        }
        workshop.keep_parked(Arc::downgrade(&self.0), like, count);
        Ok(())
    }

    /// Waits until all is there that this host keeps ready: spares, parked sandboxes, and of the networks that ended sandboxes have left
    /// those that can be used again; for one that cannot, two seconds.
    ///
    /// # Errors
    /// Of what cannot be made; a start that would have taken it makes it in place, and then it is tried again.
    pub fn wait_ready(&self) -> Result<()> {
        self.workshop().map_or(Ok(()), Workshop::wait_ready)
    }

    /// How many sandboxes are parked now that [`Host::start`] could take for `like`.
    pub fn parked(&self, like: &Sandbox) -> usize {
        self.workshop().map_or(0, |workshop| workshop.count(like))
    }

    pub(crate) fn shared_leases(&self) -> Arc<Leases> {
        self.0.leases.clone()
    }

    pub(crate) fn rootless(&self) -> Option<&Rootless> {
        self.0.rootless.as_ref()
    }

    /// The images mounted by this instance.
    pub fn images(&self) -> &Images {
        &self.0.images
    }

    pub(crate) fn boot_id(&self) -> &str {
        &self.0.boot_id
    }

    pub(crate) fn disks(&self) -> &Disks {
        &self.0.disks
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.0.leases
    }

    pub(crate) fn uplink(&self) -> &Uplink {
        &self.0.uplink
    }

    pub(crate) fn workshop(&self) -> Option<&Workshop> {
        self.0.workshop.as_ref()
    }

    pub(crate) fn nowhere(&self) -> Option<BorrowedFd<'_>> {
        self.0.nowhere.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn cgroups(&self) -> Option<&Cgroups> {
        self.0.cgroups.as_ref()
    }

    pub(crate) fn init(&self) -> BorrowedFd<'_> {
        self.0.init.as_fd()
    }

    pub(crate) fn seats(&self) -> Option<&Seats> {
        self.0.seats.as_ref()
    }

    pub(crate) fn filters(&self) -> &Filters {
        &self.0.filters
    }

    pub(crate) fn attach_point(&self) -> PathBuf {
        self.0.dir.join("root")
    }

    /// The state directory of dyno `id`: `record.json`, `log` (a FIFO), `exit`. Callers may keep files of their own in it.
    pub fn dyno_dir(&self, id: &str) -> PathBuf {
        self.0.dir.join("dynos").join(id)
    }

    /// Takes this instance off the host: image mounts, the table of links, cgroup parents, directory. No dyno may be left, and no
    /// clone of this handle can start one after.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] while a dyno is left, or of the first step that failed.
    pub fn dismantle(self) -> Result<()> {
        let inner = self.0;
        // What is parked is nobody's dyno.
        if let Some(workshop) = &inner.workshop {
            workshop.close();
        }
        let dynos = inner.dir.join("dynos");
        if std::fs::read_dir(&dynos).io(|| format!("list {}", dynos.display()))?.next().is_some() {
            return Err(Error::refused(ErrorKind::Invalid, format!("{}: dynos are left", dynos.display())));
        }
        for image in inner.images.list()? {
            inner.images.release(&image)?;
        }
        if inner.rootless.is_none() {
            inner.uplink.take_down()?;
        }
        inner.cgroups.as_ref().map_or(Ok(()), Cgroups::remove)?;
        inner.leases.leave();
        if inner.rootless.is_some() {
            return std::fs::remove_dir_all(&inner.dir).io(|| format!("remove {}", inner.dir.display()));
        }
        take_down(&inner.dir)
    }
}

/// A start that cannot be completed is not begun, and what was begun can be ended.
pub(crate) fn has_needed_calls() -> Result<()> {
    let Some(call) = sys::first_missing() else { return Ok(()) };
    let (major, minor) = call.since;
    Err(Error::call(ErrorKind::Wall, format!("this host lacks {}(2) (Linux {major}.{minor})", call.name), Errno::NOSYS))
}

/// /proc/sys/kernel/random/boot_id.
fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).io(|| format!("read {path}"))?.trim().to_owned())
}

/// Unmounts the instance's own mount and removes its directory.
fn take_down(dir: &Path) -> Result<()> {
    match unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(e) => return Err(e).io(|| format!("umount2({})", dir.display())),
    }
    std::fs::remove_dir_all(dir).io(|| format!("remove {}", dir.display()))
}

/// Makes `dir` a mount of its own with private propagation, so that images mounted below it show nowhere else. True if it
/// was none before.
fn make_private(dir: &Path) -> Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").wall(|| "read /proc/self/mountinfo".into())?;
    let wanted = dir.to_string_lossy();
    let fresh = !table.lines().any(|line| line.split(' ').nth(4) == Some(&*wanted));
    if fresh {
        mount_bind(dir, dir).wall(|| format!("mount({wanted}, MS_BIND)"))?;
    }
    mount_change(dir, MountPropagationFlags::PRIVATE).wall(|| format!("mount({wanted}, MS_PRIVATE)"))?;
    Ok(fresh)
}

/// The init in memory, sealed: nobody can change what every dyno runs first (CVE-2019-5736).
fn sealed_init() -> Result<OwnedFd> {
    sys::program_in_memory("dyno-init", &[INIT]).wall(|| "memory file of dyno-init: memfd_create, write or fcntl(F_ADD_SEALS)".into())
}
