//! Black-box suites over the built binaries.
