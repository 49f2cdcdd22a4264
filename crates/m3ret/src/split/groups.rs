//! Joins rows to groups by union-find, without any input or output.

use std::collections::HashMap;

/// Rows that are joined, directly or through others.
///
/// The groups do not depend on the order of the joins.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    /// The parent of each row; a row that is its own parent represents its group.
    above: Vec<usize>,
}

impl Groups {
    /// Makes every row a group of its own.
    pub(super) fn new(n_rows: usize) -> Self {
        Self {
            above: (0..n_rows).collect(),
        }
    }

    /// Returns the row that represents the group of a row.
    fn top(&mut self, mut row: usize) -> usize {
        while self.above[row] != row {
            // Halving the path keeps trees flat.
            self.above[row] = self.above[self.above[row]];
            row = self.above[row];
        }
        row
    }

    /// Returns whether two rows are joined.
    pub(super) fn are_joined(&mut self, a: usize, b: usize) -> bool {
        self.top(a) == self.top(b)
    }

    /// Joins the groups of two rows; returns false if they were one group already.
    pub(super) fn join(&mut self, a: usize, b: usize) -> bool {
        let (a, b) = (self.top(a), self.top(b));
        // The smaller number represents both, so that groups are numbered by their first row.
        self.above[a.max(b)] = a.min(b);
        a != b
    }

    /// Joins all rows that have the same word, and returns how many groups went into others; empty words join
    /// nothing.
    pub(super) fn join_equal<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) -> usize {
        let mut first: HashMap<&str, usize> = HashMap::new();
        let mut n_joined = 0;
        for (row, word) in words.into_iter().enumerate() {
            if !word.is_empty() {
                let first = *first.entry(word).or_insert(row);
                n_joined += usize::from(self.join(first, row));
            }
        }
        n_joined
    }

    /// Numbers the groups from 0, and returns the rows of each in order.
    pub(super) fn members(mut self) -> Vec<Vec<usize>> {
        let mut members: Vec<Vec<usize>> = Vec::new();
        let mut number = vec![0; self.above.len()];
        for row in 0..self.above.len() {
            let top = self.top(row);
            if top == row {
                number[row] = members.len();
                members.push(Vec::new());
            }
            members[number[top]].push(row);
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_is_transitive_and_its_order_does_not_matter() {
        let mut joins = [(0, 5), (5, 3), (1, 2), (7, 6), (6, 1), (3, 0)];
        let expected = vec![vec![0, 3, 5], vec![1, 2, 6, 7], vec![4]];
        for _ in 0..joins.len() {
            joins.rotate_left(1);
            let mut groups = Groups::new(8);
            let n_joined = joins.iter().filter(|&&(a, b)| groups.join(b, a)).count();
            assert_eq!(n_joined, 5);
            assert!(groups.are_joined(0, 3) && !groups.are_joined(0, 1));
            assert_eq!(groups.members(), expected);
        }
    }

    #[test]
    fn rows_with_one_word_are_joined_and_rows_without_are_not() {
        let mut groups = Groups::new(6);
        assert_eq!(groups.join_equal(["a", "", "b", "a", "", "b"]), 2);
        assert_eq!(groups.join_equal(["x", "x", "", "", "", ""]), 1);
        assert_eq!(
            groups.members(),
            [vec![0, 1, 3], vec![2, 5], vec![4]].to_vec()
        );
    }

    #[test]
    fn long_chains_end() {
        let mut groups = Groups::new(100_000);
        for row in (1..100_000).rev() {
            groups.join(row - 1, row);
        }
        assert_eq!(groups.members().len(), 1);
    }
}
