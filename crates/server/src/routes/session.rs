//! Sessions of browsers: a token for a cookie.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Service, json, read_json};
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
    with_cookie(is_encrypted(&service, &head.headers), &session, 43_200)
}

/// Who asks.
#[derive(Serialize, ToSchema)]
pub(super) struct WhoView<'a> {
    account: &'a str,
    role: &'a str,
}

/// Says which account asks, and what its role is.
#[utoipa::path(get, path = "/v1/session", responses((status = 200, body = WhoView), Refused))]
pub(super) async fn who(Extension(asker): Extension<Asker>) -> Result<Response<Body>> {
    json(&WhoView {
        account: &asker.name,
        role: asker.role.name(),
    })
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
    with_cookie(is_encrypted(&service, &headers), "", 0)
}

/// Whether the browser's connection is encrypted: by this server, or by a proxy that says so. A client that says so
/// itself keeps its cookie from connections that are not, and nobody else's.
fn is_encrypted(service: &Service, headers: &HeaderMap) -> bool {
    let stated = headers.get("x-forwarded-proto");
    let is_https = |stated: &HeaderValue| stated.as_bytes().eq_ignore_ascii_case(b"https");
    service.is_encrypted || stated.is_some_and(is_https)
}

fn with_cookie(is_encrypted: bool, session: &str, seconds: u32) -> Result<Response<Body>> {
    let secure = if is_encrypted { "; Secure" } else { "" };
    let cookie =
        format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    let cookie = HeaderValue::from_str(&cookie).map_err(|_| Problem::internal("internal_error"))?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
