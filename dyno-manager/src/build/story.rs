//! One build from its source to its slug, told in order.
//!
//! [`Story::tell`] reads top to bottom: build dyno, pack dyno, slug. Whatever happens, [`Story::end`]
//! frees both dynos. Between the two dynos nothing of the tenant runs any more, so what is packed is
//! what was built.

use std::{
    fs::File,
    future::Future,
    io::{self, BufWriter, Write},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::{
    net::unix::pipe,
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    BuildRequest, Image, Settings,
    egress::Policy,
    failure::{self, Failure},
    host::Host,
    images::Cache,
    output::Output,
    pack::{self, Cached, Packed},
    requests::Registries,
    sandbox,
    source::{self, SourceError, Summary},
};
use crate::{
    model::{Egress, Exit, Slug},
    warden::{self, Started, StdioFds},
};

/// SIGKILL, by its number on every Linux.
const KILL: i32 = 9;
/// How long a killed dyno may take to be gone, and the streams of an ended one to be empty.
const GRACE: Duration = Duration::from_secs(30);

/// A build under way.
pub(super) struct Story {
    pub host: Arc<dyn Host>,
    pub settings: Arc<Settings>,
    pub request: BuildRequest,
    /// The source archive, open; its name is gone.
    pub source: File,
    pub output: Output,
    pub cancel: CancellationToken,
    /// Id of the build dyno.
    pub built: Uuid,
    /// Id of the pack dyno.
    pub packed: Uuid,
}

impl Story {
    /// Source in, slug out.
    pub(super) async fn tell(&self) -> Result<Slug, Failure> {
        let cache = Cache::of(&self.settings.caches(), self.request.app.id);
        let image = self.build(&cache, cache.find()).await?;

        self.output.line("-----> Compressing...").await;
        let began = Instant::now();
        let packed = self.pack(image.as_ref()).await?;
        let slug = self.slug(&packed);
        let slugs = self.settings.slugs();
        let kept = spawn_blocking(move || packed.slug.keep_as_slug(&slugs)).await;
        kept.map_err(|_| Failure::Fault)?.map_err(Failure::Store)?;
        let (size, time) = (failure::size(slug.size), began.elapsed().as_secs_f64());
        self.output.line(&format!("       Done: {size} in {time:.1}s")).await;
        self.keep_cache(cache, packed.cache).await;
        Ok(slug)
    }

    /// Frees both dynos, the one that shares the other's ids first.
    pub(super) async fn end(&self) {
        for id in [self.packed, self.built] {
            if let Err(error) = self.host.free(id).await {
                tracing::warn!(dyno = %id, %error, "freeing a dyno of a build");
            }
        }
    }

    /// Runs the build dyno to its good end; returns the cache image that it was given.
    async fn build(&self, cache: &Cache, image: Option<Image>) -> Result<Option<Image>, Failure> {
        let (started, image) = self.start_build(cache, image).await?;
        let Started { pidfd, stdio, listeners, .. } = started;
        let (stdin, stdout, stderr) = pipes(stdio)?;
        let (out, err) = (reader(stdout)?, reader(stderr)?);

        let registries = self.open_registries(listeners)?;
        let output = self.output.clone();
        let log = tokio::spawn(async move {
            tokio::join!(output.copy(out), output.copy(err));
        });
        let feed = self.feed(stdin)?;
        // After a refusal the pipe stays open here until the dyno is gone: its driver must not take
        // the end of the pipe for the end of the source.
        let mut held = None;
        let refused = async {
            match feed.await {
                Ok((Ok(_) | Err(SourceError::Write(_)), _)) => std::future::pending().await,
                Ok((Err(error), stdin)) => {
                    held = stdin;
                    Failure::Source(error)
                }
                Err(_) => Failure::Fault,
            }
        };
        let exit = self.until_ended(self.built, &pidfd, self.settings.limits.build_time, refused).await;
        drop(held);

        drained(log).await;
        if let Some(registries) = registries {
            registries.close(&self.output).await;
        }
        failure::of_build(&exit?)?;
        Ok(image)
    }

    /// A cache that the warden does not take is no reason to fail: the build starts without it.
    async fn start_build(&self, cache: &Cache, image: Option<Image>) -> Result<(Started, Option<Image>), Failure> {
        let launch = |image| sandbox::build(self.built, &self.request, &self.settings, image);
        match self.host.start(&launch(image.as_ref())).await {
            Err(error) if error.kind == "image" && image.is_some() => {
                self.output.line("-----> The build cache could not be used and is dropped.").await;
                cache.remove().map_err(Failure::Store)?;
                self.host.free(self.built).await?;
                Ok((self.host.start(&launch(None)).await?, None))
            }
            started => Ok((started?, image)),
        }
    }

    /// Writes the clean source to the dyno. A reader that goes away early is not an error here: how
    /// the dyno ends says why. After any other error the pipe comes back open.
    fn feed(&self, stdin: OwnedFd) -> Result<Fed, Failure> {
        let source = self.source.try_clone().map_err(Failure::Streams)?;
        let mut stdin = BufWriter::with_capacity(64 << 10, blocking(stdin)?);
        let config = self.request.config.clone();
        Ok(spawn_blocking(move || {
            let done = source::sanitize(source, &config, &mut stdin);
            match done.and_then(|summary| stdin.flush().map(|()| summary).map_err(SourceError::Write)) {
                Ok(summary) => (Ok(summary), None),
                Err(error) => (Err(error), Some(stdin.into_parts().0)),
            }
        }))
    }

    fn open_registries(&self, listeners: Vec<OwnedFd>) -> Result<Option<Registries>, Failure> {
        let egress = self.request.build.egress;
        if egress == Egress::None {
            return Ok(None);
        }
        let listener = listeners.into_iter().next().ok_or_else(|| io::Error::other("the warden gave no listener"));
        let policy = Policy { egress, hosts: self.settings.registries.clone(), allow_private: self.settings.allow_private };
        let record = self.settings.requests(self.request.build.id);
        let opened = listener.and_then(|listener| Registries::open(listener, policy, &record));
        opened.map(Some).map_err(Failure::Streams)
    }

    /// Runs the pack dyno and takes in what it writes.
    async fn pack(&self, cache: Option<&Image>) -> Result<Packed, Failure> {
        let launch = sandbox::pack(self.packed, self.built, &self.request, &self.settings, cache);
        let Started { pidfd, stdio, .. } = self.host.start(&launch).await?;
        let (stdin, stdout, stderr) = pipes(stdio)?;
        drop(stdin);
        let (err, frames) = (reader(stderr)?, blocking(stdout)?);
        let output = self.output.clone();
        let log = tokio::spawn(async move { output.copy(err).await });
        let (limits, slugs, caches) = (self.settings.limits, self.settings.slugs(), self.settings.caches());
        // When it refuses something it closes the pipe, and the dyno ends by itself.
        let taken = spawn_blocking(move || pack::receive(frames, &limits, &slugs, &caches));

        let never = std::future::pending();
        let exit = self.until_ended(self.packed, &pidfd, self.settings.limits.pack_time, never).await;
        drained(log).await;
        let exit = exit?;
        match taken.await.unwrap_or(Err(Failure::Fault)) {
            // A stream without an end says less than how the dyno ended.
            taken @ (Ok(_) | Err(Failure::Frames(_) | Failure::Missing(_))) => failure::of_pack(&exit).and(taken),
            refused => refused,
        }
    }

    /// Waits for a dyno to end; ends it when the build is cancelled, takes too long or is refused.
    async fn until_ended(&self, id: Uuid, pidfd: &OwnedFd, limit: Duration, refused: impl Future<Output = Failure>) -> Result<Exit, Failure> {
        let why = tokio::select! {
            ended = warden::ended(pidfd) => {
                ended.map_err(Failure::Streams)?;
                return Ok(self.host.exit(id).await?);
            }
            () = self.cancel.cancelled() => Failure::Cancelled,
            () = sleep(limit) => Failure::Time(limit),
            failure = refused => failure,
        };
        let killed = self.host.signal(id, KILL).await;
        if killed.is_err() || timeout(GRACE, warden::ended(pidfd)).await.is_err() {
            tracing::warn!(dyno = %id, "a dyno of a build did not end when it was killed");
        }
        Err(why)
    }

    async fn keep_cache(&self, cache: Cache, cached: Cached) {
        if let Cached::TooLarge { bytes } = cached {
            let (size, max) = (failure::size(bytes), failure::size(self.settings.limits.cache_bytes));
            self.output.line(&format!("       The build cache is {size} (max is {max}) and is dropped.")).await;
        }
        let kept = spawn_blocking(move || match cached {
            Cached::Image(image) => cache.replace(image),
            Cached::Empty | Cached::TooLarge { .. } => cache.remove(),
        });
        if !matches!(kept.await, Ok(Ok(()))) {
            self.output.line("       The cache for the next build could not be kept.").await;
        }
    }

    fn slug(&self, packed: &Packed) -> Slug {
        Slug {
            id: Uuid::new_v4(),
            app_id: self.request.app.id,
            sha256: packed.slug.sha256.clone(),
            size: packed.slug.size,
            process_types: packed.process_types.clone(),
            buildpack: packed.detected.clone(),
            stack: self.settings.stack.sha256.clone(),
            commit: self.request.build.commit.clone(),
            created_at: Timestamp::now(),
        }
    }
}

type Fed = JoinHandle<(Result<Summary, SourceError>, Option<File>)>;

/// stdin, stdout and stderr of a dyno that was started with pipes.
fn pipes(stdio: StdioFds) -> Result<(OwnedFd, OwnedFd, OwnedFd), Failure> {
    match stdio {
        StdioFds::Pipes { stdin, stdout, stderr } => Ok((stdin, stdout, stderr)),
        _ => Err(Failure::Streams(io::Error::other("the warden gave no pipes"))),
    }
}

fn reader(fd: OwnedFd) -> Result<pipe::Receiver, Failure> {
    pipe::Receiver::from_owned_fd(fd).map_err(Failure::Streams)
}

/// For a thread that may wait; whether our end waits is not the dyno's affair.
fn blocking(fd: OwnedFd) -> Result<File, Failure> {
    let flags = fcntl_getfl(&fd).and_then(|flags| fcntl_setfl(&fd, flags - OFlags::NONBLOCK));
    flags.map_err(|error| Failure::Streams(error.into()))?;
    Ok(File::from(fd))
}

/// The streams of an ended dyno hold what was in them, and then their end.
async fn drained(mut log: JoinHandle<()>) {
    if timeout(GRACE, &mut log).await.is_err() {
        log.abort();
    }
}
