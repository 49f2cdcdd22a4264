//! What every request passes: the name it calls the server by, its account, its time, and headers of its answer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::accounts::{Account, Role};
use crate::page;
use crate::problem::{Problem, Result};
use crate::routes::{Service, drain};

/// The cookie of a session.
pub(crate) const COOKIE: &str = "m3ret_session";
/// The header that pages of other sites cannot send.
const OWN_HEADER: &str = "x-m3ret";
/// The header with the purpose of a request.
const PURPOSE: &str = "x-purpose";
/// Longest purpose.
const MAX_PURPOSE: usize = 64;

/// What an answer may load and who may show it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Who asks, and why.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) purpose: String,
}

/// Passes a request on if it may, within its time.
pub(crate) async fn pass(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Response {
    let limit = service.limits.request;
    let passed = async {
        let (head, mut body) = request.into_parts();
        match admit(&service, &head) {
            Ok(asker) => {
                let mut request = Request::from_parts(head, body);
                if let Some(asker) = asker {
                    request.extensions_mut().insert(asker);
                }
                next.run(request).await
            }
            Err(problem) => {
                drain(&mut body).await;
                problem.into_response()
            }
        }
    };
    let passed = tokio::time::timeout(limit, passed).await;
    let mut response = passed.unwrap_or_else(|_| {
        let detail = format!("the request took longer than {} s", limit.as_secs());
        Problem::new(408, "timeout", detail).into_response()
    });
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    ] {
        headers.insert(name, value);
    }
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    response
}

/// Checks what a request calls the server and who asks; `None` for what everyone may see.
fn admit(service: &Service, head: &Parts) -> Result<Option<Asker>> {
    let host = head.headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    // A page of another site that had its name point here would send that name.
    if !service
        .hosts
        .iter()
        .any(|own| own.eq_ignore_ascii_case(host))
    {
        return Err(Problem::new(
            421,
            "wrong_host",
            "the request calls this server by a name that is not its own; --host allows one",
        ));
    }
    match is_public(&head.method, head.uri.path()) {
        true => Ok(None),
        false => Ok(Some(asker(service, &head.headers, &head.method)?)),
    }
}

fn is_public(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD => {
            page::PLACES.contains(&path) || ["/livez", "/readyz"].contains(&path)
        }
        Method::POST => path == "/v1/session",
        _ => false,
    }
}

fn asker(service: &Service, headers: &HeaderMap, method: &Method) -> Result<Asker> {
    let unknown = || Problem::new(401, "unauthorized", "a valid token or session is wanted");
    let account: Account = match headers.get(header::AUTHORIZATION) {
        Some(stated) => {
            let token = stated.to_str().ok().and_then(|text| text.split_once(' '));
            let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let token = token.map(|(_, token)| token.trim());
            token
                .and_then(|token| service.accounts.of_token(token))
                .ok_or_else(unknown)?
        }
        None => {
            let account =
                session_of(headers).and_then(|cookie| service.accounts.of_session(cookie));
            let account = account.ok_or_else(unknown)?;
            let is_write = !matches!(*method, Method::GET | Method::HEAD);
            if is_write && headers.get(OWN_HEADER).is_none_or(|value| value != "1") {
                let detail = "a request with a cookie that writes needs the header X-M3RET: 1";
                return Err(Problem::new(403, "header_wanted", detail));
            }
            account
        }
    };
    Ok(Asker {
        name: account.name,
        role: account.role,
        purpose: purpose_of(headers)?,
    })
}

/// Returns the purpose that a request states; a word or two, as it becomes part of the audit trail.
fn purpose_of(headers: &HeaderMap) -> Result<String> {
    let Some(stated) = headers.get(PURPOSE) else {
        return Ok(String::new());
    };
    let is_fine = |byte: &u8| byte.is_ascii_alphanumeric() || b" _.-".contains(byte);
    let purpose = stated.to_str().unwrap_or_default();
    if purpose.is_empty() || purpose.len() > MAX_PURPOSE || !purpose.as_bytes().iter().all(is_fine)
    {
        let detail =
            format!("X-Purpose: 1 to {MAX_PURPOSE} letters, digits, spaces or _ . - are wanted");
        return Err(Problem::unprocessable("invalid_purpose", detail));
    }
    Ok(purpose.to_owned())
}

/// Returns what the cookie of a session holds.
pub(crate) fn session_of(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter();
    let texts = all.filter_map(|value| value.to_str().ok());
    let mut cookies = texts.flat_map(|text| text.split(';'));
    cookies.find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}
