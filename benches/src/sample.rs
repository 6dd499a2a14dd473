//! Measured times and what is kept of them: a hundred and one quantiles, enough for every table and every curve.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One run, microseconds from the request.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sample {
    /// To the exec of the payload; None where nobody outside can see it.
    pub exec: Option<f64>,
    /// To the collected exit.
    pub end: f64,
}

/// Microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The distribution of some times, in microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Times {
    /// How many there were.
    pub runs: usize,
    /// What a share of 0, 1, … 100 per cent of them did not exceed.
    pub percentiles: Vec<f64>,
}

impl Times {
    /// None of no times.
    pub fn of(mut all: Vec<f64>) -> Option<Self> {
        all.sort_by(f64::total_cmp);
        let last = all.len().checked_sub(1)?;
        let at = |percent: usize| all[(last * percent).div_ceil(100)];
        Some(Self { runs: all.len(), percentiles: (0..=100).map(|p| (at(p) * 10.0).round() / 10.0).collect() })
    }

    /// The time that `percent` of the runs did not exceed.
    pub fn at(&self, percent: usize) -> f64 {
        self.percentiles.get(percent).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_known_times() {
        let times = Times::of((0..=200).map(f64::from).rev().collect()).unwrap();
        assert_eq!((times.at(0), times.at(50), times.at(99), times.at(100)), (0.0, 100.0, 198.0, 200.0));
        // The worst of a few is their 99th: what was seen is not averaged away.
        assert_eq!(Times::of(vec![3.0, 1.0, 2.0]).unwrap().at(99), 3.0);
        assert!(Times::of(Vec::new()).is_none());
    }
}
