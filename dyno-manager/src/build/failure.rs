//! Why builds fail, in the words that follow `Push rejected, `.

use std::{io, time::Duration};

use super::{frames::FrameError, source::SourceError};
use crate::{
    model::{DynoSize, Exit, ExitCause, procfile::ProcfileError},
    warden::WardenError,
};

/// Why a build made no slug.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The driver gave up and has said why, `Push rejected` and all.
    #[error("{}", driver(*.0))]
    Driver(i32),
    #[error("the {step} dyno ended with status {status}")]
    Status { step: &'static str, status: i32 },
    /// There was no room to pack what was built.
    #[error("the build filled its disk")]
    Disk,
    #[error("the build ran out of memory (limit {} MB)", DynoSize::BUILD.spec().memory >> 20)]
    Memory,
    #[error("the build took longer than {}", minutes(*.0))]
    Time(Duration),
    #[error("the build was killed from outside; try again")]
    Lost,
    #[error("the build was cancelled")]
    Cancelled,
    #[error("your compiled slug is {} (max is {})", size(*.bytes), size(*.max))]
    SlugTooLarge { bytes: u64, max: u64 },
    #[error("{0}")]
    Procfile(#[from] ProcfileError),
    #[error("{0}")]
    Release(String),
    /// Nothing of it could run, and what runs now would end.
    #[error("the app has no process types; add a Procfile with a line like \"web: <command>\"")]
    NoTypes,
    #[error("the packed app {0}")]
    Frames(#[from] FrameError),
    #[error("the packed app has no {0}")]
    Missing(&'static str),
    #[error("the platform could not store the slug: {0}")]
    Store(#[source] io::Error),
    #[error("the platform could not run the build: {0}")]
    Warden(#[from] WardenError),
    #[error("the platform could not follow the build: {0}")]
    Streams(#[source] io::Error),
    #[error("the platform met a fault of its own")]
    Fault,
}

impl Failure {
    /// The driver prints its own rejection.
    pub(super) fn is_told(&self) -> bool {
        matches!(self, Self::Driver(_))
    }
}

/// What the driver's exit codes mean (`rootfs/buildpacks/bin/build`).
fn driver(code: i32) -> &'static str {
    match code {
        10 => "no buildpack fits this app",
        11 => "the app failed to compile",
        12 => "the buildpack failed to name the app's process types",
        13 => "the source could not be unpacked",
        _ => "the build filled its disk",
    }
}

/// How the build dyno ended.
pub(super) fn of_build(exit: &Exit) -> Result<(), Failure> {
    ended("build", exit).map_err(|failure| match failure {
        Failure::Status { status: code @ 10..=14, .. } => Failure::Driver(code),
        other => other,
    })
}

/// How the pack dyno ended. It says what went wrong, but rejects nothing itself.
pub(super) fn of_pack(exit: &Exit) -> Result<(), Failure> {
    ended("pack", exit).map_err(|failure| match failure {
        Failure::Status { status: 14, .. } => Failure::Disk,
        other => other,
    })
}

fn ended(step: &'static str, exit: &Exit) -> Result<(), Failure> {
    match exit.cause {
        ExitCause::Exited if exit.status == 0 => Ok(()),
        // The kernel kills the largest process, which is a compiler and not the driver.
        ExitCause::Exited if exit.oom_kills > 0 => Err(Failure::Memory),
        ExitCause::Exited => Err(Failure::Status { step, status: exit.status }),
        ExitCause::Memory => Err(Failure::Memory),
        ExitCause::Time => Err(Failure::Time(Duration::from_micros(exit.wall_us))),
        ExitCause::Stopped => Err(Failure::Cancelled),
        ExitCause::Lost => Err(Failure::Lost),
    }
}

/// `980K`, `13.2M`, `1G`, as slug compilers print sizes.
pub(super) fn size(bytes: u64) -> String {
    let kilobytes = bytes as f64 / 1024.0;
    let text = match kilobytes {
        k if k < 1000.0 => return format!("{k:.0}K"),
        k if k < 1000.0 * 1024.0 => format!("{:.1}M", k / 1024.0),
        k => format!("{:.1}G", k / (1024.0 * 1024.0)),
    };
    text.replace(".0", "")
}

fn minutes(time: Duration) -> String {
    match time.as_secs() {
        60 if time.subsec_nanos() == 0 => "a minute".to_owned(),
        seconds if seconds > 0 && seconds % 60 == 0 && time.subsec_nanos() == 0 => format!("{} minutes", seconds / 60),
        _ => format!("{:.1} seconds", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_told_by_cause() {
        let exit = |status, cause, oom_kills| Exit { status, cause, memory_peak: None, oom_kills, cpu_us: 0, wall_us: 90_500_000 };
        let check = |exit: Exit, want: &str, told: bool| {
            let failure = of_build(&exit).unwrap_err();
            assert_eq!((failure.to_string().as_str(), failure.is_told()), (want, told));
        };
        assert!(of_build(&exit(0, ExitCause::Exited, 0)).is_ok());
        // A child that was killed did no harm if the build went on and succeeded.
        assert!(of_build(&exit(0, ExitCause::Exited, 1)).is_ok());
        check(exit(10, ExitCause::Exited, 0), "no buildpack fits this app", true);
        check(exit(14, ExitCause::Exited, 0), "the build filled its disk", true);
        check(exit(11, ExitCause::Exited, 1), "the build ran out of memory (limit 4096 MB)", false);
        check(exit(137, ExitCause::Memory, 1), "the build ran out of memory (limit 4096 MB)", false);
        check(exit(1, ExitCause::Exited, 0), "the build dyno ended with status 1", false);
        check(exit(0, ExitCause::Lost, 0), "the build was killed from outside; try again", false);
        check(exit(137, ExitCause::Time, 0), "the build took longer than 90.5 seconds", false);
        assert_eq!(of_pack(&exit(11, ExitCause::Exited, 0)).unwrap_err().to_string(), "the pack dyno ended with status 11");
        assert!(matches!(of_pack(&exit(14, ExitCause::Exited, 0)), Err(failure) if !failure.is_told()));
        assert_eq!(Failure::Time(Duration::from_secs(900)).to_string(), "the build took longer than 15 minutes");
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, want) in [(0, "0K"), (1023 * 1024, "1M"), (999 * 1024, "999K"), (13_841_203, "13.2M"), (1 << 30, "1G"), (1_288_490_189, "1.2G")] {
            assert_eq!(size(bytes), want);
        }
        let large = Failure::SlugTooLarge { bytes: 1_288_490_189, max: 1 << 30 };
        assert_eq!(large.to_string(), "your compiled slug is 1.2G (max is 1G)");
    }
}
