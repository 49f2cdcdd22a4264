//! What evaluating, comparing and studying models share: the rules, evaluations on disk, and comparisons of two
//! evaluations.

pub mod comparison;
pub mod protocol;
pub(crate) mod runs;

#[cfg(test)]
mod tests {
    use m3ret_manifest::columns;
    use m3ret_search::names;

    #[test]
    fn manifests_and_galleries_call_columns_alike() {
        let of_manifests = [
            columns::MODALITY,
            columns::DIMS,
            columns::PATIENT,
            columns::STUDY,
            columns::SOURCE,
            columns::SPLIT,
            columns::PAIR,
            columns::DISTURBED,
        ];
        let of_galleries = [
            names::MODALITY,
            names::DIMS,
            names::PATIENT,
            names::STUDY,
            names::SOURCE,
            names::SPLIT,
            names::PAIR,
            names::DISTURBED,
        ];
        assert_eq!(of_manifests, of_galleries);
    }
}
