//! Subjects and galleries that cannot be erased, and what is said of them.

use super::*;

fn refused(folder: &Path, subject: &Subject, options: &EraseOptions) -> String {
    let before = all_bytes(folder);
    let error = erase(&[folder.to_owned()], subject, options, &Quiet).unwrap_err();
    assert!(all_bytes(folder) == before, "{error}");
    error.to_string()
}

#[test]
fn numbers_that_are_none_are_refused_without_being_repeated() {
    for (number, wanted) in [
        ("", "empty"),
        (" \0 ", "empty"),
        ("P1\nP2", "control character"),
        ("P1\u{1f}P2", "control character"),
        (&"x".repeat(5000), "5000 bytes"),
        ("anonymous", "nobody"),
    ] {
        let error = Patient::new(number, None).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
        assert!(!error.contains("P1"), "{error}");
    }
    assert!(Patient::new("P1", Some("")).is_err());
    let patient = Patient::new(" SECRET-1 ", Some("SECRET-2")).unwrap();
    assert!(!format!("{patient:?}").contains("SECRET"));
}

#[test]
fn galleries_without_patients_are_erased_by_id() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("g.m3i");
    made(&place, Numbers::F32, Stored::Never);
    let error = refused(&place, &subject(0), &options());
    assert!(error.contains("--rows-from"), "{error}");
    let missing = Subject::Images(vec![id_of(0), "nothing".to_owned()]);
    assert!(refused(&place, &missing, &options()).contains("nothing was changed"));
    assert!(refused(&place, &Subject::Images(Vec::new()), &options()).contains("no id"));
    let bytes: Vec<u8> = unit_vector(0)[..32]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    assert!(is_there(&all_bytes(&place), &bytes));
    let images = Subject::Images(vec![id_of(0), id_of(200), id_of(0)]);
    let receipt = erase(from_ref(&place), &images, &options(), &Quiet).unwrap();
    assert!(receipt.is_proved() && receipt.counts().n_rows == 2);
    assert!(!is_there(&all_bytes(&place), &bytes));
    let gallery = Gallery::open(&place).unwrap();
    assert!(gallery.len() == 298 && gallery.n_erased() == 0);
}

#[test]
fn who_is_not_there_is_told_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("g.m3i");
    made(&place, Numbers::F32, Stored::Hashed);
    let error = refused(&place, &subject(100), &options());
    assert!(error.contains("no image of this patient"), "{error}");
    assert!(!error.contains("PATIENT-0100"), "{error}");
    let telling = EraseOptions {
        reason: format!("{} asked for it", number_of(1)),
        ..options()
    };
    let error = refused(&place, &subject(1), &telling);
    assert!(error.contains("the reason holds") && !error.contains(&number_of(1)));
    let patient = Patient::new(&number_of(1), None).unwrap();
    let error = allow_again(from_ref(&place), &patient, &options()).unwrap_err();
    assert!(error.to_string().contains("on no list"), "{error}");
    assert!(erase(&[], &subject(1), &options(), &Quiet).is_err());
    assert!(
        erase(
            &[folder.path().join("none.m3i")],
            &subject(1),
            &options(),
            &Quiet
        )
        .is_err()
    );
}

#[test]
fn a_dry_run_changes_nothing_and_a_locked_gallery_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("g.m3i");
    made(&place, Numbers::F32, Stored::Hashed);
    let before = all_bytes(&place);
    let dry = EraseOptions {
        is_dry_run: true,
        receipt: Some(folder.path().join("receipt.json")),
        ..options()
    };
    let receipt = erase(from_ref(&place), &subject(1), &dry, &Quiet).unwrap();
    assert!(receipt.is_dry_run && receipt.counts().n_rows == N_EACH);
    assert!(receipt.places[0].n_rows_left == 297 && receipt.places[0].seal.is_empty());
    assert!(all_bytes(&place) == before && !folder.path().join("receipt.json").exists());
    let writer = Writer::open(&place).unwrap();
    let error = refused(&place, &subject(1), &options());
    assert!(error.contains("another process writes"), "{error}");
    drop(writer);
    assert!(erase_one(&place, 1).unwrap().is_proved());
}

#[test]
fn a_number_with_an_issuer_is_another_number() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("g.m3i");
    made(&place, Numbers::F32, Stored::Hashed);
    let mut writer = Writer::open(&place).unwrap();
    let gallery = writer.gallery();
    let issued = gallery.pseudonym(columns::PATIENT, "CLINIC\u{1f}ISSUED-77");
    let batch = Batch {
        vectors: &[unit_vector(900), unit_vector(901)].concat(),
        ids: &["issued-image-1".to_owned(), "issued-image-2".to_owned()],
        columns: &[
            (columns::PATIENT.to_owned(), vec![issued.clone(); 2]),
            (columns::OWN_ISSUED_PATIENT.to_owned(), vec![issued; 2]),
        ],
        ..Batch::default()
    };
    writer.add(batch).unwrap();
    drop(writer);
    let without = Subject::Patient(Patient::new("ISSUED-77", None).unwrap());
    let error = refused(&place, &without, &options());
    assert!(
        error.contains("2 images have a number with an issuer"),
        "{error}"
    );
    let with = Subject::Patient(Patient::new("ISSUED-77", Some("CLINIC")).unwrap());
    let receipt = erase(from_ref(&place), &with, &options(), &Quiet).unwrap();
    assert!(receipt.is_proved() && receipt.counts().n_rows == 2);
    assert_eq!(Gallery::open(&place).unwrap().len(), 300);
}

#[test]
fn links_are_not_followed_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("g.m3i");
    made(&place, Numbers::F32, Stored::Hashed);
    let outside = folder.path().join("outside");
    std::fs::write(&outside, "x").unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&outside, place.join("link")).unwrap();
        let receipt = erase_one(&place, 1).unwrap();
        assert!(!receipt.is_proved());
        assert_eq!(receipt.places[0].scan.not_searched, ["link"]);
    }
}
