//! Runs the cases of a suite against one client.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

use super::Desk;
use crate::leaks;

/// What became of a case that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was seen.
    Seen,
    /// This host cannot, and why.
    Skipped(String),
}

/// A named case.
pub type Case<C> = (&'static str, fn(&C) -> Result<Outcome>);

/// A program that makes containers, with a state of its own.
pub trait Client: Sized + Send + 'static {
    /// The programs that it takes, as found in PATH.
    const PROGRAMS: &'static [&'static str];

    /// Starts it; it answers when this returns.
    ///
    /// # Errors
    /// What it said instead.
    fn start(desk: Desk) -> Result<Self>;

    /// Stops it; nothing of it is left.
    ///
    /// # Errors
    /// What did not end, or is still there.
    fn stop(self) -> Result<()>;

    /// The last that its daemon said.
    fn log_tail(&self) -> String;
}

/// A case that this host cannot run.
///
/// # Errors
/// Never; this is what a case ends with.
pub fn skip(reason: impl Into<String>) -> Result<Outcome> {
    Ok(Outcome::Skipped(reason.into()))
}

/// Starts the client, runs `cases` one after the other, stops it, and checks that the host is as before.
///
/// The last case, `leaves_nothing_behind`, is the leak check.
pub fn run<C: Client>(cases: &'static [Case<C>]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if let Some(reason) = Desk::missing(C::PROGRAMS) {
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
    let client = match Desk::new().and_then(C::start) {
        Ok(client) => Arc::new(Mutex::new(Some(client))),
        Err(e) => return fail(&format!("the client did not start: {e:#}")),
    };
    let mut trials: Vec<Trial> = cases.iter().map(|(name, case)| trial(name, *case, client.clone())).collect();
    let last = client.clone();
    trials.push(Trial::test("leaves_nothing_behind", move || {
        let client = last.lock().map_err(|e| e.to_string())?.take();
        let result = client.map_or(Ok(()), C::stop).and_then(|()| leaks::compare(&before, &leaks::snapshot()?));
        result.map_err(|e| Failed::from(format!("{e:#}")))
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    // A filter may have left the last case out.
    if let Ok(mut left) = client.lock()
        && let Some(client) = left.take()
        && let Err(e) = client.stop()
    {
        return fail(&format!("the client did not stop: {e:#}"));
    }
    conclusion.exit_code()
}

fn trial<C: Client>(name: &'static str, case: fn(&C) -> Result<Outcome>, client: Arc<Mutex<Option<C>>>) -> Trial {
    Trial::test(name, move || {
        // A case that panicked has said so; the next one may still tell something.
        let guard = client.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let client = guard.as_ref().ok_or("the client is stopped")?;
        match case(client) {
            Ok(Outcome::Seen) => Ok(()),
            Ok(Outcome::Skipped(reason)) => {
                println!("skipped: {reason}");
                Ok(())
            }
            Err(e) => Err(Failed::from(format!("{e:#}\n--- the last that the daemon said ---\n{}", client.log_tail()))),
        }
    })
}

fn fail(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::FAILURE
}
