//! Where a lake lies.

use std::path::{Path, PathBuf};

use m3ret_search::{Error, Result};

/// How the address of a folder on an object store begins.
const FAR: &str = "s3://";
/// The object that says what a lake is.
pub(crate) const META: &str = "meta.json";

/// Returns whether a path is an address on an object store, such as `s3://bucket/NAME`.
fn is_far(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with(FAR))
}

/// The folder of a lake.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// As it was given.
    pub(crate) path: PathBuf,
    /// As the table's library wants it; it does not end in `/`.
    pub(crate) uri: String,
    /// The local folder; `None` on an object store.
    pub(crate) folder: Option<PathBuf>,
}

impl Place {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let text = path.to_str().ok_or_else(|| {
            let wanted = "UTF-8: lakes lie in folders with such names";
            mismatch("path of a lake", wanted, &path.display().to_string())
        })?;
        let place = |uri: String, folder| Self {
            path: path.to_owned(),
            uri,
            folder,
        };
        if !is_far(path) {
            let folder = std::path::absolute(path).map_err(io("finding", path))?;
            let uri = folder.to_string_lossy().into_owned();
            return Ok(place(uri, Some(folder)));
        }
        let uri = text.trim_end_matches('/');
        let parts = uri.strip_prefix(FAR).and_then(|rest| rest.split_once('/'));
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        match parts {
            Some((bucket, name)) if is_plain(bucket) && name.split('/').all(is_plain) => {
                Ok(place(uri.to_owned(), None))
            }
            _ => Err(mismatch("address of a lake", "s3://BUCKET/NAME", text)),
        }
    }
}

pub(crate) fn mismatch(what: &str, expected: &str, got: &str) -> Error {
    Error::Mismatch {
        what: what.to_owned(),
        expected: expected.to_owned(),
        got: got.to_owned(),
    }
}

/// Makes an answer of the machine or of the object store an error that says what was being done.
pub(crate) fn io<E>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error + use<E>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = path.to_owned();
    move |error| Error::Io {
        action,
        path,
        source: std::io::Error::other(without_places(&error.into().to_string())),
    }
}

/// Returns a message of the table's library without the places in its code, which name folders of the machine that built
/// this program.
fn without_places(message: &str) -> String {
    let is_place = |part: &&str| {
        let mut numbers = part.rsplitn(3, ':');
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let has_numbers = numbers
            .by_ref()
            .take(2)
            .filter(|text| is_number(text))
            .count()
            == 2;
        has_numbers && numbers.next().is_some_and(|file| file.ends_with(".rs"))
    };
    let parts: Vec<&str> = message.split(", ").filter(|part| !is_place(part)).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_no_code() {
        let message =
            "Not found: a/b.lance, /home/x/lance-io-14/src/local.rs:273:40, /y/dataset.rs:7:1";
        assert_eq!(without_places(message), "Not found: a/b.lance");
        let plain = "refused (os error 111), after 3 retries: 1:2";
        assert_eq!(without_places(plain), plain);
    }

    #[test]
    fn addresses_name_a_bucket_and_a_folder() {
        for good in ["s3://bucket/name", "s3://bucket/a/b.lake/"] {
            let place = Place::of(Path::new(good)).unwrap();
            assert!(
                place.folder.is_none() && !place.uri.ends_with('/'),
                "{good}"
            );
        }
        for bad in [
            "s3://",
            "s3://bucket",
            "s3://bucket/",
            "s3:///name",
            "s3://bucket/a//b",
            "s3://bucket/../b",
        ] {
            assert!(
                is_far(Path::new(bad)) && Place::of(Path::new(bad)).is_err(),
                "{bad}"
            );
        }
        assert!(!is_far(Path::new("gallery.m3i")));
    }
}
