//! What a run found, as JSON and as the table of `docs/battery.md`.

use std::{fmt::Write, fs};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    mutate::{self, Fate},
    row::{Control, Row},
    run::{Outcome, Verdict, in_machine},
};

/// A row and its outcome; the outcome of one that failed is its error.
pub type Judged = (Row, Result<Outcome, String>);

/// On what it ran.
pub fn host() -> String {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let kind = if in_machine() { "throw-away machine" } else { "host" };
    let config = support_config().map_or_else(|| "no /proc/config.gz".to_owned(), |hash| format!("configuration {hash}"));
    format!("Linux {release}, {config}, {kind}")
}

/// First digits of the hash of the kernel's configuration.
fn support_config() -> Option<String> {
    let hash = crate::support::sha256("/proc/config.gz".as_ref()).ok()?;
    Some(hash[..12].to_owned())
}

fn verdict(row: &Row, outcome: &Result<Outcome, String>) -> String {
    match outcome {
        Ok(Outcome { verdict: Verdict::Holds, .. }) if row.without.is_empty() => "holds; nothing to try without its wall".into(),
        Ok(Outcome { verdict: Verdict::Holds, .. }) => "holds".into(),
        Ok(Outcome { verdict: Verdict::Vacuous(why), .. }) => format!("vacuous ({why})"),
        Ok(Outcome { verdict: Verdict::FullOnly(why), .. }) => format!("holds; not tried without its wall ({why})"),
        Err(_) => "FAILS".into(),
    }
}

fn control(row: &Row, outcome: &Result<Outcome, String>) -> String {
    match (row.control, outcome) {
        (Control::None(why), _) => format!("none: {why}"),
        (_, Ok(Outcome { control: Some(answer), .. })) => answer.to_string(),
        (_, Ok(_)) => "not run here".into(),
        (_, Err(_)) => "-".into(),
    }
}

/// All of it.
pub fn json(judged: &[Judged], fates: Option<&[(String, Fate)]>) -> Value {
    let row = |(row, outcome): &Judged| {
        let without = outcome
            .as_ref()
            .map(|o| o.without.iter().map(|(text, answer)| json!({"changed": text, "answer": answer.to_string()})).collect::<Vec<_>>());
        json!({
            "id": row.id, "test": row.test(), "attack": row.what, "probe": row.attack, "wall": row.wall, "verdict": verdict(row, outcome),
            "control": control(row, outcome), "without": without.unwrap_or_default(),
            "full": outcome.as_ref().map_or_else(|e| e.clone(), |o| o.full.to_string()), "wanted": row.full.to_string(),
            "parked": outcome.as_ref().ok().and_then(|o| o.parked.as_ref()).map(ToString::to_string),
            "given": row.given.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    };
    json!({"host": host(), "rows": judged.iter().map(row).collect::<Vec<_>>(), "mutation": fates.map(mutate::json)})
}

/// The table, for readers.
pub fn page(judged: &[Judged], fates: Option<&[(String, Fate)]>) -> Result<String> {
    let mut text = String::from(INTRODUCTION);
    writeln!(text, "\n## Rows\n\nWritten by `cargo xtask battery --write` on {}.\n", host())?;
    writeln!(text, "| row | attack | wall | bare | without the wall | full | parked | verdict |\n|---|---|---|---|---|---|---|---|")?;
    for (row, outcome) in judged {
        let given = row.given.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let attack = if given.is_empty() { row.what.to_owned() } else { format!("{} ({given})", row.what) };
        let steps = outcome
            .as_ref()
            .map(|o| o.without.iter().map(|(text, answer)| format!("{text}: {answer}")).collect::<Vec<_>>().join("; "))
            .unwrap_or_default();
        let full = outcome.as_ref().map_or("-".into(), |o| o.full.to_string());
        let parked = outcome.as_ref().ok().and_then(|o| o.parked.as_ref()).map(ToString::to_string).unwrap_or_default();
        writeln!(
            text,
            "| {} `{}` | {attack} | {} | {} | {steps} | {full} | {parked} | {} |",
            row.id,
            row.name,
            row.wall,
            control(row, outcome),
            verdict(row, outcome)
        )?;
    }
    if let Some(fates) = fates {
        let (caught, tried, percent) = mutate::score(fates);
        writeln!(text, "\n## Mutations\n\n{caught} of {tried} were caught ({percent:.1} %).\n\n| taken away | seen by |\n|---|---|")?;
        for (name, fate) in fates {
            let fate = match fate {
                Fate::Caught(row) => format!("`{}`", row.split(' ').next().unwrap_or_default()),
                Fate::Survived => "**nothing**".into(),
                Fate::Left(why) => format!("not tried: {why}"),
            };
            writeln!(text, "| {name} | {fate} |")?;
        }
    }
    Ok(text)
}

/// Writes what was asked for by the two variables.
pub fn write(judged: &[Judged], fates: Option<&[(String, Fate)]>) -> Result<()> {
    if let Some(path) = std::env::var_os("DYNO_BATTERY_JSON") {
        fs::write(&path, serde_json::to_string_pretty(&json(judged, fates))?).with_context(|| format!("write {path:?}"))?;
    }
    if let Some(path) = std::env::var_os("DYNO_BATTERY_PAGE") {
        fs::write(&path, page(judged, fates)?).with_context(|| format!("write {path:?}"))?;
    }
    Ok(())
}

const INTRODUCTION: &str = "\
# The battery of attacks

What a tenant might try, and what becomes of it. One static program, `dyno-runtime/tests/battery/probe.rs`, does the attacking: bare, in a
sandbox with the wall in question taken away, and in the full sandbox. A row holds when the attack succeeds bare, so that it is one; when it
succeeds without the wall, so that this wall is what holds it off, or meets the errno of the next wall and succeeds without both; and when the
full sandbox answers as it must.

- **vacuous**: bare the kernel says that it has no such thing; the full sandbox is run all the same, and must not let it through.
- **parked**: the full sandbox once more, raised before anybody asked for it; empty where none can be (capabilities, walls taken away).
- **not run here**, **not tried**: the run belongs into a throw-away machine (`cargo xtask vm-test --suite battery`).
- **none**: there is no such run, for the reason given. Where the column without the wall is empty, there is no way to leave that wall
  alone out, and the row says only that bare the attack works and inside it does not.

Attacks on a resource ask for a stated amount, somewhat more than the plan gives; the wall taken away is a plan that gives more. How walls
are taken away: what a `Sandbox` can be asked for is asked for (another profile, a capability, the host's network); what it cannot be asked
for is left out by `dyno-runtime/src/broken.rs`, which is compiled for this test alone and refused by optimised builds.

`cargo xtask battery` runs it, `--mutate` takes every wall and every rule of the filter away in turn and says which row saw it. `cargo xtask
test` has the rows without the mutations.

In throw-away machines with pure cgroup v2: [Linux 6.1](battery-6.1.md), [Linux 7.2](battery-7.2.md).
";
