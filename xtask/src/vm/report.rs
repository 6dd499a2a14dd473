//! From what a machine says on its serial port to counts and a table.
//!
//! ```text
//! = boot RELEASE
//! = begin SUITE ITEM          -+
//! | a line of its output       | per item
//! = end SUITE ITEM STATUS S   -+
//! = done
//! ```

use std::collections::BTreeMap;

/// One line of a machine's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The runner has started, on this kernel.
    Boot(String),
    /// An item begins.
    Begin(String),
    /// Something that it printed.
    Text(String),
    /// It ended, with this exit status, after so many seconds.
    End(i32, u64),
    /// Nothing more follows.
    Done,
    /// What is not ours: noise of the port.
    Other(String),
}

impl Line {
    /// Reads one line.
    pub fn parse(line: &str) -> Self {
        let line = line.trim_end();
        if let Some(text) = line.strip_prefix('|') {
            return Self::Text(text.strip_prefix(' ').unwrap_or(text).to_owned());
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["=", "boot", release] => Self::Boot(release.to_owned()),
            ["=", "begin", suite, item] => Self::Begin(format!("{suite} {item}")),
            ["=", "end", _, _, status, seconds] => match (status.parse(), seconds.parse()) {
                (Ok(status), Ok(seconds)) => Self::End(status, seconds),
                _ => Self::Other(line.to_owned()),
            },
            ["=", "done"] => Self::Done,
            _ => Self::Other(line.to_owned()),
        }
    }
}

/// Results of one item or one suite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Held.
    pub passed: usize,
    /// Did not hold.
    pub failed: usize,
    /// Could not be tried here.
    pub skipped: usize,
}

impl Counts {
    /// Counts what an item printed: `pass:`, `fail:` and `skipped:` lines of scripts, result lines of test programs.
    ///
    /// An item that ended badly without naming a failure has failed once, and so has one that ended well without any result.
    pub fn of(output: &[String], status: i32) -> Self {
        let mut counts = Self::default();
        let (mut summed, mut ignored) = (false, 0);
        for line in output {
            if let Some(rest) = line.strip_prefix("test result: ") {
                summed = true;
                counts.passed += number_before(rest, " passed");
                counts.failed += number_before(rest, " failed");
                ignored += number_before(rest, " ignored");
            }
            counts.passed += usize::from(line.starts_with("pass: "));
            counts.failed += usize::from(line.starts_with("fail: "));
        }
        let said = output.iter().filter(|l| tells_of_skipping(l)).count();
        // Those that another test runs, in a process of its own, are no tests by themselves.
        ignored -= output.iter().filter(|l| l.ends_with("ignored, run by the test above, in a process of its own")).count().min(ignored);
        // A test program counts a test that returned early as passed; one that says why it ignores tests has counted them already.
        let early = if summed { said.saturating_sub(ignored).min(counts.passed) } else { said };
        counts.passed -= if summed { early } else { 0 };
        counts.skipped += ignored + early;
        let silent = !summed && counts == Self::default();
        if counts.failed == 0 && (status != 0 || silent) {
            counts.failed = 1;
        }
        counts
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// A line of its own, or behind the name that a test program has just begun its line with.
pub fn tells_of_skipping(line: &str) -> bool {
    line.starts_with("skipped: ") || line.starts_with("test ") && line.contains("... skipped: ")
}

/// `12 passed; 0 failed; …` and ` failed` give 0.
fn number_before(text: &str, word: &str) -> usize {
    text.split(';').find_map(|part| part.trim_end().strip_suffix(word)?.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the suite.
    pub suite: String,
    /// Its results.
    pub counts: Counts,
}

/// Sums the items (`SUITE ITEM`) of one machine by suite, in the order in which suites first appear.
pub fn rows(kernel: &str, results: &[(String, Counts)]) -> Vec<Row> {
    let mut order = Vec::new();
    let mut sums: BTreeMap<&str, Counts> = BTreeMap::new();
    for (item, counts) in results {
        let suite = item.split(' ').next().unwrap_or_default();
        if !order.contains(&suite) {
            order.push(suite);
        }
        sums.entry(suite).or_default().add(*counts);
    }
    let row = |suite: &str| Row { kernel: kernel.to_owned(), suite: suite.to_owned(), counts: sums.get(suite).copied().unwrap_or_default() };
    order.into_iter().map(row).collect()
}

/// The battery's tables, out of everything that a machine said; None if it did not run to its end.
pub fn battery(log: &str) -> Option<String> {
    let said = log.lines().filter_map(|line| if let Line::Text(text) = Line::parse(line) { Some(text) } else { None });
    let mut tables: Vec<String> = said.skip_while(|line| line != "## Rows").collect();
    tables.truncate(tables.iter().position(|line| line.starts_with("mutations: "))?);
    let end = tables.iter().rposition(|line| !line.is_empty())?;
    tables.truncate(end + 1);
    Some(tables.join("\n") + "\n")
}

/// `kernel | suite | passed | failed | skipped`.
pub fn table(rows: &[Row]) -> String {
    let width = |text: fn(&Row) -> &str, title: &str| rows.iter().map(|r| text(r).len()).chain([title.len()]).max().unwrap_or(0);
    let (k, s) = (width(|r| &r.kernel, "kernel"), width(|r| &r.suite, "suite"));
    let mut text = format!("{:k$} | {:s$} | passed | failed | skipped\n", "kernel", "suite");
    text.push_str(&format!("{}-|-{}-|--------|--------|--------\n", "-".repeat(k), "-".repeat(s)));
    for Row { kernel, suite, counts } in rows {
        text.push_str(&format!("{kernel:k$} | {suite:s$} | {:>6} | {:>6} | {:>7}\n", counts.passed, counts.failed, counts.skipped));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_port() {
        let check = |line: &str, want: Line| assert_eq!(Line::parse(line), want, "{line:?}");
        check("= boot 6.1.0-1-amd64", Line::Boot("6.1.0-1-amd64".into()));
        check("= begin runtime unit\r", Line::Begin("runtime unit".into()));
        check("= end runtime unit 101 12", Line::End(101, 12));
        check("= end runtime unit x 12", Line::Other("= end runtime unit x 12".into()));
        check("| = done", Line::Text("= done".into()));
        check("|", Line::Text(String::new()));
        check("= done", Line::Done);
        check("[    1.0] noise", Line::Other("[    1.0] noise".into()));
    }

    #[test]
    fn counts_of_scripts_and_test_programs() {
        let check = |text: &str, status: i32, (passed, failed, skipped): (usize, usize, usize)| {
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            assert_eq!(Counts::of(&lines, status), Counts { passed, failed, skipped }, "{text:?} {status}");
        };
        check("pass: a\nnoise\nfail: b: status 1\nskipped: c\n", 0, (1, 1, 1));
        check("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out", 0, (12, 0, 1));
        check("---- a stdout ----\nskipped: no user namespaces\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured", 0, (1, 0, 1));
        let driven =
            "test x::driver ... ignored, run by the test above, in a process of its own\ntest result: ok. 12 passed; 0 failed; 1 ignored; 0 measured";
        check(driven, 0, (12, 0, 0));
        check(&format!("{driven}\nskipped: no compiler"), 0, (11, 0, 1));
        check("test x    ... skipped: no compiler\nok\ntest result: ok. 2 passed; 0 failed; 0 ignored", 0, (1, 0, 1));
        check("skipped: a: no helper\nskipped: b: no helper\ntest result: ok. 9 passed; 0 failed; 2 ignored", 0, (9, 0, 2));
        check("skipped: needs root\ntest result: ok. 0 passed; 0 failed; 3 ignored; 0 measured", 0, (0, 0, 3));
        check("test result: FAILED. 3 passed; 2 failed; 0 ignored", 101, (3, 2, 0));
        check("test result: ok. 0 passed; 0 failed; 0 ignored", 0, (0, 0, 0));
        check("pass: a", 124, (1, 1, 0));
        check("Segmentation fault", 139, (0, 1, 0));
        check("said nothing that counts", 0, (0, 1, 0));
    }

    #[test]
    fn the_batterys_tables_are_found() {
        let log = "= boot 6.1\n| # The battery\n| ## Rows\n[ 1.0] noise\n|\n| | A | holds |\n|\n| mutations: 1 of 1 caught\n| ok\n= done\n";
        assert_eq!(battery(log).as_deref(), Some("## Rows\n\n| A | holds |\n"));
        assert_eq!(battery("= boot 6.1\n| ## Rows\n| | A |\n"), None, "broken off");
    }

    #[test]
    fn a_table_with_a_line_per_suite() {
        let counts = |passed, failed, skipped| Counts { passed, failed, skipped };
        let results =
            [("host facts".to_owned(), counts(7, 0, 0)), ("runtime a".to_owned(), counts(1, 0, 1)), ("runtime b".to_owned(), counts(2, 3, 0))];
        let want = "\
kernel    | suite   | passed | failed | skipped
----------|---------|--------|--------|--------
6.1-amd64 | host    |      7 |      0 |       0
6.1-amd64 | runtime |      3 |      3 |       1
";
        assert_eq!(table(&rows("6.1-amd64", &results)), want);
    }
}
