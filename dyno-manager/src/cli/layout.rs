//! How values are laid out as text: headers, aligned pairs and tables, sizes, times. Pure functions of
//! what they are given, the clock and the time zone included.

use jiff::{Timestamp, tz::TimeZone};

/// `=== title`.
pub(super) fn header(title: &str) -> String {
    format!("=== {}\n\n", plain(title))
}

/// `Key:   value` lines with the values in one column; empty values are left out.
pub(super) fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let rows: Vec<_> = rows.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = rows.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0) + 1;
    rows.iter().map(|(key, value)| format!("{:width$} {value}\n", format!("{key}:"))).collect()
}

/// Rows with their columns aligned, two spaces apart; control characters are shown, not obeyed.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| plain(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// The text with control characters escaped: a command or a description cannot move the cursor of whoever lists it.
pub(super) fn plain(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// `13.2M`; below 1000K in whole K, as slug sizes are shown; below 1K in bytes.
pub(super) fn size(bytes: u64) -> String {
    const K: f64 = 1024.0;
    #[allow(clippy::cast_precision_loss)]
    let value = bytes as f64;
    if bytes < 1024 {
        format!("{bytes}B")
    } else if value / K < 999.5 {
        format!("{:.0}K", value / K)
    } else if value / K / K < 999.95 {
        format!("{:.1}M", value / K / K)
    } else {
        format!("{:.1}G", value / K / K / K)
    }
}

/// `2026/08/04 13:53:15 -0700 (~ 1h ago)`; without the suffix after 25 hours.
pub(super) fn ago(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let date = at.to_zoned(zone.clone()).strftime("%Y/%m/%d %H:%M:%S %z");
    // A clock that is a little behind the platform's shows 0s, not a negative age.
    let seconds = now.as_second().saturating_sub(at.as_second()).max(0);
    match seconds {
        0..60 => format!("{date} (~ {seconds}s ago)"),
        60..3600 => format!("{date} (~ {}m ago)", seconds / 60),
        3600..90_000 => format!("{date} (~ {}h ago)", seconds / 3600),
        _ => date.to_string(),
    }
}

/// How long until `at`: `in 4s`, `in 2m 15s`, `now`.
pub(super) fn until(at: Timestamp, now: Timestamp) -> String {
    // Rounded up: "in 0s" would be a promise that has not been kept yet.
    let seconds = u64::try_from(at.as_millisecond().saturating_sub(now.as_millisecond())).unwrap_or(0).div_ceil(1000);
    match (seconds / 60, seconds % 60) {
        (0, 0) => "now".to_owned(),
        (0, s) => format!("in {s}s"),
        (m, s) => format!("in {m}m {s}s"),
    }
}

/// Microseconds as `0.4s`, `2m 3s`.
pub(super) fn duration(microseconds: u64) -> String {
    let seconds = microseconds / 1_000_000;
    if seconds < 60 {
        return format!("{seconds}.{}s", microseconds / 100_000 % 10);
    }
    format!("{}m {}s", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use jiff::tz::Offset;

    use super::*;

    #[test]
    fn ages() {
        let at: Timestamp = "2026-08-04T20:53:15Z".parse().unwrap();
        let zone = TimeZone::fixed(Offset::constant(-7));
        let check = |seconds: i64, want: &str| {
            let now = Timestamp::from_second(at.as_second() + seconds).unwrap();
            assert_eq!(ago(at, now, &zone), format!("2026/08/04 13:53:15 -0700{want}"), "{seconds} s");
        };
        check(-5, " (~ 0s ago)");
        check(0, " (~ 0s ago)");
        check(59, " (~ 59s ago)");
        check(60, " (~ 1m ago)");
        check(3599, " (~ 59m ago)");
        check(3600, " (~ 1h ago)");
        check(24 * 3600, " (~ 24h ago)");
        check(25 * 3600 - 1, " (~ 24h ago)");
        check(25 * 3600, "");
    }

    #[test]
    fn waits() {
        let now: Timestamp = "2026-08-04T20:53:15Z".parse().unwrap();
        let check = |milliseconds: i64, want: &str| {
            let at = Timestamp::from_millisecond(now.as_millisecond() + milliseconds).unwrap();
            assert_eq!(until(at, now), want, "{milliseconds} ms");
        };
        check(-1, "now");
        check(0, "now");
        check(1, "in 1s");
        check(4000, "in 4s");
        check(60_000, "in 1m 0s");
        check(134_001, "in 2m 15s");
    }

    #[test]
    fn sizes() {
        let cases = [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1K"),
            (13_312, "13K"),
            (1_000 * 1024, "1.0M"),
            (13_841_203, "13.2M"),
            (1_023 * 1024 * 1024, "1.0G"),
            (1_288_490_189, "1.2G"),
        ];
        for (bytes, want) in cases {
            assert_eq!(size(bytes), want, "{bytes} bytes");
        }
    }

    #[test]
    fn durations() {
        for (microseconds, want) in [(0, "0.0s"), (1_450_000, "1.4s"), (59_999_999, "59.9s"), (123_000_000, "2m 3s")] {
            assert_eq!(duration(microseconds), want);
        }
    }

    #[test]
    fn columns_are_aligned_and_harmless() {
        let row = |a: &str, b: &str, c: &str| [a.to_owned(), b.to_owned(), c.to_owned()];
        let rows = [row("v10", "Ümlaut", "x"), row("v9", "\x1b[2J\n", "")];
        assert_eq!(table(&rows), "v10  Ümlaut       x\nv9   \\u{1b}[2J\\n\n");
        assert_eq!(pairs([("A", "1".into()), ("LONG", "2".into()), ("B", String::new())]), "A:    1\nLONG: 2\n");
    }
}
