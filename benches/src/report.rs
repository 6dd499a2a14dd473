//! The report: figures to Markdown and plots, without measuring anything.

mod conditions;
mod goals;
mod latency;
pub mod plots;
mod walls;

use std::fmt::Write;

use anyhow::Result;

use crate::figures::Figures;

/// The page.
///
/// # Errors
/// None that happens: of formatting.
pub fn markdown(figures: &Figures) -> Result<String> {
    let mut page = String::new();
    head(figures, &mut page)?;
    goals::write(figures, &mut page)?;
    latency::write(figures, &mut page)?;
    walls::write(figures, &mut page)?;
    conditions::write(figures, &mut page)?;
    instructions(&mut page)?;
    failed(figures, &mut page)?;
    Ok(page)
}

fn head(figures: &Figures, page: &mut String) -> Result<()> {
    let m = &figures.machine;
    writeln!(page, "# Benchmarks\n")?;
    writeln!(
        page,
        "Written by `cargo xtask bench --out docs`; figures as JSON: [benchmarks/figures.json](benchmarks/figures.json). Nothing here is edited by hand.\n"
    )?;
    if figures.quick {
        writeln!(page, "**A quick look (`--quick`): too few runs for these figures to mean anything.**\n")?;
    }
    if let Some(why) = &figures.disturbed {
        writeln!(page, "**Disturbed: {why}.**\n")?;
    }
    writeln!(page, "| | |\n|---|---|")?;
    writeln!(page, "| day, duration | {}, {} min {} s |", m.date, figures.seconds / 60, figures.seconds % 60)?;
    writeln!(
        page,
        "| host | {} x {}, {} GiB; load {:.2} before; {:.1} % of the processors' time taken by other guests |",
        m.processors, m.processor, m.memory, m.load, m.stolen
    )?;
    writeln!(page, "| kernel | Linux {}; controllers on cgroup {}; {} mounts |", m.kernel, m.cgroups, m.mounts)?;
    let versions: Vec<String> = m.versions.iter().map(|(_, version)| version.clone()).collect();
    writeln!(page, "| versions | {} |\n", versions.join("; "))?;
    Ok(writeln!(
        page,
        "All peers run the same static program, which only ends, and take turns in one run, each after a tenth of a second of quiet. The floor is a C program that raises the walls one after the other, as \
         anybody would, without configuration, records or recovery (`benches/programs/floor.c`). Commands are timed from before they are started until they are \
         collected; the library in a process of its own, from the call. Lone numbers say more of a host than of a program: read the ratios.\n"
    )?)
}

/// Where time is too noisy to show a change.
fn instructions(page: &mut String) -> Result<()> {
    let written: serde_json::Value = serde_json::from_str(include_str!("../instructions.json"))?;
    writeln!(
        page,
        "## Instructions\n\nOf an unoptimised build by {}, counted by callgrind; a test fails when they change by more than 5 %.\n",
        written["compiler"].as_str().unwrap_or("?")
    )?;
    writeln!(
        page,
        "| | instructions |\n|---|--:|\n| a plan | {} |\n| a filter, compiled | {} |\n",
        written["each"]["plan"], written["each"]["filter"]
    )?;
    Ok(())
}

fn failed(figures: &Figures, page: &mut String) -> Result<()> {
    writeln!(page, "## Not measured\n")?;
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (who, why) in &figures.failed {
        match reasons.iter_mut().find(|(known, _)| known == why) {
            Some((_, all)) => all.push(who),
            None => reasons.push((why, vec![who])),
        }
    }
    for (why, who) in reasons {
        // The first lines say it; what follows is a stack.
        let why: Vec<&str> = why.lines().map(str::trim).filter(|l| !l.is_empty()).take(4).collect();
        let why: String = why.join(" / ").chars().take(400).collect();
        writeln!(page, "- **{}**: {why}", who.join(", "))?;
    }
    if figures.failed.is_empty() {
        writeln!(page, "Nothing failed.")?;
    }
    conditions::drained(figures, page)
}

/// Microseconds for people.
pub fn time(us: f64) -> String {
    match us {
        us if us.is_nan() => "-".to_owned(),
        us if us < 999.5 => format!("{us:.0} µs"),
        us if us < 9_995.0 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.1} ms", us / 1e3),
    }
}

/// A ratio for people.
pub fn ratio(a: Option<f64>, b: Option<f64>) -> String {
    match (a, b) {
        (Some(a), Some(b)) if b > 0.0 && a / b < 9.95 => format!("x{:.2}", a / b),
        (Some(a), Some(b)) if b > 0.0 => format!("x{:.0}", a / b),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        measurements::{BURST, LATENCY},
        peers::name::{COLD, FLOOR},
        sample::Sample,
    };

    fn figures() -> Figures {
        let mut figures = Figures::default();
        for (who, us) in [(FLOOR, 1000.0), (COLD, 500.0)] {
            figures.add(LATENCY, who, BURST, &[Sample { exec: Some(us), end: us + 100.0 }]);
        }
        figures.disturbed = Some("somebody compiled".to_owned());
        figures.failed.extend([("a peer", "broken\n  twice\n"), ("another", "broken\n  twice\n")].map(|(who, why)| (who.to_owned(), why.to_owned())));
        figures
    }

    #[test]
    fn a_page_tells_what_was_met_and_what_was_not_measured() {
        let page = markdown(&figures()).unwrap();
        assert!(page.contains("| cold start to exec, of the floor's, burst | ≤ x0.60 | x0.50 | met |"), "{page}");
        assert!(page.contains("| - | not measured |"));
        assert!(page.contains("**Disturbed: somebody compiled.**"));
        assert!(page.contains("| dyno, cold | 1 | 500 µs | 500 µs | 500 µs | x0.50 | 600 µs"));
        assert!(page.contains("- **a peer, another**: broken / twice\n"));
    }

    #[test]
    fn plots_of_few_figures_and_of_none() {
        let dir = tempfile::tempdir().unwrap();
        for figures in [Figures::default(), figures()] {
            plots::draw(&figures, dir.path()).unwrap();
        }
        let burst = std::fs::read_to_string(dir.path().join("latency-burst.svg")).unwrap();
        assert!(burst.contains("<svg") && burst.contains(COLD) && burst.contains(FLOOR));
    }
}
