//! The report: figures to Markdown and plots, without measuring anything.

mod latency;
pub mod plots;

use std::fmt::Write;

use anyhow::Result;

use crate::figures::Figures;

/// The page.
///
/// # Errors
/// None that happens: of formatting.
pub fn markdown(figures: &Figures) -> Result<String> {
    let mut page = String::new();
    writeln!(page, "# Benchmarks\n")?;
    latency::write(figures, &mut page)?;
    failed(figures, &mut page)?;
    Ok(page)
}

fn failed(figures: &Figures, page: &mut String) -> Result<()> {
    writeln!(page, "## Not measured\n")?;
    for (who, why) in &figures.failed {
        // The first lines say it; what follows is a stack.
        let why: Vec<&str> = why.lines().map(str::trim).filter(|l| !l.is_empty()).take(3).collect();
        writeln!(page, "- **{who}**: {}", why.join(" / "))?;
    }
    if figures.failed.is_empty() {
        writeln!(page, "Nothing failed.")?;
    }
    Ok(())
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
