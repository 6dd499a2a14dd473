//! Accepts builds, keeps one per app and few per host, and tells their outcome exactly once.
//!
//! ```text
//!   start ─▶ waiting ─▶ running ─▶ ended ─▶ dynos freed ─▶ finish ─▶ forgotten, output closed
//!               └──────────┴── cancel ──▶┘
//! ```

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    panic::AssertUnwindSafe,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{
    BuildRequest, Finish, Outcome, OutputReader, Settings, SlugCompiler, StartError,
    failure::Failure,
    host::Host,
    images::{self, Cache},
    output::{Output, Progress},
    sandbox,
    settings::MARK,
    story::Story,
};
use crate::{model::Slug, warden};

/// Runs builds as dynos of the warden. Cheap to clone.
#[derive(Clone)]
pub struct Builder(Arc<Shared>);

struct Shared {
    settings: Arc<Settings>,
    host: Arc<dyn Host>,
    /// By app.
    running: Mutex<HashMap<Uuid, Running>>,
    places: Semaphore,
    tasks: TaskTracker,
}

/// A build that has not told its outcome yet.
struct Running {
    build: Uuid,
    cancel: CancellationToken,
    progress: watch::Receiver<Progress>,
}

impl Builder {
    /// Makes the directories of `settings.state` that builds need and removes what a killed daemon
    /// left half written there.
    ///
    /// # Errors
    /// A directory cannot be made or read.
    pub fn new(settings: Settings, warden: warden::Client) -> io::Result<Self> {
        Self::on(settings, Arc::new(warden))
    }

    pub(super) fn on(settings: Settings, host: Arc<dyn Host>) -> io::Result<Self> {
        // Others may reach an image that they are told of, but not what a build printed.
        for (folder, mode) in [(settings.builds(), 0o700), (settings.slugs(), 0o711), (settings.caches(), 0o711)] {
            fs::DirBuilder::new().recursive(true).mode(mode).create(&folder)?;
            images::remove_drafts(&folder)?;
        }
        let places = Semaphore::new(settings.limits.at_once);
        let (settings, running, tasks) = (Arc::new(settings), Mutex::default(), TaskTracker::new());
        Ok(Self(Arc::new(Shared { settings, host, running, places, tasks })))
    }

    /// At daemon start, before any build: frees the dynos of builds that the former daemon ran, and
    /// ends the output of each with a line that says so. Their records are the store's to end.
    ///
    /// # Errors
    /// The warden cannot be asked, or the directory cannot be read.
    pub async fn recover(&self) -> io::Result<()> {
        for held in self.0.host.list().await.map_err(io::Error::other)? {
            if sandbox::build_of(&held.meta).is_some() {
                self.0.host.free(held.id).await.map_err(io::Error::other)?;
            }
        }
        let settings = &self.0.settings;
        for entry in fs::read_dir(settings.builds())? {
            let path = entry?.path();
            let build = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            let Some(build) = build.filter(|_| path.extension().is_some_and(|end| end == MARK)) else { continue };
            let line = b"\n !     Push rejected, the platform restarted during the build.\n";
            fs::OpenOptions::new().create(true).append(true).open(settings.output(build))?.write_all(line)?;
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Cancels every build and waits until all have told their outcome.
    pub async fn shutdown(&self) {
        self.0.running().values().for_each(|running| running.cancel.cancel());
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl SlugCompiler for Builder {
    fn start(&self, request: BuildRequest, finish: Finish) -> Result<(), StartError> {
        let settings = &self.0.settings;
        let (build, app) = (request.build.id, request.app.id);
        let mut running = self.0.running();
        if let Some(other) = running.get(&app) {
            return Err(StartError::Busy { running: other.build });
        }
        let source = File::open(&request.source).map_err(failed("opening", &request.source))?;
        let (path, mark) = (settings.output(build), settings.mark(build));
        File::create(&mark).map_err(failed("creating", &mark))?;
        let output = Output::create(&path, settings.limits.output_bytes).map_err(failed("creating", &path))?;
        super::remove_if_there(&request.source).map_err(failed("removing", &request.source))?;
        let cancel = CancellationToken::new();
        running.insert(app, Running { build, cancel: cancel.clone(), progress: output.progress() });
        drop(running);
        let story = Story {
            host: Arc::clone(&self.0.host),
            settings: Arc::clone(settings),
            request,
            source,
            output,
            cancel,
            built: build,
            packed: Uuid::new_v4(),
        };
        self.0.tasks.spawn(Arc::clone(&self.0).carry_out(story, finish));
        Ok(())
    }

    fn output(&self, build: Uuid) -> BoxFuture<'_, io::Result<Option<OutputReader>>> {
        let progress = self.0.running().values().find(|running| running.build == build).map(|r| r.progress.clone());
        Box::pin(OutputReader::open(self.0.settings.output(build), progress))
    }

    fn cancel(&self, build: Uuid) -> bool {
        let running = self.0.running();
        let found = running.values().find(|running| running.build == build);
        found.inspect(|running| running.cancel.cancel()).is_some()
    }

    fn purge_cache(&self, app: Uuid) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { Cache::of(&self.0.settings.caches(), app).remove() })
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, HashMap<Uuid, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn carry_out(self: Arc<Self>, story: Story, finish: Finish) {
        let told = AssertUnwindSafe(self.in_turn(&story)).catch_unwind().await.unwrap_or(Err(Failure::Fault));
        conclude(&story.output, told, finish).await;
        if let Err(error) = super::remove_if_there(&self.settings.mark(story.request.build.id)) {
            tracing::warn!(%error, "removing the mark of a build");
        }
        // In this order: whoever sees the end of the output may start the next build.
        self.running().remove(&story.request.app.id);
        story.output.close();
    }

    /// Waits for a place, builds, frees.
    async fn in_turn(&self, story: &Story) -> Result<Slug, Failure> {
        let place = async {
            if self.places.available_permits() == 0 {
                story.output.line("-----> Waiting for other builds to finish...").await;
            }
            self.places.acquire().await.map_err(|_| Failure::Fault)
        };
        let _place = story.cancel.run_until_cancelled(place).await.unwrap_or(Err(Failure::Cancelled))?;
        let told = AssertUnwindSafe(story.tell()).catch_unwind().await.unwrap_or(Err(Failure::Fault));
        story.end().await;
        told
    }
}

/// Tells the outcome, in the output and to whoever asked for the build.
async fn conclude(output: &Output, told: Result<Slug, Failure>, finish: Finish) {
    let rejected = |error: String| async move { output.line(&format!(" !     Push rejected, {error}.")).await };
    let finished = |outcome| async {
        let told = AssertUnwindSafe(async { finish(outcome).await }).catch_unwind().await;
        told.unwrap_or_else(|_| Err(Failure::Fault.to_string()))
    };
    match told {
        Ok(slug) => {
            output.line("-----> Launching...").await;
            match finished(Outcome::Built(slug)).await {
                Ok(lines) => {
                    for line in lines {
                        output.line(&format!("       {line}")).await;
                    }
                }
                Err(error) => rejected(error).await,
            }
        }
        Err(failure) => {
            let error = failure.to_string();
            if !failure.is_told() {
                rejected(error.clone()).await;
            }
            drop(finished(Outcome::Failed { error }).await);
        }
    }
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StartError + 'a {
    move |error| StartError::Io { what, path: path.to_owned(), error }
}
