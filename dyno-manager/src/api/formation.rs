//! `/apps/:app/formation`

use axum::{
    Json, Router,
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{
    Api, Shared,
    failure::Answer,
    json::{Body, app_ref, list},
};
use crate::{
    model::{App, Invalid, MAX_QUANTITY},
    platform::Error,
    store::{FormationRow, FormationUpdate},
};

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/apps/{app}/formation", get(index).patch(update_many)).route("/apps/{app}/formation/{type}", get(info).patch(update_one))
}

#[derive(Deserialize)]
struct Updates {
    updates: Vec<Update>,
}

#[derive(Deserialize)]
struct Update {
    #[serde(rename = "type")]
    process_type: Option<String>,
    quantity: Option<Value>,
    size: Option<String>,
}

async fn index(State(api): Shared, Path(app): Path<String>, headers: HeaderMap) -> Answer<Response> {
    let app = api.platform.app(&app).await?;
    let rows = api.platform.formation(&app).await?;
    Ok(list(&headers, rows.iter().map(|row| shape(&app, row)).collect()))
}

async fn info(State(api): Shared, Path((app, of)): Path<(String, String)>) -> Answer<Json<Value>> {
    let app = api.platform.app(&app).await?;
    let row = api.platform.formation_of(&app, &of).await?;
    Ok(Json(shape(&app, &row)))
}

async fn update_many(State(api): Shared, Path(app): Path<String>, Body(wanted): Body<Updates>) -> Answer<Json<Value>> {
    let app = api.platform.app(&app).await?;
    let updates = wanted.updates.into_iter().map(|update| parse(update, None)).collect::<Result<_, _>>()?;
    let rows = api.platform.scale(&app, updates).await?;
    Ok(Json(rows.iter().map(|row| shape(&app, row)).collect()))
}

async fn update_one(State(api): Shared, Path((app, of)): Path<(String, String)>, Body(wanted): Body<Update>) -> Answer<Json<Value>> {
    let app = api.platform.app(&app).await?;
    // A type that cannot be named at all is as unknown as one that is not declared.
    api.platform.formation_of(&app, &of).await?;
    let rows = api.platform.scale(&app, vec![parse(wanted, Some(of))?]).await?;
    Ok(Json(rows.first().map_or(Value::Null, |row| shape(&app, row))))
}

fn parse(update: Update, of: Option<String>) -> Result<FormationUpdate, Error> {
    let name = of.or(update.process_type).ok_or_else(|| Error::BadRequest("an update names no type".into()))?;
    let quantity = update.quantity.filter(|q| !q.is_null());
    Ok(FormationUpdate {
        process_type: name.parse()?,
        quantity: quantity.as_ref().map(whole).transpose()?,
        size: update.size.as_deref().map(str::parse).transpose()?,
    })
}

/// Whole numbers only: "2", 2.5 and -1 are refused, not guessed at.
fn whole(quantity: &Value) -> Result<u32, Invalid> {
    let number = quantity.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= MAX_QUANTITY);
    number.ok_or_else(|| Invalid::new("quantity", quantity, format!("must be a whole number from 0 to {MAX_QUANTITY}")))
}

fn shape(app: &App, row: &FormationRow) -> Value {
    json!({
        "id": row.id,
        "app": app_ref(app),
        "type": row.process_type,
        "command": row.command,
        "quantity": row.quantity,
        "size": row.size,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    })
}
