//! The text header of NRRD.

use crate::error::{Error, Result};
use crate::reason::Code;
use crate::samples::{ByteOrder, Scalar};

use super::FORMAT;

/// How the voxels are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Raw,
    Gzip,
    Ascii,
    Hex,
}

/// Where the voxels are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DataFiles {
    Attached,
    /// Files beside the header, in order of the slowest axis.
    Detached(Vec<String>),
}

/// The fields that are used. Lists have one entry an axis, or are empty.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    pub(super) scalar: Scalar,
    pub(super) order: Option<ByteOrder>,
    pub(super) encoding: Encoding,
    /// Fastest axis first.
    pub(super) sizes: Vec<u64>,
    pub(super) kinds: Vec<String>,
    pub(super) space: Option<String>,
    pub(super) directions: Vec<Option<Vec<f64>>>,
    pub(super) origin: Option<Vec<f64>>,
    pub(super) spacings: Vec<f64>,
    pub(super) units: Vec<String>,
    pub(super) space_units: Vec<String>,
    pub(super) line_skip: u64,
    pub(super) byte_skip: i64,
    pub(super) files: DataFiles,
    /// True if a key of 3D Slicer's segmentations is there.
    pub(super) is_segmentation: bool,
}

/// Parses the header and returns it with the bytes behind it.
pub(super) fn parse(bytes: &[u8]) -> Result<(Header, &[u8])> {
    let (lines, behind) = split_lines(bytes);
    let mut fields = Fields::default();
    let mut lines = lines.into_iter();
    for line in lines.by_ref().skip(1) {
        if line.starts_with('#') {
            continue;
        }
        if let Some((key, _)) = line.split_once(":=") {
            fields.is_segmentation |= key.starts_with("Segment0_");
            continue;
        }
        let Some((name, value)) = line.split_once(": ").or_else(|| line.split_once(':')) else {
            let found = "a header line without a colon";
            return Err(Error::malformed(
                FORMAT,
                found,
                "`field: value` or `key:=value`",
            ));
        };
        let name: String = name.to_ascii_lowercase().split_whitespace().collect();
        let value = value.trim();
        if name == "datafile" {
            fields.files = Some(data_files(value)?);
            if fields.files.as_ref().is_some_and(Vec::is_empty) {
                break;
            }
        } else {
            fields.pairs.push((name, value.to_owned()));
        }
    }
    if let Some(names) = fields.files.as_mut().filter(|names| names.is_empty()) {
        // LIST: every line up to the end of the header is a name.
        names.extend(lines.map(|line| sibling_name(line.trim())));
    }
    Ok((fields.header()?, behind))
}

/// Returns the names of the data files alone; the rest of the header is not checked.
pub(super) fn data_file_names(bytes: &[u8]) -> Vec<String> {
    let (lines, _) = split_lines(bytes);
    let mut lines = lines.into_iter().skip(1);
    let value = lines.by_ref().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name: String = name.to_ascii_lowercase().split_whitespace().collect();
        (name == "datafile" && !value.starts_with('=')).then(|| value.trim().to_owned())
    });
    match value.map(|value| data_files(&value)) {
        Some(Ok(names)) if names.is_empty() => {
            lines.map(|line| sibling_name(line.trim())).collect()
        }
        Some(Ok(names)) => names,
        Some(Err(_)) | None => Vec::new(),
    }
}

/// Splits the header into lines, up to the first empty one or the end of the file.
fn split_lines(bytes: &[u8]) -> (Vec<String>, &[u8]) {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n');
        let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        rest = end.and_then(|end| rest.get(end + 1..)).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        lines.push(String::from_utf8_lossy(line).into_owned());
    }
    (lines, rest)
}

/// Returns the one name, or nothing for LIST, whose names follow.
fn data_files(value: &str) -> Result<Vec<String>> {
    let words: Vec<&str> = value.split_whitespace().collect();
    match words.as_slice() {
        ["LIST"] | ["LIST", _] => Ok(Vec::new()),
        [pattern, _, _, _] | [pattern, _, _, _, _] if pattern.contains('%') => {
            let advice = "list the files with LIST, or save one file";
            Err(Error::unsupported(
                FORMAT,
                "a numbered pattern of data files",
                advice,
            ))
        }
        _ => Ok(vec![sibling_name(value)]),
    }
}

/// teem writes `./name` for a file beside the header.
fn sibling_name(name: &str) -> String {
    name.strip_prefix("./").unwrap_or(name).to_owned()
}

/// The fields as text, before they are checked.
#[derive(Default)]
struct Fields {
    pairs: Vec<(String, String)>,
    files: Option<Vec<String>>,
    is_segmentation: bool,
}

impl Fields {
    fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    fn header(self) -> Result<Header> {
        let scalar = scalar_type(self.require("type")?)?;
        let encoding = encoding(self.require("encoding")?)?;
        let sizes = self.sizes()?;
        let n_axes = sizes.len();
        let order = match self.get("endian").map(str::to_ascii_lowercase).as_deref() {
            Some("little") => Some(ByteOrder::Little),
            Some("big") => Some(ByteOrder::Big),
            Some(_) => return Err(malformed("an endian of its own", "little or big")),
            None if scalar.n_bytes() > 1 && encoding != Encoding::Ascii => {
                return Err(malformed("no endian", "one, for numbers wider than a byte"));
            }
            None => None,
        };
        let words = |name| -> Vec<String> {
            let words = self.get(name).unwrap_or_default().split_whitespace();
            words.map(str::to_ascii_lowercase).collect()
        };
        let directions = self.get("spacedirections").map(vectors).transpose()?;
        let origin = self.get("spaceorigin").map(vectors).transpose()?;
        Ok(Header {
            scalar,
            order,
            encoding,
            kinds: per_axis("kinds", words("kinds"), n_axes)?,
            space: self.get("space").map(str::to_ascii_lowercase),
            directions: per_axis("space directions", directions.unwrap_or_default(), n_axes)?,
            origin: origin.and_then(|vectors| vectors.into_iter().next().flatten()),
            spacings: per_axis("spacings", self.numbers("spacings")?, n_axes)?,
            units: per_axis(
                "units",
                quoted(self.get("units").unwrap_or_default()),
                n_axes,
            )?,
            space_units: quoted(self.get("spaceunits").unwrap_or_default()),
            line_skip: self.number("lineskip")?.unwrap_or(0),
            byte_skip: self.number("byteskip")?.unwrap_or(0),
            files: self.files.map_or(DataFiles::Attached, DataFiles::Detached),
            is_segmentation: self.is_segmentation,
            sizes,
        })
    }

    fn require(&self, name: &str) -> Result<&str> {
        self.get(name)
            .ok_or_else(|| malformed(&format!("no field `{name}`"), "one"))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let parse = |value: &str| value.parse().ok();
        match self.get(name) {
            Some(value) => match parse(value) {
                Some(number) => Ok(Some(number)),
                None => Err(malformed(
                    &format!("a `{name}` that is no number"),
                    "a number",
                )),
            },
            None => Ok(None),
        }
    }

    fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        let words = self.get(name).unwrap_or_default().split_whitespace();
        words
            .map(|word| word.parse().ok())
            .collect::<Option<_>>()
            .ok_or_else(|| malformed(&format!("a `{name}` that is no number"), "numbers"))
    }

    fn sizes(&self) -> Result<Vec<u64>> {
        let words = self.require("sizes")?.split_whitespace();
        let sizes = words.map(|word| word.parse().ok().filter(|&side: &u64| side > 0));
        // teem's own limit is 16 axes.
        let sizes = sizes.take(17).collect::<Option<Vec<_>>>();
        let sizes = sizes.ok_or_else(|| malformed("a size that is no number above 0", "one"))?;
        let n_axes: u64 = self.number("dimension")?.unwrap_or(0);
        if n_axes != sizes.len() as u64 || !(1..=16).contains(&n_axes) {
            let found = format!("{} sizes for dimension {n_axes}", sizes.len());
            return Err(malformed(&found, "as many as dimension says, 1 to 16"));
        }
        Ok(sizes)
    }
}

fn malformed(found: &str, wanted: &str) -> Error {
    Error::malformed(FORMAT, found, wanted)
}

/// Checks that a list is absent or has one entry an axis.
fn per_axis<T>(name: &str, list: Vec<T>, n_axes: usize) -> Result<Vec<T>> {
    if list.is_empty() || list.len() == n_axes {
        return Ok(list);
    }
    let found = format!("{} entries of `{name}`", list.len());
    Err(malformed(&found, &format!("{n_axes}, one an axis")))
}

fn scalar_type(name: &str) -> Result<Scalar> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "signed char" | "int8" | "int8_t" => Scalar::I8,
        "uchar" | "unsigned char" | "uint8" | "uint8_t" => Scalar::U8,
        "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => {
            Scalar::I16
        }
        "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => Scalar::U16,
        "int" | "signed int" | "int32" | "int32_t" => Scalar::I32,
        "uint" | "unsigned int" | "uint32" | "uint32_t" => Scalar::U32,
        "longlong"
        | "long long"
        | "long long int"
        | "signed long long"
        | "signed long long int"
        | "int64"
        | "int64_t" => Scalar::I64,
        "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" | "uint64_t" => {
            Scalar::U64
        }
        "float" => Scalar::F32,
        "double" => Scalar::F64,
        "block" => {
            return Err(Error::unsupported(
                FORMAT,
                "type block",
                "save a type of numbers",
            ));
        }
        _ => {
            return Err(malformed(
                "a type that is not in the format",
                "e.g. int16 or float",
            ));
        }
    })
}

fn encoding(name: &str) -> Result<Encoding> {
    match name.to_ascii_lowercase().as_str() {
        "raw" => Ok(Encoding::Raw),
        "gz" | "gzip" => Ok(Encoding::Gzip),
        "txt" | "text" | "ascii" => Ok(Encoding::Ascii),
        "hex" => Ok(Encoding::Hex),
        "bz2" | "bzip2" => Err(Error::unsupported(
            FORMAT,
            "encoding bzip2",
            "save it as gzip or raw",
        )),
        "zrl" => Err(Error::unsupported(
            FORMAT,
            "encoding zrl",
            "save it as gzip or raw",
        )),
        _ => Err(malformed(
            "an encoding that is not in the format",
            "raw, gzip, ascii or hex",
        )),
    }
}

/// Parses `(1,0,0) none (0,0,1)`.
fn vectors(text: &str) -> Result<Vec<Option<Vec<f64>>>> {
    let broken = || {
        Error::refused(
            FORMAT,
            Code::Malformed,
            "a space direction or origin that is no vector",
            "(x,y,z) or none",
        )
    };
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix("none") {
            found.push(None);
            rest = behind.trim_start();
            continue;
        }
        let inner = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        let (inner, behind) = inner.ok_or_else(broken)?;
        let numbers = inner.split(',').map(|word| word.trim().parse::<f64>().ok());
        let numbers = numbers.collect::<Option<Vec<_>>>().ok_or_else(broken)?;
        // A vector of NaN is how teem writes `none` in memory.
        found.push(Some(numbers).filter(|numbers| !numbers.iter().all(|n| n.is_nan())));
        rest = behind.trim_start();
    }
    Ok(found)
}

/// Parses `"mm" "mm" ""`, and the same without quotes, as pynrrd writes it.
fn quoted(text: &str) -> Vec<String> {
    if text.contains('"') {
        text.split('"')
            .skip(1)
            .step_by(2)
            .map(str::to_ascii_lowercase)
            .collect()
    } else {
        text.split_whitespace()
            .map(str::to_ascii_lowercase)
            .collect()
    }
}
