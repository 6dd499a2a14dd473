//! dyno
fn main() {}
