//! The limits of the whole run: wall clock, processor time, output.

use crate::{CPU, sys};

/// The limit that was reached, as the exit record has it.
const WALL: i64 = 1;
const PROCESSOR: i64 = 2;
pub const OUTPUT: i64 = 3;

/// No processor time is asked for more often than this, microseconds.
const OFTEN: i64 = 1000;

pub struct Watch {
    /// End of the wall clock, microseconds of CLOCK_MONOTONIC; `i64::MAX` is never.
    wall: i64,
    /// Microseconds of all processors together; 0 is no limit.
    cpu: i64,
    processors: i64,
    /// Before this moment the processors cannot have used it up.
    look: i64,
    /// Bytes that may still be written; `i64::MAX` is any number.
    output: i64,
    /// When the last of too much output must have been read.
    flushed: i64,
    /// What was reached first, 0 for nothing.
    pub breach: i64,
}

impl Watch {
    /// From the numbers of MODE.
    pub fn new(text: &[u8], began: i64) -> Self {
        let mut numbers = [0i64; 4];
        for (to, word) in numbers.iter_mut().zip(text.split(|b| *b == b' ').filter(|w| !w.is_empty())) {
            *to = word.iter().fold(0, |n: i64, digit| n.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
        }
        let [wall, cpu, output, processors] = numbers;
        let processors = processors.max(1);
        Self {
            wall: if wall == 0 { i64::MAX } else { began.saturating_add(wall) },
            cpu,
            processors,
            look: if cpu == 0 { i64::MAX } else { began.saturating_add(cpu / processors) },
            output: if output == 0 { i64::MAX } else { output },
            flushed: i64::MAX,
            breach: 0,
        }
    }

    /// Microseconds until something may have been reached, negative for never.
    pub fn patience(&self) -> i64 {
        let next = if self.breach == 0 { self.wall.min(self.look) } else { self.flushed };
        if next == i64::MAX { -1 } else { (next - sys::now_us(1)).max(0) }
    }

    /// Whether what was written is still waited for to be read: of a run that was within its limits as long as the wall clock says,
    /// of one that wrote too much for a second, else not.
    pub fn may_wait(&mut self) -> bool {
        self.over();
        if self.breach == OUTPUT && self.flushed == i64::MAX {
            self.flushed = sys::now_us(1) + 1_000_000;
        }
        self.breach == 0 || self.breach == OUTPUT && sys::now_us(1) < self.flushed
    }

    /// True when a limit has just been reached.
    pub fn over(&mut self) -> bool {
        if self.breach != 0 || self.wall.min(self.look) == i64::MAX {
            return false;
        }
        let now = sys::now_us(1);
        if now >= self.wall {
            self.breach = WALL;
        } else if now >= self.look {
            match used() {
                Some(used) if used < self.cpu => self.look = now + ((self.cpu - used) / self.processors).max(OFTEN),
                // What cannot be read any more is not taken for nothing.
                _ => self.breach = PROCESSOR,
            }
        }
        self.breach != 0
    }

    /// Of `bytes` about to be written, how many may. Fewer than all: the limit is reached.
    pub fn spend(&mut self, bytes: usize) -> usize {
        let may = i64::try_from(bytes).unwrap_or(i64::MAX).min(self.output);
        if self.output != i64::MAX {
            self.output -= may;
        }
        if (may as usize) < bytes && self.breach == 0 {
            self.breach = OUTPUT;
        }
        may as usize
    }
}

/// Microseconds that the control group used: `cpuacct.usage` has nanoseconds, `cpu.stat` begins with `usage_usec N`.
fn used() -> Option<i64> {
    let mut text = [0u8; 64];
    // SAFETY: `text` is valid for writing; offset 0 makes the kernel count anew.
    let n = unsafe { sys::call(sys::PREAD64, [CPU as usize, text.as_mut_ptr() as usize, text.len(), 0, 0, 0]) };
    let text = text.get(..usize::try_from(n).ok()?)?;
    let (text, unit) = match text.strip_prefix(b"usage_usec ") {
        Some(rest) => (rest, 1),
        None => (text, 1000),
    };
    let digits = text.iter().take_while(|b| b.is_ascii_digit());
    (text.first()?.is_ascii_digit()).then(|| digits.fold(0, |n: i64, digit| n.saturating_mul(10).saturating_add(i64::from(digit - b'0'))) / unit)
}
