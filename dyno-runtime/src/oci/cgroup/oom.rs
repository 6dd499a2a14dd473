//! When a container's memory runs out.

/// Tells each time that the kernel had to kill for want of memory.
#[derive(Debug)]
pub struct Oom {}
