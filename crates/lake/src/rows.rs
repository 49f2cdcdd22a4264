//! Rows on their way into a lake.

use m3ret_search::{Batch, View, ViewVectors};

/// New rows, column by column: what `m3ret_search::Batch` borrows.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Unit vectors, [n, width].
    pub vectors: Vec<f32>,
    /// One for each row.
    pub ids: Vec<String>,
    /// Metadata: name, and one value for each row; empty where it is unknown.
    pub columns: Vec<(String, Vec<String>)>,
    /// What is attached to rows, e.g. thumbnails: name, and bytes for each row; empty for none.
    pub attachments: Vec<(String, Vec<Vec<u8>>)>,
    /// Names of the views of further vectors.
    pub view_names: Vec<String>,
    /// What each further vector is of.
    pub views: Vec<View>,
    /// Unit vectors, [further vectors, width].
    pub view_vectors: Vec<f32>,
}

impl Rows {
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch {
            vectors: &self.vectors,
            ids: &self.ids,
            columns: &self.columns,
            attachments: &self.attachments,
            views: ViewVectors {
                names: &self.view_names,
                of: &self.views,
                vectors: &self.view_vectors,
            },
        }
    }

    /// Leaves out some rows, given in ascending order, with all that is of them.
    pub(crate) fn leave_out(&mut self, rows: &[usize], width: usize) {
        if rows.is_empty() {
            return;
        }
        let is_kept = |row: usize| rows.binary_search(&row).is_err();
        let mut numbers = Vec::with_capacity(self.ids.len());
        let mut n_kept = 0_u32;
        for row in 0..self.ids.len() {
            numbers.push(is_kept(row).then_some(n_kept));
            n_kept += u32::from(is_kept(row));
        }
        fn keep<T>(all: &mut Vec<T>, is_kept: &dyn Fn(usize) -> bool) {
            let mut row = 0;
            all.retain(|_| {
                row += 1;
                is_kept(row - 1)
            });
        }
        keep(&mut self.ids, &is_kept);
        for (_, cells) in &mut self.columns {
            keep(cells, &is_kept);
        }
        for (_, bytes) in &mut self.attachments {
            keep(bytes, &is_kept);
        }
        let of_kept = |place: usize| is_kept(place / width);
        keep(&mut self.vectors, &of_kept);
        let row_of = |view: &View| numbers.get(view.row as usize).copied().flatten();
        let is_kept: Vec<bool> = self
            .views
            .iter()
            .map(|view| row_of(view).is_some())
            .collect();
        keep(&mut self.view_vectors, &|place| is_kept[place / width]);
        let views = self.views.iter().filter_map(|view| {
            Some(View {
                row: row_of(view)?,
                ..*view
            })
        });
        self.views = views.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_leave_with_all_that_is_of_them() {
        let text = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        let mut rows = Rows {
            vectors: vec![1.0, 0.0, 0.0, 1.0, -1.0, 0.0],
            ids: text(&["a", "b", "c"]),
            columns: vec![("x".to_owned(), text(&["1", "2", "3"]))],
            attachments: vec![("t".to_owned(), vec![vec![1], vec![2], vec![3]])],
            view_names: text(&["front"]),
            views: [0, 1, 2].map(|row| View { row, name: 0 }).to_vec(),
            view_vectors: vec![0.0, 1.0, 0.0, 2.0, 0.0, 3.0],
        };
        rows.leave_out(&[1], 2);
        assert_eq!(rows.ids, ["a", "c"]);
        assert_eq!(rows.columns[0].1, ["1", "3"]);
        assert_eq!(rows.attachments[0].1, [[1], [3]]);
        assert_eq!(rows.vectors, [1.0, 0.0, -1.0, 0.0]);
        assert_eq!(
            rows.views.iter().map(|view| view.row).collect::<Vec<_>>(),
            [0, 1]
        );
        assert_eq!(rows.view_vectors, [0.0, 1.0, 0.0, 3.0]);
    }
}
