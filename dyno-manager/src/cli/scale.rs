//! `ps:scale`: `web=3`, `worker+1:Standard-2X`.

use std::{collections::BTreeSet, str::FromStr};

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{
    context::Context,
    error::{CliError, Result},
    wire::Formation,
};
use crate::model::{DynoSize, MAX_QUANTITY, ProcessType};

/// Sets how many dynos of which type and size run; shows it when nothing is asked
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  $ dyno ps:scale
  $ dyno ps:scale web=3 worker+1
  $ dyno ps:scale web=2:Standard-2X
  $ dyno scale worker=0 -a my-app")]
pub(super) struct Scale {
    /// TYPE=N, TYPE+N or TYPE-N, each with an optional :SIZE
    #[arg(value_name = "TYPE=N[:SIZE]")]
    changes: Vec<Change>,
}

/// One wish.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    process_type: ProcessType,
    amount: Amount,
    size: Option<DynoSize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amount {
    Exactly(u32),
    More(u32),
    Fewer(u32),
}

impl FromStr for Change {
    type Err = String;

    /// Heroku's `/^([\w-]+)([=+-]\d+)(?::([\w-]+))?$/`: the last sign is the one that counts, as types may hold dashes.
    fn from_str(s: &str) -> Result<Self, String> {
        let shape = || "must look like web=3, web+1 or web-1, with :SIZE if wanted".to_owned();
        let (rest, size) = s.split_once(':').map_or((s, None), |(rest, size)| (rest, Some(size)));
        let at = rest.rfind(['=', '+', '-']).ok_or_else(shape)?;
        let (name, sign, digits) = (&rest[..at], &rest[at..=at], &rest[at + 1..]);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(shape());
        }
        let number: u32 = digits
            .parse()
            .ok()
            .filter(|n| *n <= MAX_QUANTITY)
            .ok_or_else(|| format!("{digits} dynos are more than the {MAX_QUANTITY} that a type may have"))?;
        let amount = match sign {
            "=" => Amount::Exactly(number),
            "+" => Amount::More(number),
            _ => Amount::Fewer(number),
        };
        Ok(Self {
            process_type: name.parse().map_err(|_| shape())?,
            amount,
            size: size.map(|size| size.parse::<DynoSize>().map_err(|e| e.to_string())).transpose()?,
        })
    }
}

impl Scale {
    pub(super) async fn run(self, context: &mut Context) -> Result<()> {
        let app = context.app()?;
        let path = format!("/apps/{app}/formation");
        if self.changes.is_empty() {
            let formation: Vec<Formation> = context.get(&path).await?;
            if formation.is_empty() {
                return Err(CliError::new(format!("{app} has no process types yet.")).hint("`dyno deploy` brings them."));
            }
            let shown: Vec<_> = formation.iter().map(|f| format!("{}={}:{}", f.process_type, f.quantity, f.size)).collect();
            return context.screen.say(shown.join(" ")).await;
        }
        let mut named = BTreeSet::new();
        if let Some(twice) = self.changes.iter().find(|change| !named.insert(change.process_type.as_str())) {
            return Err(CliError::usage(format!("{} is named twice.", twice.process_type)));
        }
        context.screen.begin("Scaling dynos").await;
        let relative = self.changes.iter().any(|change| !matches!(change.amount, Amount::Exactly(_)));
        let formation: Vec<Formation> = if relative { context.get(&path).await? } else { Vec::new() };
        let updates = self.changes.iter().map(|change| change.update(&formation)).collect::<Result<Vec<_>>>()?;
        let now: Vec<Formation> = context.send(Method::PATCH, &path, &json!({ "updates": updates })).await?;
        let changed = now.iter().filter(|f| named.contains(f.process_type.as_str()));
        let shown: Vec<_> = changed.map(|f| format!("{} at {}:{}", f.process_type, f.quantity, f.size)).collect();
        context.screen.done(format!("done, now running {}", shown.join(", "))).await;
        Ok(())
    }
}

impl Change {
    /// The API's form of it. Only `+` and `-` need to know what is wanted now.
    fn update(&self, formation: &[Formation]) -> Result<Value> {
        let name = self.process_type.as_str();
        let now = || {
            let found = formation.iter().find(|f| f.process_type == name).map(|f| f.quantity);
            found.ok_or_else(|| {
                let known: Vec<_> = formation.iter().map(|f| f.process_type.as_str()).collect();
                CliError::new(format!("There is no process type {name}; there are: {}", known.join(", ")))
            })
        };
        let quantity = match self.amount {
            Amount::Exactly(n) => n,
            Amount::More(n) => now()?.saturating_add(n),
            Amount::Fewer(n) => {
                let now = now()?;
                now.checked_sub(n).ok_or_else(|| CliError::new(format!("{name} has {now} dynos; {n} cannot be taken away.")))?
            }
        };
        let mut update = json!({ "type": name, "quantity": quantity });
        if let Some(size) = self.size {
            update["size"] = json!(size.spec().name);
        }
        Ok(update)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Platform, *};

    #[test]
    fn grammar() {
        let check = |text: &str, want: Result<(&str, Amount, Option<&str>), &str>| {
            let got = text.parse::<Change>();
            match (&got, want) {
                (Ok(got), Ok((name, amount, size))) => {
                    let shown = got.size.map(|size| size.to_string());
                    assert_eq!((got.process_type.as_str(), got.amount, shown.as_deref()), (name, amount, size), "{text}");
                }
                (Err(got), Err(part)) => assert!(got.contains(part), "{text}: {got}"),
                _ => panic!("{text}: got {got:?}, want {want:?}"),
            }
        };
        check("web=3", Ok(("web", Amount::Exactly(3), None)));
        check("web=0", Ok(("web", Amount::Exactly(0), None)));
        check("web=100", Ok(("web", Amount::Exactly(100), None)));
        check("worker+1", Ok(("worker", Amount::More(1), None)));
        check("worker-1", Ok(("worker", Amount::Fewer(1), None)));
        check("my-worker-2", Ok(("my-worker", Amount::Fewer(2), None)));
        check("my-worker-2=1", Ok(("my-worker-2", Amount::Exactly(1), None)));
        check("web=2:standard-2x", Ok(("web", Amount::Exactly(2), Some("Standard-2X"))));
        check("web+1:Performance-M", Ok(("web", Amount::More(1), Some("Performance-M"))));
        for bad in ["", "web", "web=", "=1", "web=-1", "web=+1", "web=1.5", "web=1=2", "web=a", "we b=1", "web=1\n", "w/b=1"] {
            check(bad, Err("must look like"));
        }
        check("web=101", Err("more than the 100"));
        check("web=99999999999999999999", Err("more than the 100"));
        check("web=1:huge", Err("Performance-M"));
        check("web=1:", Err("Performance-M"));
    }

    fn formation() -> Value {
        json!([{"type": "web", "quantity": 3, "size": "Standard-2X"}, {"type": "worker", "quantity": 1, "size": "Standard-1X"}])
    }

    #[tokio::test]
    async fn shows_and_sets() {
        let mut platform = Platform::start().await;
        let (get, patch) = ("GET /apps/my-app/formation", "PATCH /apps/my-app/formation");
        platform.answer(get, formation());
        platform.answer(patch, formation());
        assert_eq!(platform.out("ps:scale -a my-app").await, "web=3:Standard-2X worker=1:Standard-1X\n");
        let ran = platform.run("ps:scale web=3:standard-2x worker+1 -a my-app").await;
        assert_eq!(ran.err, "Scaling dynos... done, now running web at 3:Standard-2X, worker at 1:Standard-1X\n");
        let want = json!({"updates": [
            {"type": "web", "quantity": 3, "size": "standard-2x"}, {"type": "worker", "quantity": 2}]});
        assert_eq!(platform.sent(patch), want);
    }

    #[tokio::test]
    async fn wishes_that_cannot_be_met_are_told() {
        let mut platform = Platform::start().await;
        platform.answer("GET /apps/my-app/formation", formation());
        let check = async |platform: &mut Platform, line: &str, status: u8, part: &str| {
            let ran = platform.run(&format!("ps:scale {line} -a my-app")).await;
            assert_eq!(ran.status, status, "{line}: {}", ran.err);
            assert!(ran.err.contains(part), "{line}: {}", ran.err);
        };
        check(&mut platform, "worker-2", 1, "Scaling dynos... !\n ›   Error: worker has 1 dynos; 2 cannot").await;
        check(&mut platform, "wroker+1", 1, "no process type wroker; there are: web, worker").await;
        check(&mut platform, "web=1 web=2", 2, "web is named twice").await;
        platform.refuse("PATCH /apps/my-app/formation", 404, "No process type wroker; there are web and worker.");
        check(&mut platform, "wroker=1", 1, "... !\n ›   Error: No process type wroker; there are web and worker.\n").await;
    }
}
