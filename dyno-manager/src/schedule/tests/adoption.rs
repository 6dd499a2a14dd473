//! The start of a daemon: what runs already is kept or ended, only then what is missing is started.

use super::*;

/// A world whose former daemon launched `web.1#1`, `web.2#1`, `worker.1#1` and `run.1#1` of v1.
fn left_behind() -> World {
    let mut world = World::new();
    for command in ["release 1 web=2 worker=1", "run run.1", "run release.1 release-phase", "+5", "new daemon"] {
        world.tell(command);
    }
    world
}

fn check(rows: &[(&str, &str)]) {
    let mut world = left_behind();
    for (at, (command, want)) in rows.iter().enumerate() {
        let want: Vec<_> = want.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        assert_eq!(world.tell(command), want, "row {at}: {command}");
    }
}

#[test]
fn what_is_wanted_is_kept_and_what_is_missing_is_started() {
    check(&[
        ("load 1 web=2 worker=1", ""),
        ("adopt web.2 up", ""),
        ("adopt worker.1 starting", ""),
        ("adopt run.1 up", ""),
        ("+1", ""),
        ("restart all", ""),
        ("scale web=2 worker=1", ""),
        ("settled", "web.1: Starting process with command `./web`\nSTART web.1#2 v1 Standard-1X"),
        ("settled", ""),
        ("started worker.1", "worker.1: State changed from starting to up"),
        ("ps", "run.1#1 up crashes=0\nweb.1#2 starting crashes=0\nweb.2#1 up crashes=0\nworker.1#1 up crashes=0"),
    ]);
}

#[test]
fn what_is_not_wanted_is_ended() {
    check(&[
        ("load 2 web=1 worker=1:standard-2x", ""),
        ("adopt web.1 up", "web.1: State changed from up to down\nweb.1: Stopping all processes with SIGTERM\nTERM web.1#1"),
        ("adopt web.2 up", "web.2: State changed from up to down\nweb.2: Stopping all processes with SIGTERM\nTERM web.2#1"),
        ("adopt web.2 up", ""),
        ("adopt release.1 up", "release.1: Stopping process with SIGKILL\nKILL release.1#1"),
        (
            "settled",
            "web.1: Starting process with command `./web`
             START web.1#2 v2 Standard-1X
             worker.1: Starting process with command `./worker`
             START worker.1#2 v2 Standard-2X",
        ),
        ("exit web.1#1 143", "web.1: Process exited with status 143\nFORGET web.1#1"),
        ("exit release.1 137", "release.1: Process exited with status 137"),
    ]);
}

#[test]
fn dynos_of_an_unknown_app_are_ended_in_silence() {
    check(&[
        ("adopt web.1 up", "TERM web.1#1"),
        ("adopt run.1 starting", "TERM run.1#1"),
        ("adopt release.1 up", "KILL release.1#1"),
        ("settled", ""),
        ("exit web.1 143", "FORGET web.1#1"),
        ("exit run.1 143", "FORGET run.1#1"),
        ("exit release.1 137", "FORGET release.1#1"),
    ]);
}

#[test]
fn of_two_launches_of_one_name_the_newer_is_kept() {
    for (first, second) in [("worker.1#1", "worker.1#2"), ("worker.1#2", "worker.1#1")] {
        let mut world = World::new();
        for command in ["release 1 worker=1", "+1", "restart all", "+1", "new daemon", "load 1 worker=1"] {
            world.tell(command);
        }
        let lines = [world.tell(&format!("adopt {first} up")), world.tell(&format!("adopt {second} up"))].concat();
        assert_eq!(lines[lines.len() - 1], "TERM worker.1#1");
        assert_eq!(world.tell("settled"), [""; 0]);
        assert_eq!(world.tell("ps"), ["worker.1#1 stopping crashes=0", "worker.1#2 up crashes=0"]);
    }
}

#[test]
fn a_stop_that_was_under_way_goes_on() {
    check(&[
        ("load 1 web=1", ""),
        ("adopt web.1 stopping", "web.1: State changed from up to down\nweb.1: Stopping all processes with SIGTERM\nTERM web.1#1"),
        ("settled", "web.1: Starting process with command `./web`\nSTART web.1#2 v1 Standard-1X"),
    ]);
}

#[test]
fn a_dyno_found_dead_is_started_with_all_that_is_missing() {
    check(&[
        ("load 1 worker=1", ""),
        ("adopt worker.1 up", ""),
        (
            "exit worker.1 137 lost",
            "worker.1: Error R99 (Platform error) -> The dyno vanished without a record of its exit
             worker.1: Process exited with status 137
             FORGET worker.1#1",
        ),
        ("settled", "worker.1: Starting process with command `./worker`\nSTART worker.1#2 v1 Standard-1X"),
    ]);
}

#[test]
fn the_time_to_boot_begins_anew() {
    check(&[
        ("load 1 web=1", ""),
        ("+1000", ""),
        ("adopt web.1 starting", ""),
        ("settled", ""),
        ("+59", ""),
        ("bound web.1", "web.1: State changed from starting to up"),
    ]);
}
