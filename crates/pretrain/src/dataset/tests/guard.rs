use super::*;

#[test]
fn rows_that_say_mr_are_left_out_and_counted() {
    let mut archive = Archive::new("path,modality");
    for modality in ["DX", "MR", " mr ", "MRI", "MRA", ""] {
        archive.row(format!("a.png,{modality}"));
    }
    let mut config = archive.config();
    let items = load(&config);
    assert_eq!(items.facts().n_mr_left_out, 4);
    assert_eq!((items.n_train(), items.facts().n_mr), (2, 0));
    config.images.allow_mr = true;
    let items = load(&config);
    assert_eq!((items.n_train(), items.facts().n_mr), (6, 4));
}

#[test]
fn a_dicom_header_that_says_mr_is_refused_whatever_its_row_says() {
    let mut archive = Archive::new("path,modality");
    files::dicom(&archive.path("a.dcm"), "MR");
    files::dicom(&archive.path("b.dcm"), "CR");
    archive.row("a.dcm,CT");
    archive.row("b.dcm,");
    for with_cache in [false, true, true] {
        let mut config = archive.config();
        config.images.cache = with_cache.then(|| archive.path("cache"));
        // A cache that was filled while MR was allowed does not open the door either.
        for allow_mr in [true, false] {
            config.images.allow_mr = allow_mr;
            let items = load(&config);
            let batch = &batches(&items, &config, 0, 1)[0];
            let refused = if allow_mr { 0 } else { 2 };
            assert_eq!(batch.refused.len(), refused, "{:?}", batch.refused);
            assert!(batch.refused.iter().all(|r| *r == (0, "mr_not_allowed")));
            assert_eq!(batch.samples.len(), 4 - refused);
            let input = config.model_config().input;
            assert_eq!(
                items.prepared(0, &input, allow_mr, 1 << 24).is_ok(),
                allow_mr
            );
            assert!(items.prepared(1, &input, allow_mr, 1 << 24).is_ok());
        }
    }
}

#[test]
fn mr_is_known_by_any_of_its_words_and_unknown_words_are_counted() {
    let mut archive = Archive::new("path,modality");
    for (i, modality) in [
        "MRT",
        "MR T1",
        "T2w MRI",
        "Magnetic Resonance",
        "fMRI",
        "CT",
        "X-ray",
        "scan",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{i}.npy");
        files::npy(&archive.path(&name), [1, 8, 8], i);
        archive.row(format!("{name},{modality}"));
    }
    let items = load(&archive.config());
    let facts = items.facts();
    assert_eq!(
        (facts.n_mr_left_out, facts.n_train, facts.n_unknown_modality),
        (5, 4, 2)
    );
}
