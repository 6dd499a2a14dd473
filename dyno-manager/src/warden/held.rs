//! The dynos that a warden holds: in memory what the kernel and the state directory say, nothing else.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::Context;
use dyno_runtime::{Cause, Dyno, ExitRecord, Found, Host, Layer, Sandbox};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Stdio, WardenError};
use crate::model::{Exit, ExitCause};

/// How long an image stays mounted after its last dyno, so that a restart need not verify it again.
const KEEP_IMAGE: Duration = Duration::from_secs(600);

/// Beside the runtime's own record, so that a later warden can tell a later dynod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Note {
    pub meta: serde_json::Value,
    pub stdio: Stdio,
    pub images: Vec<String>,
    /// The dyno whose id range it shares.
    #[serde(default)]
    pub lease_of: Option<Uuid>,
}

#[derive(Debug)]
pub(super) enum Body {
    /// Running, or ended and still holding its writable layer.
    Dyno(Box<Dyno>),
    /// Ended while no warden watched.
    Ended,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub body: Body,
    pub note: Note,
    pub exit: Mutex<Option<Exit>>,
    /// A read end of its log that is never read: a FIFO forgets what is in it with its last descriptor, and the last words
    /// of a dyno that ended while no daemon ran wait here for the next one.
    _log: Option<OwnedFd>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Dynos {
    pub host: Host,
    /// Shared by starts under way; whoever lists what there is has it alone, so that no start is missed by a new daemon.
    pub starting: RwLock<()>,
    table: Mutex<HashMap<Uuid, Arc<Entry>>>,
    images: Mutex<HashMap<String, Instant>>,
    /// What is kept parked, each with its images: they stay mounted.
    parked: Mutex<Vec<(Sandbox, Vec<String>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panicking request must not take the others with it; every update leaves the table whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dynos {
    /// Takes up what an earlier warden left.
    pub fn recover(host: Host) -> anyhow::Result<Self> {
        let mut table = HashMap::new();
        for found in host.recover()? {
            let id = found.id().to_owned();
            let note = Note::read(&host.dyno_dir(&id)).with_context(|| format!("read what was launched as {id}"))?;
            let Some((uuid, note)) = id.parse::<Uuid>().ok().zip(note) else {
                if let Err(e) = host.sweep(&id) {
                    tracing::warn!(id, %e, "a start that was not finished could not be undone");
                }
                continue;
            };
            let (body, exit) = match found {
                Found::Running(dyno) => (Body::Dyno(Box::new(dyno)), None),
                Found::Ended(_, exit) => (Body::Ended, Some(Exit::from(exit))),
            };
            table.insert(uuid, Arc::new(Entry::new(body, note, exit)));
        }
        tracing::info!(dynos = table.len(), "took up what was running");
        let mounted = host.images().list()?.into_iter().map(|image| (image, Instant::now())).collect();
        Ok(Self { host, starting: RwLock::default(), table: Mutex::new(table), images: Mutex::new(mounted), parked: Mutex::default() })
    }

    pub fn get(&self, id: Uuid) -> Result<Arc<Entry>, WardenError> {
        lock(&self.table).get(&id).cloned().ok_or_else(|| WardenError::new("unknown", format!("no dyno {id} is held here")))
    }

    pub fn insert(&self, id: Uuid, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        lock(&self.table).insert(id, entry.clone());
        entry
    }

    pub fn all(&self) -> Vec<(Uuid, Arc<Entry>)> {
        lock(&self.table).iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    /// Frees a dyno, and first those that share its id range; an unknown one is free already. What could not be freed stays in
    /// the table, so that it can be tried again.
    pub fn free(&self, id: Uuid) -> Result<(), WardenError> {
        let sharing: Vec<Uuid> = self.all().iter().filter(|(_, e)| e.note.lease_of == Some(id)).map(|(other, _)| *other).collect();
        for other in sharing {
            self.free(other)?;
        }
        let Some(entry) = lock(&self.table).remove(&id) else { return Ok(()) };
        let note = entry.note.clone();
        if let Err(e) = self.unmake(id, entry) {
            lock(&self.table).entry(id).or_insert_with(|| Arc::new(Entry::new(Body::Ended, note, None)));
            return Err(e);
        }
        self.release_images(note.images);
        Ok(())
    }

    /// Keeps `count` sandboxes like this parked, from now on.
    pub fn park(&self, sandbox: &Sandbox, count: usize) -> Result<(), WardenError> {
        let mut parked = lock(&self.parked);
        parked.retain(|(kept, _)| kept != sandbox);
        self.host.keep_parked(sandbox, count)?;
        if count > 0 {
            parked.push((sandbox.clone(), images_of(sandbox)));
        }
        Ok(())
    }

    /// Takes back every [`Self::park`].
    pub fn park_none(&self) -> Result<(), WardenError> {
        let parked = std::mem::take(&mut *lock(&self.parked));
        parked.iter().try_for_each(|(sandbox, _)| Ok(self.host.keep_parked(sandbox, 0)?))
    }

    fn unmake(&self, id: Uuid, entry: Arc<Entry>) -> Result<(), WardenError> {
        if let Body::Dyno(dyno) = &entry.body {
            dyno.kill()?;
            dyno.wait()?;
        }
        match Arc::try_unwrap(entry) {
            Ok(Entry { body: Body::Dyno(dyno), .. }) => dyno.free()?,
            // Ended before us, or somebody still looks at it: everything it has goes by its name.
            _ => self.host.sweep(&id.to_string())?,
        }
        Ok(())
    }

    /// Takes images off the host that nobody has used for a while.
    fn release_images(&self, just_used: Vec<String>) {
        let now = Instant::now();
        let mut in_use: Vec<String> = self.all().iter().flat_map(|(_, e)| e.note.images.clone()).collect();
        in_use.extend(lock(&self.parked).iter().flat_map(|(_, images)| images.clone()));
        let mut images = lock(&self.images);
        images.extend(just_used.into_iter().map(|image| (image, now)));
        images.retain(|image, since| {
            let keep = in_use.contains(image) || now.duration_since(*since) < KEEP_IMAGE;
            if !keep && let Err(e) = self.host.images().release(image) {
                tracing::warn!(image, %e, "an image could not be unmounted");
            }
            keep
        });
    }
}

impl Entry {
    pub fn new(body: Body, note: Note, exit: Option<Exit>) -> Self {
        let log = match &body {
            Body::Dyno(dyno) if note.stdio == Stdio::Log => dyno.open_log(),
            _ => return Self { body, note, exit: Mutex::new(exit), _log: None },
        };
        let log = log.inspect_err(|e| tracing::warn!(%e, "its last words may be lost if no daemon runs when it ends"));
        Self { body, note, exit: Mutex::new(exit), _log: log.ok() }
    }

    pub fn running(&self) -> bool {
        matches!(&self.body, Body::Dyno(dyno) if !dyno.has_ended())
    }

    /// How it ended; waits for the end.
    pub fn exit(&self) -> Result<Exit, WardenError> {
        let mut exit = lock(&self.exit);
        if let (None, Body::Dyno(dyno)) = (&*exit, &self.body) {
            *exit = Some(dyno.wait()?.into());
        }
        exit.clone().ok_or_else(|| WardenError::new("io", "its exit record is gone"))
    }
}

fn images_of(sandbox: &Sandbox) -> Vec<String> {
    let image = |layer: &Layer| if let Layer::Image { sha256, .. } = layer { Some(sha256.clone()) } else { None };
    sandbox.root.layers.iter().filter_map(image).collect()
}

impl Note {
    pub fn new(launch: &super::Launch) -> Self {
        let images = images_of(&launch.sandbox);
        Self { meta: launch.meta.clone(), stdio: launch.stdio, images, lease_of: launch.lease_of }
    }

    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        let new = dir.join("launch.new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, dir.join("launch.json"))
    }

    /// None when it was never written whole.
    fn read(dir: &Path) -> std::io::Result<Option<Self>> {
        match std::fs::read(dir.join("launch.json")) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl From<ExitRecord> for Exit {
    fn from(r: ExitRecord) -> Self {
        let cause = match r.cause {
            // What it met is in its own output; its status tells that it failed.
            Cause::Exited | Cause::Pids | Cause::Disk | Cause::Output => ExitCause::Exited,
            Cause::Memory => ExitCause::Memory,
            Cause::Time | Cause::CpuTime => ExitCause::Time,
            Cause::Killed | Cause::Stopped => ExitCause::Stopped,
            Cause::Lost => ExitCause::Lost,
        };
        Self { status: r.status, cause, memory_peak: r.memory_peak, oom_kills: r.oom_kills, cpu_us: r.cpu_us, wall_us: r.wall_us }
    }
}

impl From<dyno_runtime::Error> for WardenError {
    fn from(e: dyno_runtime::Error) -> Self {
        let kind = match e.kind() {
            dyno_runtime::ErrorKind::Image => "image",
            dyno_runtime::ErrorKind::Wall => "sandbox",
            dyno_runtime::ErrorKind::Invalid => "invalid",
            dyno_runtime::ErrorKind::Exec => "exec",
            _ => "io",
        };
        Self::new(kind, e.to_string())
    }
}
