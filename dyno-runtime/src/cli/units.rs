//! Numbers as people write them.

use std::time::Duration;

use super::Failure;

/// Decimal, or hexadecimal after `0x`.
pub(super) fn number(text: &str) -> Option<u64> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
}

/// Bytes: a number, with k, M, G or T for powers of 1024.
pub(super) fn bytes(option: &str, text: &str) -> Result<u64, Failure> {
    let (digits, shift) = match text.chars().last() {
        Some('k' | 'K') => (&text[..text.len() - 1], 10),
        Some('m' | 'M') => (&text[..text.len() - 1], 20),
        Some('g' | 'G') => (&text[..text.len() - 1], 30),
        Some('t' | 'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let parsed = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
    parsed.ok_or_else(|| Failure::new(format!("{option} {text:?} is no size: such as 64M, 512k or 1073741824")))
}

/// Milliseconds: a number with ms, s, m or h.
pub(super) fn millis(option: &str, text: &str) -> Result<u64, Failure> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let parsed = units.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Duration::try_from_secs_f64(number * f64::from(*factor) / 1000.0).ok()
    });
    let millis = parsed.and_then(|time| u64::try_from(time.as_millis()).ok());
    millis.ok_or_else(|| Failure::new(format!("{option} {text:?} is no time: such as 500ms, 1.5s, 10m or 2h")))
}

/// Thousandths of one processor, from a number of processors.
pub(super) fn processors(option: &str, text: &str) -> Result<u64, Failure> {
    let number = text.parse::<f64>().ok().filter(|n| (0.0..1e6).contains(n));
    number.map(|n| (n * 1000.0).round() as u64).ok_or_else(|| Failure::new(format!("{option} {text:?} is no number of processors: such as 0.5 or 2")))
}

/// A plain number.
pub(super) fn count<N: std::str::FromStr>(option: &str, text: &str) -> Result<N, Failure> {
    text.parse().map_err(|_| Failure::new(format!("{option} {text:?} is no number that fits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_processors() {
        let check = |text: &str, want: Option<u64>| assert_eq!(bytes("--memory", text).ok(), want, "{text}");
        check("4096", Some(4096));
        check("64M", Some(64 << 20));
        check("1g", Some(1 << 30));
        for wrong in ["", "M", "1.5M", "-1", "64MB", "99999999999T"] {
            check(wrong, None);
        }
        let check = |text: &str, want: Option<u64>| assert_eq!(millis("--wall", text).ok(), want, "{text}");
        check("500ms", Some(500));
        check("1.5s", Some(1500));
        check("2m", Some(120_000));
        check("1h", Some(3_600_000));
        for wrong in ["", "5", "s", "-1s", "NaNs", "infs"] {
            check(wrong, None);
        }
        let check = |text: &str, want: Option<u64>| assert_eq!(processors("--cpus", text).ok(), want, "{text}");
        check("0.5", Some(500));
        check("2", Some(2000));
        for wrong in ["", "x", "-1", "NaN", "1e9"] {
            check(wrong, None);
        }
        assert_eq!((number("0x10"), number("10"), number("x")), (Some(16), Some(10), None));
    }
}
