//! What runs follows what is wanted: releases, scale, restart, stop, the end of an app.

use super::*;

#[test]
fn scale_takes_the_lowest_free_number_and_ends_the_highest() {
    check(&[
        (
            "release 1 web=2",
            "web.1: Starting process with command `./web`
             START web.1#1 v1 Standard-1X
             web.2: Starting process with command `./web`
             START web.2#1 v1 Standard-1X",
        ),
        ("bound web.1", "web.1: State changed from starting to up"),
        ("scale web=3", "web.3: Starting process with command `./web`\nSTART web.3#1 v1 Standard-1X"),
        (
            "scale web=1",
            "web.2: State changed from starting to down
             web.2: Stopping all processes with SIGTERM
             TERM web.2#1
             web.3: State changed from starting to down
             web.3: Stopping all processes with SIGTERM
             TERM web.3#1",
        ),
        ("+1", ""),
        // The former web.2 is still on its way out.
        ("scale web=2", "web.2: Starting process with command `./web`\nSTART web.2#2 v1 Standard-1X"),
        ("ps", "web.1#1 up crashes=0\nweb.2#1 stopping crashes=0\nweb.2#2 starting crashes=0\nweb.3#1 stopping crashes=0"),
        ("exit web.2#1 143", "web.2: Process exited with status 143\nFORGET web.2#1"),
        ("exit web.3#1 143", "web.3: Process exited with status 143\nFORGET web.3#1"),
        ("ps", "web.1#1 up crashes=0\nweb.2#2 starting crashes=0"),
    ]);
}

#[test]
fn another_size_replaces_the_dynos_of_that_type() {
    check(&[
        (
            "release 1 web=1 worker=1",
            "web.1: Starting process with command `./web`
             START web.1#1 v1 Standard-1X
             worker.1: Starting process with command `./worker`
             START worker.1#1 v1 Standard-1X",
        ),
        (
            "scale web=1 worker=1:standard-2x",
            "worker.1: Restarting
             worker.1: Stopping all processes with SIGTERM
             TERM worker.1#1
             worker.1: Starting process with command `./worker`
             START worker.1#2 v1 Standard-2X",
        ),
    ]);
}

#[test]
fn a_release_replaces_every_formation_dyno_and_no_one_off() {
    check(&[
        ("release 1 web=1 !clock=3", "web.1: Starting process with command `./web`\nSTART web.1#1 v1 Standard-1X"),
        ("bound web.1", "web.1: State changed from starting to up"),
        ("run run.1", "run.1: Starting process with command `bash`\nSTART run.1#1 v1 Standard-1X"),
        (
            "release 2 web=1 clock=1",
            "web.1: Restarting
             web.1: State changed from up to starting
             web.1: Stopping all processes with SIGTERM
             TERM web.1#1
             web.1: Starting process with command `./web`
             START web.1#2 v2 Standard-1X
             clock.1: Starting process with command `./clock`
             START clock.1#1 v2 Standard-1X",
        ),
        ("exit web.1#1 143", "web.1: Process exited with status 143\nFORGET web.1#1"),
        ("bound web.1", "web.1: State changed from starting to up"),
        // A type that the slug no longer has keeps its row and runs nothing.
        (
            "release 3 web=1 !clock=1",
            "clock.1: State changed from starting to down
             clock.1: Stopping all processes with SIGTERM
             TERM clock.1#1
             web.1: Restarting
             web.1: State changed from up to starting
             web.1: Stopping all processes with SIGTERM
             TERM web.1#2
             web.1: Starting process with command `./web`
             START web.1#3 v3 Standard-1X",
        ),
        // Told twice, done twice: the release that is told of is a new one even if its number is not.
        (
            "release 3 web=1",
            "web.1: Restarting
             web.1: Stopping all processes with SIGTERM
             TERM web.1#3
             web.1: Starting process with command `./web`
             START web.1#4 v3 Standard-1X",
        ),
        (
            "release 4 web=1 no-slug",
            "web.1: State changed from starting to down
             web.1: Stopping all processes with SIGTERM
             TERM web.1#4",
        ),
        ("scale web=5", ""),
    ]);
}

#[test]
fn a_release_ends_a_back_off_at_once() {
    check(&[
        ("release 1 worker=1", "worker.1: Starting process with command `./worker`\nSTART worker.1#1 v1 Standard-1X"),
        (
            "exit worker.1 1",
            "worker.1: Process exited with status 1
             worker.1: State changed from starting to crashed
             worker.1: Next try in 1s (crash 1)",
        ),
        (
            "release 2 worker=1",
            "worker.1: Restarting
             worker.1: State changed from crashed to starting
             FORGET worker.1#1
             worker.1: Starting process with command `./worker`
             START worker.1#2 v2 Standard-1X",
        ),
        ("ps", "worker.1#2 starting crashes=0"),
        (
            "exit worker.1 1",
            "worker.1: Process exited with status 1
             worker.1: State changed from starting to crashed
             worker.1: Next try in 1s (crash 1)",
        ),
        ("scale worker=0", "worker.1: State changed from crashed to down\nFORGET worker.1#2"),
        ("+1", ""),
    ]);
}

#[test]
fn restart_and_stop_bring_a_formation_dyno_back_under_its_name() {
    check(&[
        ("release 1 worker=1", "worker.1: Starting process with command `./worker`\nSTART worker.1#1 v1 Standard-1X"),
        ("started worker.1", "worker.1: State changed from starting to up"),
        ("restart web", ""),
        ("restart worker.2", ""),
        (
            "restart worker.1",
            "worker.1: Restarting
             worker.1: State changed from up to starting
             worker.1: Stopping all processes with SIGTERM
             TERM worker.1#1
             worker.1: Starting process with command `./worker`
             START worker.1#2 v1 Standard-1X",
        ),
        ("started worker.1", "worker.1: State changed from starting to up"),
        (
            "stop worker",
            "worker.1: State changed from up to down
             worker.1: Stopping all processes with SIGTERM
             TERM worker.1#2
             worker.1: Starting process with command `./worker`
             START worker.1#3 v1 Standard-1X",
        ),
        ("exit worker.1#1 143", "worker.1: Process exited with status 143\nFORGET worker.1#1"),
        ("exit worker.1#2 143", "worker.1: Process exited with status 143\nFORGET worker.1#2"),
        ("ps", "worker.1#3 starting crashes=0"),
    ]);
}

#[test]
fn a_dyno_that_is_being_killed_can_be_replaced() {
    check(&[
        ("release 1 web=1", "web.1: Starting process with command `./web`\nSTART web.1#1 v1 Standard-1X"),
        (
            "+60",
            "web.1: Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch
             web.1: Stopping process with SIGKILL
             KILL web.1#1",
        ),
        ("restart all", "web.1: Restarting\nweb.1: Starting process with command `./web`\nSTART web.1#2 v1 Standard-1X"),
        ("+10", "KILL web.1#1"),
        ("exit web.1#1 137", "web.1: Process exited with status 137\nFORGET web.1#1"),
    ]);
}

#[test]
fn an_app_that_is_destroyed_ends_without_a_word() {
    check(&[
        (
            "release 1 web=1 worker=1",
            "web.1: Starting process with command `./web`
             START web.1#1 v1 Standard-1X
             worker.1: Starting process with command `./worker`
             START worker.1#1 v1 Standard-1X",
        ),
        ("run run.1", "run.1: Starting process with command `bash`\nSTART run.1#1 v1 Standard-1X"),
        ("run run.2", "run.2: Starting process with command `bash`\nSTART run.2#1 v1 Standard-1X"),
        (
            "exit worker.1 1",
            "worker.1: Process exited with status 1
             worker.1: State changed from starting to crashed
             worker.1: Next try in 1s (crash 1)",
        ),
        ("exit run.2 0", "run.2: Process exited with status 0\nrun.2: State changed from starting to complete"),
        ("destroy", "TERM run.1#1\nFORGET run.2#1\nTERM web.1#1\nFORGET worker.1#1"),
        ("destroy", ""),
        ("exit run.1 143", "FORGET run.1#1"),
        ("+30", "KILL web.1#1"),
        ("exit web.1 137", "FORGET web.1#1"),
        ("release 2 web=1", ""),
        ("scale web=1", ""),
        ("restart all", ""),
        ("ps", ""),
    ]);
    let mut world = World::new();
    world.tell("destroy");
    let stray = world.one_off("run.1", DynoKind::OneOff);
    let want = [Action::Forget { dyno_id: stray.id }];
    assert_eq!(step(&mut world.state, Event::Run { dyno: stray }, world.now), want);
}

#[test]
fn ids_differ_by_app_launch_and_daemon() {
    let ids = |seed| {
        let mut state = State::new(Uuid::from_u128(seed));
        let mut ids: Vec<_> = (0..50).map(|_| state.next_id(APP)).collect();
        ids.extend((0..50).map(|_| state.next_id(Uuid::nil())));
        ids
    };
    let mut all = [ids(1), ids(2)].concat();
    assert_eq!(ids(1), ids(1), "one seed, one sequence");
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 200);
}

#[test]
fn a_command_of_many_lines_is_logged_on_one() {
    let mut world = World::new();
    let mut dyno = world.one_off("run.1", DynoKind::OneOff);
    dyno.command = "echo 1\necho 2".into();
    let actions = step(&mut world.state, Event::Run { dyno }, world.now);
    assert!(matches!(&actions[0], Action::Log { text, .. } if text == "Starting process with command `echo 1 echo 2`"), "{actions:?}");
}
