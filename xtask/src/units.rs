//! How open the services of `systemd/` are, as `systemd-analyze security` counts it: never more than what is written down here and in
//! docs/threat-model.md.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo;

/// Unit and its exposure in tenths, with systemd 252. The warden's is what its work takes: mounts of the host's own, and nothing that dynos would inherit.
const EXPOSURE: [(&str, u32); 2] = [("dynod.service", 13), ("dyno-warden.service", 84)];

/// Units that are more open than they were, for `cargo xtask tidy`. Says so where it cannot be told.
pub fn complaints() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (unit, most) in EXPOSURE {
        match exposure(unit)? {
            None => {
                println!("skipped: the exposure of {unit}: there is no systemd-analyze security --offline here");
                break;
            }
            Some(is) if is > most => found.push(format!("systemd/{unit}: exposure {}.{}, and was {}.{}", is / 10, is % 10, most / 10, most % 10)),
            Some(_) => {}
        }
    }
    Ok(found)
}

/// In tenths; None where the program is missing or older than `--offline` (systemd 250).
fn exposure(unit: &str) -> Result<Option<u32>> {
    let file = cargo::root().join("systemd").join(unit);
    let output = Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(&file).env("LC_ALL", "C.UTF-8").output();
    let Ok(output) = output else { return Ok(None) };
    if String::from_utf8_lossy(&output.stderr).contains("unrecognized option") {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "systemd-analyze security {unit}: {}", String::from_utf8_lossy(&output.stderr));
    told(&said).with_context(|| format!("systemd-analyze security {unit} tells no exposure: {said}")).map(Some)
}

/// From `→ Overall exposure level for dynod.service: 1.3 OK`.
fn told(said: &str) -> Option<u32> {
    let (_, rest) = said.lines().find(|line| line.contains("Overall exposure level"))?.rsplit_once(": ")?;
    let (whole, tenths) = rest.split_whitespace().next()?.split_once('.')?;
    Some(whole.parse::<u32>().ok()? * 10 + tenths.parse::<u32>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_read() {
        assert_eq!(told("  NAME\n\n→ Overall exposure level for dynod.service: 1.3 OK 🙂\n"), Some(13));
        assert_eq!(told("→ Overall exposure level for x.service: 10.0 UNSAFE\n"), Some(100));
        assert_eq!(told("nothing"), None);
    }
}
