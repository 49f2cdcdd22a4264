//! The text header of `MetaImage`.

use crate::error::{Error, Result};
use crate::reason::Code;
use crate::samples::{ByteOrder, Scalar};

use super::FORMAT;

/// Where the voxels are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DataFiles {
    Local,
    /// Files beside the header, in order of the slowest axis.
    Beside(Vec<String>),
}

/// The fields that are used.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    /// x first, 1 to 8 of them.
    pub(super) sides: Vec<u64>,
    pub(super) n_channels: u64,
    pub(super) scalar: Scalar,
    pub(super) order: ByteOrder,
    pub(super) is_compressed: bool,
    pub(super) is_text: bool,
    pub(super) header_size: i64,
    /// One direction an axis, one behind the other.
    pub(super) matrix: Option<Vec<f64>>,
    pub(super) offset: Option<Vec<f64>>,
    /// One an axis, or nothing.
    pub(super) spacing: Vec<f64>,
    pub(super) mm_per_unit: f64,
    pub(super) third_is_time: bool,
    pub(super) has_intensity_function: bool,
    pub(super) modality: Option<String>,
    pub(super) files: DataFiles,
}

/// Fields with which writers begin a header.
const FIRST_KEYS: [&str; 8] = [
    "ObjectType",
    "ObjectSubType",
    "NDims",
    "Comment",
    "Name",
    "ID",
    "TransformType",
    "DimSize",
];

/// Returns true if the text begins as an image's header does.
pub(super) fn is_header(head: &[u8]) -> bool {
    let mut keys = head.split(|&byte| byte == b'\n').filter_map(|line| {
        let (key, _) = split_field(line)?;
        Some(key)
    });
    let is_known = |key: &[u8]| FIRST_KEYS.iter().any(|known| known.as_bytes() == key);
    let first = head
        .split(|&byte| byte == b'\n')
        .next()
        .and_then(split_field);
    first.is_some_and(|(key, _)| is_known(key))
        && keys.clone().any(|key| key == b"NDims")
        && keys.any(|key| key == b"DimSize")
}

/// Splits `Key = value`.
fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|&byte| byte == b'=')?;
    let (key, value) = line.split_at(at);
    let value = value.get(1..).unwrap_or_default();
    Some((key.trim_ascii(), value.trim_ascii()))
}

/// Parses the header and returns it with the byte behind it.
pub(super) fn parse(bytes: &[u8]) -> Result<(Header, usize)> {
    let mut fields = Fields(Vec::new());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, behind) = split_line(rest);
        rest = behind;
        let Some((key, value)) = split_field(line) else {
            if line.trim_ascii().is_empty() {
                continue;
            }
            return Err(malformed("a header line without `=`", "`Key = value`"));
        };
        let text = |raw| String::from_utf8_lossy(raw).into_owned();
        let (key, value) = (text(key), text(value));
        if key == "ElementDataFile" {
            let files = data_files(&value, rest)?;
            return Ok((fields.header(files)?, bytes.len() - rest.len()));
        }
        fields.0.push((key, value));
    }
    Err(Error::refused(
        FORMAT,
        Code::Truncated,
        "a header without its last field",
        "ElementDataFile",
    ))
}

/// Returns the names of the data files alone; the rest of the header is not checked.
pub(super) fn data_file_names(bytes: &[u8]) -> Vec<String> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, behind) = split_line(rest);
        rest = behind;
        if let Some((b"ElementDataFile", value)) = split_field(line) {
            return match data_files(&String::from_utf8_lossy(value), rest) {
                Ok(DataFiles::Beside(names)) => names,
                Ok(DataFiles::Local) | Err(_) => Vec::new(),
            };
        }
    }
    Vec::new()
}

fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|&byte| byte == b'\n') {
        Some(end) => (
            bytes.get(..end).unwrap_or_default(),
            bytes.get(end + 1..).unwrap_or_default(),
        ),
        None => (bytes, &[]),
    }
}

/// Returns the names; for LIST they are the lines behind the header.
fn data_files(value: &str, behind: &[u8]) -> Result<DataFiles> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let beside = |name: &str| name.strip_prefix("./").unwrap_or(name).to_owned();
    match words.as_slice() {
        [] => Err(malformed(
            "an empty ElementDataFile",
            "LOCAL, LIST or a file name",
        )),
        ["LOCAL" | "Local" | "local"] => Ok(DataFiles::Local),
        ["LIST"] | ["LIST", _] => {
            let lines = behind.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
            let names = lines.filter(|line| !line.is_empty());
            Ok(DataFiles::Beside(
                names
                    .map(|name| beside(&String::from_utf8_lossy(name)))
                    .collect(),
            ))
        }
        [pattern, ..] if pattern.contains('%') => {
            let advice = "list the files with LIST, or save one file";
            Err(Error::unsupported(
                FORMAT,
                "a numbered pattern of data files",
                advice,
            ))
        }
        _ => Ok(DataFiles::Beside(vec![beside(value)])),
    }
}

struct Fields(Vec<(String, String)>);

impl Fields {
    /// Returns the first field that has one of these names.
    fn get(&self, names: &[&str]) -> Option<&str> {
        let found = names
            .iter()
            .find_map(|name| self.0.iter().find(|(key, _)| key == name));
        found.map(|(_, value)| value.as_str())
    }

    fn header(self, files: DataFiles) -> Result<Header> {
        match self.get(&["ObjectType"]) {
            None | Some("Image") => {}
            Some(_) => {
                let advice = "save an object of type Image";
                return Err(Error::unsupported(
                    FORMAT,
                    "an object that is no image",
                    advice,
                ));
            }
        }
        let sides = self.sides()?;
        let n_dims = sides.len();
        let is_big = self.truth(&["BinaryDataByteOrderMSB", "ElementByteOrderMSB"], false)?;
        let spacing = self.numbers(&["ElementSpacing", "ElementSize"], n_dims)?;
        let function = [
            "ElementToIntensityFunctionSlope",
            "ElementToIntensityFunctionOffset",
        ];
        Ok(Header {
            n_channels: self.number(&["ElementNumberOfChannels"])?.unwrap_or(1),
            scalar: scalar_type(self.get(&["ElementType"]))?,
            order: if is_big {
                ByteOrder::Big
            } else {
                ByteOrder::Little
            },
            is_compressed: self.truth(&["CompressedData"], false)?,
            is_text: !self.truth(&["BinaryData"], true)?,
            header_size: self.number(&["HeaderSize"])?.unwrap_or(0),
            matrix: self.numbers(
                &["TransformMatrix", "Rotation", "Orientation"],
                n_dims * n_dims,
            )?,
            offset: self.numbers(&["Offset", "Position", "Origin"], n_dims)?,
            spacing: spacing.unwrap_or_default(),
            mm_per_unit: self.mm_per_unit()?,
            third_is_time: self.get(&["Kinds"]).is_some_and(|kinds| {
                matches!(kinds.split_whitespace().nth(2), Some("list" | "time"))
            }),
            has_intensity_function: function
                .iter()
                .zip(["1", "0"])
                .any(|(name, neutral)| self.get(&[name]).is_some_and(|value| value != neutral)),
            modality: self.get(&["Modality"]).and_then(modality),
            sides,
            files,
        })
    }

    fn number<T: std::str::FromStr>(&self, names: &[&str]) -> Result<Option<T>> {
        let Some(value) = self.get(names) else {
            return Ok(None);
        };
        let wanted = || malformed(&format!("a {} that is no number", list(names)), "a number");
        value.parse().map(Some).map_err(|_| wanted())
    }

    /// Reads a field of exactly `n` numbers.
    fn numbers(&self, names: &[&str], n: usize) -> Result<Option<Vec<f64>>> {
        let Some(value) = self.get(names) else {
            return Ok(None);
        };
        let numbers = value.split_whitespace().map(|word| word.parse().ok());
        match numbers.collect::<Option<Vec<f64>>>() {
            Some(numbers) if numbers.len() == n => Ok(Some(numbers)),
            _ => Err(malformed(
                &format!("a {} of its own", list(names)),
                &format!("{n} numbers"),
            )),
        }
    }

    fn truth(&self, names: &[&str], default: bool) -> Result<bool> {
        // As ITK: only the first letter counts, and 1 is true.
        match self.get(names).and_then(|value| value.chars().next()) {
            None => Ok(default),
            Some('T' | 't' | '1') => Ok(true),
            Some('F' | 'f' | '0') => Ok(false),
            Some(_) => Err(malformed(
                &format!("a {} that is no truth value", list(names)),
                "True or False",
            )),
        }
    }

    fn sides(&self) -> Result<Vec<u64>> {
        let n_dims: usize = self.number(&["NDims"])?.unwrap_or(0);
        let value = self.get(&["DimSize"]).unwrap_or_default();
        let sides = value.split_whitespace().map(|word| word.parse().ok());
        let sides = sides
            .map(|side| side.filter(|&side: &u64| side > 0))
            .take(9);
        match sides.collect::<Option<Vec<u64>>>() {
            Some(sides) if sides.len() == n_dims && (1..=8).contains(&n_dims) => Ok(sides),
            _ => Err(malformed(
                "sizes that do not fit the dimensions",
                "NDims sizes above 0",
            )),
        }
    }

    fn mm_per_unit(&self) -> Result<f64> {
        match self.get(&["DistanceUnits"]) {
            None | Some("mm" | "?" | "") => Ok(1.0),
            Some("um") => Ok(0.001),
            Some("cm") => Ok(10.0),
            Some(_) => Err(malformed("a distance unit of its own", "mm, cm or um")),
        }
    }
}

fn list(names: &[&str]) -> String {
    names.join(" or ")
}

fn malformed(found: &str, wanted: &str) -> Error {
    Error::malformed(FORMAT, found, wanted)
}

fn modality(value: &str) -> Option<String> {
    let name = match value {
        "MET_MOD_CT" => "CT",
        "MET_MOD_MR" => "MR",
        "MET_MOD_US" => "US",
        "MET_MOD_NM" => "NM",
        _ => return None,
    };
    Some(name.to_owned())
}

fn scalar_type(name: Option<&str>) -> Result<Scalar> {
    let name = name.ok_or_else(|| malformed("no ElementType", "one"))?;
    Ok(match name.strip_suffix("_ARRAY").unwrap_or(name) {
        "MET_CHAR" => Scalar::I8,
        "MET_UCHAR" => Scalar::U8,
        "MET_SHORT" => Scalar::I16,
        "MET_USHORT" => Scalar::U16,
        // MetaIO stores a long in 4 bytes, whatever the machine.
        "MET_INT" | "MET_LONG" => Scalar::I32,
        "MET_UINT" | "MET_ULONG" => Scalar::U32,
        "MET_LONG_LONG" => Scalar::I64,
        "MET_ULONG_LONG" => Scalar::U64,
        "MET_FLOAT" => Scalar::F32,
        "MET_DOUBLE" => Scalar::F64,
        "MET_ASCII_CHAR" | "MET_STRING" | "MET_OTHER" | "MET_NONE" | "MET_FLOAT_MATRIX" => {
            return Err(Error::unsupported(
                FORMAT,
                "an ElementType of no number",
                "save numbers",
            ));
        }
        _ => {
            return Err(malformed(
                "an ElementType that is not in the format",
                "e.g. MET_SHORT",
            ));
        }
    })
}
