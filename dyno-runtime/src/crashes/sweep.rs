//! Goes over the calls that a story makes when nobody is harmed, and harms somebody at each.

use std::{collections::BTreeSet, process::Command, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    io::Errno,
    process::{getpid, set_child_subreaper},
};

use super::{
    calls,
    library::{self, Ground, STORIES},
    oci::{self, VERBS},
    page::{self, Row},
    walls,
    watch::{self, Casting, Deed, Ended, Point, Role, Seen},
};
use crate::support;

/// Set for all of these at each call, instead of one of them in turn.
const EVERY_ERROR: &str = "DYNO_CRASH_EVERY_ERROR";

/// Where the call of a child may fail and all goes well: the scene, the call if it is one, and why.
const TOLERATED: &[(&str, Option<&str>, &str)] = &[
    ("library: parked", None, "what could not be parked is started cold, by another child"),
    ("OCI: ", Some("chdir"), "to the working directory: tried again as the user"),
    ("OCI: ", Some("openat2"), "the working directory is made if it is not there; chdir(2) tells whether it is"),
];

const ERRORS: [Errno; 4] = [Errno::NOMEM, Errno::MFILE, Errno::NOSPC, Errno::INTR];

/// Something to be watched: a story of the library, or a command.
pub trait Scene {
    fn name(&self) -> String;
    fn casting(&self) -> Casting;
    fn roles(&self) -> &'static [Role];
    /// What is said where nobody is harmed.
    fn says(&self) -> String;
    /// Whether a program begins under the watch: not before, nor never.
    fn begins(&self) -> bool;
    /// Brings about the state before it, and says what is started.
    fn command(&self, ground: &Ground) -> Result<Command>;
    /// What comes next, and the leak check.
    fn restart(&self, ground: &Ground, ended: &Ended) -> Result<()>;
}

impl Scene for library::Story {
    fn name(&self) -> String {
        format!("library: {}", self.name)
    }
    fn casting(&self) -> Casting {
        library::cast
    }
    fn roles(&self) -> &'static [Role] {
        self.roles
    }
    fn says(&self) -> String {
        Self::says(self)
    }
    fn begins(&self) -> bool {
        true
    }
    fn command(&self, ground: &Ground) -> Result<Command> {
        Self::command(self, ground)
    }
    fn restart(&self, ground: &Ground, ended: &Ended) -> Result<()> {
        Self::restart(self, ground, ended)
    }
}

impl Scene for oci::Verb {
    fn name(&self) -> String {
        format!("OCI: {}", self.name)
    }
    fn casting(&self) -> Casting {
        oci::cast
    }
    fn roles(&self) -> &'static [Role] {
        oci::ROLES
    }
    fn says(&self) -> String {
        String::new()
    }
    fn begins(&self) -> bool {
        Self::begins(self)
    }
    fn command(&self, ground: &Ground) -> Result<Command> {
        Self::command(self, ground)
    }
    fn restart(&self, ground: &Ground, ended: &Ended) -> Result<()> {
        Self::restart(self, ground, ended)
    }
}

/// A scene as it is when nobody is harmed.
struct Unharmed<'a> {
    scene: &'a dyn Scene,
    ground: &'a Ground,
    seen: Seen,
}

/// All scenes, or those that the environment names.
pub fn drive(whole: bool) -> Result<()> {
    set_child_subreaper(Some(getpid()))?;
    let work = tempfile::tempdir()?;
    let name = format!("dyno-test-crash-{}", std::process::id());
    let ground = Ground { run: format!("/run/{name}").into(), name, work: work.path().to_owned() };
    support::make_rootfs(&ground.work.join("rootfs"))?;
    match support::missing(&["mksquashfs"]) {
        None => support::squash(&ground.work.join("rootfs"), &ground.work.join("image.sqsh"))?,
        Some(reason) => println!("skipped: the image layer: {reason}"),
    }
    let (began, mut rows) = (Instant::now(), Vec::new());
    let mut done = BTreeSet::new();
    for scene in scenes(whole)? {
        rows.extend(sweep(scene, &ground, if whole { Extent::Whole } else { Extent::First(&mut done) })?);
        page::write(&rows)?;
    }
    let failed: Vec<String> = rows.iter().flat_map(|row: &Row| row.failed.iter().cloned()).collect();
    let harmed: usize = rows.iter().map(|row| row.kills + row.errors).sum();
    println!("{harmed} times somebody was harmed, in {:.0} s", began.elapsed().as_secs_f64());
    ensure!(failed.is_empty(), "{} of {harmed} failed:\n{}", failed.len(), failed.join("\n\n"));
    Ok(())
}

fn scenes(whole: bool) -> Result<Vec<&'static dyn Scene>> {
    let only = std::env::var("DYNO_CRASH_ONLY").ok();
    let wanted = |name: &str, short: bool| only.as_ref().map_or(whole || short, |only| only.split(',').any(|word| word == name));
    // What takes a program of somebody else's (mkfs.ext4, nft) is for the whole.
    let mut scenes: Vec<&dyn Scene> = Vec::new();
    scenes.extend(STORIES.iter().filter(|story| wanted(story.name, !matches!(story.name, "large" | "egress"))).map(|s| s as &dyn Scene));
    match oci::program() {
        Some(_) => scenes.extend(VERBS.iter().filter(|verb| wanted(verb.name, verb.name != "create without network")).map(|v| v as &dyn Scene)),
        None => println!("skipped: the OCI commands: needs dyno-runtime beside this program"),
    }
    ensure!(!scenes.is_empty(), "DYNO_CRASH_ONLY={}: no such story", only.unwrap_or_default());
    Ok(scenes)
}

/// How much of a scene is swept.
enum Extent<'a> {
    /// Every call.
    Whole,
    /// One of each name that each role makes; where a scene before had it, it is only killed there.
    First(&'a mut BTreeSet<(Role, i64)>),
}

/// Goes over the calls of a scene.
fn sweep(scene: &dyn Scene, ground: &Ground, mut extent: Extent<'_>) -> Result<Vec<Row>> {
    let (seen, ended) = unharmed(scene, ground).with_context(|| format!("{}: unharmed", scene.name()))?;
    ensure!(ended.status.success() && ended.said.contains(&scene.says()), "{}: unharmed: {ended:?}", scene.name());
    let unharmed = Unharmed { scene, ground, seen };
    let began = Instant::now();
    let mut rows = Vec::new();
    for (&(role, call), &times) in unharmed.seen.counts.iter().filter(|((role, _), _)| scene.roles().contains(role)) {
        let mut row = Row { scene: scene.name(), role, call: calls::name(call), times, kills: 0, errors: 0, missed: 0, failed: Vec::new() };
        let (moments, much) = match &mut extent {
            Extent::Whole => (1..=times, if std::env::var_os(EVERY_ERROR).is_some() { Much::Every } else { Much::All }),
            Extent::First(done) => (times.div_ceil(2)..=times.div_ceil(2), if done.insert((role, call)) { Much::Some } else { Much::Kill }),
        };
        for nth in moments {
            for deed in deeds(&unharmed, role, call, nth, much) {
                harm(&unharmed, Point { role, call, nth, deed }, &mut row);
            }
        }
        if matches!(much, Much::Every | Much::All) {
            println!("{}: {role}: {} x {times}: {} kills, {} errors, {} failed", row.scene, row.call, row.kills, row.errors, row.failed.len());
        }
        rows.push(row);
    }
    let of = |what: fn(&Row) -> usize| rows.iter().map(what).sum::<usize>();
    let (kills, errors, missed, failed) = (of(|r| r.kills), of(|r| r.errors), of(|r| r.missed), of(|r| r.failed.len()));
    println!(
        "{}: {} calls: {kills} kills, {errors} errors, {missed} moments that did not come again, {failed} failed, {:.0} s",
        scene.name(),
        of(|r| r.times),
        began.elapsed().as_secs_f64()
    );
    ensure!(kills > 0 && missed * 4 <= kills + errors, "{}: {missed} of {} moments did not come", scene.name(), kills + errors + missed);
    Ok(rows)
}

/// What is done at one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Much {
    /// Its caller is killed, and somebody else; it fails in every way.
    Every,
    /// … in the way whose turn it is.
    All,
    /// … and of others only its parent is killed.
    Some,
    /// Its caller is killed.
    Kill,
}

fn deeds(unharmed: &Unharmed<'_>, role: Role, call: i64, nth: usize, much: Much) -> Vec<Deed> {
    let mut deeds = vec![Deed::Kill];
    if much == Much::Kill {
        return deeds;
    }
    let there = |victim: Role| unharmed.seen.counts.keys().any(|(role, _)| *role == victim);
    let parent = ["spawner", "runtime"].into_iter().find(|parent| *parent != role && there(parent));
    let child = ["init", "launcher"].into_iter().find(|child| matches!(role, "spawner" | "runtime") && there(child));
    deeds.extend(parent.filter(|_| role != "workshop").or(child.filter(|_| much != Much::Some)).map(Deed::KillOther));
    if calls::can_fail(call) {
        let turn = (call as usize + nth) % ERRORS.len();
        deeds.extend(ERRORS.into_iter().enumerate().filter(|(i, _)| much == Much::Every || *i == turn).map(|(_, errno)| Deed::Fail(errno)));
    }
    deeds
}

fn harm(unharmed: &Unharmed<'_>, point: Point, row: &mut Row) {
    let Unharmed { scene, ground, .. } = unharmed;
    let result = play(*scene, ground, Some(point)).and_then(|(seen, ended)| {
        behind_walls(unharmed, &seen, &ended, point)?;
        Ok((seen.came, seen.hit))
    });
    let what = || format!("{}: {} {} number {}: {:?}", scene.name(), point.role, calls::name(point.call), point.nth, point.deed);
    match (result, point.deed) {
        (Ok((false, _)), _) => row.missed += 1,
        (Ok((_, true)), Deed::Fail(_)) => row.errors += 1,
        (Ok((_, true)), _) => row.kills += 1,
        // Nobody was there yet, or any more, to be killed.
        (Ok((true, false)), _) => {}
        (Err(e), deed) => {
            let count = if matches!(deed, Deed::Fail(_)) { &mut row.errors } else { &mut row.kills };
            *count += 1;
            println!("FAILED: {}: {e:#}", what());
            row.failed.push(format!("{}: {e:#}", what()));
        }
    }
}

/// Until its program was seen at work, and what should lie ready did: one that is stopped at once may have had no time for that.
fn unharmed(scene: &dyn Scene, ground: &Ground) -> Result<(Seen, Ended)> {
    for _ in 0..20 {
        let (seen, ended) = play(scene, ground, None)?;
        if seen.program.is_some() == scene.begins() && ended.said.contains(&scene.says()) {
            return Ok((seen, ended));
        }
    }
    bail!("its program is never seen to begin")
}

/// Once, from the state before it to the leak check.
fn play(scene: &dyn Scene, ground: &Ground, point: Option<Point>) -> Result<(Seen, Ended)> {
    let before = descriptors()?;
    let command = scene.command(ground).context("before")?;
    let (seen, ended) = watch::under(scene.casting(), point, command, |ended| {
        scene.restart(ground, ended).with_context(|| format!("after it ({}; it said {:?})", ended.status, ended.said))
    })?;
    let after = descriptors()?;
    ensure!(after == before, "{before} descriptors of ours, {after} after it");
    Ok((seen, ended))
}

fn descriptors() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// Whoever ran had every wall that it has unharmed; and nothing runs for which a wall's call failed.
fn behind_walls(unharmed: &Unharmed<'_>, seen: &Seen, ended: &Ended, point: Point) -> Result<()> {
    for (who, is, should) in [("init", &seen.init, &unharmed.seen.init), ("program", &seen.program, &unharmed.seen.program)] {
        match (is, should) {
            (Some(is), Some(should)) if is != should => bail!("the {who} had other walls:\n{}", walls::difference(is, should)),
            (Some(_), None) => bail!("an {who} that is not there otherwise"),
            _ => {}
        }
    }
    let wall = matches!(point.role, "child" | "first") && matches!(point.deed, Deed::Fail(errno) if errno != Errno::INTR);
    if !wall
        || !seen.hit
        || TOLERATED
            .iter()
            .any(|(scene, call, _)| unharmed.scene.name().starts_with(scene) && call.is_none_or(|call| call == calls::name(point.call)))
    {
        return Ok(());
    }
    ensure!(!ended.status.success(), "it went well in spite of a failed {}", calls::name(point.call));
    ensure!(seen.program.is_none(), "the program ran in spite of a failed {}", calls::name(point.call));
    Ok(())
}
