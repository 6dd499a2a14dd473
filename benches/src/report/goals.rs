//! The figures against what was to be reached, line by line, met or missed.

use std::fmt::Write;

use anyhow::Result;

use super::time;
use crate::{
    figures::Figures,
    measurements::{BURST, IDLE, LATENCY, alive, stop, surroundings, sustained},
    peers::name::{BWRAP, COLD, CRUN, FLOOR, OCI, PARKED, RECYCLED, VFORK},
};

/// Where a figure has to be.
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// One line.
struct Goal {
    figure: String,
    bound: Bound,
    unit: &'static str,
    measured: Option<f64>,
}

impl Goal {
    fn met(&self) -> Option<bool> {
        self.measured.map(|value| match self.bound {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
        })
    }
}

/// Writes the section.
pub fn write(figures: &Figures, page: &mut String) -> Result<()> {
    let goals = all(figures);
    let met = goals.iter().filter(|g| g.met() == Some(true)).count();
    writeln!(page, "## Goals\n\n{met} of {} are met.\n", goals.len())?;
    writeln!(page, "| figure | goal | measured | |\n|---|--:|--:|---|")?;
    for goal in &goals {
        let bound = match goal.bound {
            Bound::AtMost(most) => format!("≤ {}", value(most, goal.unit)),
            Bound::AtLeast(least) => format!("≥ {}", value(least, goal.unit)),
        };
        let verdict = match goal.met() {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "not measured",
        };
        writeln!(page, "| {} | {bound} | {} | {verdict} |", goal.figure, goal.measured.map_or("-".into(), |m| value(m, goal.unit)))?;
    }
    Ok(writeln!(page)?)
}

fn value(value: f64, unit: &str) -> String {
    match unit {
        "us" => time(value),
        "x" => format!("x{value:.2}"),
        unit => format!("{value:.0} {unit}"),
    }
}

fn over(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? / b?)
}

fn all(f: &Figures) -> Vec<Goal> {
    [cold(f), warm(f), tails(f), rates(f), surroundings_of(f), oci(f)].into_iter().flatten().collect()
}

fn goal(figure: String, bound: Bound, unit: &'static str, measured: Option<f64>) -> Goal {
    Goal { figure, bound, unit, measured }
}

const CONDITIONS: [&str; 2] = [BURST, IDLE];

fn cold(f: &Figures) -> Vec<Goal> {
    let exec = |who, when| f.exec(LATENCY, who, when, 50);
    let end = |who, when| f.end(LATENCY, who, when, 50);
    let floor = CONDITIONS
        .map(|when| goal(format!("cold start to exec, of the floor's, {when}"), Bound::AtMost(0.6), "x", over(exec(COLD, when), exec(FLOOR, when))));
    let crun = [(BURST, 8.0), (IDLE, 15.0)].map(|(when, least)| {
        goal(
            format!("`crun run` takes, of a cold start to the collected exit, {when}"),
            Bound::AtLeast(least),
            "x",
            over(end(CRUN, when), end(COLD, when)),
        )
    });
    floor.into_iter().chain(crun).collect()
}

fn warm(f: &Figures) -> Vec<Goal> {
    let exec = |who, when| f.exec(LATENCY, who, when, 50);
    let of = |(when, most)| {
        goal(format!("warm start to exec, of vfork + exec's, {when}"), Bound::AtMost(most), "x", over(exec(PARKED, when), exec(VFORK, when)))
    };
    [(BURST, 4.0), (IDLE, 2.2)].map(of).into()
}

fn tails(f: &Figures) -> Vec<Goal> {
    let exec = |who, when, percent| f.exec(LATENCY, who, when, percent);
    let mut goals = Vec::new();
    for (who, called) in [(COLD, "cold"), (PARKED, "warm")] {
        for when in CONDITIONS {
            let measured = over(exec(who, when, 99), exec(who, when, 50));
            goals.push(goal(format!("p99 of a {called} start, of its p50, {when}"), Bound::AtMost(3.0), "x", measured));
        }
    }
    goals
}

fn rates(f: &Figures) -> Vec<Goal> {
    let rate = |who| f.number(sustained::TABLE, who, &sustained::condition(2));
    let stop = |who, when| f.exec(stop::TABLE, who, when, 50);
    let mut goals = vec![
        goal("start, end and clean-up by 2 threads, fresh network namespaces".into(), Bound::AtLeast(550.0), "per s", rate(COLD)),
        goal("the same, recycled ones".into(), Bound::AtLeast(1000.0), "per s", rate(RECYCLED)),
    ];
    goals.extend(CONDITIONS.map(|when| goal(format!("kill to the observed exit, {when}"), Bound::AtMost(300.0), "us", stop(COLD, when))));
    goals
}

fn surroundings_of(f: &Figures) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (who, called) in [(COLD, "cold"), (PARKED, "warm")] {
        for count in [500, 1000] {
            let at = |count| f.exec(alive::TABLE, who, &alive::condition(count, false), 50);
            goals.push(goal(format!("{called} start beside {count} dynos, of that beside none"), Bound::AtMost(1.25), "x", over(at(count), at(0))));
        }
    }
    for count in [500, 1000] {
        let each = f.number(alive::MEMORY, &format!("{count} idle"), alive::HOST);
        goals.push(goal(format!("host memory per idle dyno, {count} of them"), Bound::AtMost(500.0), "KB", each));
    }
    let near = |who, around| f.exec(surroundings::TABLE, who, &surroundings::condition(around, false), 50);
    for (around, who, called) in [(surroundings::MOUNTS, COLD, "cold"), (surroundings::LARGE, COLD, "cold"), (surroundings::LARGE, PARKED, "warm")] {
        let measured = over(near(who, around), near(who, surroundings::SMALL));
        goals.push(goal(format!("{called} start with {around}, of that without"), Bound::AtMost(1.1), "x", measured));
    }
    goals
}

fn oci(f: &Figures) -> Vec<Goal> {
    let end = |who, when| f.end(LATENCY, who, when, 50);
    let of = |(peer, most): (&'static str, f64)| {
        CONDITIONS.map(|when| goal(format!("OCI `run`, of `{peer}`'s, {when}"), Bound::AtMost(most), "x", over(end(OCI, when), end(peer, when))))
    };
    [(CRUN, 0.25), (BWRAP, 1.0)].map(of).into_iter().flatten().collect()
}
