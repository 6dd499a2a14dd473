//! The plots, as SVG: curves of all latencies, a bar per phase, cost against live dynos.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{coord::Shift, prelude::*};

use crate::{
    figures::Figures,
    measurements::{BURST, IDLE, LATENCY, alive, stop},
    peers::{ALL, name},
};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Of all pictures.
const SIZE: (u32, u32) = (900, 520);

/// Ours are told from the others by strength.
const FONT: (&str, u32) = ("sans-serif", 15);

/// Draws what there are figures for.
///
/// # Errors
/// Of drawing and writing.
pub fn draw(figures: &Figures, dir: &Path) -> Result<()> {
    for (condition, file) in [(BURST, "latency-burst.svg"), (IDLE, "latency-idle.svg")] {
        picture(&dir.join(file), |area| curves(figures, condition, area))?;
    }
    picture(&dir.join("phases.svg"), |area| bars(figures, area))?;
    picture(&dir.join("alive.svg"), |area| lines(figures, area))
}

fn picture(path: &Path, draw: impl Fn(&Area) -> Result<()>) -> Result<()> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|e| anyhow!("{e}"))?;
    draw(&area)?;
    area.present().map_err(|e| anyhow!("{}: {e}", path.display()))
}

/// Dark enough for thin lines on white; fifteen, as there are peers.
const COLORS: [RGBColor; 15] = [
    RGBColor(110, 110, 110),
    RGBColor(0, 0, 0),
    RGBColor(200, 30, 30),
    RGBColor(230, 120, 0),
    RGBColor(20, 130, 50),
    RGBColor(130, 30, 150),
    RGBColor(20, 80, 200),
    RGBColor(90, 140, 230),
    RGBColor(0, 140, 150),
    RGBColor(150, 100, 40),
    RGBColor(190, 160, 0),
    RGBColor(220, 60, 140),
    RGBColor(100, 160, 60),
    RGBColor(80, 60, 140),
    RGBColor(60, 100, 110),
];

fn color(at: usize) -> RGBColor {
    COLORS[at % COLORS.len()]
}

fn curves(figures: &Figures, condition: &str, area: &Area) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .caption(format!("Request to exec (commands: to the collected exit), {condition}"), FONT)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(52)
        .build_cartesian_2d((10f64..20_000_000f64).log_scale(), 0f64..100f64)
        .map_err(|e| anyhow!("{e}"))?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("time, logarithmic").y_desc("% of runs").x_label_formatter(&|us| super::time(*us)).draw().map_err(|e| anyhow!("{e}"))?;
    for (at, entry) in ALL.iter().enumerate() {
        let Some(times) = figures.cell(LATENCY, entry.name, condition).and_then(|c| c.exec.as_ref().or(c.end.as_ref())) else { continue };
        let points = times.percentiles.iter().enumerate().map(|(percent, us)| (us.max(10.0), percent as f64));
        let style = color(at).stroke_width(if entry.name.starts_with("dyno") { 3 } else { 1 });
        let series = chart.draw_series(LineSeries::new(points, style)).map_err(|e| anyhow!("{e}"))?;
        series.label(entry.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::LowerRight).background_style(WHITE.mix(0.8)).border_style(BLACK).draw().map_err(|e| anyhow!("{e}"))
}

fn bars(figures: &Figures, area: &Area) -> Result<()> {
    let tiers = [name::COLD, name::PARTS, name::PARKED];
    let rows: Vec<(String, Vec<f64>)> = tiers
        .iter()
        .flat_map(|tier| [BURST, IDLE].map(|when| (*tier, when)))
        .filter_map(|(tier, when)| {
            let phases =
                stop::NAMES.iter().map(|phase| figures.number(stop::PHASES, tier, &format!("{phase}, {when}"))).collect::<Option<Vec<_>>>()?;
            Some((format!("{tier}, {when}"), phases))
        })
        .collect();
    let longest = rows.iter().map(|(_, phases)| phases.iter().sum::<f64>()).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("Phases of a start and its end, p50", FONT)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(190)
        .build_cartesian_2d(0f64..longest * 1.05, (0..rows.len().max(1)).into_segmented())
        .map_err(|e| anyhow!("{e}"))?;
    let label = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(at) => rows.get(*at).map_or_else(String::new, |(name, _)| name.clone()),
        _ => String::new(),
    };
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("µs").disable_y_mesh().y_labels(rows.len().max(1)).y_label_formatter(&label).draw().map_err(|e| anyhow!("{e}"))?;
    for (at, phase) in stop::NAMES.iter().enumerate() {
        let style = color(at).filled();
        let boxes = rows.iter().enumerate().map(|(row, (_, phases))| {
            let from: f64 = phases[..at].iter().sum();
            let mut bar = Rectangle::new([(from, SegmentValue::Exact(row)), (from + phases[at], SegmentValue::Exact(row + 1))], style);
            bar.set_margin(9, 9, 0, 0);
            bar
        });
        let series = chart.draw_series(boxes).map_err(|e| anyhow!("{e}"))?;
        series.label(*phase).legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], style));
    }
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.8)).border_style(BLACK).draw().map_err(|e| anyhow!("{e}"))
}

fn lines(figures: &Figures, area: &Area) -> Result<()> {
    let tiers = [name::COLD, name::PARTS, name::PARKED];
    let points = |tier: &str, idle| -> Vec<(f64, f64)> {
        alive::ALIVE.iter().filter_map(|n| Some((*n as f64, figures.exec(alive::TABLE, tier, &alive::condition(*n, idle), 50)?))).collect()
    };
    let highest = tiers.iter().flat_map(|tier| [points(tier, false), points(tier, true)].concat()).map(|(_, us)| us).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("Request to exec, p50, beside dynos that are alive", FONT)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(70)
        .build_cartesian_2d(0f64..1000f64, 0f64..highest * 1.4)
        .map_err(|e| anyhow!("{e}"))?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("alive").x_label_formatter(&|n| format!("{n:.0}")).y_label_formatter(&|us| super::time(*us)).draw().map_err(|e| anyhow!("{e}"))?;
    for (tier, idle) in tiers.iter().flat_map(|tier| [(*tier, false), (*tier, true)]) {
        // As in the other pictures; thin after idleness.
        let at = ALL.iter().position(|entry| entry.name == tier).unwrap_or(0);
        let style = color(at).stroke_width(if idle { 1 } else { 3 });
        let points = points(tier, idle);
        if points.is_empty() {
            continue;
        }
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, style.filled()))).map_err(|e| anyhow!("{e}"))?;
        let series = chart.draw_series(LineSeries::new(points, style)).map_err(|e| anyhow!("{e}"))?;
        series.label(format!("{tier}, {}", if idle { IDLE } else { BURST })).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).border_style(BLACK).draw().map_err(|e| anyhow!("{e}"))
}
