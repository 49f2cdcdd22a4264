//! Several vectors a row: which row and view each vector is of, and the vectors of each row.

use std::ops::Range;

use super::super::source::View;
use super::Segment;
use super::lookup::order_of;
use crate::error::Result;

/// The view of each row's own vector: its name is empty, so it comes first.
pub(crate) const OWN_VIEW: u32 = 0;

/// What each vector of a segment is of, [vectors].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Belonging<'a> {
    pub(crate) rows: &'a [u32],
    pub(crate) views: &'a [u32],
}

/// Returns vectors in ascending order of (row, view), and where each row's begin there, with the end.
pub(crate) fn order_of_vectors(rows: &[u32], views: &[u32], n_rows: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0_u32; n_rows + 1];
    for &row in rows {
        starts[row as usize + 1] += 1;
    }
    for row in 0..n_rows {
        starts[row + 1] += starts[row];
    }
    let mut order = order_of(rows, n_rows);
    for ends in starts.windows(2) {
        order[ends[0] as usize..ends[1] as usize].sort_by_key(|&vector| views[vector as usize]);
    }
    (order, starts)
}

impl Segment {
    pub(crate) fn n_vectors(&self) -> usize {
        self.n_vectors
    }

    /// Says whether some row has further vectors.
    pub(crate) fn has_views(&self) -> bool {
        self.n_vectors > self.n_rows
    }

    /// Returns how many vectors the rows have that were not removed.
    pub(crate) fn n_live_vectors(&self) -> Result<usize> {
        if self.dead.is_none() || !self.has_views() {
            return Ok(self.n_vectors + self.n_live() - self.n_rows);
        }
        let starts: &[u32] = self.numbers("vector/starts", 0..self.n_rows + 1)?;
        let of_row = |row: u32| {
            let row = row as usize;
            starts[row + 1].saturating_sub(starts[row]) as usize
        };
        Ok(self.live().map(of_row).sum())
    }

    /// Returns what each vector is of; `None` where each row has one vector, at the row's number.
    pub(crate) fn belonging(&self) -> Result<Option<Belonging<'_>>> {
        if !self.has_views() {
            return Ok(None);
        }
        let belonging = Belonging {
            rows: self.numbers("vector/rows", 0..self.n_vectors)?,
            views: self.numbers("vector/views", 0..self.n_vectors)?,
        };
        // Whoever forges a file can write any number; each is looked at once.
        if self.has_good_views.get().is_none() {
            let are_rows = belonging
                .rows
                .iter()
                .all(|&row| (row as usize) < self.n_rows);
            let n_views = self.footer.views.len();
            let are_views = belonging
                .views
                .iter()
                .all(|&view| (view as usize) < n_views);
            if !are_rows || !are_views {
                return Err(self.damaged("a vector of a row or view that is not there"));
            }
            let _ = self.has_good_views.set(());
        }
        Ok(Some(belonging))
    }

    /// Returns where the vectors of a row lie, its own first.
    pub(crate) fn vectors_of(&self, row: u32) -> Result<Places<'_>> {
        if !self.has_views() {
            return Ok(Places::One(row));
        }
        let range = self.starts_of(row)?;
        if range.is_empty() {
            return Err(self.damaged(format!("row {row} has no vector")));
        }
        Ok(Places::Several(self.numbers("vector/order", range)?))
    }

    /// Returns where the vectors of a row lie in the order of vectors.
    fn starts_of(&self, row: u32) -> Result<Range<usize>> {
        let row = row as usize;
        let ends: &[u32] = match self.has_views() {
            true => self.numbers("vector/starts", row..row + 2)?,
            false => &[0, 1],
        };
        Ok(ends[0] as usize..ends[1] as usize)
    }

    /// Returns where a row's own vector lies.
    pub(crate) fn own_vector_of(&self, row: u32) -> Result<u32> {
        let places = self.vectors_of(row)?;
        Ok(places.as_slice()[0])
    }

    /// Returns the row that the vector at a place belongs to.
    pub(crate) fn row_of(&self, place: u32) -> Result<u32> {
        match self.has_views() {
            true => self.number("vector/rows", place as usize),
            false => Ok(place),
        }
    }

    /// Returns the view of the vector at a place, as its place among the names.
    pub(crate) fn view_at(&self, place: u32) -> Result<u32> {
        let place = place as usize;
        let view = self.number("vector/views", place)?;
        match (view as usize) < self.footer.views.len() {
            true => Ok(view),
            false => Err(self.damaged(format!("vector {place} of a view that is not there"))),
        }
    }

    /// Returns the name of a view; empty for a row's own vector.
    pub(crate) fn view_name(&self, view: u32) -> &str {
        let name = self.footer.views.get(view as usize);
        name.map_or("", String::as_str)
    }

    fn number(&self, name: &str, at: usize) -> Result<u32> {
        Ok(self.numbers::<u32>(name, at..at + 1)?[0])
    }

    /// Returns where the vectors of each row lie, as far as that can be proved: by the order of vectors, or else by
    /// what each vector says.
    pub(crate) fn provable_vectors(&self) -> Vec<RowVectors> {
        let mut found = vec![RowVectors::default(); self.n_rows];
        for (row, found) in (0_u32..).zip(&mut found) {
            let n_vectors = self.starts_of(row).map_or(0, |range| range.len());
            found.n_further = n_vectors.saturating_sub(1);
            let Ok(places) = self.vectors_of(row) else {
                continue;
            };
            for (idx, &place) in places.as_slice().iter().enumerate() {
                match self.says(place) {
                    // What it says is damaged, and the order is not.
                    None if idx == 0 => found.put(place, OWN_VIEW),
                    Some(View { row: other, name }) if other == row => found.put(place, name),
                    _ => {}
                }
            }
        }
        if self.has_views() {
            for place in 0..u32::try_from(self.n_vectors).unwrap_or(u32::MAX) {
                let said = self.says(place);
                let of_row = said.and_then(|said| Some((found.get_mut(said.row as usize)?, said)));
                if let Some((found, said)) = of_row {
                    found.put(place, said.name);
                }
            }
        }
        found
    }

    /// Returns what the vector at a place says that it is of, if that can be proved.
    fn says(&self, place: u32) -> Option<View> {
        if !self.has_views() {
            return Some(View {
                row: place,
                name: OWN_VIEW,
            });
        }
        let row = self.number("vector/rows", place as usize).ok()?;
        let name = self.view_at(place).ok()?;
        Some(View { row, name })
    }

    /// Checks that every row has one own vector and no two of a view, and that the order is that of rows and views.
    pub(crate) fn check_views(&self) -> Result<()> {
        let Some(Belonging { rows, views }) = self.belonging()? else {
            return Ok(());
        };
        let (order, starts) = order_of_vectors(rows, views, self.n_rows);
        let view = |place: u32| views[place as usize];
        for (row, ends) in starts.windows(2).enumerate() {
            let places = &order[ends[0] as usize..ends[1] as usize];
            let is_twice = places.windows(2).any(|pair| view(pair[0]) == view(pair[1]));
            if is_twice || places.first().is_none_or(|&place| view(place) != OWN_VIEW) {
                return Err(self.damaged(format!(
                    "row {row} does not have one own vector, and one of each other view"
                )));
            }
        }
        let all = |name: &str, n: usize| -> Result<&[u32]> { self.numbers(name, 0..n) };
        if all("vector/order", self.n_vectors)? != order
            || all("vector/starts", self.n_rows + 1)? != starts
        {
            return Err(self.damaged("its vectors are not in the order of their rows and views"));
        }
        Ok(())
    }
}

/// Where the vectors of a row lie in a damaged segment.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowVectors {
    /// The place of its own vector.
    pub(crate) own: Option<u32>,
    /// View and place of each further one.
    pub(crate) further: Vec<(u32, u32)>,
    /// Further ones that there were, as far as that is known.
    pub(crate) n_further: usize,
}

impl RowVectors {
    /// Takes a vector, unless one of its view is there.
    fn put(&mut self, place: u32, view: u32) {
        if view == OWN_VIEW {
            self.own.get_or_insert(place);
        } else if !self.further.iter().any(|&(other, _)| other == view) {
            self.further.push((view, place));
        }
    }
}

/// Where the vectors of a row lie.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Places<'a> {
    One(u32),
    Several(&'a [u32]),
}

impl Places<'_> {
    pub(crate) fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(place) => std::slice::from_ref(place),
            Self::Several(places) => places,
        }
    }
}
