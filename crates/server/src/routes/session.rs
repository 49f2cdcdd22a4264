//! Sessions of browsers: a token for a cookie.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use serde::Deserialize;

use super::{Service, read_json};
use crate::audit::Entry;
use crate::guard::{Asker, COOKIE, session_of};
use crate::problem::{Problem, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    token: String,
}

/// Gives a cookie for a token.
pub(super) async fn begin(
    State(service): State<Arc<Service>>,
    request: Request,
) -> Result<Response<Body>> {
    let (head, mut body) = request.into_parts();
    let Token { token } = read_json(&mut body, &head.headers, &service.limits).await?;
    let account = service.accounts.of_token(&token);
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
    let cookie = format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200");
    with_cookie(&cookie)
}

/// Ends the session of the cookie.
pub(super) async fn end(
    State(service): State<Arc<Service>>,
    Extension(_): Extension<Asker>,
    headers: HeaderMap,
) -> Result<Response<Body>> {
    if let Some(session) = session_of(&headers) {
        service.accounts.end(session);
    }
    with_cookie(&format!(
        "{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"
    ))
}

fn with_cookie(cookie: &str) -> Result<Response<Body>> {
    let cookie = HeaderValue::from_str(cookie).map_err(|_| Problem::internal("internal_error"))?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
