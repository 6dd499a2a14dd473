//! How systemd is asked.
