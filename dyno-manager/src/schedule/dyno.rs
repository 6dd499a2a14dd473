//! What the scheduler remembers of one launch.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{DynoId, DynoKind, DynoName, DynoSize, DynoState, Exit};

/// One launch of a dyno, from the wish to start it until it is forgotten.
///
/// Serialisable so that it can travel with the launch (`warden::Launch::meta`) and come back
/// as [`super::Event::Adopted`] after a restart of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dyno {
    /// Identity of this launch.
    pub id: DynoId,
    /// Owner.
    pub app_id: Uuid,
    /// `web.1`; a launch that is stopping may share it with its replacement.
    pub name: DynoName,
    /// Why it exists.
    pub kind: DynoKind,
    /// Shell command line.
    pub command: String,
    /// Its limits.
    pub size: DynoSize,
    /// Version of the release that it runs.
    pub release: u32,
    /// Where it is in its life.
    pub state: DynoState,
    /// When `state` was entered; of a web dyno that boots: when its process was started.
    pub since: Timestamp,
    /// When the launch was asked for.
    pub created_at: Timestamp,
    /// Crashed formation dynos: when the next try is due.
    pub retry_at: Option<Timestamp>,
    /// Crashes in a row under this name up to now; forgiven, once it was up for long enough, at the next crash.
    pub crashes: u32,
    /// How it ended; set exactly when no process is left.
    pub exit: Option<Exit>,
    /// A client is to be joined to its standard streams.
    pub attached: bool,
    /// Set once it has been told to end.
    pub stopping: Option<Stopping>,
    /// Variables of a one-off, over the app's config vars.
    pub env: BTreeMap<String, String>,
    /// Terminal of a one-off: rows, columns.
    pub tty: Option<(u16, u16)>,
}

impl Dyno {
    /// True while a process of it may exist, even one that is on its way out. One that sleeps has none yet.
    pub fn is_alive(&self) -> bool {
        self.exit.is_none() && self.state != DynoState::Idle
    }

    /// True for a launch that stands for its name: not one that was told to end, not a one-off that ended.
    pub fn is_current(&self) -> bool {
        match self.state {
            DynoState::Starting | DynoState::Up | DynoState::Idle => true,
            DynoState::Crashed => self.retry_at.is_some(),
            DynoState::Stopping | DynoState::Down | DynoState::Complete => false,
        }
    }

    /// True for the dynos that must bind `$PORT` before they count as up.
    pub fn binds_port(&self) -> bool {
        self.kind == DynoKind::Formation && self.name.process_type.is_web()
    }
}

/// How far the ending of a dyno has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// When SIGKILL is due, for the first time or (the exit still missing) again.
    pub kill_at: Timestamp,
    /// SIGKILL has been sent.
    pub killed: bool,
}
