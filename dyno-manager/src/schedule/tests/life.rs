//! The life of single launches: boot, crash, back-off, stop, one-offs.

use super::*;

#[test]
fn a_web_dyno_is_up_once_its_port_is_bound() {
    check(&[
        (
            "release 1 web=1 worker=1",
            "web.1: Starting process with command `./web`
             START web.1#1 v1 Standard-1X
             worker.1: Starting process with command `./worker`
             START worker.1#1 v1 Standard-1X",
        ),
        ("started worker.1", "worker.1: State changed from starting to up"),
        ("started web.1", ""),
        ("ps", "web.1#1 starting crashes=0\nworker.1#1 up crashes=0"),
        ("bound web.1", "web.1: State changed from starting to up"),
        ("bound web.1", ""),
        ("started web.1", ""),
        ("bound worker.1", ""),
        ("+100000", ""),
        ("ps", "web.1#1 up crashes=0\nworker.1#1 up crashes=0"),
    ]);
}

#[test]
fn a_web_dyno_that_binds_nothing_is_killed_and_tried_again() {
    check(&[
        ("release 1 web=1", "web.1: Starting process with command `./web`\nSTART web.1#1 v1 Standard-1X"),
        ("+50", ""),
        // The minute counts from the exec on.
        ("started web.1", ""),
        ("+59.9", ""),
        (
            "+0.1",
            "web.1: Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch
             web.1: Stopping process with SIGKILL
             KILL web.1#1",
        ),
        // Too late.
        ("bound web.1", ""),
        ("+9.9", ""),
        ("+0.1", "KILL web.1#1"),
        (
            "exit web.1 137",
            "web.1: Process exited with status 137
             web.1: State changed from starting to crashed
             web.1: Next try in 1s (crash 1)",
        ),
        (
            "+1",
            "web.1: State changed from crashed to starting
             FORGET web.1#1
             web.1: Starting process with command `./web`
             START web.1#2 v1 Standard-1X",
        ),
    ]);
}

#[test]
fn crashes_back_off_from_one_second_to_five_minutes() {
    let mut world = World::new();
    world.tell("release 1 worker=1");
    for (crash, wait) in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300].into_iter().enumerate() {
        world.tell("started worker.1");
        // Status 0 is a crash too: a formation dyno is to run, not to finish.
        let lines = world.tell("exit worker.1 0");
        assert_eq!(lines[1], "worker.1: State changed from up to crashed");
        assert_eq!(lines[2], format!("worker.1: Next try in {wait}s (crash {})", crash + 1));
        assert_eq!(world.state.next_deadline(), Some(world.now + Duration::from_secs(wait)));
        assert_eq!(world.tell(&format!("+{}", wait as f64 - 0.001)), [""; 0], "too early");
        assert_eq!(world.tell("+0.001").len(), 4);
    }
}

#[test]
fn what_resets_the_count_of_crashes() {
    let crashed_twice = ["release 1 worker=1 clock=1", "started worker.1", "exit worker.1 1", "+1", "started worker.1", "exit worker.1 1", "ps"];
    for (then, crashes) in [
        (&["+2", "started worker.1", "+59"][..], 3),
        (&["+2", "started worker.1", "+60"], 1),
        (&["release 2 worker=1 clock=1", "started worker.1"], 1),
        (&["restart worker.1", "started worker.1"], 1),
        (&["restart worker", "started worker.1"], 1),
        (&["restart all", "started worker.1"], 1),
        (&["scale worker=2 clock=1", "started worker.1"], 1),
        (&["+2", "started worker.1", "scale worker=2 clock=1"], 1),
        (&["scale worker=1 clock=2", "+2", "started worker.1"], 3),
        (&["restart clock", "+2", "started worker.1"], 3),
        // Nothing of it is running, so there is nothing to stop.
        (&["stop worker.1", "+2", "started worker.1"], 3),
    ] {
        let mut world = World::new();
        for command in crashed_twice.iter().chain(then) {
            world.tell(command);
        }
        let lines = world.tell("exit worker.1 1");
        assert!(lines[2].ends_with(&format!("(crash {crashes})")), "{then:?}: {lines:?}");
    }
}

#[test]
fn a_dyno_that_cannot_be_started_crashes() {
    check(&[
        ("release 1 web=1", "web.1: Starting process with command `./web`\nSTART web.1#1 v1 Standard-1X"),
        (
            "fail web.1 R17 corrupt",
            "web.1: Error R17 (Checksum error) -> corrupt
             web.1: State changed from starting to crashed
             web.1: Next try in 1s (crash 1)",
        ),
        ("started web.1", ""),
        ("exit web.1 1", ""),
        (
            "+1",
            "web.1: State changed from crashed to starting
             FORGET web.1#1
             web.1: Starting process with command `./web`
             START web.1#2 v1 Standard-1X",
        ),
        (
            "fail web.1 no-disk",
            "web.1: Error R99 (Platform error) -> no-disk
             web.1: State changed from starting to crashed
             web.1: Next try in 2s (crash 2)",
        ),
    ]);
}

#[test]
fn sigterm_then_sigkill_after_thirty_seconds() {
    check(&[
        ("release 1 worker=1", "worker.1: Starting process with command `./worker`\nSTART worker.1#1 v1 Standard-1X"),
        ("started worker.1", "worker.1: State changed from starting to up"),
        (
            "scale worker=0",
            "worker.1: State changed from up to down
             worker.1: Stopping all processes with SIGTERM
             TERM worker.1#1",
        ),
        ("scale worker=0", ""),
        ("+29.9", ""),
        (
            "+0.1",
            "worker.1: Error R12 (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM
             worker.1: Stopping remaining processes with SIGKILL
             KILL worker.1#1",
        ),
        ("+10", "KILL worker.1#1"),
        ("exit worker.1 137", "worker.1: Process exited with status 137\nFORGET worker.1#1"),
        ("exit worker.1 137", ""),
        ("ps", ""),
        ("+1000", ""),
    ]);
}

#[test]
fn a_signal_sent_before_there_is_a_process_is_sent_again() {
    check(&[
        ("release 1 worker=1", "worker.1: Starting process with command `./worker`\nSTART worker.1#1 v1 Standard-1X"),
        (
            "scale worker=0",
            "worker.1: State changed from starting to down
             worker.1: Stopping all processes with SIGTERM
             TERM worker.1#1",
        ),
        ("started worker.1", "TERM worker.1#1"),
        (
            "+30",
            "worker.1: Error R12 (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM
             worker.1: Stopping remaining processes with SIGKILL
             KILL worker.1#1",
        ),
        ("started worker.1", "KILL worker.1#1"),
        ("fail worker.1 gone", "worker.1: Error R99 (Platform error) -> gone\nFORGET worker.1#1"),
    ]);
}

#[test]
fn the_log_says_what_a_dyno_died_of() {
    let mut memory = exit(137, ExitCause::Memory);
    memory.memory_peak = Some(550 << 20);
    let mut child = exit(1, ExitCause::Exited);
    child.oom_kills = 2;
    for (exit, want) in [
        (exit(143, ExitCause::Exited), &["Process exited with status 143"][..]),
        (memory, &["Process running mem=550M(107.4%)", "Error R15 (Memory quota vastly exceeded)", "Process exited with status 137"]),
        (exit(137, ExitCause::Memory), &["Error R15 (Memory quota vastly exceeded)", "Process exited with status 137"]),
        (child, &["Error R14 (Memory quota exceeded)", "Process exited with status 1"]),
        (exit(137, ExitCause::Time), &["Process ran past its time limit", "Process exited with status 137"]),
        (
            exit(137, ExitCause::Lost),
            &["Error R99 (Platform error) -> The dyno vanished without a record of its exit", "Process exited with status 137"],
        ),
    ] {
        assert_eq!(line::ending(&exit, DynoSize::default()), want, "{exit:?}");
    }
    assert_eq!(line::next_try(Duration::from_millis(50), 1), "Next try in 50ms (crash 1)");
    assert_eq!(line::start_failed(Some("R13"), "x"), "Error R13 -> x");
}

#[test]
fn one_offs_end_in_the_state_they_deserve() {
    for (ending, state) in [
        ("exit run.1 0", "complete"),
        ("exit run.1 3", "complete"),
        ("exit run.1 143 stopped", "down"),
        ("exit run.1 137 memory", "crashed"),
        ("exit run.1 137 time", "crashed"),
        ("exit run.1 137 lost", "crashed"),
        ("fail run.1 no-disk", "crashed"),
    ] {
        let mut world = World::new();
        world.tell("release 1 no-slug");
        assert_eq!(world.tell("run run.1"), ["run.1: Starting process with command `bash`", "START run.1#1 v1 Standard-1X"]);
        assert_eq!(world.tell("started run.1"), ["run.1: State changed from starting to up"]);
        let lines = world.tell(ending);
        assert_eq!(lines[lines.len() - 1], format!("run.1: State changed from up to {state}"), "{ending}");
        let dyno = world.state.dyno(world.id("run.1")).unwrap();
        assert!(dyno.exit.is_some() && !dyno.is_current() && dyno.retry_at.is_none(), "{ending}");
        assert_eq!(world.tell("+59.9"), [""; 0], "{ending}");
        assert_eq!(world.tell("+0.1"), ["FORGET run.1#1"], "{ending}");
        assert_eq!(world.state.next_deadline(), None);
    }
}

#[test]
fn a_one_off_is_stopped_by_name_and_not_replaced() {
    check(&[
        ("run run.7", "run.7: Starting process with command `bash`\nSTART run.7#1 v1 Standard-1X"),
        ("started run.7", "run.7: State changed from starting to up"),
        ("restart all", ""),
        ("stop run.8", ""),
        (
            "stop run.7",
            "run.7: State changed from up to down
             run.7: Stopping all processes with SIGTERM
             TERM run.7#1",
        ),
        ("exit run.7 143", "run.7: Process exited with status 143"),
        ("ps", "run.7#1 down crashes=0"),
        ("+60", "FORGET run.7#1"),
    ]);
}

#[test]
fn only_so_many_ended_one_offs_are_kept() {
    let mut world = World::new();
    for number in 1..=130 {
        world.tell(&format!("run run.{number}"));
        world.tell("+0.1");
        world.tell(&format!("exit run.{number} 0"));
    }
    let names: Vec<_> = world.state.dynos(APP).iter().map(|d| d.name.number).collect();
    assert_eq!(names, (31..=130).collect::<Vec<_>>());
}

#[test]
fn an_app_that_nobody_visits_sleeps_until_somebody_does() {
    check(&[
        (
            "release 1 web=2 worker=1",
            "web.1: Starting process with command `./web`
             START web.1#1 v1 Standard-1X
             web.2: Starting process with command `./web`
             START web.2#1 v1 Standard-1X
             worker.1: Starting process with command `./worker`
             START worker.1#1 v1 Standard-1X",
        ),
        ("started worker.1", "worker.1: State changed from starting to up"),
        ("bound web.1", "web.1: State changed from starting to up"),
        // One that still boots is not put to sleep.
        (
            "quiet",
            "web.1: Idling
             web.1: State changed from up to idle
             web.1: Stopping all processes with SIGTERM
             TERM web.1#1",
        ),
        ("quiet", ""),
        ("exit web.1 143 stopped", "web.1: Process exited with status 143\nFORGET web.1#1"),
        // Nothing has it started but a request.
        (
            "+100000",
            "web.2: Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch\nweb.2: Stopping process with SIGKILL\nKILL web.2#1",
        ),
        ("stop web.1", ""),
        (
            "visited",
            "web.1: Unidling
             web.1: State changed from idle to starting
             web.1: Starting process with command `./web`
             START web.1#2 v1 Standard-1X",
        ),
        ("visited", ""),
        ("bound web.1", "web.1: State changed from starting to up"),
    ]);
}

#[test]
fn who_changes_an_app_that_sleeps_wakes_it() {
    let asleep = [
        ("release 1 web=1", "web.1: Starting process with command `./web`\nSTART web.1#1 v1 Standard-1X"),
        ("bound web.1", "web.1: State changed from starting to up"),
        ("quiet", "web.1: Idling\nweb.1: State changed from up to idle\nweb.1: Stopping all processes with SIGTERM\nTERM web.1#1"),
        ("exit web.1 143 stopped", "web.1: Process exited with status 143\nFORGET web.1#1"),
    ];
    for (change, next) in [("release 2 web=1", "v2 Standard-1X"), ("scale web=1:standard-2x", "v1 Standard-2X"), ("restart web.1", "v1 Standard-1X")]
    {
        let mut world = World::new();
        for (command, want) in asleep {
            assert_eq!(world.tell(command).join("\n"), want, "{command}");
        }
        // The entry that slept is not among the launches that the words know.
        world.launches.push(world.state.dynos(APP)[0].clone());
        let told = world.tell(change);
        let want =
            ["web.1: Restarting", "web.1: State changed from idle to starting", "FORGET web.1#2", "web.1: Starting process with command `./web`"];
        assert_eq!(told[..4], want, "{change}");
        assert_eq!(told[4..], [format!("START web.1#3 {next}")], "{change}");
    }
    let mut world = World::new();
    for (command, _) in asleep {
        world.tell(command);
    }
    world.launches.push(world.state.dynos(APP)[0].clone());
    assert_eq!(world.tell("scale web=0"), ["web.1: State changed from idle to down", "FORGET web.1#2"]);
    assert_eq!(world.tell("visited"), [""; 0]);
}
