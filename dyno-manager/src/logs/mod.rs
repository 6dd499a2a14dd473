//! One bounded log per app: what its dynos write and what the platform says about them, in one order.
//!
//! Writers never wait. An app's log keeps its last lines only, and a reader that does not keep up loses lines and is
//! told how many. [`follow`] carries what a dyno writes from its FIFO to here.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod hub;
mod line;
mod reader;
mod record;
mod ring;
mod tail;

pub use hub::LogHub;
pub use line::{Filter, Line, MAX_LINE, Source};
pub use reader::follow;
pub use ring::{MAX_BYTES, MAX_LINES};
pub use tail::Tail;
