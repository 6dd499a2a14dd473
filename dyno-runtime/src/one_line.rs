//! Messages quote what a configuration holds, and are read line by line by whoever started us.

/// The characters of `text`, with a space for each control character.
pub(crate) fn one_line(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|c| if c.is_control() { ' ' } else { c })
}

/// One line, and not too long a one.
pub(crate) fn cut(text: &str) -> String {
    const MOST: usize = 200;
    let mut cut: String = one_line(text).take(MOST).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_ends_and_no_escapes() {
        assert_eq!(one_line("a\nb\r\x1b[1mc\u{85}\0 é").collect::<String>(), "a b  [1mc   é");
    }

    #[test]
    fn what_is_too_long_says_so() {
        assert_eq!(cut("é\n"), "é ");
        assert_eq!(cut(&"é".repeat(201)), "é".repeat(200) + "…");
    }
}
