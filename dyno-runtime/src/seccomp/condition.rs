//! Conditions on the arguments of a call: as they are written, and as they are compared.

use serde::{Deserialize, Serialize};

/// A condition as written: numbers are hexadecimal or decimal strings, so that JSON's floats cannot round them.
///
/// Either `is` or `not` (with `mask`, or all bits): compares the low 32 bits, which is all that the kernel sees of an argument
/// that is an `int`. Comparing more is how CVE-2019-10063 got past a filter. Or `op` and `value`: compares all 64 bits, unsigned.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCondition {
    /// Which argument, 0 to 5.
    pub arg: u8,
    /// Bits that count, for `is`, `not` and `masked_eq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// The low 32 bits are this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is: Option<String>,
    /// The low 32 bits are not this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<String>,
    /// How all 64 bits are compared with `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<Op>,
    /// What `op` compares with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Comparison of a whole argument, unsigned; the ones of OCI's `linux.seccomp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater or equal.
    Ge,
    /// Greater.
    Gt,
    /// Equal in the bits of `mask`.
    MaskedEq,
}

/// A condition that was found sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Condition {
    /// 0 to 5.
    pub arg: u8,
    /// What must hold.
    pub test: Test,
}

/// What must hold of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Test {
    /// The low 32 bits: all that the kernel sees of an `int`, and all that a 32-bit program passes.
    Low {
        /// How they are compared.
        op: Op,
        /// Bits that count, whatever the operator.
        mask: u32,
        /// Compared with.
        value: u32,
    },
    /// All 64 bits.
    Wide {
        /// How they are compared.
        op: Op,
        /// Bits that count; all of them for other operators than `MaskedEq`.
        mask: u64,
        /// Compared with.
        value: u64,
    },
}

impl Condition {
    /// Whether it holds.
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        let arg = args[usize::from(self.arg)];
        match self.test {
            Test::Low { op, mask, value } => op.holds(u64::from(arg as u32 & mask), u64::from(value)),
            Test::Wide { op, mask, value } => op.holds(arg & mask, value),
        }
    }

    /// What is compared: `arg 1 & 0xf`.
    pub(super) fn subject(&self) -> String {
        let mask = match self.test {
            Test::Low { mask, .. } => (mask != u32::MAX).then_some(u64::from(mask)),
            Test::Wide { op, mask, .. } => (op == Op::MaskedEq).then_some(mask),
        };
        mask.map_or_else(|| format!("arg {}", self.arg), |mask| format!("arg {} & {mask:#x}", self.arg))
    }

    /// The value that is compared.
    pub(super) fn seen(&self, args: &[u64; 6]) -> u64 {
        let arg = args[usize::from(self.arg)];
        match self.test {
            Test::Low { mask, .. } => u64::from(arg as u32 & mask),
            Test::Wide { mask, .. } => arg & mask,
        }
    }

    /// What it must be: `is 0x1`.
    pub(super) fn demand(&self) -> String {
        let (words, value) = match self.test {
            Test::Low { op, value, .. } => (op.words(), u64::from(value)),
            Test::Wide { op, value, .. } => (op.words(), value),
        };
        format!("{words} {value:#x}")
    }
}

impl Op {
    fn holds(self, seen: u64, value: u64) -> bool {
        match self {
            Self::Eq | Self::MaskedEq => seen == value,
            Self::Ne => seen != value,
            Self::Lt => seen < value,
            Self::Le => seen <= value,
            Self::Ge => seen >= value,
            Self::Gt => seen > value,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Eq | Self::MaskedEq => "is",
            Self::Ne => "is not",
            Self::Lt => "is below",
            Self::Le => "is at most",
            Self::Ge => "is at least",
            Self::Gt => "is above",
        }
    }
}

impl RawCondition {
    /// Checks it; `field` is where it stands.
    pub(super) fn lower(&self, field: &str) -> Result<Condition, String> {
        if self.arg > 5 {
            return Err(format!("{field}.arg {} does not exist; calls have 0 to 5", self.arg));
        }
        let test = match (&self.is, &self.not, self.op, &self.value) {
            (Some(value), None, None, None) => self.low(field, "is", value, Op::Eq)?,
            (None, Some(value), None, None) => self.low(field, "not", value, Op::Ne)?,
            (None, None, Some(op), Some(value)) => self.wide(field, op, value)?,
            _ => return Err(format!("{field} needs `is`, or `not`, or `op` with `value`, and one of these only")),
        };
        Ok(Condition { arg: self.arg, test })
    }

    fn low(&self, field: &str, name: &str, value: &str, op: Op) -> Result<Test, String> {
        let narrow = |name: &str, text: &str| {
            let wrong = || format!("{field}.{name} {text:?} is not a 32-bit number");
            number(text).and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)
        };
        let mask = self.mask.as_deref().map_or(Ok(u32::MAX), |text| narrow("mask", text))?;
        let value = narrow(name, value)?;
        within(field, u64::from(mask), u64::from(value))?;
        Ok(Test::Low { op, mask, value })
    }

    fn wide(&self, field: &str, op: Op, value: &str) -> Result<Test, String> {
        let wide = |name: &str, text: &str| number(text).ok_or_else(|| format!("{field}.{name} {text:?} is not a 64-bit number"));
        let mask = match (&self.mask, op) {
            (Some(mask), Op::MaskedEq) => wide("mask", mask)?,
            (None, Op::MaskedEq) => return Err(format!("{field}.op masked_eq needs a mask")),
            (Some(_), _) => return Err(format!("{field}.mask goes with `is`, `not` and masked_eq only")),
            (None, _) => u64::MAX,
        };
        let value = wide("value", value)?;
        within(field, mask, value)?;
        Ok(Test::Wide { op, mask, value })
    }
}

/// A value with bits beyond the mask never compares equal: always a mistake.
fn within(field: &str, mask: u64, value: u64) -> Result<(), String> {
    if value & !mask == 0 { Ok(()) } else { Err(format!("{field}: {value:#x} has bits that the mask {mask:#x} takes away")) }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        // Rust's parser would take a sign.
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok(),
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}
