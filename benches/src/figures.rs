//! What was measured, as plain data: the report is made from this alone, so that it can be made again from the JSON.

use serde::{Deserialize, Serialize};

use crate::{
    agent::Run,
    machine::Machine,
    sample::{Sample, Times},
};

/// Numbers: starts that found nothing ready although they should have, per cent.
pub const DRAINED: &str = "drained";

/// One whole run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Where.
    pub machine: Machine,
    /// Few runs, to see that everything works; the figures say little.
    pub quick: bool,
    /// How long it took.
    pub seconds: u64,
    /// Why all of it is to be read with care.
    #[serde(default)]
    pub disturbed: Option<String>,
    /// Distributions.
    pub cells: Vec<Cell>,
    /// Single numbers.
    pub numbers: Vec<Number>,
    /// What the probe said, by peer.
    pub probes: Vec<(String, String)>,
    /// What the probe says without any wall.
    pub outside: String,
    /// Who or what could not be measured, and why.
    pub failed: Vec<(String, String)>,
}

/// Times under one condition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// Which measurement.
    pub table: String,
    /// Who.
    pub subject: String,
    /// Under which condition.
    pub condition: String,
    /// Request to exec.
    pub exec: Option<Times>,
    /// Request to collected exit.
    pub end: Option<Times>,
}

/// One number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Number {
    /// Which measurement.
    pub table: String,
    /// Who.
    pub subject: String,
    /// Of what, with its unit.
    pub condition: String,
    /// The number.
    pub value: f64,
}

impl Figures {
    /// Keeps the times of some runs.
    pub fn add(&mut self, table: &str, subject: &str, condition: &str, samples: &[Sample]) {
        let exec: Vec<f64> = samples.iter().filter_map(|s| s.exec).collect();
        let end = samples.iter().map(|s| s.end).collect();
        let [table, subject, condition] = [table, subject, condition].map(str::to_owned);
        self.cells.push(Cell { table, subject, condition, exec: Times::of(exec), end: Times::of(end) });
    }

    /// [`Self::add`] for an agent's runs; how many of them found nothing ready is told.
    pub fn add_runs(&mut self, table: &str, subject: &str, condition: &str, runs: &[Run]) {
        let late = runs.iter().filter(|run| !run.ready).count();
        if late > 0 {
            self.note(DRAINED, &format!("{table}: {subject}"), condition, late as f64 * 100.0 / runs.len() as f64);
        }
        self.add(table, subject, condition, &runs.iter().map(|run| run.sample).collect::<Vec<_>>());
    }

    /// Keeps a number.
    pub fn note(&mut self, table: &str, subject: &str, condition: &str, value: f64) {
        let [table, subject, condition] = [table, subject, condition].map(str::to_owned);
        self.numbers.push(Number { table, subject, condition, value });
    }

    /// The times of one condition.
    pub fn cell(&self, table: &str, subject: &str, condition: &str) -> Option<&Cell> {
        self.cells.iter().find(|c| c.table == table && c.subject == subject && c.condition == condition)
    }

    /// Request to exec, at a percentile.
    pub fn exec(&self, table: &str, subject: &str, condition: &str, percent: usize) -> Option<f64> {
        Some(self.cell(table, subject, condition)?.exec.as_ref()?.at(percent))
    }

    /// Request to collected exit, at a percentile.
    pub fn end(&self, table: &str, subject: &str, condition: &str, percent: usize) -> Option<f64> {
        Some(self.cell(table, subject, condition)?.end.as_ref()?.at(percent))
    }

    /// One number.
    pub fn number(&self, table: &str, subject: &str, condition: &str) -> Option<f64> {
        Some(self.numbers.iter().find(|n| n.table == table && n.subject == subject && n.condition == condition)?.value)
    }

    /// Cells of a measurement.
    pub fn table<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a Cell> {
        self.cells.iter().filter(move |c| c.table == table)
    }
}
