//! Lists of numbers as the kernel writes them, `0-3,7` (cpuset(7), List format), as bits.

/// Bits of the numbers of a list: the lowest number is the lowest bit of the first word. Empty text is an empty list.
///
/// # Errors
/// In words: what is no list, and numbers from `limit` up.
pub fn bits(list: &str, limit: u32) -> Result<Vec<u64>, String> {
    let mut bits: Vec<u64> = Vec::new();
    for part in list.trim_matches(|c: char| c.is_ascii_whitespace()).split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(format!("{part:?} is neither a number nor a range"));
        };
        if first > last {
            return Err(format!("{part:?} ends before it begins"));
        }
        if last >= limit {
            return Err(format!("{part:?} goes beyond {}", limit - 1));
        }
        for n in first..=last {
            let word = n as usize / 64;
            bits.resize(bits.len().max(word + 1), 0);
            bits[word] |= 1 << (n % 64);
        }
    }
    Ok(bits)
}

/// Digits only: `+1` is none.
fn number(text: &str) -> Option<u32> {
    // Greater than any limit: what does not fit is told of as too great.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().unwrap_or(u32::MAX)).filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::bits;

    #[test]
    fn lists() {
        assert_eq!(bits("", 64), Ok(vec![]));
        assert_eq!(bits("0-3,7", 64), Ok(vec![0b1000_1111]));
        assert_eq!(bits(" 1, 64-65 ", 128), Ok(vec![2, 3]));
        for bad in ["a", "-", "1-", "-1", "3-1", "64", "0-9876543210", "+1", "1;2", "1-2-3"] {
            assert!(bits(bad, 64).is_err(), "{bad}");
        }
    }
}
