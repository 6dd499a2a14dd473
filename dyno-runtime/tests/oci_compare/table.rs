//! Which differences are meant, and the sentence that decides each.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::Value;

use super::{meant::TABLE, observe::Observation};

/// One configuration by two runtimes.
#[derive(Debug)]
pub struct Compared<'a> {
    pub number: usize,
    pub config: &'a Value,
    /// `crun` or `runc`.
    pub other: &'static str,
    pub ours: &'a Observation,
    pub theirs: &'a Observation,
    /// The other oracle's, if there is one.
    pub third: Option<&'a Observation>,
}

/// One fact that differs; absent is the empty string.
#[derive(Debug)]
pub struct Difference<'a> {
    pub key: &'a str,
    pub config: &'a Value,
    pub ours: &'a str,
    pub theirs: &'a str,
    /// What the other oracle has.
    pub third: Option<&'a str>,
    /// What was said where something was refused.
    pub messages: &'a [String],
}

/// A difference that is meant.
pub struct Meant {
    /// Whom it is a difference to; empty: both.
    pub other: &'static str,
    /// Beginning of the fact's name.
    pub key: &'static str,
    pub when: fn(&Difference) -> bool,
    /// What differs, for the page.
    pub what: &'static str,
    /// What decides.
    pub because: &'static str,
}

#[derive(Debug, Default)]
pub struct Report {
    compared: usize,
    refused: usize,
    meant: BTreeMap<usize, usize>,
    /// By a key without its particulars: examples.
    defects: BTreeMap<String, Vec<String>>,
}

impl Report {
    pub fn add(&mut self, pair: &Compared) {
        self.compared += 1;
        let keys: std::collections::BTreeSet<&String> = pair.ours.facts.keys().chain(pair.theirs.facts.keys()).collect();
        let of = |seen: &'_ Observation, key: &str| seen.facts.get(key).cloned().unwrap_or_default();
        // What one of them refuses leaves nothing else to compare.
        let verb = ["verb create", "verb start"].iter().find(|verb| of(pair.ours, verb) != of(pair.theirs, verb));
        let refused = of(pair.ours, "verb create") != "done" || of(pair.ours, "verb start") != "done";
        self.refused += usize::from(refused);
        // How far somebody came before an error is of no account, if what it made on the host is gone.
        // Except for hooks that fail: what is run after them is the specification's.
        let of_hook = [pair.ours, pair.theirs].iter().all(|seen| seen.messages.iter().any(|m| m.contains("hook")));
        let counts = |key: &&str| !refused || !key.starts_with("image ") && (of_hook || !key.starts_with("hook"));
        let keys: Vec<&str> = verb.map_or_else(|| keys.iter().map(|k| k.as_str()).filter(counts).collect(), |verb| vec![*verb]);
        for key in keys {
            let (ours, theirs) = (of(pair.ours, key), of(pair.theirs, key));
            if ours == theirs {
                continue;
            }
            let messages = [&pair.ours.messages[..], &pair.theirs.messages[..]].concat();
            let third = pair.third.map(|third| third.facts.get(key).map_or("", String::as_str));
            let difference = Difference { third, key, config: pair.config, ours: &ours, theirs: &theirs, messages: &messages };
            let meant = TABLE.iter().position(|m| (m.other.is_empty() || m.other == pair.other) && key.starts_with(m.key) && (m.when)(&difference));
            match meant {
                Some(row) => *self.meant.entry(row).or_default() += 1,
                None => {
                    let shown = format!(
                        "{} of {}: ours {ours:?}, {} {theirs:?} {}",
                        key,
                        pair.number,
                        pair.other,
                        if key.starts_with("verb") { messages.join(" | ") } else { String::new() }
                    );
                    self.defects
                        .entry(format!("{} {}", pair.other, key.split([' ', ':']).take(2).collect::<Vec<_>>().join(" ")))
                        .or_default()
                        .push(shown);
                }
            }
        }
    }

    pub fn summary(&self, seed: u64, count: usize) -> String {
        let meant: usize = self.meant.values().sum();
        format!(
            "seed {seed}: {count} configurations, {} comparisons, {} refused by ours, {meant} differences of {} meant kinds",
            self.compared,
            self.refused,
            self.meant.len()
        )
    }

    pub fn verdict(&self) -> Result<()> {
        if self.defects.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for (kind, examples) in &self.defects {
            text += &format!("\n{kind} ({})\n", examples.len());
            examples.iter().take(3).for_each(|example| text += &format!("    {example}\n"));
        }
        bail!("differences that nothing decides:{text}")
    }
}

/// The page that tells of the differences.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/oci-differences.md");

fn page() -> String {
    let mut text = String::from(
        "# Differences to runc and crun\n\nMade from the table of the differential test (`dyno-runtime/tests/oci_compare/meant.rs`), which runs the same generated configurations with Debian 12's\nrunc 1.1.5, its crun 1.8.1 and this runtime and compares what each makes of them. Whatever differs and is not in this table fails\nthe test. To write it anew: `DYNO_TEST_WRITE=1 cargo test -p dyno-runtime --test oci_compare page`.\n\n| what | differs from | what decides |\n|---|---|---|\n",
    );
    for row in TABLE {
        let who = if row.other.is_empty() { "both" } else { row.other };
        text += &format!("| {} | {who} | {} |\n", row.what, row.because);
    }
    text
}

/// The page is the table.
pub fn is_written() -> Result<()> {
    if std::env::var_os("DYNO_TEST_WRITE").is_some() {
        std::fs::write(PAGE, page())?;
    }
    // Where these tests run without the sources there is nothing to compare with.
    let Ok(written) = std::fs::read_to_string(PAGE) else {
        println!("skipped: no {PAGE}");
        return Ok(());
    };
    anyhow::ensure!(written == page(), "docs/oci-differences.md is not the table: write it anew with DYNO_TEST_WRITE=1");
    Ok(())
}
