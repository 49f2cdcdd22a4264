//! Divides the images of one grid into volumes, by what their headers say differs at each position.
//!
//! A time series, several echoes, several reconstructions: one series holds several images at each
//! position, and only the right attribute puts them into volumes without mixing two of them. An
//! attribute is right if it gives every position equally many images. Any other division leaves
//! gaps, or loose pictures.

mod classes;
mod stretches;

use std::collections::HashMap;

use self::classes::{by_value, even, labels};
use crate::reason::{Code, Reason};
use crate::stack::{self, Plane};

/// Divisions that lead nowhere before the search for one is given up.
const MAX_DEAD_ENDS: usize = 32;

/// Images at one position whose places within the plane differ by less lie at the same place.
const SAME_PLACE_MM: f64 = 1.0;
/// Fewest images of a film: two may be a picture that was taken again.
const MIN_FILM: usize = 3;

/// What an attribute says of an image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Nothing.
    Missing,
    /// A finite number.
    Number(f64),
    /// A word.
    Text(String),
}

/// How an attribute puts images together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// What kind of picture it is: no volume has two kinds, even where no position repeats.
    Kind,
    /// A setting of the machine: equal values belong together.
    Setting,
    /// A number given to each volume: equal values belong together, or the n-th at each position.
    Number,
    /// A time of day in seconds: as `Number`; it may differ from slice to slice.
    Clock,
    /// A time after a heartbeat or an injection, in seconds: the n-th value at each position. Equal
    /// values may be different phases, as the heart's rate varies from slice to slice.
    Phase,
    /// The number of the image: the last resort, and told.
    Count,
}

impl Role {
    /// Returns true if the n-th value at each position belongs to the n-th volume, where equal
    /// values do not give each position equally many images.
    fn has_order(self) -> bool {
        !matches!(self, Self::Kind | Self::Setting)
    }

    /// Returns true if equal values mean one volume even where positions hold different numbers of
    /// images.
    fn is_identity(self) -> bool {
        matches!(
            self,
            Self::Kind | Self::Setting | Self::Number | Self::Clock
        )
    }
}

/// How the name of a part shows the value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shows {
    /// Its place among the others, counted from here.
    Place(usize),
    /// The value itself, where it is short and plain.
    Value,
}

/// One attribute that may tell images at one position apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantity {
    /// Its word in the name of a part: `echo`, `b`, `t`.
    pub(crate) name: &'static str,
    /// How it puts images together.
    pub(crate) role: Role,
    /// How names show it.
    pub(crate) shows: Shows,
}

/// The word for every attribute that counts time.
pub(crate) const TIME: &str = "t";

/// Images that may share volumes: where they lie and what they say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Images {
    /// The attributes, those to be tried first in front.
    pub(crate) quantities: Vec<Quantity>,
    /// The number of each image within its series, where it states one.
    pub(crate) numbers: Vec<Option<f64>>,
    /// One plane an image.
    pub(crate) planes: Vec<Plane>,
    /// One value an attribute, for each image.
    pub(crate) values: Vec<Vec<Value>>,
}

/// Images that form one volume, or that nothing divides further.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Division {
    /// Indices of the images; in the order of time if `is_time`.
    pub(crate) members: Vec<usize>,
    /// Number of the grid that they share: planes turned or spaced otherwise have another.
    pub(crate) grid: usize,
    /// How many of the members repeat the pixels of another one at their position.
    pub(crate) n_copies: usize,
    /// What differs from the other divisions of the grid: `echo=2, t=0`.
    pub(crate) name: Option<String>,
    /// What a person should know of the division.
    pub(crate) notes: Vec<Reason>,
    /// True if all lie at one position and follow each other in time.
    pub(crate) is_time: bool,
}

impl Division {
    fn new(members: Vec<usize>) -> Self {
        Self {
            members,
            grid: 0,
            n_copies: 0,
            name: None,
            notes: Vec::new(),
            is_time: false,
        }
    }

    fn named(mut self, name: &str) -> Self {
        self.name = Some(match self.name {
            Some(inner) => format!("{name}, {inner}"),
            None => name.to_owned(),
        });
        self
    }
}

/// Tells equal images by a number; `None` where the images cannot be compared.
pub(crate) type Digest<'f> = &'f dyn Fn(usize) -> Option<u64>;

/// Divides images into volumes. Images that nothing divides stay together, and are refused on
/// reading.
pub(crate) fn divide(images: &Images, digest: Digest<'_>) -> Vec<Division> {
    let grids = stations(images, stack::aligned(&images.planes));
    let divided = |(grid, members): (usize, Vec<usize>)| {
        let divisions = Grid::new(images, members).divide(digest);
        divisions
            .into_iter()
            .map(move |division| Division { grid, ..division })
    };
    grids.into_iter().enumerate().flat_map(divided).collect()
}

/// Parts grids whose images at one position lie beside each other: stations of a table, two knees.
fn stations(images: &Images, grids: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let plane = |&index: &usize| images.planes.get(index).copied();
    let parted = |members: Vec<usize>| {
        let planes: Vec<Plane> = members.iter().filter_map(plane).collect();
        let groups = stack::beside(&planes, SAME_PLACE_MM);
        let of = |group: Vec<usize>| {
            let member = |place: usize| members.get(place).copied();
            group.into_iter().filter_map(member).collect()
        };
        groups.into_iter().map(of).collect::<Vec<Vec<usize>>>()
    };
    grids.into_iter().flat_map(parted).collect()
}

/// Images whose planes are parallel and spaced alike.
struct Grid<'i> {
    images: &'i Images,
    members: Vec<usize>,
    /// Number of the position of every image, 0 for those of other grids.
    positions: Vec<usize>,
    n_positions: usize,
}

impl<'i> Grid<'i> {
    fn new(images: &'i Images, members: Vec<usize>) -> Self {
        let planes: Vec<Plane> = members
            .iter()
            .filter_map(|&index| images.planes.get(index).copied())
            .collect();
        let mut positions = vec![0; images.planes.len()];
        let mut n_positions = 0;
        for (&index, position) in members.iter().zip(stack::positions(&planes)) {
            n_positions = n_positions.max(position + 1);
            if let Some(place) = positions.get_mut(index) {
                *place = position;
            }
        }
        Self {
            images,
            members,
            positions,
            n_positions,
        }
    }

    fn position(&self, index: usize) -> usize {
        self.positions.get(index).copied().unwrap_or(0)
    }

    /// Returns true if two of the images share a position.
    fn has_repeats(&self, members: &[usize]) -> bool {
        let mut seen = vec![false; self.n_positions];
        members.iter().any(|&index| {
            seen.get_mut(self.position(index))
                .is_some_and(|seen| std::mem::replace(seen, true))
        })
    }

    fn divide(&self, digest: Digest<'_>) -> Vec<Division> {
        if !self.has_repeats(&self.members) {
            if let Some(divisions) = self.by_kind() {
                return divisions;
            }
            return self.finish(Division::new(self.members.clone()));
        }
        let is_stated = |quantity: &Quantity| quantity.role != Role::Count;
        if let Some(divisions) = self.evenly(&self.members, is_stated) {
            return self.finish_all(divisions);
        }
        let copies = self.copies(digest);
        if !copies.is_empty() {
            let is_first = |index: &usize| !copies.contains_key(index);
            let first: Vec<usize> = self.members.iter().copied().filter(is_first).collect();
            if let Some(divisions) = self.evenly(&first, is_stated) {
                return self.finish_all(with_copies(divisions, &copies));
            }
        }
        if let Some(divisions) = self.evenly(&self.members, |_| true) {
            return self.finish_all(divisions.into_iter().map(counted).collect());
        }
        if let Some(divisions) = self.by_identity(|_| true) {
            return divisions;
        }
        vec![Division::new(self.members.clone())]
    }

    /// Divides so that every volume has one image at every position, by the attributes of `may`.
    fn evenly(&self, members: &[usize], may: impl Fn(&Quantity) -> bool) -> Option<Vec<Division>> {
        let columns: Vec<usize> = (self.images.quantities.iter().enumerate())
            .filter_map(|(column, quantity)| may(quantity).then_some(column))
            .collect();
        self.evenly_by(members, &columns, &mut 0)
    }

    fn evenly_by(
        &self,
        members: &[usize],
        columns: &[usize],
        n_dead_ends: &mut usize,
    ) -> Option<Vec<Division>> {
        if !self.has_repeats(members) {
            return Some(vec![Division::new(members.to_vec())]);
        }
        for (place, &column) in columns.iter().enumerate() {
            let Some(quantity) = self.images.quantities.get(column) else {
                continue;
            };
            let Some(classes) = even(self, members, column) else {
                continue;
            };
            if quantity.name == TIME && self.is_one_moment_each(&classes) {
                let mut division = Division::new(classes.into_iter().flatten().collect());
                division.is_time = true;
                return Some(vec![division]);
            }
            let names = labels(self.images, &classes, column);
            let rest = columns.get(place + 1..).unwrap_or(&[]);
            let divided: Option<Vec<Vec<Division>>> = classes
                .iter()
                .map(|class| self.evenly_by(class, rest, n_dead_ends))
                .collect();
            match divided {
                Some(divided) => {
                    let named = |(divisions, name): (Vec<Division>, String)| {
                        divisions.into_iter().map(move |d| d.named(&name))
                    };
                    return Some(divided.into_iter().zip(names).flat_map(named).collect());
                }
                None if *n_dead_ends >= MAX_DEAD_ENDS => return None,
                None => *n_dead_ends += 1,
            }
        }
        None
    }

    /// Returns true if all images lie at one place, one a class: a film of one slice. Beside each other at one
    /// position lie scouts and stations.
    fn is_one_moment_each(&self, classes: &[Vec<usize>]) -> bool {
        self.n_positions == 1
            && classes.len() >= MIN_FILM
            && classes.iter().all(|class| class.len() == 1)
            && stack::spread_mm(&self.planes(&classes.concat())) < SAME_PLACE_MM
    }

    /// Divides images whose positions do not coincide, where each class is a volume by itself: two
    /// kernels half a slice apart, or one behind the other. Numbers of acquisitions divide only where the
    /// slices of one lie between those of another, which is told: it may be one volume after all.
    fn by_kind(&self) -> Option<Vec<Division>> {
        let columns = self.images.quantities.iter().enumerate();
        columns
            .filter(|(_, quantity)| matches!(quantity.role, Role::Kind | Role::Number))
            .find_map(|(column, quantity)| {
                let classes = by_value(self.images, &self.members, column);
                let is_volume = |class: &Vec<usize>| class.len() > 1 && self.is_stack(class);
                if classes.len() < 2 || !classes.iter().all(is_volume) {
                    return None;
                }
                let is_kind = quantity.role == Role::Kind;
                if !is_kind && !self.are_interleaved(&classes) {
                    return None;
                }
                let mut divisions = self.named_by(classes, column);
                for division in divisions.iter_mut().filter(|_| !is_kind) {
                    let detail = "its slices lie between those of another acquisition";
                    let note = Reason::new(Code::DividedSeries, detail);
                    division.notes.push(note);
                }
                Some(divisions)
            })
    }

    /// Returns true if two of the classes reach over the same positions.
    fn are_interleaved(&self, classes: &[Vec<usize>]) -> bool {
        let reach = |class: &Vec<usize>| {
            let places = || class.iter().map(|&index| self.position(index));
            Some((places().min()?, places().max()?))
        };
        let mut reaches: Vec<(usize, usize)> = classes.iter().filter_map(reach).collect();
        reaches.sort_unstable();
        let mut pairs = reaches.iter().zip(reaches.iter().skip(1));
        pairs.any(|((_, last), (first, _))| first < last)
    }

    fn named_by(&self, classes: Vec<Vec<usize>>, column: usize) -> Vec<Division> {
        let names = labels(self.images, &classes, column);
        let named = classes.into_iter().zip(names);
        named
            .map(|(class, name)| Division::new(class).named(&name))
            .collect()
    }

    /// Divides by an attribute whose every value is a volume of its own, where positions hold
    /// different numbers of images: phases of other lengths, blocks, a series that was broken off.
    fn by_identity(&self, may: impl Fn(&Quantity) -> bool) -> Option<Vec<Division>> {
        let columns: Vec<usize> = (self.images.quantities.iter().enumerate())
            .filter(|(_, quantity)| quantity.role.is_identity() && may(quantity))
            .map(|(column, _)| column)
            .collect();
        let whole = || Division::new(self.members.clone());
        let one = columns
            .iter()
            .find_map(|&column| self.sound(self.refined(vec![whole()], column), column));
        // Several attributes together: echoes of several times.
        one.or_else(|| {
            let mut divisions = vec![whole()];
            columns.iter().find_map(|&column| {
                divisions = self.refined(std::mem::take(&mut divisions), column);
                self.sound(divisions.clone(), column)
            })
        })
    }

    /// Divides each division by the values of a column.
    fn refined(&self, divisions: Vec<Division>, column: usize) -> Vec<Division> {
        let refine = |division: Division| {
            let classes = by_value(self.images, &division.members, column);
            if classes.len() < 2 {
                return vec![division];
            }
            let inner = self.named_by(classes, column).into_iter();
            match division.name {
                Some(outer) => inner.map(|d| d.named(&outer)).collect(),
                None => inner.collect(),
            }
        };
        divisions.into_iter().flat_map(refine).collect()
    }

    /// Returns the divisions with what is to be told of them, if they are volumes.
    fn sound(&self, mut divisions: Vec<Division>, column: usize) -> Option<Vec<Division>> {
        let quantity = self.images.quantities.get(column)?;
        let repeats = |division: &Division| self.has_repeats(&division.members);
        if divisions.len() < 2 || divisions.iter().any(repeats) {
            return None;
        }
        let classes: Vec<Vec<usize>> = divisions.iter().map(|d| d.members.clone()).collect();
        let notes = self.completeness(&classes, quantity.role)?;
        for (division, note) in divisions.iter_mut().zip(notes) {
            division.notes.extend(note);
        }
        Some(divisions)
    }

    /// Returns a note for each class that lacks positions of another, or `None` if the classes are no
    /// volumes: most of them must be whole, or each a run of positions without a gap. Times alone make
    /// no volume of a run: a scanner takes several slices at a time.
    fn completeness(&self, classes: &[Vec<usize>], role: Role) -> Option<Vec<Option<Reason>>> {
        let places: Vec<Vec<usize>> = classes
            .iter()
            .map(|class| {
                let mut places: Vec<usize> = class.iter().map(|&i| self.position(i)).collect();
                places.sort_unstable();
                places
            })
            .collect();
        let is_run = |places: &Vec<usize>| match (places.first(), places.last()) {
            (Some(first), Some(last)) => places.len() > 1 && last - first + 1 == places.len(),
            _ => false,
        };
        let stacks = |class: &Vec<usize>| class.len() > 1 && self.is_stack(class);
        let are_runs =
            role != Role::Clock && places.iter().all(is_run) && classes.iter().all(stacks);
        let is_whole = |class: &&Vec<usize>| class.len() == self.n_positions && stacks(class);
        let n_whole = classes.iter().filter(is_whole).count();
        let are_mostly_whole = n_whole > 1 && 2 * n_whole * self.n_positions >= self.members.len();
        if !are_runs && !are_mostly_whole {
            return None;
        }
        let lacks = |own: &Vec<usize>| {
            let holds = |other: &&Vec<usize>| {
                other.len() > own.len()
                    && own.iter().all(|place| other.binary_search(place).is_ok())
            };
            places.iter().find(holds).map(|other| {
                let (found, wanted) = (own.len(), other.len());
                let detail = format!("{found} of the {wanted} positions that another part has");
                Reason::new(Code::IncompletePart, detail)
            })
        };
        Some(places.iter().map(lacks).collect())
    }

    /// Images with the pixels of another one at the same position, and which one that is.
    fn copies(&self, digest: Digest<'_>) -> HashMap<usize, usize> {
        let mut at: Vec<Vec<usize>> = vec![Vec::new(); self.n_positions];
        for &index in &self.members {
            if let Some(here) = at.get_mut(self.position(index)) {
                here.push(index);
            }
        }
        let mut copies = HashMap::new();
        for here in at.iter().filter(|here| here.len() > 1) {
            let mut first_of = HashMap::new();
            for &index in here {
                let Some(pixels) = digest(index) else {
                    continue;
                };
                let first = *first_of.entry(pixels).or_insert(index);
                if first != index {
                    copies.insert(index, first);
                }
            }
        }
        copies
    }

    fn planes(&self, members: &[usize]) -> Vec<Plane> {
        let plane = |&index: &usize| self.images.planes.get(index).copied();
        members.iter().filter_map(plane).collect()
    }

    fn is_stack(&self, members: &[usize]) -> bool {
        stack::stack(&self.planes(members), &self.images.numbers(members)).is_ok()
    }

    fn finish_all(&self, divisions: Vec<Division>) -> Vec<Division> {
        divisions.into_iter().flat_map(|d| self.finish(d)).collect()
    }

    /// Parts a volume that is no stack into blocks that are, or leaves it to be refused.
    fn finish(&self, division: Division) -> Vec<Division> {
        let members = &division.members;
        // Copies lie behind the images that they repeat, and are checked on reading.
        if division.n_copies > 0 || division.is_time || self.is_stack(members) {
            return vec![division];
        }
        let (planes, numbers) = (self.planes(members), self.images.numbers(members));
        // Slices that are not there are not to be hidden by a division.
        if stack::Steps::new(&planes, &numbers).is_none_or(|steps| steps.has_skips()) {
            return vec![division];
        }
        let is_setting = |quantity: &Quantity| quantity.role != Role::Clock;
        if division.name.is_none()
            && members.len() == self.members.len()
            && let Some(divisions) = self.by_identity(is_setting)
        {
            return divisions;
        }
        let Some(blocks) = stretches::of(&planes, &numbers) else {
            return vec![division];
        };
        let n_blocks = blocks.len();
        let block = |(number, block): (usize, stretches::Stretch)| {
            let mut part = Division {
                members: block
                    .members
                    .iter()
                    .filter_map(|&i| members.get(i).copied())
                    .collect(),
                ..division.clone()
            };
            let detail = format!(
                "one of {n_blocks} stretches of a series whose slice distances differ: {:.3} mm here",
                block.distance_mm
            );
            part.notes.push(Reason::new(Code::DividedSeries, detail));
            let name = format!("stretch={}", number + 1);
            part.name = Some(match &division.name {
                Some(outer) => format!("{outer}, {name}"),
                None => name,
            });
            part
        };
        blocks.into_iter().enumerate().map(block).collect()
    }
}

/// Puts copies beside the image that they repeat, and so into its volume.
fn with_copies(divisions: Vec<Division>, copies: &HashMap<usize, usize>) -> Vec<Division> {
    let mut of: HashMap<usize, Vec<usize>> = HashMap::new();
    for (&copy, &first) in copies {
        of.entry(first).or_default().push(copy);
    }
    for found in of.values_mut() {
        found.sort_unstable();
    }
    let joined = |mut division: Division| {
        let more = division.members.iter().filter_map(|index| of.get(index));
        let more: Vec<usize> = more.flatten().copied().collect();
        division.n_copies = more.len();
        division.members.extend(more);
        division
    };
    divisions.into_iter().map(joined).collect()
}

/// Says that only the number of the image told volumes apart.
fn counted(mut division: Division) -> Division {
    let detail = "several images at each position, told apart by their number alone";
    division
        .notes
        .push(Reason::new(Code::DividedSeries, detail));
    division
}

/// Returns images that follow each other at one position: indices in the order of time, and the
/// seconds between neighbours where they are even and known.
pub(crate) fn in_time(images: &Images) -> Option<(Vec<usize>, Option<f64>)> {
    let everything: Vec<usize> = (0..images.planes.len()).collect();
    let columns = || {
        let columns = images.quantities.iter().enumerate();
        columns.filter(|(_, quantity)| quantity.name == TIME)
    };
    let (order, column): (Vec<usize>, usize) = columns().find_map(|(column, _)| {
        let classes = by_value(images, &everything, column);
        let is_told = classes.len() == everything.len() && classes.len() > 1;
        is_told.then(|| (classes.into_iter().flatten().collect(), column))
    })?;
    let is_time = |quantity: &Quantity| matches!(quantity.role, Role::Clock | Role::Phase);
    // A number says nothing of seconds: the first time that grows with it does.
    let seconds = if images.quantities.get(column).is_some_and(is_time) {
        images.even_step(&order, column)
    } else {
        let mut times = columns().filter(|(_, quantity)| is_time(quantity));
        let growing = times.find(|(column, _)| images.grows(&order, *column));
        growing.and_then(|(column, _)| images.even_step(&order, column))
    };
    Some((order, seconds))
}

impl Images {
    fn sequence(&self, order: &[usize], column: usize) -> Option<Vec<f64>> {
        let value = |&index: &usize| match self.value(index, column) {
            Value::Number(number) => Some(*number),
            Value::Missing | Value::Text(_) => None,
        };
        order.iter().map(value).collect()
    }

    fn grows(&self, order: &[usize], column: usize) -> bool {
        let values = self.sequence(order, column).unwrap_or_default();
        !values.is_empty() && values.is_sorted_by(|a, b| a < b)
    }

    /// Returns the distance between neighbouring values of a column where it is even.
    fn even_step(&self, order: &[usize], column: usize) -> Option<f64> {
        let values = self.sequence(order, column)?;
        let (first, last) = (values.first()?, values.last()?);
        let n_steps = f64::from(u32::try_from(values.len() - 1).ok()?);
        let step = (last - first) / n_steps;
        let steps = values.iter().zip(values.iter().skip(1));
        let is_even = steps
            .map(|(a, b)| b - a)
            .all(|gap| stack::is_same_step(gap, step));
        (is_even && step > 0.0).then_some(step)
    }

    /// Returns the numbers of some images.
    fn numbers(&self, members: &[usize]) -> Vec<Option<f64>> {
        let number = |&index: &usize| self.numbers.get(index).copied().flatten();
        members.iter().map(number).collect()
    }

    fn value(&self, index: usize, column: usize) -> &Value {
        let row = self.values.get(index);
        row.and_then(|row| row.get(column))
            .unwrap_or(&Value::Missing)
    }
}

#[cfg(test)]
mod tests;
