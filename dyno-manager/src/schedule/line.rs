//! The platform's log lines, in Heroku's words.

use std::time::Duration;

use crate::model::{DynoSize, Exit, ExitCause};

pub(super) const IDLING: &str = "Idling";
pub(super) const UNIDLING: &str = "Unidling";
pub(super) const RESTARTING: &str = "Restarting";
pub(super) const SIGTERM_ALL: &str = "Stopping all processes with SIGTERM";
pub(super) const SIGKILL_REST: &str = "Stopping remaining processes with SIGKILL";
pub(super) const SIGKILL_ONE: &str = "Stopping process with SIGKILL";

/// A dyno, or its name, goes from one state to another.
pub(super) fn changed(from: &str, to: &str) -> String {
    format!("State changed from {from} to {to}")
}

/// A launch begins.
pub(super) fn starting(command: &str) -> String {
    format!("Starting process with command `{command}`")
}

/// R10.
pub(super) fn boot_timeout(limit: Duration) -> String {
    format!("Error R10 (Boot timeout) -> Web process failed to bind to $PORT within {} seconds of launch", limit.as_secs())
}

/// R12.
pub(super) fn exit_timeout(limit: Duration) -> String {
    format!("Error R12 (Exit timeout) -> At least one process failed to exit within {} seconds of SIGTERM", limit.as_secs())
}

/// A launch that came to nothing; R99 is Heroku's code for faults of the platform itself.
pub(super) fn start_failed(code: Option<&str>, reason: &str) -> String {
    match code {
        Some("R17") => format!("Error R17 (Checksum error) -> {reason}"),
        Some(code) if code != "R99" => format!("Error {code} -> {reason}"),
        _ => format!("Error R99 (Platform error) -> {reason}"),
    }
}

/// When a crashed dyno is tried again. A wait below a second is told in milliseconds.
pub(super) fn next_try(wait: Duration, crashes: u32) -> String {
    if wait.subsec_nanos() == 0 {
        format!("Next try in {}s (crash {crashes})", wait.as_secs())
    } else {
        format!("Next try in {}ms (crash {crashes})", wait.as_millis())
    }
}

/// How a dyno ended: what it died of where that is not plain, then its status.
pub(super) fn ending(exit: &Exit, size: DynoSize) -> Vec<String> {
    let mut lines = Vec::new();
    if exit.cause != ExitCause::Memory && exit.oom_kills > 0 {
        // A child died of hunger and the dyno lived on: said late, but said.
        lines.push("Error R14 (Memory quota exceeded)".to_owned());
    }
    match exit.cause {
        ExitCause::Memory => {
            lines.extend(exit.memory_peak.map(|peak| memory(peak, size)));
            lines.push("Error R15 (Memory quota vastly exceeded)".to_owned());
        }
        ExitCause::Time => lines.push("Process ran past its time limit".to_owned()),
        ExitCause::Lost => lines.push("Error R99 (Platform error) -> The dyno vanished without a record of its exit".to_owned()),
        ExitCause::Exited | ExitCause::Stopped => {}
    }
    lines.push(format!("Process exited with status {}", exit.status));
    lines
}

/// `Process running mem=550M(107.5%)`: use in MiB, and its share of the quota.
fn memory(bytes: u64, size: DynoSize) -> String {
    // Tenths of a percent in whole numbers; u128 because bytes * 1000 may not fit.
    let tenths = u128::from(bytes) * 1000 / u128::from(size.spec().memory);
    format!("Process running mem={}M({}.{}%)", bytes >> 20, tenths / 10, tenths % 10)
}
