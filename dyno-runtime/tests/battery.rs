//! The battery of attacks: each row bare, with its wall taken away, and in the full sandbox; and its own test, which takes every wall
//! away in turn. It takes the feature `break-walls`: `cargo xtask battery`.

#[path = "battery/filter.rs"]
mod filter;
#[path = "battery/mutate.rs"]
mod mutate;
#[path = "battery/report.rs"]
mod report;
#[path = "battery/row.rs"]
mod row;
#[path = "battery/rows/mod.rs"]
mod rows;
#[path = "battery/run.rs"]
mod run;
#[path = "battery/scene.rs"]
mod scene;
#[path = "battery/segment.rs"]
#[allow(unsafe_code, reason = "no library has System V segments, keys, Landlock's version")]
mod segment;
mod support;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
};

use anyhow::{Result, anyhow, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

use self::{report::Judged, row::Row, run::Mutant, scene::Scene};

/// The scene, and what was found so far.
struct State {
    scene: Option<Scene>,
    judged: Vec<Judged>,
}

type Shared = Arc<Mutex<State>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One scene; and the session keyring with the canary is this thread's.
    arguments.test_threads = Some(1);
    let architecture = (std::env::consts::ARCH != "x86_64").then(|| "its calls are x86-64's".to_owned());
    if let Some(reason) = support::missing(&["script", "unshare"]).or(architecture) {
        println!("skipped: {reason}");
        let skipped = rows::rows().iter().map(|row| Trial::test(row.test(), || Ok(())).with_ignored_flag(true)).collect();
        return libtest_mimic::run(&arguments, skipped).exit_code();
    }
    if arguments.list {
        let named = rows::rows().iter().map(|row| Trial::test(row.test(), || Ok(()))).collect();
        return libtest_mimic::run(&arguments, named).exit_code();
    }
    let scene = match Scene::new() {
        Ok(scene) => scene,
        Err(e) => {
            eprintln!("the scene could not be set: {e:#}");
            return ExitCode::FAILURE;
        }
    };
    if std::env::var_os("DYNO_BATTERY_CALLS").is_some() {
        return ended(filter::written(&scene).map(|text| print!("{text}")).and(scene.close()));
    }
    let state = Arc::new(Mutex::new(State { scene: Some(scene), judged: Vec::new() }));
    let conclusion = libtest_mimic::run(&arguments, trials(&state));
    let finished = finish(&state);
    if let Err(e) = &finished {
        eprintln!("{e:#}");
    }
    if finished.is_err() { ExitCode::FAILURE } else { conclusion.exit_code() }
}

fn ended(result: Result<()>) -> ExitCode {
    result.map_or_else(
        |e| {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn trials(state: &Shared) -> Vec<Trial> {
    let mut trials: Vec<Trial> = rows::rows().into_iter().map(|row| trial(row, state.clone())).collect();
    let shared = state.clone();
    trials.push(Trial::test("SC-1_every_call", move || {
        with(&shared, |state| {
            let scene = state.scene.as_ref().ok_or_else(|| anyhow!("no scene"))?;
            let difference = filter::difference(scene, &Mutant::default())?;
            ensure!(difference.is_none(), "{}", difference.unwrap_or_default());
            Ok(())
        })
    }));
    let shared = state.clone();
    trials.push(Trial::test("from_parked_sandboxes", move || {
        with(&shared, |state| {
            let scene = state.scene.as_ref().ok_or_else(|| anyhow!("no scene"))?;
            let judged = &mut state.judged;
            if judged.is_empty() {
                println!("skipped: no row was run before it");
            }
            scene.stage.leaves_nothing(|| run::from_parked(scene, judged))
        })
    }));
    trials
}

fn trial(row: Row, shared: Shared) -> Trial {
    Trial::test(row.test(), move || {
        with(&shared, |state| {
            let scene = state.scene.as_ref().ok_or_else(|| anyhow!("no scene"))?;
            let mut outcome = Err(anyhow!("not run"));
            let clean = scene.stage.leaves_nothing(|| {
                outcome = run::judge(scene, &row);
                Ok(())
            });
            if outcome.is_err() || clean.is_err() {
                scene.stage.sweep()?;
            }
            let outcome = outcome.and_then(|outcome| clean.map(|()| outcome));
            state.judged.push((row, outcome.as_ref().map(Clone::clone).map_err(|e| format!("{e:#}"))));
            outcome.map(|outcome| {
                if let run::Verdict::Vacuous(why) | run::Verdict::FullOnly(why) = outcome.verdict {
                    println!("vacuous or in part: {why}");
                }
            })
        })
    })
}

fn with(shared: &Shared, work: impl FnOnce(&mut State) -> Result<()>) -> Result<(), Failed> {
    let mut state = shared.lock().map_err(|e| e.to_string())?;
    work(&mut state).map_err(|e| Failed::from(format!("{e:#}")))
}

/// Mutations, the report, and the leak check.
fn finish(shared: &Shared) -> Result<()> {
    let mut state = shared.lock().map_err(|e| anyhow!("{e}"))?;
    let scene = state.scene.take().ok_or_else(|| anyhow!("no scene"))?;
    let fates = std::env::var("DYNO_BATTERY_MUTATE").ok().map(|which| mutate::run(&scene, which == "walls")).transpose()?;
    report::write(&state.judged, fates.as_deref())?;
    let (run, name, work) = (scene.stage.run.clone(), scene.stage.name.clone(), scene.stage.work().to_owned());
    scene.close()?;
    support::leaks::must_be_gone(&run, &name, &work)?;
    if let Some(fates) = fates {
        let (caught, tried, percent) = mutate::score(&fates);
        println!("mutations: {caught} of {tried} caught ({percent:.1} %)");
        ensure!(percent >= 95.0, "the battery does not see what is taken away");
    }
    Ok(())
}
