//! Dynos: which there are, one-offs, restart and stop.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use uuid::Uuid;

use super::{ATTACH_WAIT, Error, Platform, Ticket, formation::check_size, never_ran};
use crate::{
    model::{App, ConfigVars, DynoKind, DynoName, DynoSize, DynoState, Invalid, ProcessType},
    schedule::{Dyno, Event, Which},
};

/// One-offs that one app may have at once (Heroku: 50).
const MAX_ONE_OFFS: usize = 50;
/// Longest command line, bytes; a single argument of execve(2) may have 128 KiB (MAX_ARG_STRLEN).
const MAX_COMMAND: usize = 64 * 1024;
/// Longest time to live that can be asked for, seconds (Heroku: a day).
const MAX_TIME_TO_LIVE: u64 = 86_400;

/// A one-off to start.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Shell command line; a first word that names a process type stands for its command.
    pub command: String,
    /// A client will join its streams.
    pub attach: bool,
    /// Variables over the app's config vars.
    pub env: BTreeMap<String, String>,
    /// The default size if none.
    pub size: Option<String>,
    /// First half of its name; `run` if none.
    pub process_type: Option<String>,
    /// With a terminal of these rows and columns; only with `attach`.
    pub tty: Option<(u16, u16)>,
    /// Stopped after so many seconds.
    pub time_to_live: Option<u64>,
}

/// A one-off that was asked for.
#[derive(Debug)]
pub struct Started {
    /// As the scheduler has it now.
    pub dyno: Dyno,
    /// With `attach`: what [`Platform::claim`] takes.
    pub secret: Option<String>,
}

impl Platform {
    /// The dynos that stand for something: no builds, no launch that its replacement has outlived, none that ended.
    pub fn dynos(&self, app: &App) -> Vec<Dyno> {
        let mut dynos = self.engine.dynos(app.id);
        let current: Vec<DynoName> = dynos.iter().filter(|d| d.is_current()).map(|d| d.name.clone()).collect();
        dynos.retain(|d| {
            let shown = d.is_current() || (d.is_alive() && !current.contains(&d.name));
            shown && d.kind != DynoKind::Build
        });
        dynos.sort_by(|a, b| (&a.name, b.created_at).cmp(&(&b.name, a.created_at)));
        // Of several launches that are on their way out under one name, the youngest stands for it.
        dynos.dedup_by(|later, kept| later.name == kept.name);
        dynos
    }

    /// One dyno by name or id; one-offs that ended lately are still found.
    ///
    /// # Errors
    /// Not found.
    pub fn dyno(&self, app: &App, name_or_id: &str) -> Result<Dyno, Error> {
        let id = name_or_id.parse::<Uuid>().ok();
        let name = name_or_id.parse::<DynoName>().ok();
        let matches = |d: &Dyno| d.kind != DynoKind::Build && (Some(d.id) == id || Some(&d.name) == name.as_ref());
        let rank = |d: &Dyno| (d.is_current(), d.is_alive(), d.created_at);
        let listed = self.engine.dynos(app.id).into_iter().filter(matches).max_by_key(rank);
        let found = listed.or_else(|| self.one_offs.ended(app.id, matches));
        found.ok_or_else(|| Error::not_found("dyno", name_or_id))
    }

    /// Version → id of the releases that `dynos` run, for showing them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn release_ids(&self, app: &App, dynos: &[Dyno]) -> Result<BTreeMap<u32, Uuid>, Error> {
        let mut ids = BTreeMap::new();
        for version in dynos.iter().map(|d| d.release) {
            if !ids.contains_key(&version)
                && let Ok(release) = self.store.find_release(app.id, &version.to_string()).await
            {
                ids.insert(version, release.id);
            }
        }
        Ok(ids)
    }

    /// Waits until the dyno has ended.
    ///
    /// # Errors
    /// Not found.
    pub async fn wait(&self, app: &App, name_or_id: &str) -> Result<Dyno, Error> {
        let mut dyno = self.dyno(app, name_or_id)?;
        if dyno.exit.is_none() {
            let exit = self.engine.exit(dyno.id).await.unwrap_or_else(never_ran);
            let last = self.dyno(app, &dyno.id.to_string()).ok().filter(|d| d.exit.is_some());
            let state = if dyno.kind == DynoKind::OneOff { DynoState::Complete } else { DynoState::Down };
            dyno = last.unwrap_or_else(|| Dyno { state, since: Timestamp::now(), exit: Some(exit), ..dyno });
        }
        Ok(dyno)
    }

    /// Starts a one-off on the current release.
    ///
    /// # Errors
    /// No slug yet, a bad command, variable, size, type or time, or too many one-offs.
    pub async fn run(&self, app: &App, run: Run) -> Result<Started, Error> {
        let lock = self.lock(app.id);
        let held = lock.lock().await;
        let snapshot = self.store.snapshot(app.id).await?;
        let Some((release, slug)) = snapshot.release.zip(snapshot.slug) else {
            return Err(Error::Invalid(format!("app {:?} has nothing to run yet; deploy it first", app.name.as_str())));
        };
        let (dyno, time_to_live) = prepare(app, &run, release.version, &slug.process_types)?;
        let running = self.engine.dynos(app.id).iter().filter(|d| d.kind == DynoKind::OneOff && d.is_alive()).count();
        if running >= MAX_ONE_OFFS {
            return Err(Error::Invalid(format!("{MAX_ONE_OFFS} one-off dynos of this app run already; stop one first")));
        }
        let number = self.store.next_run_number(app.id).await?;
        let dyno = Dyno { name: DynoName::new(dyno.name.process_type.clone(), number), ..dyno };
        self.engine.apply(Event::Run { dyno: dyno.clone() }).await;
        drop(held);
        let dyno = self.dyno(app, &dyno.id.to_string()).unwrap_or(dyno);
        let secret = self.one_offs.follow(&self.engine, &dyno, run.attach);
        if let Some(secret) = &secret {
            self.log(app.id, &dyno.name.to_string(), "Awaiting client");
            self.expire_ticket(secret.clone());
        }
        if let Some(after) = time_to_live {
            self.stop_after(&dyno, after);
        }
        Ok(Started { dyno, secret })
    }

    /// Redeems the secret of a one-off: the right to join its streams, once.
    ///
    /// # Errors
    /// Not found: never given out, used, or expired.
    pub fn claim(&self, secret: &str) -> Result<Ticket, Error> {
        self.one_offs.claim(secret).ok_or_else(|| Error::not_found("attach session", "expired or used"))
    }

    /// A line about a one-off's session.
    pub fn log_session_event(&self, ticket: &Ticket, text: &str) {
        self.log(ticket.app_id, &ticket.ps, text);
    }

    /// R13: a one-off whose client does not come is stopped.
    fn expire_ticket(&self, secret: String) {
        let (one_offs, engine, logs) = (self.one_offs.clone(), Arc::clone(&self.engine), self.logs.clone());
        tokio::spawn(async move {
            tokio::time::sleep(ATTACH_WAIT).await;
            let Some(ticket) = one_offs.claim(&secret) else { return };
            if ticket.exit.borrow().is_some() {
                return;
            }
            let text = "Error R13 (Attach error) -> Failed to attach to process";
            logs.publish(ticket.app_id, crate::logs::Source::Platform, &ticket.ps, text, Timestamp::now());
            if let Ok(name) = ticket.ps.parse() {
                engine.apply(Event::Stop { app_id: ticket.app_id, which: Which::Name(name) }).await;
            }
        });
    }

    fn stop_after(&self, dyno: &Dyno, after: Duration) {
        let (engine, app_id, id, name) = (Arc::clone(&self.engine), dyno.app_id, dyno.id, dyno.name.clone());
        tokio::spawn(async move {
            let ended = tokio::time::timeout(after, engine.exit(id)).await;
            if ended.is_err() {
                engine.apply(Event::Stop { app_id, which: Which::Name(name) }).await;
            }
        });
    }

    /// Replaces dynos: all of the formation, those of a type, or one. A one-off that is named ends.
    ///
    /// # Errors
    /// No such dyno or type.
    pub async fn restart(&self, app: &App, target: Target<'_>) -> Result<(), Error> {
        let which = self.which(app, target).await?;
        let lock = self.lock(app.id);
        let _held = lock.lock().await;
        self.engine.apply(Event::Restart { app_id: app.id, which }).await;
        Ok(())
    }

    /// Ends dynos; those that the formation wants come back.
    ///
    /// # Errors
    /// No such dyno or type.
    pub async fn stop(&self, app: &App, target: Target<'_>) -> Result<(), Error> {
        let which = self.which(app, target).await?;
        let lock = self.lock(app.id);
        let _held = lock.lock().await;
        self.engine.apply(Event::Stop { app_id: app.id, which }).await;
        Ok(())
    }

    async fn which(&self, app: &App, target: Target<'_>) -> Result<Which, Error> {
        match target {
            Target::All => Ok(Which::All),
            Target::Dyno(dyno) => Ok(Which::Name(self.dyno(app, dyno)?.name)),
            Target::Type(name) => {
                let rows = self.formation(app).await?;
                let known = rows.iter().map(|row| row.process_type.as_str());
                let one_off = || self.dynos(app).iter().any(|d| d.name.process_type.as_str() == name);
                if !known.clone().any(|t| t == name) && !one_off() {
                    return Err(Error::no_process_type(name, known));
                }
                Ok(Which::Type(name.parse()?))
            }
        }
    }
}

/// The dynos that a restart or stop is about.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// All.
    All,
    /// Those of a process type.
    Type(&'a str),
    /// One, by name or id.
    Dyno(&'a str),
}

/// The dyno that `run` asks for, still without its number, and how long it may live.
fn prepare(app: &App, run: &Run, release: u32, types: &BTreeMap<ProcessType, String>) -> Result<(Dyno, Option<Duration>), Error> {
    let command = command(&run.command, types)?;
    let process_type: ProcessType = run.process_type.as_deref().unwrap_or("run").parse()?;
    if types.contains_key(&process_type) {
        let rule = "is a type of the formation; scale it instead, or run under another type";
        return Err(Invalid::new("process type", process_type, rule).into());
    }
    let size = run.size.as_deref().map_or(Ok(DynoSize::default()), str::parse)?;
    check_size(size)?;
    let env = run.env.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
    // The rules of config vars hold for these too.
    ConfigVars::default().with(env)?;
    if run.time_to_live.is_some_and(|ttl| !(1..=MAX_TIME_TO_LIVE).contains(&ttl)) {
        let rule = format!("must be 1 to {MAX_TIME_TO_LIVE} seconds");
        return Err(Invalid::new("time_to_live", run.time_to_live.unwrap_or_default(), rule).into());
    }
    let now = Timestamp::now();
    let dyno = Dyno {
        id: Uuid::new_v4(),
        app_id: app.id,
        name: DynoName::new(process_type, 1),
        kind: DynoKind::OneOff,
        command,
        size,
        release,
        state: DynoState::Starting,
        since: now,
        created_at: now,
        retry_at: None,
        crashes: 0,
        exit: None,
        attached: run.attach,
        stopping: None,
        env: run.env.clone(),
        tty: run.tty.filter(|_| run.attach),
    };
    Ok((dyno, run.time_to_live.map(Duration::from_secs)))
}

/// `heroku run worker --once` runs the command of `worker` with `--once` appended.
fn command(given: &str, types: &BTreeMap<ProcessType, String>) -> Result<String, Invalid> {
    let given = given.trim();
    let rule = match given {
        "" => Some("must not be empty"),
        c if c.contains('\0') => Some("must not hold a NUL byte"),
        c if c.len() > MAX_COMMAND => Some("is longer than 64 KiB"),
        _ => None,
    };
    if let Some(rule) = rule {
        return Err(Invalid::new("command", given, rule));
    }
    let (first, rest) = given.split_once(char::is_whitespace).unwrap_or((given, ""));
    let declared = types.iter().find(|(name, _)| name.as_str() == first);
    Ok(match declared {
        Some((_, command)) if rest.is_empty() => command.clone(),
        Some((_, command)) => format!("{command} {}", rest.trim_start()),
        None => given.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_type_stands_for_its_command() {
        let types = BTreeMap::from([("worker".parse().unwrap(), "python worker.py -q".to_owned())]);
        for (given, want) in [
            ("bash", Some("bash")),
            ("  echo 'a  b' ", Some("echo 'a  b'")),
            ("worker", Some("python worker.py -q")),
            ("worker  --once now", Some("python worker.py -q --once now")),
            ("workers", Some("workers")),
            ("", None),
            ("a\0b", None),
        ] {
            assert_eq!(command(given, &types).ok().as_deref(), want, "{given:?}");
        }
        assert!(command(&"x".repeat(MAX_COMMAND + 1), &types).is_err());
    }
}
