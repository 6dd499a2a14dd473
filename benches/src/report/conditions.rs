//! Tables of the smaller measurements: a line per condition, a column per who.

use std::fmt::Write;

use anyhow::Result;

use super::{ratio, time};
use crate::{
    figures::{DRAINED, Figures},
    measurements::{alive, apps, concurrent, stop, surroundings, sustained},
};

/// Names in the order in which they came.
fn once<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all = Vec::new();
    names.for_each(|name| {
        if !all.contains(&name) {
            all.push(name)
        }
    });
    all
}

/// Writes the sections.
pub fn write(figures: &Figures, page: &mut String) -> Result<()> {
    phases(figures, page)?;
    writeln!(page, "## Stop\n\nFrom the kill to the observed exit, p50 / p99; in brackets until everything is given back.\n")?;
    cells(figures, page, stop::TABLE, Shown::Both)?;
    writeln!(
        page,
        "## Several at once\n\nTo the exec (crun: to the collected exit) p50 / p99. There are {} processors.\n",
        figures.machine.processors
    )?;
    cells(figures, page, concurrent::TABLE, Shown::First)?;
    writeln!(
        page,
        "## Beside others that are alive\n\nTo the exec, p50 / p99, and p50 as a multiple of that beside none.\n\n![cost against live dynos](benchmarks/alive.svg)\n"
    )?;
    cells(figures, page, alive::TABLE, Shown::Growth)?;
    memory(figures, page)?;
    writeln!(page, "## Many mounts, a large process\n\nTo the exec, p50 / p99, and p50 as a multiple of the first.\n")?;
    cells(figures, page, surroundings::TABLE, Shown::Growth)?;
    writeln!(page, "## Sustained\n\nStarted, ended and given back, per second.\n")?;
    numbers(figures, page, sustained::TABLE)?;
    writeln!(
        page,
        "## Real apps\n\nTo the first byte of the first answer, p50 / p99; in brackets the part of it until the app's interpreter was executed.\n"
    )?;
    cells(figures, page, apps::TABLE, Shown::Answer)
}

/// Which times of a cell are told.
#[derive(Clone, Copy)]
enum Shown {
    First,
    Both,
    Growth,
    Answer,
}

fn cells(figures: &Figures, page: &mut String, table: &str, shown: Shown) -> Result<()> {
    let subjects = once(figures.table(table).map(|c| c.subject.as_str()));
    let conditions = once(figures.table(table).map(|c| c.condition.as_str()));
    if subjects.is_empty() {
        return Ok(writeln!(page, "Not measured.\n")?);
    }
    writeln!(page, "| | {} |\n|---|{}", subjects.join(" | "), "--:|".repeat(subjects.len()))?;
    for condition in &conditions {
        let row: Vec<String> = subjects.iter().map(|subject| cell(figures, table, subject, condition, &conditions, shown)).collect();
        writeln!(page, "| {condition} | {} |", row.join(" | "))?;
    }
    Ok(writeln!(page)?)
}

fn cell(figures: &Figures, table: &str, subject: &str, condition: &str, conditions: &[&str], shown: Shown) -> String {
    let Some(cell) = figures.cell(table, subject, condition) else { return "-".to_owned() };
    let (Some(first), Some(end)) = (cell.exec.as_ref().or(cell.end.as_ref()), &cell.end) else { return "-".to_owned() };
    let two = |times: &crate::sample::Times| format!("{} / {}", time(times.at(50)), time(times.at(99)));
    match shown {
        Shown::First => two(first),
        Shown::Both => format!("{} ({})", two(first), time(end.at(50))),
        Shown::Answer => format!("{} ({})", two(end), time(first.at(50))),
        Shown::Growth => {
            // The first line under the same kind of load.
            let kind = condition.rsplit(", ").next().unwrap_or_default();
            let base = conditions.iter().find(|c| c.ends_with(kind)).and_then(|c| figures.exec(table, subject, c, 50));
            format!("{} {}", two(first), ratio(Some(first.at(50)), base))
        }
    }
}

fn numbers(figures: &Figures, page: &mut String, table: &str) -> Result<()> {
    let all: Vec<_> = figures.numbers.iter().filter(|n| n.table == table).collect();
    let subjects = once(all.iter().map(|n| n.subject.as_str()));
    if subjects.is_empty() {
        return Ok(writeln!(page, "Not measured.\n")?);
    }
    writeln!(page, "| | {} |\n|---|{}", subjects.join(" | "), "--:|".repeat(subjects.len()))?;
    for condition in once(all.iter().map(|n| n.condition.as_str())) {
        let row: Vec<String> = subjects.iter().map(|s| figures.number(table, s, condition).map_or("-".into(), |v| format!("{v:.0}"))).collect();
        writeln!(page, "| {condition} | {} |", row.join(" | "))?;
    }
    Ok(writeln!(page)?)
}

/// A start that should have found something ready and did not is told.
pub fn drained(figures: &Figures, page: &mut String) -> Result<()> {
    for number in figures.numbers.iter().filter(|n| n.table == DRAINED) {
        writeln!(
            page,
            "- {}, {}: {:.0} % of the starts found less ready than their tier promises; their times are in the figures.",
            number.subject, number.condition, number.value
        )?;
    }
    Ok(())
}

fn memory(figures: &Figures, page: &mut String) -> Result<()> {
    writeln!(page, "Memory of an idle dyno: what the host has less of, by /proc/meminfo, and what the dyno's own group is charged with.\n")?;
    numbers(figures, page, alive::MEMORY)
}

fn phases(figures: &Figures, page: &mut String) -> Result<()> {
    writeln!(
        page,
        "## Where the time goes\n\nBy the library's own clock, microseconds, p50. Preparing is layers, root, group and streams; a parked sandbox has that and its walls behind it.\n\n![a bar per phase](benchmarks/phases.svg)\n"
    )?;
    numbers(figures, page, stop::PHASES)
}
