//! dynod
fn main() {}
