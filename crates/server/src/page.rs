//! The page: a document, its style sheet and script, and the viewer of volumes.

use axum::http::header;
use axum::response::IntoResponse;

/// The viewer of volumes, as it was released (`tools/vendor_niivue`); loaded when a volume is shown.
pub(crate) const NIIVUE: &str = "/niivue-0.69.0.js";
/// What everyone may see.
pub(crate) const PLACES: [&str; 5] = ["/", "/app.js", "/app.css", NIIVUE, "/niivue-license.txt"];

const SCRIPT_KIND: &str = "text/javascript; charset=utf-8";

fn of(kind: &'static str, text: impl Into<axum::body::Bytes>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text.into())
}

pub(crate) async fn html() -> impl IntoResponse {
    of("text/html; charset=utf-8", include_str!("web/index.html"))
}

pub(crate) async fn script() -> impl IntoResponse {
    let all = [
        m3ret::report::VIEWER_SCRIPT,
        m3ret::report::HITS_SCRIPT,
        include_str!("web/basket.js"),
        include_str!("web/volumes.js"),
        include_str!("web/region.js"),
        include_str!("web/erase.js"),
        include_str!("web/app.js"),
    ];
    of(SCRIPT_KIND, all.concat())
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

pub(crate) async fn niivue() -> impl IntoResponse {
    of(
        SCRIPT_KIND,
        &include_bytes!("web/vendor/niivue-0.69.0.umd.js")[..],
    )
}

pub(crate) async fn niivue_license() -> impl IntoResponse {
    of(
        "text/plain; charset=utf-8",
        include_str!("web/vendor/niivue-LICENSE.txt"),
    )
}
