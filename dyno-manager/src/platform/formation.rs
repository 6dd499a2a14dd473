//! The formation: read it, scale it.

use std::collections::BTreeSet;

use super::{Error, Platform};
use crate::{
    model::{App, DynoSize, Formation, Invalid, MAX_QUANTITY, ProcessType},
    schedule::Event,
    store::{FormationRow, FormationUpdate},
};

impl Platform {
    /// One row per process type of the current slug.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn formation(&self, app: &App) -> Result<Vec<FormationRow>, Error> {
        Ok(self.store.formation(app.id).await?)
    }

    /// The row of one process type.
    ///
    /// # Errors
    /// Not found; the known types are named.
    pub async fn formation_of(&self, app: &App, process_type: &str) -> Result<FormationRow, Error> {
        let rows = self.formation(app).await?;
        match rows.iter().find(|row| row.process_type.as_str() == process_type) {
            Some(row) => Ok(row.clone()),
            None => Err(Error::no_process_type(process_type, rows.iter().map(|row| row.process_type.as_str()))),
        }
    }

    /// Applies all updates or none; gives the rows that were named, in the order of the updates.
    ///
    /// # Errors
    /// An unknown type, a quantity over [`MAX_QUANTITY`], a size that apps cannot have, a type named twice.
    pub async fn scale(&self, app: &App, updates: Vec<FormationUpdate>) -> Result<Vec<FormationRow>, Error> {
        check(&updates)?;
        let lock = self.lock(app.id);
        let _held = lock.lock().await;
        let named: Vec<ProcessType> = updates.iter().map(|u| u.process_type.clone()).collect();
        let formation = self.store.scale(app.id, updates).await?;
        if !named.is_empty() {
            self.log_act(app.id, &format!("Scaled to {}", shown(&formation, &named)));
        }
        self.engine.apply(Event::FormationChanged { app_id: app.id, formation }).await;
        let rows = self.formation(app).await?;
        let row = |of: &ProcessType| rows.iter().find(|row| row.process_type == *of).cloned();
        Ok(named.iter().filter_map(row).collect())
    }
}

fn check(updates: &[FormationUpdate]) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    for update in updates {
        if !seen.insert(&update.process_type) {
            return Err(Invalid::new("process type", &update.process_type, "is named twice"));
        }
        if let Some(quantity) = update.quantity.filter(|q| *q > MAX_QUANTITY) {
            return Err(Invalid::new("quantity", quantity, format!("must be a whole number from 0 to {MAX_QUANTITY}")));
        }
        update.size.map_or(Ok(()), check_size)?;
    }
    Ok(())
}

/// The size of builds is the platform's own.
pub(super) fn check_size(size: DynoSize) -> Result<(), Invalid> {
    if size == DynoSize::BUILD {
        return Err(Invalid::new("dyno size", size, "is for builds only"));
    }
    Ok(())
}

/// `web@2:Standard-1X worker@1:Standard-1X`
fn shown(formation: &Formation, named: &[ProcessType]) -> String {
    let entry = |of: &ProcessType| formation.get(of).map(|e| format!("{of}@{}:{}", e.quantity, e.size));
    named.iter().filter_map(entry).collect::<Vec<_>>().join(" ")
}
