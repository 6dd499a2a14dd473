//! The pure core of the platform: what happened goes in, what is to be done comes out.
//!
//! [`step`] alone decides what runs. It reads no clock, does no IO and draws no random numbers,
//! so every history can be replayed and any history can be tried. It is driven by levels, not by
//! edges: every event first changes what is wanted or what is known to run, then one rule
//! (`reconcile`) compares the two and starts or ends what differs.
//!
//! ```text
//! One launch of a formation dyno                                    (every box: one entry of the table)
//!
//!   wanted, name free                exec done (web: and port bound)
//!  ──────────────────▶ ┌──────────┐ ───────────────────────────────▶ ┌────┐
//!        Start         │ starting │                                  │ up │
//!                      └──────────┘                                  └────┘
//!                        │      │ exit · no start · R10, SIGKILL, exit  │  │
//!                        │      └──────────────┐   ┌────────────────────┘  │ not wanted any more
//!     not wanted any     │                     ▼   ▼  exit                 │ (scale, release, restart, stop)
//!     more               │                  ┌─────────┐                    │
//!                        │                  │ crashed │                    │
//!                        │                  └─────────┘                    │
//!                        │        next try: │       │ not wanted any more  │
//!                        │  Forget, Start a │       └──▶ Forget            │
//!                        │  new launch      ▼                              │
//!                        │                                                 │
//!                        │           SIGTERM  ┌──────────┐  SIGTERM        │
//!                        └───────────────────▶│ stopping │◀────────────────┘
//!                                             └──────────┘ ──┐ 30 s: R12, SIGKILL,
//!                                          exit: │    ▲      │ and again every 10 s
//!                                          Forget▼    └──────┘
//!
//! Web dynos of an app that nobody visits: up ─▶ idle, an entry without a process, that the next request starts:
//! idle ─▶ starting (the process of before ends as any other, as an entry of its own that is stopping).
//!
//! One-offs: starting ─▶ up ─▶ complete (exit of its own), crashed (killed, lost, never started)
//!           or down (told to end); kept for a while so that its exit can be asked for, then Forget.
//! ```
//!
//! A name (`web.1`) belongs to one launch that is not stopping; its replacement starts while the
//! former launch still ends, so a name may stand twice in the table, never twice in service.

mod dyno;
mod event;
mod life;
mod line;
mod rules;
mod state;
mod table;
mod timing;

#[cfg(test)]
mod tests;

use jiff::Timestamp;

pub use dyno::{Dyno, Stopping};
pub use event::{Action, CurrentRelease, Event, Which};
pub use state::State;
pub use timing::Timing;

/// Asks all processes of a dyno to end.
pub const SIGTERM: i32 = 15;

/// Ends all processes of a dyno.
pub const SIGKILL: i32 = 9;

/// Takes one event into the state and says what is to be done about it.
pub fn step(state: &mut State, event: Event, now: Timestamp) -> Vec<Action> {
    let mut step = Step { state, now, actions: Vec::new() };
    step.take(event);
    step.actions
}

/// One step under way: the rules are in `rules`, what they do to single launches in `life`.
struct Step<'a> {
    state: &'a mut State,
    now: Timestamp,
    actions: Vec<Action>,
}
