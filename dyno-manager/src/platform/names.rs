//! Names for apps that were given none: `quiet-river-4821`.

use rand::{Rng, seq::IndexedRandom};

const FIRST: [&str; 16] =
    ["amber", "brisk", "calm", "clear", "deep", "early", "gentle", "high", "late", "mild", "pale", "quiet", "silver", "still", "warm", "wide"];
const SECOND: [&str; 16] =
    ["bay", "brook", "cliff", "field", "fjord", "forest", "harbor", "hill", "island", "lake", "meadow", "river", "shore", "stone", "valley", "wind"];

/// One of about two million names.
pub(super) fn suggest() -> String {
    let mut rng = rand::rng();
    let mut pick = |words: &[&'static str]| *words.choose(&mut rng).unwrap_or(&"app");
    let (first, second) = (pick(&FIRST), pick(&SECOND));
    format!("{first}-{second}-{:04}", rng.random_range(0..10_000))
}

#[cfg(test)]
mod tests {
    #[test]
    fn suggestions_are_app_names() {
        for _ in 0..200 {
            let name = super::suggest();
            assert!(name.parse::<crate::model::AppName>().is_ok(), "{name}");
        }
    }
}
