//! What every page shares: one head, one palette, and the ways data and pictures stand inside a page.

use std::fmt::Write as _;

use serde_json::Value;

/// The palette and the elements of every page.
pub(crate) const BASE: &str = include_str!("web/base.css");

/// One page, which needs no other file and no network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page<'a> {
    /// What the window shows; it begins with `m3ret`, by which a page of ours is known.
    pub(crate) title: &'a str,
    /// Rules beside those of every page.
    pub(crate) style: &'a str,
    /// HTML: the element `main`, and what stands beside it.
    pub(crate) body: &'a str,
    /// What draws the page from its data; empty for a page that is drawn already.
    pub(crate) script: &'a str,
    /// What the script finds in the element `data`.
    pub(crate) data: Option<&'a Value>,
}

impl Page<'_> {
    /// Returns the page as HTML.
    ///
    /// The page may load nothing: its policy allows its own style, its own script, and pictures that stand in it.
    #[must_use]
    pub(crate) fn html(&self) -> String {
        let script = if self.script.is_empty() {
            ""
        } else {
            " script-src 'unsafe-inline';"
        };
        let mut html = format!(
            "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline';{script} img-src data:\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>{title}</title>
<style>
{BASE}{style}</style>
</head>
<body>
{body}",
            title = escape(self.title),
            style = self.style,
            body = self.body,
        );
        if let Some(data) = self.data {
            let data = harmless(&data.to_string());
            // Writing to a `String` cannot fail.
            let _ = writeln!(
                html,
                "<script type=\"application/json\" id=\"data\">{data}</script>"
            );
        }
        if !self.script.is_empty() {
            let _ = writeln!(html, "<script>\n{}</script>", self.script);
        }
        html + "</body>\n</html>\n"
    }
}

/// Makes text harmless between tags and in quoted attributes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Keeps JSON from ending the element that it stands in.
pub(crate) fn harmless(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// Returns a PNG as an address that needs no other file.
pub(crate) fn data_url(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64(png))
}

/// Returns a JPEG as an address that needs no other file.
pub(crate) fn jpeg_url(jpeg: &[u8]) -> String {
    format!("data:image/jpeg;base64,{}", base64(jpeg))
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes bytes as base64 with padding.
///
/// # Source
/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let part = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        // Three bytes are four digits of 6 bits; a digit that no byte reaches is padding.
        let bits = part(0) << 16 | part(1) << 8 | part(2);
        for place in 0..4 {
            let digit = bits >> (18 - 6 * place) & 63;
            if place <= three.len() {
                text.push(char::from(DIGITS[digit as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_stands_alone() {
        let data = serde_json::json!({"name": "</script><img src=x>"});
        let page = Page {
            title: "m3ret <test>",
            style: "p { color: red; }\n",
            body: "<main></main>\n",
            script: "\"use strict\";\n",
            data: Some(&data),
        };
        let html = page.html();
        assert_eq!(html.matches("</script>").count(), 2);
        assert!(!html.contains("<img") && html.contains("m3ret &lt;test&gt;"));
        assert!(html.is_ascii() && !html.contains("http://") && !html.contains("https://"));
        let plain = Page {
            script: "",
            data: None,
            ..page
        };
        assert!(!plain.html().contains("script"));
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, wanted) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), wanted);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
        assert_eq!(data_url(b"f"), "data:image/png;base64,Zg==");
    }

    #[test]
    fn data_cannot_leave_their_element() {
        assert_eq!(harmless("</script>&"), "\\u003c/script\\u003e\\u0026");
    }
}
