//! One bounded log per app: what its dynos write and what the platform says about them, in one order.
//!
//! Writers never wait. An app's log keeps its last lines only, and a reader that does not keep up loses lines and is
//! told how many. [`follow`] carries what a dyno writes from its FIFO to here.

mod hub;
mod line;
mod reader;

pub use hub::{Filter, LogHub, Tail};
pub use line::{Line, MAX_LINE, Source};
pub use reader::follow;
