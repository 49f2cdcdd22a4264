//! Says how far a job is.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use utoipa::IntoParams;

use super::{Service, json, named};
use crate::accounts::Role;
use crate::guard::Asker;
use crate::jobs::{JobView, MAX_KEY, State as JobState};
use crate::openapi::Refused;
use crate::problem::{Problem, Result};

/// The header by which a request that is sent again is known.
const KEY: &str = "idempotency-key";
/// Longest time that an answer waits for a job.
const MAX_WAIT_S: u64 = 60;
/// How often it is looked whether the job ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long the answer waits.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// Seconds until the answer comes in any case; it comes earlier if the job ends.
    #[serde(default)]
    #[param(maximum = 60)]
    wait: u64,
}

/// Says how far a job of the account is; admins see all jobs.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    params(("id" = String, Path, description = "Id of the job"), Wait),
    responses((status = 200, body = JobView), Refused)
)]
pub(super) async fn job(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: std::result::Result<Path<String>, PathRejection>,
    wait: std::result::Result<Query<Wait>, QueryRejection>,
) -> Result<Response<Body>> {
    let id: String = named(path)?;
    let invalid = || {
        let detail = format!("?wait=SECONDS: 0 to {MAX_WAIT_S} are allowed");
        Problem::unprocessable("invalid_request", detail)
    };
    let Query(Wait { wait }) = wait.map_err(|_| invalid())?;
    if wait > MAX_WAIT_S {
        return Err(invalid());
    }
    let until = Instant::now() + Duration::from_secs(wait);
    let sees_all = asker.role == Role::Admin;
    loop {
        let found = service.jobs.find(&id, &asker.name, sees_all);
        let view = found.ok_or_else(|| Problem::not_found("job"))?;
        let has_ended = matches!(view.state, JobState::Done | JobState::Failed);
        if has_ended || Instant::now() >= until {
            return json(&view);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Says that work goes on after the answer.
pub(super) fn accepted(view: &JobView) -> Result<Response<Body>> {
    let place = format!("/v1/jobs/{}", view.job);
    let answer = json(view)?;
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, place)], answer).into_response())
}

/// Returns the key by which a request that is sent again is known.
pub(super) fn key_of(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(stated) = headers.get(KEY) else {
        return Ok(None);
    };
    let key = stated.to_str().unwrap_or_default();
    match key.is_empty() || key.len() > MAX_KEY {
        true => Err(Problem::unprocessable(
            "invalid_request",
            format!("Idempotency-Key: 1 to {MAX_KEY} letters are wanted"),
        )),
        false => Ok(Some(key.to_owned())),
    }
}
