//! What a DICOM header says that may tell images at one position apart.
//!
//! # Source
//! DICOM PS3.3 C.7.6.1 (general image), C.8.3.1 (MR), C.8.13.5 (enhanced MR), C.8.9.4 (PET),
//! C.7.6.17 (dimensions).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dataset::DataSet;
use crate::division::{Quantity, Role, Shows, TIME, Value};
use crate::error::Result;

/// Siemens' b-value and gradient direction, private, where the standard's are absent.
const SIEMENS_B_VALUE: Tag = Tag(0x0019, 0x100C);
const SIEMENS_DIRECTION: Tag = Tag(0x0019, 0x100E);
/// GE's b-value, the first of four numbers.
const GE_B_VALUE: Tag = Tag(0x0043, 0x1039);
/// Where the frame's own `ImageType` stands, by modality.
const FRAME_TYPES: [Tag; 3] = [
    tags::MR_IMAGE_FRAME_TYPE_SEQUENCE,
    tags::CT_IMAGE_FRAME_TYPE_SEQUENCE,
    tags::PET_FRAME_TYPE_SEQUENCE,
];
/// Most dimensions of an object that take part; each may be tried against each image.
const MAX_DIMENSIONS: usize = 16;

const fn setting(name: &'static str, shows: Shows) -> Quantity {
    let role = Role::Setting;
    Quantity { name, role, shows }
}

const fn kind(name: &'static str, shows: Shows) -> Quantity {
    let role = Role::Kind;
    Quantity { name, role, shows }
}

const fn time(role: Role) -> Quantity {
    Quantity {
        name: TIME,
        role,
        shows: Shows::Place(0),
    }
}

/// The attributes that are looked at, those to be tried first in front: what kind of picture it is,
/// how it was made, which of several it is, when it was made, and at last its number.
pub(crate) const QUANTITIES: [Quantity; 20] = [
    kind("type", Shows::Value),
    kind("type", Shows::Value),
    kind("units", Shows::Value),
    kind("kernel", Shows::Value),
    setting("kv", Shows::Value),
    kind("echo", Shows::Place(1)),
    kind("echo", Shows::Place(1)),
    setting("ti", Shows::Value),
    setting("flip", Shows::Value),
    kind("b", Shows::Value),
    setting("direction", Shows::Place(1)),
    setting("thickness", Shows::Value),
    setting("dimension", Shows::Place(1)),
    time(Role::Number),
    Quantity {
        name: "acquisition",
        role: Role::Number,
        shows: Shows::Value,
    },
    time(Role::Clock),
    time(Role::Phase),
    time(Role::Clock),
    time(Role::Clock),
    Quantity {
        name: "set",
        role: Role::Count,
        shows: Shows::Place(1),
    },
];

/// Values in the order of `QUANTITIES`.
pub(crate) type Values = [Value; QUANTITIES.len()];

/// Nothing stated.
pub(crate) const NONE: Values = [const { Value::Missing }; QUANTITIES.len()];

/// Returns the attributes of a data set, in the order of `QUANTITIES`.
pub(crate) fn of_header(set: &DataSet<'_>) -> Values {
    let b_value = set.f64(tags::DIFFUSION_B_VALUE);
    let b_value = b_value.or_else(|| set.decimal(SIEMENS_B_VALUE));
    // GE adds a billion to some.
    let b_value = b_value.or_else(|| set.decimal(GE_B_VALUE).map(|b| b % 1e9));
    let direction = set.f64_array(tags::DIFFUSION_GRADIENT_ORIENTATION);
    let direction = direction.or_else(|| set.f64_array(SIEMENS_DIRECTION));
    [
        word(set, tags::IMAGE_TYPE),
        word(set, tags::COMPLEX_IMAGE_COMPONENT),
        word(set, tags::UNITS),
        word(set, tags::CONVOLUTION_KERNEL),
        number(set.decimal(tags::KVP)),
        number(set.decimal(tags::ECHO_NUMBERS)),
        number(set.decimal(tags::ECHO_TIME)),
        number(set.decimal(tags::INVERSION_TIME)),
        number(set.decimal(tags::FLIP_ANGLE)),
        number(b_value),
        rounded(direction),
        number(set.decimal(tags::SLICE_THICKNESS)),
        Value::Missing,
        number(set.decimal(tags::TEMPORAL_POSITION_IDENTIFIER)),
        number(set.decimal(tags::ACQUISITION_NUMBER)),
        number(milliseconds(set.decimal(tags::FRAME_REFERENCE_TIME))),
        number(milliseconds(set.decimal(tags::TRIGGER_TIME))),
        number(moment(
            set,
            [tags::ACQUISITION_DATE, tags::ACQUISITION_TIME],
            tags::ACQUISITION_DATE_TIME,
        )),
        number(moment(
            set,
            [tags::CONTENT_DATE, tags::CONTENT_TIME],
            tags::FRAME_ACQUISITION_DATE_TIME,
        )),
        number(instance_number(set)),
    ]
}

/// Returns the attributes that functional groups state, of one frame or of all.
///
/// # Errors
/// As `DataSet::items`.
pub(crate) fn of_groups(groups: &DataSet<'_>) -> Result<Values> {
    let first = |tag| groups.first_item(tag);
    let mut values = NONE;
    let [
        kind,
        component,
        _,
        kernel,
        _,
        _,
        echo,
        ti,
        flip,
        b_value,
        direction,
        _,
        _,
        index,
        _,
        reference,
        phase,
        acquired,
        ..,
    ] = &mut values;
    for tag in FRAME_TYPES {
        if let Some(item) = first(tag)? {
            *kind = word(&item, tags::FRAME_TYPE);
            *component = word(&item, tags::COMPLEX_IMAGE_COMPONENT);
        }
    }
    if let Some(item) = first(tags::CT_RECONSTRUCTION_SEQUENCE)? {
        *kernel = word(&item, tags::CONVOLUTION_KERNEL);
    }
    if let Some(item) = first(tags::MR_ECHO_SEQUENCE)? {
        *echo = number(item.f64(tags::EFFECTIVE_ECHO_TIME));
    }
    if let Some(item) = first(tags::MR_MODIFIER_SEQUENCE)? {
        *ti = number(item.f64(tags::INVERSION_TIMES));
    }
    if let Some(item) = first(tags::MR_TIMING_AND_RELATED_PARAMETERS_SEQUENCE)? {
        *flip = number(item.decimal(tags::FLIP_ANGLE));
    }
    if let Some(item) = first(tags::MR_DIFFUSION_SEQUENCE)? {
        *b_value = number(item.f64(tags::DIFFUSION_B_VALUE));
        if let Some(inner) = item.first_item(tags::DIFFUSION_GRADIENT_DIRECTION_SEQUENCE)? {
            *direction = rounded(inner.f64_array(tags::DIFFUSION_GRADIENT_ORIENTATION));
        }
    }
    if let Some(item) = first(tags::CARDIAC_SYNCHRONIZATION_SEQUENCE)? {
        *phase = number(milliseconds(
            item.f64(tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME),
        ));
    }
    if let Some(item) = first(tags::FRAME_CONTENT_SEQUENCE)? {
        *index = number(item.u32(tags::TEMPORAL_POSITION_INDEX).map(f64::from));
        let time = |tag| number(item.text(tag).and_then(|text| date_time(&text)));
        *reference = time(tags::FRAME_REFERENCE_DATE_TIME);
        *acquired = time(tags::FRAME_ACQUISITION_DATE_TIME);
    }
    Ok(values)
}

/// Takes from `others` what `own` leaves out.
pub(crate) fn or(mut own: Values, others: &Values) -> Values {
    for (value, other) in own.iter_mut().zip(others) {
        if *value == Value::Missing {
            value.clone_from(other);
        }
    }
    own
}

/// Sets the indices of an object of one frame along its own dimensions, as one word.
///
/// # Errors
/// As `DataSet::items`.
pub(crate) fn indexed(mut values: Values, set: &DataSet<'_>, indices: &[u32]) -> Result<Values> {
    let places = Dimensions::of(set)?.0.into_iter();
    let index = |column: Column| match column {
        Column::Index(place, _) => indices.get(place).map(u32::to_string),
        Column::Stated(_) => None,
    };
    let words: Vec<String> = places.filter_map(index).collect();
    let dimension = QUANTITIES.iter().position(|q| q.name == "dimension");
    if let Some(slot) = dimension.and_then(|place| values.get_mut(place))
        && !words.is_empty()
    {
        *slot = Value::Text(words.join(" "));
    }
    Ok(values)
}

/// Sets the number of the image, the last of `QUANTITIES`.
pub(crate) fn numbered(mut values: Values, image: usize) -> Values {
    if let Some(count) = values.last_mut() {
        *count = number(u32::try_from(image).ok().map(f64::from));
    }
    values
}

/// Returns the number of the image within its series.
pub(crate) fn instance_number(set: &DataSet<'_>) -> Option<f64> {
    set.decimal(tags::INSTANCE_NUMBER)
}

/// Where one attribute of a frame comes from.
#[derive(Debug, Clone, Copy)]
enum Column {
    /// From this place of `DimensionIndexValues`.
    Index(usize, Quantity),
    /// From this place of `QUANTITIES`.
    Stated(usize),
}

/// The attributes of the frames of one object: its own dimensions come first, less those of space.
#[derive(Debug, Clone)]
pub(crate) struct Dimensions(Vec<Column>);

impl Dimensions {
    /// Reads which attributes an object's frames are indexed by.
    ///
    /// # Errors
    /// As `DataSet::items`.
    pub(crate) fn of(set: &DataSet<'_>) -> Result<Self> {
        let items = set.items(tags::DIMENSION_INDEX_SEQUENCE)?;
        let dimension = |(place, item): (usize, &DataSet<'_>)| {
            let pointer = item.tags(tags::DIMENSION_INDEX_POINTER).first().copied();
            quantity_of(pointer).map(|quantity| Column::Index(place, quantity))
        };
        let indices = items.iter().enumerate().filter_map(dimension);
        let mut left: Vec<usize> = (0..QUANTITIES.len()).collect();
        let mut columns = Vec::new();
        for column in indices.take(MAX_DIMENSIONS) {
            if let Column::Index(_, quantity) = column
                && quantity.name != TIME
            {
                // `b=1000` says more than `b=2`: the attribute itself, where it is stated.
                let is_it = |&place: &usize| {
                    QUANTITIES
                        .get(place)
                        .is_some_and(|q| q.name == quantity.name)
                };
                columns.extend(left.iter().copied().filter(is_it).map(Column::Stated));
                left.retain(|place| !is_it(place));
            }
            columns.push(column);
        }
        columns.extend(left.into_iter().map(Column::Stated));
        Ok(Self(columns))
    }

    /// Returns what the attributes are.
    pub(crate) fn quantities(&self) -> Vec<Quantity> {
        let quantity = |column: &Column| match *column {
            Column::Index(_, quantity) => Some(quantity),
            Column::Stated(place) => QUANTITIES.get(place).copied(),
        };
        self.0.iter().filter_map(quantity).collect()
    }

    /// Returns the attributes of one frame by its indices and what its functional groups state.
    pub(crate) fn values(&self, indices: &[u32], stated: &Values) -> Vec<Value> {
        let value = |column: &Column| match *column {
            Column::Index(place, _) => number(indices.get(place).copied().map(f64::from)),
            Column::Stated(place) => stated.get(place).cloned().unwrap_or(Value::Missing),
        };
        self.0.iter().map(value).collect()
    }
}

/// Returns what a dimension is, by the attribute that it points to; `None` for those of space,
/// which say where a frame lies and not which volume it belongs to.
fn quantity_of(pointer: Option<Tag>) -> Option<Quantity> {
    let Some(pointer) = pointer else {
        return Some(kind("dimension", Shows::Place(1)));
    };
    let place = |name| Some(kind(name, Shows::Place(1)));
    match pointer {
        tags::IMAGE_POSITION_PATIENT
        | tags::IMAGE_POSITION_VOLUME
        | tags::IMAGE_ORIENTATION_PATIENT
        | tags::PLANE_POSITION_SEQUENCE
        | tags::PLANE_ORIENTATION_SEQUENCE
        | tags::IN_STACK_POSITION_NUMBER
        | tags::SLICE_LOCATION
        | tags::STACK_ID => None,
        tags::TEMPORAL_POSITION_INDEX
        | tags::TEMPORAL_POSITION_TIME_OFFSET
        | tags::TRIGGER_TIME
        | tags::FRAME_REFERENCE_DATE_TIME
        | tags::FRAME_ACQUISITION_DATE_TIME
        | tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME
        | tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE
        | tags::NOMINAL_PERCENTAGE_OF_RESPIRATORY_PHASE
        | tags::CARDIAC_CYCLE_POSITION
        | tags::RESPIRATORY_CYCLE_POSITION => Some(time(Role::Kind)),
        tags::EFFECTIVE_ECHO_TIME | tags::ECHO_TIME | tags::ECHO_NUMBERS => place("echo"),
        tags::DIFFUSION_B_VALUE => place("b"),
        tags::DIFFUSION_GRADIENT_ORIENTATION
        | tags::DIFFUSION_GRADIENT_DIRECTION_SEQUENCE
        | tags::DIFFUSION_DIRECTIONALITY => place("direction"),
        tags::FRAME_TYPE | tags::IMAGE_TYPE | tags::COMPLEX_IMAGE_COMPONENT => place("type"),
        tags::INVERSION_TIMES => place("ti"),
        tags::FLIP_ANGLE => place("flip"),
        tags::CONVOLUTION_KERNEL => place("kernel"),
        tags::REFERENCED_SEGMENT_NUMBER => place("segment"),
        _ => place("dimension"),
    }
}

fn word(set: &DataSet<'_>, tag: Tag) -> Value {
    let text = set.text(tag);
    text.map_or(Value::Missing, |text| {
        let parts: Vec<&str> = text.split('\\').map(str::trim).collect();
        Value::Text(parts.join("\\"))
    })
}

fn number(number: Option<f64>) -> Value {
    let finite = number.filter(|number| number.is_finite());
    finite.map_or(Value::Missing, Value::Number)
}

fn milliseconds(ms: Option<f64>) -> Option<f64> {
    ms.map(|ms| ms / 1000.0)
}

/// A direction as a word: rounded, so that the same one written differently stays the same.
fn rounded(direction: Option<[f64; 3]>) -> Value {
    direction.map_or(Value::Missing, |[x, y, z]| {
        // Adding zero makes -0 the same as 0.
        let round = |v: f64| (v * 1e3).round() + 0.0;
        Value::Text(format!("{} {} {}", round(x), round(y), round(z)))
    })
}

/// Returns a moment in seconds: of a date and a time, or of one value for both.
fn moment(set: &DataSet<'_>, [date, time]: [Tag; 2], both: Tag) -> Option<f64> {
    let of_day = set.text(time).and_then(|text| time_of_day(&text));
    let Some(seconds) = of_day else {
        return set.text(both).and_then(|text| date_time(&text));
    };
    let day = set.text(date).and_then(|text| day(&text)).unwrap_or(0.0);
    Some(day * 86_400.0 + seconds)
}

/// Returns the seconds of a DT value, whose zone is the same within one series.
fn date_time(text: &str) -> Option<f64> {
    let text = text.trim();
    let text = text.split(['+', '-', '&']).next()?;
    let (date, time) = text.split_at_checked(8)?;
    Some(day(date)? * 86_400.0 + time_of_day(time)?)
}

/// Returns a number that grows with the days of a DA value: enough to order them.
fn day(text: &str) -> Option<f64> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let (year, rest) = digits.split_at_checked(4)?;
    let (month, day) = rest.split_at_checked(2)?;
    let [year, month, day] = [year, month, day].map(|part| part.parse::<u32>().ok());
    // Longest months, so that no two days are the same.
    Some(f64::from(year?) * 372.0 + f64::from(month?) * 31.0 + f64::from(day?))
}

/// Returns the seconds of a TM value, with the colons that old writers put between its parts.
fn time_of_day(text: &str) -> Option<f64> {
    let plain: String = text.trim().chars().filter(|&c| c != ':').collect();
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let part = |start: usize| {
        let digits = whole.get(start..start + 2);
        digits.map_or(Some(0), |digits| digits.parse::<u32>().ok())
    };
    let fraction: f64 = match fraction {
        "" => 0.0,
        digits if !digits.bytes().all(|b| b.is_ascii_digit()) => return None,
        digits => format!("0.{digits}").parse().ok()?,
    };
    let [hours, minutes, seconds] = [part(0)?, part(2)?, part(4)?];
    Some(f64::from(hours * 3600 + minutes * 60 + seconds) + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_however_they_are_written() {
        assert_eq!(time_of_day("120001.03"), Some(43_201.03));
        assert_eq!(time_of_day("12:00:01"), Some(43_201.0));
        assert_eq!(time_of_day("12"), Some(43_200.0));
        assert_eq!(time_of_day("noon"), None);
        let (late, early) = (date_time("20240301000001.5+0100"), "20240229235959");
        assert!(late.unwrap() > date_time(early).unwrap());
        assert_eq!(date_time("2024"), None);
    }
}
