//! `ociVersion`: 1.0 to 1.3, by Semantic Versioning 2.0.0, with its suffixes (`1.0.2-dev`, `1.3.0-rc.1+build`).

use super::member::{quoted, refuse};
use crate::Result;

/// The least and the greatest minor version of 1 that is known here.
pub const MINOR: std::ops::RangeInclusive<u32> = 0..=3;

/// Refuses what is no version, and one whose members may mean something else.
pub fn check(version: &str) -> Result<()> {
    let Some((major, minor)) = parse(version) else {
        return refuse("ociVersion", format!("{} is no version: it must be one of 1.0.0 to 1.{}.x", quoted(version), MINOR.end()));
    };
    if major != 1 || !MINOR.contains(&minor) {
        return refuse("ociVersion", format!("{} is not supported: it must be one of 1.0.0 to 1.{}.x", quoted(version), MINOR.end()));
    }
    Ok(())
}

/// Major and minor version of `MAJOR.MINOR.PATCH[-PRE][+BUILD]`.
fn parse(version: &str) -> Option<(u32, u32)> {
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    if ![build, pre].into_iter().flatten().all(is_suffix) {
        return None;
    }
    let mut numbers = core.split('.').map(number);
    let (major, minor, _patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some((major, minor))
}

fn number(text: &str) -> Option<u32> {
    // A leading zero or plus sign is no number of Semantic Versioning.
    (text == "0" || text.starts_with(|c: char| ('1'..='9').contains(&c))).then(|| text.parse().ok())?
}

/// Identifiers of letters, digits and hyphens, with dots between.
fn is_suffix(text: &str) -> bool {
    text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn versions() {
        for good in ["1.0.0", "1.0.0-rc5", "1.0.2-dev", "1.1.0+dev", "1.2.1", "1.3.0-rc.1", "1.3.17"] {
            check(good).unwrap();
        }
        for bad in [
            "",
            "1",
            "1.0",
            "1.0.0.0",
            "01.0.0",
            "1.00.0",
            "1.4.0",
            "2.0.0",
            "0.9.0",
            "9.9.9",
            "1.2.0\n",
            " 1.2.0",
            "1.2.0-",
            "1.2.0+",
            "1.2.+0",
            "invalid",
            "1.2.0-a_b",
        ] {
            let said = check(bad).unwrap_err().to_string();
            assert!(said.starts_with("ociVersion: ") && !said.contains('\n'), "{bad:?}: {said}");
        }
    }
}
