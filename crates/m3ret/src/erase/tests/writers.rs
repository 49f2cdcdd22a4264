//! Nobody adds rows of an erased patient: every writer refuses them, with the reason and a count.

use m3ret_imaging::{Pixels, encode_png};

use super::*;
use crate::index::{
    AddOptions, BuildOptions, GivenVectors, PlainRows, add, build, put_plain, relabel,
};
use crate::options::{FolderChoice, ModelChoice, Reading};

fn build_options(gallery: &Path, source: &Path) -> BuildOptions {
    BuildOptions {
        gallery: gallery.to_owned(),
        source: source.to_owned(),
        vectors: None,
        numbers: Numbers::F32,
        has_thumbnails: true,
        views: None,
        model: ModelChoice::named("pixels"),
        reading: Reading::default(),
        folder: FolderChoice::default(),
    }
}

/// Writes pictures of three patients, and a manifest of them.
fn archive(root: &Path) -> PathBuf {
    let mut manifest = "path,patient_id\n".to_owned();
    for i in 0..6_u8 {
        let pixels = random(u64::from(i) + 50, 32 * 32).map(|x| x.to_le_bytes()[0]);
        let pixels: Vec<u8> = pixels.collect();
        let png = encode_png(Pixels::Grey8(&pixels), 32, 32).unwrap();
        std::fs::write(root.join(format!("picture-{i}.png")), png).unwrap();
        manifest += &format!("picture-{i}.png,SOMEBODY-{}\n", i / 2);
    }
    let path = root.join("m.csv");
    std::fs::write(&path, manifest).unwrap();
    path
}

fn somebody(n: usize) -> Subject {
    Subject::Patient(Patient::new(&format!("SOMEBODY-{n}"), None).unwrap())
}

#[test]
fn images_of_an_erased_patient_are_refused_counted_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = archive(folder.path());
    let gallery = folder.path().join("g.m3i");
    let wanted = build_options(&gallery, &manifest);
    build(&wanted, &Quiet).unwrap();
    let receipt = erase(from_ref(&gallery), &somebody(1), &options(), &Quiet).unwrap();
    assert!(
        receipt.is_proved() && receipt.counts().n_rows == 2,
        "{receipt:?}"
    );
    for is_remembered in [false, true] {
        let again = add(&wanted, AddOptions::default(), &Quiet).unwrap();
        assert_eq!((again.n_items, again.updated.n_new), (4, 0));
        let refused = again.updated.refused;
        let told: Vec<&str> = refused.iter().map(|image| image.reason.as_str()).collect();
        assert_eq!(told, ["erased", "erased"]);
        assert!(
            refused
                .iter()
                .all(|image| image.is_remembered == is_remembered)
        );
        assert!(refused[0].path.contains("picture-2.png"));
        let files = all_bytes(&gallery);
        assert!(
            !is_there(&files, b"picture-2.png"),
            "only a hash is remembered"
        );
    }
    // Other labels that make images of others the patient's.
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("SOMEBODY-2", "SOMEBODY-1")).unwrap();
    let relabelled = relabel(&gallery, &manifest, &Quiet).unwrap();
    assert_eq!((relabelled.n_refused, relabelled.n_changed), (2, 0));
    let again = add(&wanted, AddOptions::default(), &Quiet).unwrap();
    assert_eq!((again.n_items, again.updated.refused.len()), (2, 4));
    // A patient may come back.
    let Subject::Patient(patient) = somebody(1) else {
        panic!("a patient");
    };
    let lifted = allow_again(from_ref(&gallery), &patient, &options()).unwrap();
    assert_eq!(lifted.action, Action::AllowAgain);
    assert!(!lifted.places[0].seal.is_empty());
    let mut retried = wanted;
    retried.reading.retries_refused = true;
    let back = add(&retried, AddOptions::default(), &Quiet).unwrap();
    assert_eq!((back.n_items, back.updated.refused.len()), (6, 0));
}

#[test]
fn vectors_of_an_erased_patient_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = archive(folder.path());
    let gallery = folder.path().join("g.m3i");
    let vectors: Vec<f32> = (0..6).flat_map(unit_vector).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (6, {WIDTH}), }}");
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    npy.extend(format!("{header:<117}\n").bytes());
    npy.extend(vectors.iter().flat_map(|x| x.to_le_bytes()));
    let path = folder.path().join("v.npy");
    std::fs::write(&path, npy).unwrap();
    let wanted = BuildOptions {
        vectors: Some(GivenVectors {
            path,
            encoder: Some("test".to_owned()),
            normalizes: false,
            skips_nan: false,
        }),
        ..build_options(&gallery, &manifest)
    };
    build(&wanted, &Quiet).unwrap();
    let kept = contents(&gallery);
    erase(from_ref(&gallery), &somebody(0), &options(), &Quiet).unwrap();
    let adding = AddOptions {
        replaces: true,
        ..AddOptions::default()
    };
    let again = add(&wanted, adding, &Quiet).unwrap();
    assert_eq!((again.n_items, again.updated.refused.len()), (4, 2));
    assert_eq!(again.updated.refused[0].reason, "erased");
    let left = contents(&gallery);
    assert!(
        left.iter().all(|(id, row)| kept[id] == *row),
        "each has its own vector"
    );

    // Plain rows are added all or none.
    let maker = Gallery::open(&gallery).unwrap().maker().clone();
    let patients = ["SOMEBODY-7", "SOMEBODY-0"].map(str::to_owned).to_vec();
    let columns = [("PatientID".to_owned(), patients)];
    let rows = PlainRows {
        maker: &maker,
        vectors: &vectors[..2 * WIDTH],
        width: WIDTH,
        ids: &["new-1".to_owned(), "new-2".to_owned()],
        columns: &columns,
    };
    let error = put_plain(&gallery, rows, false, Numbers::F32, &Quiet).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("1 of the rows are refused (erased)"),
        "{error}"
    );
    assert_eq!(Gallery::open(&gallery).unwrap().len(), 4);
}

#[test]
fn galleries_of_plain_folders_in_a_cache_are_erased_by_file() {
    use crate::galleries::{Archive, OpenOptions};
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("archive");
    std::fs::create_dir(&root).unwrap();
    let manifest = archive(&root);
    let cache = folder.path().join("cache");
    let gallery = folder.path().join("g.m3i");
    build(&build_options(&gallery, &manifest), &Quiet).unwrap();
    let opening = OpenOptions {
        cache: Some(cache.clone()),
        model: ModelChoice::named("pixels"),
        ..OpenOptions::default()
    };
    let n_items = || {
        Archive::open(&root, &opening, &Quiet)
            .unwrap()
            .gallery
            .len()
    };
    std::fs::remove_file(&manifest).unwrap();
    assert_eq!(n_items(), 6);
    let erasing = EraseOptions {
        caches: Caches::At(cache.clone()),
        ..options()
    };
    let receipt = erase(from_ref(&gallery), &somebody(1), &erasing, &Quiet).unwrap();
    assert!(receipt.is_proved(), "{receipt:?}");
    assert_eq!(receipt.places[1].kind, PlaceKind::Cache);
    assert_eq!(receipt.places[1].counts.n_rows, 2);
    assert!(!is_there(&all_bytes(&cache), b"picture-3.png"));
    assert!(is_there(&all_bytes(&cache), b"picture-5.png"));
}
