//! The pure core of the platform: what happened goes in, what is to be done comes out.
//!
//! [`step`] alone decides what runs. It reads no clock, does no IO and draws no random numbers,
//! so every history can be replayed and any history can be tried.

mod dyno;
mod event;
mod state;
mod timing;

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
    let (_, _, _) = (state, event, now);
    Vec::new()
}
