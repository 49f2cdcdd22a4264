//! What a client is told when a request fails.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;

/// A failed request, as RFC 9457 writes it.
///
/// The detail names limits, columns of requests and reason codes. It never holds text of a header or a file, a path of
/// this machine, or a patient.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

/// A result of a request.
pub(crate) type Result<T> = std::result::Result<T, Problem>;

/// Seconds after which a client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");
/// The same where an account has seen what it may.
const RETRY_LATER: HeaderValue = HeaderValue::from_static("600");

impl Problem {
    pub(crate) fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code,
            detail: detail.into(),
        }
    }

    /// What is wrong, for programs.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// Whether the server failed, and not the client.
    pub(crate) fn is_internal(&self) -> bool {
        self.status == StatusCode::INTERNAL_SERVER_ERROR
    }

    /// More work waits than may.
    pub(crate) fn busy() -> Self {
        Self::new(503, "busy", "too many requests wait; try again")
    }

    /// Something is larger than its limit.
    pub(crate) fn too_large(what: &str, limit: u64, unit: &str) -> Self {
        let detail = format!("{what}: at most {limit} {unit} are allowed");
        Self::new(413, "limit_exceeded", detail)
    }

    /// The request is understood and cannot be answered.
    pub(crate) fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(422, code, detail)
    }

    /// An image cannot be read; the code is one of docs/reason-codes.md.
    pub(crate) fn unreadable(code: &'static str) -> Self {
        Self::unprocessable(code, format!("the image cannot be read: {code}"))
    }

    /// Nothing has this name.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(404, "not_found", format!("there is no such {what}"))
    }

    /// The server failed; its own messages may name paths.
    pub(crate) fn internal(code: &'static str) -> Self {
        Self::new(500, code, "the server could not answer; its owner must act")
    }

    /// An error of the library, whose words may hold paths of this machine.
    pub(crate) fn of_library(error: &m3ret::Error) -> Self {
        use m3ret::Error;
        match error {
            Error::Image(_) => Self::unprocessable("unreadable", "the image cannot be read"),
            Error::Caller(_) => Self::unprocessable(
                "invalid_request",
                "filter, exclude or group_by name a column or value that the index lacks, or the query does not fit it",
            ),
            _ if is_locked(error) => {
                let detail = "another program writes to the index; try again";
                Self::new(503, "locked", detail)
            }
            Error::Gallery(_) => Self::internal("gallery"),
            Error::Model(_) => Self::internal("model"),
            Error::Io(_) => Self::internal("io"),
            Error::Training(_) | Error::Stopped(_) => Self::internal("internal_error"),
        }
    }
}

/// Whether another writer has the gallery.
pub(crate) fn is_locked(error: &m3ret::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(m3ret_search::Error::Locked { .. }) = found.downcast_ref() {
            return true;
        }
        cause = found.source();
    }
    false
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let body = json!({
            "type": format!("urn:m3ret:problem:{}", self.code),
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body.to_string()).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, RETRY_LATER);
            }
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer realm=\"m3ret\"");
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            // What is left of the body is not read, and must not be taken for the next request.
            StatusCode::PAYLOAD_TOO_LARGE => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}
