//! Runs the cases of one test program one after the other on one stage, then looks for what they left.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};

use super::{Stage, leaks};

/// A named case.
pub type Case = (&'static str, fn(&Stage) -> Result<()>);

/// Makes a stage called `name`, runs `cases`, takes the stage down, and checks that the host is as before.
///
/// The last case, `leaves_nothing_behind`, is the leak check; it fails as well when a case has left a dyno.
pub fn suite(name: &'static str, tools: &[&str], cases: &[Case]) -> ExitCode {
    suite_on(name, tools, cases, Stage::new)
}

/// [`suite`] on a stage of another make.
pub fn suite_on(name: &'static str, tools: &[&str], cases: &[Case], set: fn(&str) -> Result<Stage>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let inert = |ignored| cases.iter().map(|(name, _)| Trial::test(*name, || Ok(())).with_ignored_flag(ignored)).collect();
    if let Some(reason) = super::missing(tools) {
        println!("skipped: {reason}");
        return libtest_mimic::run(&arguments, inert(true)).exit_code();
    }
    if arguments.list {
        return libtest_mimic::run(&arguments, inert(false)).exit_code();
    }
    let stage = match set(name) {
        Ok(stage) => Arc::new(Mutex::new(Some(stage))),
        Err(e) => {
            eprintln!("the stage could not be set: {e:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut trials: Vec<Trial> = cases.iter().map(|(name, case)| trial(name, *case, stage.clone())).collect();
    let last = stage.clone();
    trials.push(Trial::test("leaves_nothing_behind", move || take_down(&last).map_err(failed)));
    let conclusion = libtest_mimic::run(&arguments, trials);
    // A filter may have left the last case out.
    if let Err(e) = take_down(&stage) {
        eprintln!("{e:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

type Shared = Arc<Mutex<Option<Stage>>>;

fn trial(name: &str, case: fn(&Stage) -> Result<()>, stage: Shared) -> Trial {
    Trial::test(name, move || {
        let guard = stage.lock().map_err(|e| e.to_string())?;
        let stage = guard.as_ref().ok_or("the stage is down")?;
        let result = stage.leaves_nothing(|| case(stage));
        if result.is_err() {
            stage.sweep().map_err(|e| failed(e.context("sweep after a failure")))?;
        }
        result.map_err(failed)
    })
}

fn take_down(stage: &Shared) -> Result<()> {
    let Some(stage) = stage.lock().map_err(|e| anyhow!("{e}"))?.take() else { return Ok(()) };
    let (run, name, work) = (stage.run.clone(), stage.name.clone(), stage.work().to_owned());
    stage.close()?;
    leaks::must_be_gone(&run, &name, &work)
}

fn failed(e: anyhow::Error) -> Failed {
    Failed::from(format!("{e:#}"))
}
