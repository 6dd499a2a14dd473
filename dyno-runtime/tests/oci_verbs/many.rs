//! Many callers of one id at once: one has it, the others are told so, nothing is left.

use anyhow::{Result, ensure};

use crate::{
    support::{Stage, same},
    world::{Answer, World, at_once},
};

const CALLERS: usize = 12;

/// How many succeeded; the others failed with one of these.
fn successes(answers: &[Answer], failures: &[&str]) -> Result<usize> {
    for answer in answers {
        let known = failures.iter().any(|words| answer.stderr.starts_with(&format!("dyno-runtime: {words}")));
        ensure!(answer.status == 0 || (answer.status == 1 && known && answer.stderr.lines().count() == 1), "{answer:?}");
    }
    Ok(answers.iter().filter(|answer| answer.status == 0).count())
}

pub fn create(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    for _ in 0..3 {
        let answers = at_once((0..CALLERS).map(|_| world.created("web")).collect())?;
        same("creators", successes(&answers, &["container with id web already exists", "container's cgroup is not empty"])?, 1)?;
        same("created", world.status("web")?.as_str(), "created")?;
        world.must(&["start", "web"])?;
        world.must(&["delete", "--force", "web"])?;
        world.is_empty()?;
    }
    Ok(())
}

pub fn start(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    for _ in 0..3 {
        world.create("web")?;
        let answers = at_once((0..CALLERS).map(|_| world.command(&["start", "web"])).collect())?;
        same("starters", successes(&answers, &["cannot start an already running container"])?, 1)?;
        same("running", world.status("web")?.as_str(), "running")?;
        world.must(&["delete", "--force", "web"])?;
        world.is_empty()?;
    }
    Ok(())
}

pub fn delete(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    for _ in 0..3 {
        world.start("web")?;
        let answers = at_once((0..CALLERS).map(|_| world.command(&["delete", "--force", "web"])).collect())?;
        same("--force", successes(&answers, &[])?, CALLERS)?;
        world.is_empty()?;
        world.create("web")?;
        let answers = at_once((0..CALLERS).map(|_| world.command(&["delete", "web"])).collect())?;
        same("deleters", successes(&answers, &["container does not exist"])?, 1)?;
        world.is_empty()?;
    }
    Ok(())
}

/// Everything that can be done about one id, all at once, several times. Each call succeeds or says what another has done.
pub fn storm(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    let words = [
        "container with id web already exists",
        "container's cgroup is not empty",
        "container's cgroup is frozen",
        "container does not exist",
        "cannot start an already running container",
        "cannot start a container that has stopped",
        "cannot start a container in the paused state",
        "cannot delete container web that is not stopped",
        "container not running",
        "container not paused",
        "cannot pause: ",
    ];
    for _ in 0..5 {
        let verbs: [&[&str]; 9] = [
            &["start", "web"],
            &["state", "web"],
            &["kill", "web", "KILL"],
            &["delete", "web"],
            &["delete", "--force", "web"],
            &["pause", "web"],
            &["resume", "web"],
            &["list"],
            &["ps", "--format", "json", "web"],
        ];
        let commands = (0..3).flat_map(|_| std::iter::once(world.created("web")).chain(verbs.iter().map(|args| world.command(args))));
        successes(&at_once(commands.collect())?, &words)?;
    }
    world.must(&["delete", "--force", "web"])?;
    world.is_empty()
}
