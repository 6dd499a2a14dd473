//! Config vars: every change makes a release.

use super::{Error, Platform, current};
use crate::{
    model::{App, ConfigVars},
    schedule::Event,
};

impl Platform {
    /// The config vars in force.
    ///
    /// # Errors
    /// Not found.
    pub async fn config(&self, app: &str) -> Result<ConfigVars, Error> {
        let app = self.app(app).await?;
        Ok(self.store.config(app.id).await?)
    }

    /// Sets (`Some`) and removes (`None`) config vars: a new release, unless nothing changes.
    ///
    /// # Errors
    /// Not found, a rule of [`ConfigVars::with`], or a release is pending.
    pub async fn set_config(&self, app: &str, changes: Vec<(String, Option<String>)>) -> Result<ConfigVars, Error> {
        let app: App = self.app(app).await?;
        let lock = self.lock(app.id);
        let _held = lock.lock().await;
        let before = self.store.config(app.id).await?;
        let Some(what) = describe(&before, &changes) else {
            // Nothing would change, yet a bad name is still an error.
            return Ok(before.with(changes)?);
        };
        let user = self.settings.user.clone();
        let Some(made) = self.store.set_config(app.id, changes, what.clone(), user).await? else { return Ok(before) };
        let config = made.release.config.clone();
        self.log_act(app.id, &what);
        self.log_act(app.id, &format!("Release v{} created", made.release.version));
        let release = current(&made.release, made.slug);
        self.engine.apply(Event::Released { app_id: app.id, release, formation: made.formation }).await;
        Ok(config)
    }
}

/// "Set A, B config vars", "Remove C config vars" (Heroku's wording), or both; None when nothing changes.
fn describe(before: &ConfigVars, changes: &[(String, Option<String>)]) -> Option<String> {
    let names = |pick: fn(Option<&str>, Option<&str>) -> bool| {
        let picked = changes.iter().filter(|(name, new)| pick(before.get(name), new.as_deref()));
        picked.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let set = names(|old, new| new.is_some() && old != new);
    let removed = names(|old, new| new.is_none() && old.is_some());
    match (set.is_empty(), removed.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("Set {set} config vars")),
        (true, false) => Some(format!("Remove {removed} config vars")),
        (false, false) => Some(format!("Set {set} and remove {removed} config vars")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_name_what_changes() {
        let set = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        let unset = |name: &str| (name.to_owned(), None);
        let before = ConfigVars::default().with([set("A", "1"), set("B", "2")]).unwrap();
        for (changes, want) in [
            (vec![set("A", "1"), unset("Z")], None),
            (vec![set("A", "2"), set("C", "3")], Some("Set A, C config vars")),
            (vec![unset("A"), unset("Z")], Some("Remove A config vars")),
            (vec![set("C", "3"), unset("A")], Some("Set C and remove A config vars")),
        ] {
            assert_eq!(describe(&before, &changes).as_deref(), want, "{changes:?}");
        }
    }
}
