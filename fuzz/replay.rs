//! The fuzzers' short form, for the tests of both crates: every seed of a target, then a few thousand mutations of them, the same ones each
//! time. It needs no instrumented build, and learns nothing from what it runs: it finds what somebody broke, not what nobody knew.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Mutated inputs of one target, unless time is over before.
const MUTATED: u32 = 3000;
const TIME: Duration = Duration::from_millis(1500);
/// Longest input.
const LONGEST: usize = 16 << 10;

/// Bytes that mean something to most parsers.
const TELLING: &[u8] = b"\0\xff\"\n -9{}[]:/.=,";

/// Runs `check` on all of them.
pub fn replay(target: &str, check: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "fuzz/seeds/{target} has no seeds");
    for (path, seed) in &seeds {
        run(check, seed, &path.display().to_string());
    }
    let words = words(target);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (began, mut ran) = (Instant::now(), 0);
    while ran < MUTATED && began.elapsed() < TIME {
        let input = mutated(&seeds, &words, &mut dice);
        run(check, &input, &format!("mutation {ran}"));
        ran += 1;
    }
    println!("{target}: {} seeds, {ran} mutations", seeds.len());
    assert!(ran > 0, "no time was left for mutations");
}

fn run(check: fn(&[u8]), input: &[u8], what: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        eprintln!("{what}, as a seed to keep: b\"{}\"", input.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz"))
}

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = folder().join("seeds").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Words of the target's dictionary, in libFuzzer's form: quoted, `\"`, `\\` and `\xNN` inside.
fn words(target: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(folder().join(target).with_extension("dict")).unwrap_or_default();
    let quoted = text.lines().filter_map(|line| line.split_once('"')?.1.strip_suffix('"'));
    quoted.map(|word| unescaped(word.as_bytes())).collect()
}

fn unescaped(mut word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while let Some((first, rest)) = word.split_first() {
        let (byte, rest) = match (first, rest) {
            (b'\\', [b'x', high, low, rest @ ..]) => {
                let digit = |d: u8| char::from(d).to_digit(16).expect("two hexadecimal digits") as u8;
                (digit(*high) << 4 | digit(*low), rest)
            }
            (b'\\', [escaped, rest @ ..]) => (*escaped, rest),
            _ => (*first, rest),
        };
        plain.push(byte);
        word = rest;
    }
    plain
}

/// A generator of numbers that gives the same ones each time (xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % sides.max(1)
    }

    /// A place in something so long, and one behind it.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let from = self.roll(length + 1);
        (from, from + self.roll(length - from + 1).min(64))
    }
}

fn mutated(seeds: &[(PathBuf, Vec<u8>)], words: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = seeds[dice.roll(seeds.len())].1.clone();
    for _ in 0..=dice.roll(5) {
        let (from, to) = dice.range(input.len());
        match dice.roll(8) {
            0 => input.truncate(from.max(1)),
            1 => drop(input.drain(from..to)),
            2 => drop(input.splice(from..from, input[from..to].to_vec())),
            3 if !words.is_empty() => drop(input.splice(from..to, words[dice.roll(words.len())].iter().copied())),
            4 => {
                let other = &seeds[dice.roll(seeds.len())].1;
                let (start, end) = dice.range(other.len());
                drop(input.splice(from..to, other[start..end].iter().copied()));
            }
            5 => drop(input.splice(from..from, [TELLING[dice.roll(TELLING.len())]])),
            _ if from < input.len() => input[from] = input[from].wrapping_add(1 << dice.roll(8)),
            _ => {}
        }
    }
    input.truncate(LONGEST);
    input
}
