//! The battery's own test: one wall or one rule is taken away from every sandbox, and some row must turn red.

use anyhow::Result;
use dyno_runtime::broken::Part;
use serde_json::{Value, json};

use super::{
    filter,
    row::{Change, Row},
    rows::{procfs_read_only, rows},
    run::{self, Mutant},
    scene::Scene,
    segment,
};

/// Every step that can be left out.
const PARTS: [Part; 18] = [
    Part::NoSuid,
    Part::NoDev,
    Part::ReadOnlyRoot,
    Part::NoSymlinks,
    Part::PidNamespace,
    Part::IpcNamespace,
    Part::CgroupNamespace,
    Part::UserNamespace,
    Part::Keyring,
    Part::CoreLimit,
    Part::Ids,
    Part::Capabilities,
    Part::NoNewPrivs,
    Part::Descriptors,
    Part::Landlock,
    Part::Filter,
    Part::SelfCheck,
    Part::Undumpable,
];

/// What became of one mutation.
#[derive(Debug)]
pub enum Fate {
    /// Red: that row saw it.
    Caught(String),
    /// Green all through.
    Survived,
    /// Not tried here.
    Left(&'static str),
}

/// A mutation by name.
type Named = (String, Mutant);

fn mutants(all: &[Row], walls_only: bool) -> Result<Vec<Named>> {
    let mut named: Vec<Named> = PARTS.iter().map(|part| (format!("without {part:?}"), Mutant { parts: vec![*part], ..Mutant::default() })).collect();
    let masked = all.iter().filter(|row| row.name.starts_with("masked_")).filter_map(|row| row.attack.split(' ').nth(1)).map(str::to_owned);
    let read_only = procfs_read_only().map(|name| format!("/proc/{name}"));
    // What this kernel does not have needs no cover, nor does a directory with nothing in it.
    let has = |path: &String| std::fs::read_dir(path).map_or_else(|_| std::path::Path::new(path).exists(), |mut entries| entries.next().is_some());
    let covered = masked.chain(read_only).filter(has);
    named.extend(covered.map(|path| (format!("{path} as it is"), Mutant { uncovered: vec![path], ..Mutant::default() })));
    let rules = if walls_only { Vec::new() } else { filter::mutants()? };
    named.extend(rules.into_iter().map(|(name, data)| (name, Mutant { profile: Some(data), ..Mutant::default() })));
    Ok(named)
}

/// Tries them all, or only those that are no rules of the filter.
pub fn run(scene: &Scene, walls_only: bool) -> Result<Vec<(String, Fate)>> {
    // A row that is not as it must be with all walls up (vacuous ones are) would be red whatever is taken away.
    let mut all = Vec::new();
    for row in rows() {
        if row.landlock <= segment::landlock_abi() && !run::red(scene, &row, &Mutant::default())? {
            all.push(row);
        }
    }
    mutants(&rows(), walls_only)?
        .into_iter()
        .map(|(name, mutant)| {
            let fate = if run::may_run(&mutant) { fate(scene, &all, &mutant)? } else { Fate::Left("in a throw-away machine only") };
            println!("mutant {name}: {fate:?}");
            Ok((name, fate))
        })
        .collect()
}

fn fate(scene: &Scene, all: &[Row], mutant: &Mutant) -> Result<Fate> {
    if mutant.profile.is_some()
        && let Some(difference) = filter::difference(scene, mutant)?
    {
        return Ok(Fate::Caught(format!("SC-1_every_call ({difference})")));
    }
    let concerned = |row: &&Row| row.without.iter().any(|(changes, _)| changes.iter().any(|change| concerns(change, mutant)));
    let (first, rest): (Vec<&Row>, Vec<&Row>) = all.iter().partition(concerned);
    for row in first.into_iter().chain(rest) {
        match run::red(scene, row, mutant) {
            Ok(false) => {}
            Ok(true) => return Ok(Fate::Caught(row.test())),
            // What cannot run at all under a mutation is as red as a wrong answer.
            Err(e) => {
                scene.stage.sweep()?;
                return Ok(Fate::Caught(format!("{} (did not run: {e:#})", row.test())));
            }
        }
    }
    Ok(Fate::Survived)
}

fn concerns(change: &Change, mutant: &Mutant) -> bool {
    match change {
        Change::Without(part) => mutant.parts.contains(part),
        Change::Uncovered(path) => mutant.uncovered.iter().any(|p| p == path),
        Change::Allow(_) => mutant.profile.is_some(),
        _ => false,
    }
}

/// Caught, tried, and percent.
pub fn score(fates: &[(String, Fate)]) -> (usize, usize, f64) {
    let caught = fates.iter().filter(|(_, fate)| matches!(fate, Fate::Caught(_))).count();
    let tried = fates.iter().filter(|(_, fate)| !matches!(fate, Fate::Left(_))).count();
    (caught, tried, 100.0 * caught as f64 / tried.max(1) as f64)
}

/// For the report.
pub fn json(fates: &[(String, Fate)]) -> Value {
    let one = |(name, fate): &(String, Fate)| match fate {
        Fate::Caught(row) => json!({"mutant": name, "caught_by": row}),
        Fate::Survived => json!({"mutant": name, "survived": true}),
        Fate::Left(why) => json!({"mutant": name, "not_tried": why}),
    };
    let (caught, tried, percent) = score(fates);
    json!({"caught": caught, "tried": tried, "percent": percent, "mutants": fates.iter().map(one).collect::<Vec<_>>()})
}
