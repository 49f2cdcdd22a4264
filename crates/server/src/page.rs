//! The page: three files without any other.

use axum::http::header;
use axum::response::IntoResponse;

fn of(kind: &'static str, text: impl Into<axum::body::Bytes>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text.into())
}

pub(crate) async fn html() -> impl IntoResponse {
    of("text/html; charset=utf-8", include_str!("web/index.html"))
}

pub(crate) async fn script() -> impl IntoResponse {
    of(
        "text/javascript; charset=utf-8",
        [
            m3ret::report::VIEWER_SCRIPT,
            m3ret::report::HITS_SCRIPT,
            include_str!("web/app.js"),
        ]
        .concat(),
    )
}

pub(crate) async fn style() -> impl IntoResponse {
    let all = [
        m3ret::report::BASE_STYLE,
        m3ret::report::VIEWER_STYLE,
        m3ret::report::SEARCH_STYLE,
        include_str!("web/app.css"),
    ];
    of("text/css; charset=utf-8", all.concat())
}
