//! Foreign text for somebody's terminal: one line, not endless, nothing that a terminal obeys.

/// The text with U+FFFD for each control character, cut after `most` characters.
pub(crate) fn printable(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_replaced_and_the_rest_is_cut() {
        let check = |text: &str, most: usize, want: &str| assert_eq!(printable(text, most), want, "{text:?}");
        check("plain, ä and 日本", 100, "plain, ä and 日本");
        check("a\nb\r\tc\0", 100, "a\u{fffd}b\u{fffd}\u{fffd}c\u{fffd}");
        check("\x1b[31m \u{9b}31m \x7f", 100, "\u{fffd}[31m \u{fffd}31m \u{fffd}");
        check("日本語", 2, "日本");
        check("\n\n\n", 2, "\u{fffd}\u{fffd}");
        check("", 5, "");
    }
}
