//! Runs the cases of a suite against one platform.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::{Platform, leaks};

/// A named case.
pub type Case = (&'static str, fn(&Platform) -> Result<()>);

/// Starts a platform, runs `cases` one after the other, stops it, and checks that the host is as before.
///
/// `options` go to dynod. The last case, `leaves_nothing_behind`, is the leak check.
pub fn run(options: &'static [&'static str], cases: &'static [Case]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One host, one platform: cases share both.
    arguments.test_threads = Some(1);
    if let Some(reason) = Platform::missing() {
        println!("skipped: {reason}");
        let skipped = cases.iter().map(|(name, _)| Trial::test(*name, || Ok(())).with_ignored_flag(true)).collect();
        return libtest_mimic::run(&arguments, skipped).exit_code();
    }
    if arguments.list {
        let named = cases.iter().map(|(name, _)| Trial::test(*name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, named).exit_code();
    }
    let before = match leaks::snapshot() {
        Ok(before) => before,
        Err(e) => return fail(&format!("{e:#}")),
    };
    let platform = match Platform::start(options) {
        Ok(platform) => Arc::new(Mutex::new(Some(platform))),
        Err(e) => return fail(&format!("the platform did not start: {e:#}")),
    };
    let mut trials: Vec<Trial> = cases.iter().map(|(name, case)| trial(name, *case, platform.clone())).collect();
    let last = platform.clone();
    trials.push(Trial::test("leaves_nothing_behind", move || {
        let platform = last.lock().map_err(|e| e.to_string())?.take();
        let result = platform.map_or(Ok(()), Platform::stop).and_then(|()| leaks::compare(&before, &leaks::snapshot()?));
        result.map_err(|e| Failed::from(format!("{e:#}")))
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    // A filter may have left the last case out.
    if let Ok(mut left) = platform.lock()
        && let Some(platform) = left.take()
        && let Err(e) = platform.stop()
    {
        return fail(&format!("the platform did not stop: {e:#}"));
    }
    conclusion.exit_code()
}

fn trial(name: &str, case: fn(&Platform) -> Result<()>, platform: Arc<Mutex<Option<Platform>>>) -> Trial {
    Trial::test(name, move || {
        let guard = platform.lock().map_err(|e| e.to_string())?;
        let platform = guard.as_ref().ok_or("the platform is stopped")?;
        case(platform).map_err(|e| Failed::from(format!("{e:#}\n--- dynod's last lines ---\n{}", platform.log_tail())))
    })
}

fn fail(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::FAILURE
}
