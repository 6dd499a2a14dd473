//! What the scheduler is told and what it answers.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Dyno;
use crate::model::{App, ConfigVars, DynoId, DynoName, Exit, Formation, ProcessType, Slug};

/// The part of a release that dynos are started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentRelease {
    /// `v1`, `v2`, …
    pub version: u32,
    /// None before the first build: nothing can run.
    pub slug: Option<Slug>,
    /// The config vars in force.
    pub config: ConfigVars,
}

/// The dynos of an app that a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The whole formation; [`Event::Stop`] takes one-offs as well.
    All,
    /// All of one process type, one-offs of that type included.
    Type(ProcessType),
    /// One, by name.
    Name(DynoName),
}

impl Which {
    /// True when a dyno of this name is meant.
    pub fn covers(&self, name: &DynoName) -> bool {
        match self {
            Self::All => true,
            Self::Type(of) => name.process_type == *of,
            Self::Name(one) => name == one,
        }
    }
}

/// Something that happened. An event about an app or a dyno that is not known changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A new, empty app.
    AppCreated {
        /// The app.
        app: App,
    },
    /// The app itself changed (name, maintenance); its dynos go on.
    AppChanged {
        /// The app as it is now.
        app: App,
    },
    /// The app is gone: its dynos are told to end and it logs no more.
    AppDestroyed {
        /// The former app.
        app_id: Uuid,
    },
    /// A new release is in force: every formation dyno is replaced.
    Released {
        /// The app.
        app_id: Uuid,
        /// The release.
        release: CurrentRelease,
        /// What is wanted from now on.
        formation: Formation,
    },
    /// Daemon start: the desired state of one app. Comes before [`Event::Adopted`]; nothing is started until [`Event::Settled`].
    Loaded {
        /// The app.
        app: App,
        /// Its release, if it has one.
        release: Option<CurrentRelease>,
        /// What is wanted.
        formation: Formation,
    },
    /// Daemon start: this dyno runs already. Formation dynos are kept if the formation wants that name, release and size;
    /// one-offs are kept while their app exists; builds and release phases have lost who waits for them and are killed.
    Adopted {
        /// The dyno as recorded at launch, with its state as found: `Starting` or `Up` (or `Stopping`).
        dyno: Dyno,
    },
    /// Daemon start: all adoptions have been told; what is missing is started now.
    Settled,
    /// Quantities or sizes changed.
    FormationChanged {
        /// The app.
        app_id: Uuid,
        /// What is wanted from now on.
        formation: Formation,
    },
    /// Nobody has asked anything of the app's web dynos for as long as the operator grants: those that are up fall asleep.
    Quiet {
        /// The app.
        app_id: Uuid,
    },
    /// A request waits for the app: its dynos that sleep are started.
    Visited {
        /// The app.
        app_id: Uuid,
    },
    /// A one-off, its id and name chosen by the caller. Of an unknown app it is forgotten at once.
    Run {
        /// The dyno; its state and times are set here.
        dyno: Dyno,
    },
    /// Replaces formation dynos at once, crashed ones too; a one-off that is named (by type or name) ends.
    Restart {
        /// The app.
        app_id: Uuid,
        /// Its dynos.
        which: Which,
    },
    /// Ends dynos. The formation still wants its own, so these come back under the same name;
    /// one-offs just end. A crashed dyno has nothing to end and keeps its back-off.
    Stop {
        /// The app.
        app_id: Uuid,
        /// Its dynos.
        which: Which,
    },
    /// The app's exec is done. A web dyno is up only once [`Event::Bound`].
    Started {
        /// The dyno.
        dyno_id: DynoId,
    },
    /// A web dyno listens on its `$PORT`.
    Bound {
        /// The dyno.
        dyno_id: DynoId,
    },
    /// The dyno could not be started; there is no process.
    StartFailed {
        /// The dyno.
        dyno_id: DynoId,
        /// For people, one line.
        reason: String,
        /// `R17` where the slug's image is missing or corrupt; otherwise `R99` is shown.
        code: Option<&'static str>,
    },
    /// The dyno has ended.
    Exited {
        /// The dyno.
        dyno_id: DynoId,
        /// How.
        exit: Exit,
    },
    /// Time has passed: at [`super::State::next_deadline`], or whenever.
    Tick,
}

/// Something to carry out, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start it from the app's current release ([`super::State::release`]); answer with `Started` or `StartFailed`.
    Start(Box<Dyno>),
    /// Send a signal to all its processes.
    Signal {
        /// The dyno.
        dyno_id: DynoId,
        /// [`super::SIGTERM`] or [`super::SIGKILL`].
        signal: i32,
    },
    /// A line of the platform's (`heroku[web.1]: text`) for the app's log.
    Log {
        /// The app; always one that exists.
        app_id: Uuid,
        /// `web.1`.
        ps: String,
        /// One line.
        text: String,
    },
    /// The dyno has left the table, no process of it is left: free what is held for it.
    Forget {
        /// The dyno.
        dyno_id: DynoId,
    },
}
