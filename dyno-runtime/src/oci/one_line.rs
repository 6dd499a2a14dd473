//! Messages quote what a configuration holds, and are read line by line by whoever started us.

/// The characters of `text`, with a space for each control character.
pub(super) fn one_line(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|c| if c.is_control() { ' ' } else { c })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_ends_and_no_escapes() {
        assert_eq!(one_line("a\nb\r\x1b[1mc\u{85}\0 é").collect::<String>(), "a b  [1mc   é");
    }
}
