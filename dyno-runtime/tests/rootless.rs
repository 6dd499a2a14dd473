//! Sandboxes of a user who is not root. Each case runs in a process of its own that root makes and that gives its rights up
//! first, once for each kind of host that such a user may meet; afterwards root looks for what is left.

#[path = "rootless/cases.rs"]
mod cases;
#[path = "rootless/delegated.rs"]
mod delegated;
#[path = "rootless/refusals.rs"]
mod refusals;
mod support;
#[path = "rootless/world.rs"]
mod world;

use std::{
    process::{Command, ExitCode},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

use world::{Kind, Scene, World};

/// What is proven in one process, on these kinds of hosts.
type Case = (&'static str, fn(&World) -> Result<()>, &'static [Kind]);

const CASES: &[Case] = &[
    ("status_of_every_process", cases::status_of_every_process, &[Kind::Single, Kind::Range]),
    ("ids_outside", cases::ids_outside, &[Kind::Single, Kind::Range]),
    ("namespaces_of_its_own", cases::namespaces_of_its_own, &[Kind::Single, Kind::Range]),
    ("mount_table", cases::mount_table, &[Kind::Single, Kind::Range]),
    ("nothing_of_the_host_is_written", cases::nothing_of_the_host_is_written, &[Kind::Single, Kind::Range]),
    ("read_only_root_and_stacked_layers", cases::read_only_root_and_stacked_layers, &[Kind::Single, Kind::Range]),
    ("procfs_is_masked", cases::procfs_is_masked, &[Kind::Single]),
    ("network_is_empty", cases::network_is_empty, &[Kind::Single, Kind::Range]),
    ("sockets_reach_in", cases::sockets_reach_in, &[Kind::Single, Kind::Range]),
    ("a_side_car_shares_the_network", cases::a_side_car_shares_the_network, &[Kind::Single, Kind::Range]),
    ("exits", cases::exits, &[Kind::Single, Kind::Range]),
    ("limits_of_the_run", cases::limits_of_the_run, &[Kind::Single]),
    ("streams", cases::streams, &[Kind::Single, Kind::Range]),
    ("commands_beside_it", cases::commands_beside_it, &[Kind::Single, Kind::Range]),
    ("taken_up_again", cases::taken_up_again, &[Kind::Single, Kind::Slices]),
    ("many_threads", cases::many_threads, &[Kind::Single, Kind::Slices]),
    ("slices_of_the_range", cases::slices_of_the_range, &[Kind::Slices]),
    ("limits_are_held", delegated::limits_are_held, &[Kind::Delegated]),
    ("every_missing_wall_is_named", refusals::every_missing_wall_is_named, &[Kind::Single, Kind::Range, Kind::Slices, Kind::Grouped]),
    ("services_of_root_are_refused", refusals::services_of_root_are_refused, &[Kind::Single]),
    ("who_would_be_the_caller_is_refused", refusals::who_would_be_the_caller_is_refused, &[Kind::Range]),
    ("the_caller_gets_no_field_wrong", refusals::the_caller_gets_no_field_wrong, &[Kind::Single, Kind::Range]),
    ("without_user_namespaces", refusals::without_user_namespaces, &[Kind::Forbidden]),
    ("behind_a_hidden_procfs", refusals::behind_a_hidden_procfs, &[Kind::HiddenProc]),
];

fn main() -> ExitCode {
    if let Some(scene) = Scene::from_arguments() {
        let case = CASES.iter().find(|(name, ..)| *name == scene.case);
        return scene.play(case.map(|(_, run, _)| *run));
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if let Some(reason) = support::missing(&["unshare"]) {
        println!("skipped: {reason}");
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    let theatre = match world::Theatre::new() {
        Ok(theatre) => Arc::new(theatre),
        Err(e) => {
            eprintln!("the stage could not be set: {e:#}");
            return ExitCode::FAILURE;
        }
    };
    libtest_mimic::run(&arguments, trials(Some(&theatre))).exit_code()
}

fn trials(theatre: Option<&Arc<world::Theatre>>) -> Vec<Trial> {
    let helper = Command::new("newuidmap").output().is_ok();
    let mut trials = Vec::new();
    for (name, _, kinds) in CASES {
        for kind in *kinds {
            let lacking = kind.needs_helpers() && !helper;
            let title = format!("{name}, {kind:?}");
            if lacking {
                println!("skipped: {title}: needs newuidmap (package uidmap)");
            }
            let theatre = theatre.cloned();
            let run = move || theatre.map_or(Ok(()), |theatre| played(&theatre, *kind, name));
            trials.push(Trial::test(title, || run().map_err(|e| Failed::from(format!("{e:#}")))).with_ignored_flag(lacking));
        }
    }
    trials
}

/// Plays one case, then looks for what it left.
fn played(theatre: &world::Theatre, kind: Kind, case: &str) -> Result<()> {
    let output = theatre.command(kind, case).output().context("run this program again")?;
    if !output.status.success() {
        theatre.sweep();
    }
    delegated::leave()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {said}", output.status);
    theatre.is_clean()
}
