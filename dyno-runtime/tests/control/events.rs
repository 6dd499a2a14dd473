//! What happens to a dyno is told while it happens.

use super::*;

/// Events up to the end, or until `last`.
pub fn all(mut events: Events, last: Event) -> Result<Vec<Event>> {
    let mut told = Vec::new();
    loop {
        let event = events.wait(Some(PATIENCE))?.with_context(|| format!("nothing after {told:?}"))?;
        told.push(event);
        if event == last {
            return Ok(told);
        }
    }
}

/// Held back at a pipe until `events` are open.
pub fn watched(stage: &Stage, mut sandbox: Sandbox, limits: Limits) -> Result<(Dyno, Events)> {
    sandbox.limits = limits;
    let mut dyno = stage.start(&sandbox, Stdio::Pipes)?;
    let events = dyno.events()?;
    drop(dyno.take_streams());
    Ok((dyno, events))
}

pub fn out_of_memory_is_told(stage: &Stage) -> Result<()> {
    let sandbox = stage.sandbox(&["eat-when-told", "200000000"]);
    let (dyno, events) = watched(stage, sandbox, Limits { memory: Some(32 << 20), ..Limits::default() })?;
    let told = all(events, Event::Ended)?;
    ensure!(told.contains(&Event::Oom), "{told:?}");
    let killed: u64 = told.iter().map(|event| if let Event::OomKill { count } = event { *count } else { 0 }).sum();
    same("killed", killed, dyno.usage().oom_kills)?;
    ensure!(killed > 0, "{told:?}");
    Ok(dyno.free()?)
}

pub fn much_memory_is_told(stage: &Stage) -> Result<()> {
    let sandbox = stage.sandbox(&["eat-when-told", "60000000"]);
    let limits = Limits { memory: Some(512 << 20), memory_high: Some(24 << 20), swap: 0, ..Limits::default() };
    let (dyno, events) = watched(stage, sandbox, limits)?;
    let told = all(events, Event::MemoryHigh)?;
    same("told", told, vec![Event::MemoryHigh])?;
    Ok(dyno.free()?)
}

pub fn a_refused_fork_is_told(stage: &Stage) -> Result<()> {
    let sandbox = stage.sandbox(&["threads-when-told", "100"]);
    let (dyno, events) = watched(stage, sandbox, Limits { pids: Some(12), ..Limits::default() })?;
    same("told", all(events, Event::Ended)?, vec![Event::PidsLimit, Event::Ended])?;
    Ok(dyno.free()?)
}

pub fn pauses_and_the_end_are_told(stage: &Stage) -> Result<()> {
    let (dyno, _dots): (Dyno, File) = ticking(stage)?;
    let mut events = dyno.events()?;
    same("at first", events.try_next()?, None)?;
    let told_of_pauses = on_v2(&dyno)?;
    if !told_of_pauses {
        println!("skipped: events of pauses: memory is on cgroup v1");
    }
    for _ in 0..2 {
        dyno.pause()?;
        if told_of_pauses {
            ensure!(is_readable(&events, PATIENCE)?, "its descriptor is quiet");
            same("told", events.wait(Some(PATIENCE))?, Some(Event::Paused))?;
        }
        dyno.resume()?;
        if told_of_pauses {
            same("told", events.wait(Some(PATIENCE))?, Some(Event::Resumed))?;
        }
    }
    same("nothing else", events.wait(Some(Duration::from_millis(1)))?, None)?;
    let mut others = dyno.events()?;
    dyno.kill()?;
    for events in [&mut events, &mut others] {
        same("the end", events.wait(Some(PATIENCE))?, Some(Event::Ended))?;
        same("after the end", events.wait(None)?, None)?;
    }
    dyno.free()?;
    same("of one that is gone", events.try_next()?, None)
}
