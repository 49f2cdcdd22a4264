//! Sessions of browsers: a token for a cookie.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Service, read_json};
use crate::audit::Entry;
use crate::guard::{Asker, COOKIE, session_of};
use crate::openapi::Refused;
use crate::problem::{Problem, Result};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    token: String,
}

/// Gives a cookie for a token.
#[utoipa::path(
    post,
    path = "/v1/session",
    security(()),
    request_body = Token,
    responses((status = 204, headers(("set-cookie" = String))), Refused)
)]
pub(super) async fn begin(
    State(service): State<Arc<Service>>,
    request: Request,
) -> Result<Response<Body>> {
    let (head, mut body) = request.into_parts();
    // Whoever asks has no account yet, and must not hold a place for long.
    let read = read_json(&mut body, &head.headers, &service.limits);
    let read = tokio::time::timeout(service.limits.head, read).await;
    let Token { token } =
        read.map_err(|_| Problem::new(408, "timeout", "the token did not arrive"))??;
    let account = service.checker.of_token(&service.accounts, &token).await?;
    let account =
        account.ok_or_else(|| Problem::new(401, "unauthorized", "a valid token is wanted"))?;
    let asker = Asker {
        name: account.name.clone(),
        role: account.role,
        purpose: String::new(),
    };
    let entry = Entry {
        action: "110114 User Authentication".to_owned(),
        ..Entry::default()
    };
    service.record(&asker, entry).await?;
    let session = service.accounts.begin(&account);
    let session = session.map_err(|_| Problem::internal("internal_error"))?;
    with_cookie(&service, &session, 43_200)
}

/// Ends the session of the cookie.
#[utoipa::path(delete, path = "/v1/session", responses((status = 204), Refused))]
pub(super) async fn end(
    State(service): State<Arc<Service>>,
    Extension(_): Extension<Asker>,
    headers: HeaderMap,
) -> Result<Response<Body>> {
    if let Some(session) = session_of(&headers) {
        service.accounts.end(session);
    }
    with_cookie(&service, "", 0)
}

fn with_cookie(service: &Service, session: &str, seconds: u32) -> Result<Response<Body>> {
    let secure = if service.is_encrypted { "; Secure" } else { "" };
    let cookie =
        format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    let cookie = HeaderValue::from_str(&cookie).map_err(|_| Problem::internal("internal_error"))?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
