//! The table of latencies.

use std::fmt::Write;

use anyhow::Result;

use super::{ratio, time};
use crate::{
    figures::{Cell, Figures},
    measurements::{BURST, IDLE, LATENCY},
    peers::{ALL, name},
    sample::Times,
};

/// Writes the section.
pub fn write(figures: &Figures, page: &mut String) -> Result<()> {
    writeln!(page, "## Latency of a do-nothing program\n")?;
    for (condition, title, plot) in [(BURST, "In a burst", "latency-burst.svg"), (IDLE, "After 30 ms of idleness", "latency-idle.svg")] {
        writeln!(page, "{title}:\n\n![latencies](benchmarks/{plot})\n")?;
        writeln!(page, "| | runs | exec p50 | p90 | p99 | of the floor's | ended p50 | p90 | p99 | of crun's |")?;
        writeln!(page, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for entry in &ALL {
            if let Some(cell) = figures.cell(LATENCY, entry.name, condition) {
                writeln!(page, "{}", row(figures, cell))?;
            }
        }
        writeln!(page)?;
    }
    Ok(())
}

fn row(figures: &Figures, cell: &Cell) -> String {
    let three = |times: &Option<Times>| [50, 90, 99].map(|p| times.as_ref().map_or("-".to_owned(), |t| time(t.at(p)))).join(" | ");
    let p50 = |times: &Option<Times>| times.as_ref().map(|t| t.at(50));
    let runs = cell.end.as_ref().map_or(0, |t| t.runs);
    let floor = ratio(p50(&cell.exec), figures.exec(LATENCY, name::FLOOR, &cell.condition, 50));
    let crun = ratio(p50(&cell.end), figures.end(LATENCY, name::CRUN, &cell.condition, 50));
    format!("| {} | {runs} | {} | {floor} | {} | {crun} |", cell.subject, three(&cell.exec), three(&cell.end))
}
