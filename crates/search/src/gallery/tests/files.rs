//! Files that lie in a gallery and are not what they seem, and files that a catalog names.

use super::*;
use crate::agreement::Table;
use crate::gallery::catalog::Reference;

/// Makes a gallery with every kind of file: segments, removed rows, statistics and refusals.
fn whole(path: &Path) -> Writer {
    let mut writer = gallery(path, WIDTH, Numbers::F32, &[vectors(5, 60, WIDTH, 0)]);
    writer.calibrate().unwrap();
    writer.remove(&ids([3])).unwrap();
    writer.keep_refusals(&[refusal("a"), refusal("b")]).unwrap();
    writer
}

fn refusal(path: &str) -> Refusal {
    Refusal {
        key: format!("{:032x}", path.len()),
        changed: "17".into(),
        reader: "1".into(),
        path: path.into(),
        file: format!("/{path}"),
        part: None,
        reason: "no_pixels".into(),
        message: "holds nothing".into(),
        pixels: String::new(),
    }
}

/// The files of a gallery, but its lock.
fn files_of(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| !file.ends_with(LOCK)).collect();
    files.sort();
    files
}

#[test]
fn refusals_stay_until_others_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = whole(&path);
    let both = [refusal("a"), refusal("b")];
    assert_eq!(Gallery::open(&path).unwrap().refusals().unwrap(), both);
    writer.compact().unwrap();
    writer.remove(&ids([4])).unwrap();
    assert_eq!(Gallery::open(&path).unwrap().refusals().unwrap(), both);
    let (catalog, _) = catalog::read(&path, writer.gallery().generation()).unwrap();
    assert_eq!(catalog.version, 4, "there are agreements, too");

    let generation = writer.gallery().generation();
    writer.keep_refusals(&both).unwrap();
    assert_eq!(
        writer.gallery().generation(),
        generation,
        "nothing to write"
    );
    writer.keep_refusals(&[]).unwrap();
    assert!(Gallery::open(&path).unwrap().refusals().unwrap().is_empty());
    let (catalog, _) = catalog::read(&path, writer.gallery().generation()).unwrap();
    assert_eq!(catalog.version, 4);
    assert!(verify(&path).unwrap().is_good());
    assert_eq!(verify(&path).unwrap().leftovers, Vec::<String>::new());
}

#[test]
fn far_too_many_refusals_are_kept_in_part() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = whole(&path);
    let long = Refusal {
        message: "x".repeat(3 << 20),
        ..refusal("c")
    };
    writer.keep_refusals(&vec![long; 40]).unwrap();
    let n_kept = Gallery::open(&path).unwrap().refusals().unwrap().len();
    assert_eq!(n_kept, 5);
}

#[test]
fn a_reader_keeps_its_state_whatever_a_writer_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = whole(&path);
    let reader = Gallery::open(&path).unwrap();
    let before = contents(&reader).unwrap();
    let old = files_of(&path);
    writer.remove(&ids([7])).unwrap();
    writer.compact().unwrap();
    writer.keep_refusals(&[]).unwrap();
    assert!(
        old.iter().filter(|file| file.exists()).count() == 1,
        "only the key is left"
    );
    // Nothing was read but descriptions when it was opened.
    assert!(!reader.statistics().unwrap().unwrap().agreements.is_empty());
    assert_eq!(reader.refusals().unwrap().len(), 2);
    assert_eq!(contents(&reader).unwrap(), before);
}

#[cfg(unix)]
#[test]
fn links_pipes_and_folders_are_no_files_of_a_gallery() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    drop(whole(&path));
    let files = files_of(&path);
    assert_eq!(files.len(), 6, "{files:?}");
    for file in files {
        let aside = folder.path().join("aside");
        std::fs::rename(&file, &aside).unwrap();
        let link = |target: &Path| std::os::unix::fs::symlink(target, &file).unwrap();
        let pipe = || {
            let made = std::process::Command::new("mkfifo").arg(&file).status();
            assert!(made.unwrap().success());
        };
        // Each returns at once: a pipe is not waited for, and a device not read to its end.
        let variants: [(&str, &dyn Fn()); 4] = [
            ("the same bytes", &|| link(&aside)),
            ("a device", &|| link(Path::new("/dev/zero"))),
            ("a pipe", &pipe),
            ("a folder", &|| std::fs::create_dir(&file).unwrap()),
        ];
        for (what, put) in variants {
            put();
            let opened = Gallery::open(&path);
            assert!(opened.is_err(), "{what} as {}", file.display());
            let report = verify(&path);
            assert!(!report.is_ok_and(|report| report.is_good()), "{what}");
            if what == "a folder" {
                std::fs::remove_dir(&file).unwrap();
            } else {
                std::fs::remove_file(&file).unwrap();
            }
        }
        std::fs::rename(&aside, &file).unwrap();
        assert!(verify(&path).unwrap().is_good());
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_or_link_named_as_a_catalog_makes_no_gallery() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("catalog-0000000000000001.json");
    let made = std::process::Command::new("mkfifo").arg(&name).status();
    assert!(made.unwrap().success());
    assert!(!is_gallery(folder.path()));
    std::fs::remove_file(&name).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &name).unwrap();
    assert!(!is_gallery(folder.path()));
}

#[cfg(unix)]
#[test]
fn who_writes_to_a_folder_cannot_have_other_files_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let setup = || Setup {
        maker: maker(),
        width: WIDTH,
        numbers: Numbers::F32,
    };
    // Every name of a new gallery, old and new, as a link.
    for name in ["key.part", "key", "catalog-0000000000000001.part", LOCK] {
        let path = folder.path().join("g.m3i");
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::symlink(&victim, path.join(name)).unwrap();
        let _ = Writer::create(&path, setup()).map(drop);
        assert_eq!(
            std::fs::read_to_string(&victim).unwrap(),
            "precious",
            "{name}"
        );
        std::fs::remove_dir_all(&path).unwrap();
    }
    // A name that appears between the look and the writing.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    assert!(crate::disk::Disk::create(&RealDisk, &link).is_err());
    assert!(crate::disk::Disk::create_private(&RealDisk, &link).is_err());
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
}

#[cfg(unix)]
#[test]
fn files_are_as_private_as_their_folder_and_the_key_always_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path| {
        std::fs::symlink_metadata(path)
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    let path = folder.path().join("g.m3i");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    drop(whole(&path));
    for file in files_of(&path) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let open = folder.path().join("open.m3i");
    drop(whole(&open));
    for file in files_of(&open) {
        let expected = match file.ends_with(KEY) {
            true => 0o600,
            false => mode(&open) & 0o666,
        };
        assert_eq!(mode(&file), expected, "{}", file.display());
    }
}

#[test]
fn a_second_builder_does_not_take_the_key_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    drop(whole(&path));
    let before = contents(&Gallery::open(&path).unwrap()).unwrap();
    // What the second one saw when it looked: an empty folder. What it finds under the lock: a gallery.
    let setup = Setup {
        maker: maker(),
        width: WIDTH,
        numbers: Numbers::F32,
    };
    let error = writer::create_begun(&RealDisk, &path, setup, None).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    assert_eq!(contents(&Gallery::open(&path).unwrap()).unwrap(), before);
    assert!(verify(&path).unwrap().is_good());
}

#[test]
fn a_catalog_names_no_file_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    drop(whole(&path));
    let newest = catalog::generations(&path).unwrap()[0];
    let (good, _) = catalog::read(&path, newest).unwrap();
    for name in ["../x", "/etc/passwd", "a/b", "..", ""] {
        let mut forged = good.clone();
        forged.statistics.as_mut().unwrap().file = name.into();
        writer::put_catalog(&RealDisk, &path, &forged).unwrap();
        let error = Gallery::open(&path).unwrap_err().to_string();
        assert!(error.contains("outside"), "{name:?}: {error}");
    }
}

#[test]
fn statistics_that_are_lost_are_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let writer = whole(&path);
    let file = path.join(&writer.gallery().catalog.statistics.as_ref().unwrap().file);
    drop(writer);
    std::fs::write(&file, "damaged").unwrap();
    assert!(Gallery::open(&path).is_err());
    let repaired = repair(&path).unwrap();
    assert_eq!(
        (repaired.n_lost, repaired.notes.len()),
        (0, 1),
        "{repaired:?}"
    );
    let gallery = Gallery::open(&path).unwrap();
    assert!(gallery.statistics().unwrap().is_some() && !gallery.lacks_statistics());
    assert_eq!(gallery.refusals().unwrap().len(), 2);
    assert!(verify(&path).unwrap().is_good());
}

/// Numbers that no searches have, under good checksums: `verify` says what a search would, and a repair measures again.
#[test]
fn unsound_statistics_are_damage_to_every_reader() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = gallery(&path, WIDTH, Numbers::F32, &[vectors(5, 400, WIDTH, 0)]);
    writer.calibrate().unwrap();
    let measured = writer.gallery().statistics().unwrap().unwrap().clone();
    drop(writer);
    type Change = fn(&mut Table);
    let forgeries: [Change; 4] = [
        |table| table.steps[0].n_agree = table.steps[0].n + 1,
        |table| table.steps[0].n = 0,
        |table| table.steps.clear(),
        |table| table.steps = vec![table.steps[0]; 2],
    ];
    for change in forgeries {
        let mut unsound = measured.clone();
        change(&mut unsound.agreements[0].tables[0]);
        forge(&path, |catalog| {
            let name = catalog.statistics.take().unwrap().file;
            std::fs::remove_file(path.join(&name)).unwrap();
            let put = Reference::put(&RealDisk, &path, name, &unsound);
            catalog.statistics = Some(put.unwrap());
        });
        let error = Gallery::open(&path).unwrap().statistics().unwrap_err();
        assert!(error.to_string().contains("no searches"), "{error}");
        assert!(!verify(&path).unwrap().is_good());
        repair(&path).unwrap();
        assert!(verify(&path).unwrap().is_good());
        let repaired = Gallery::open(&path).unwrap();
        assert_eq!(repaired.statistics().unwrap(), Some(&measured));
    }
}

/// Puts a changed catalog in the place of a gallery's newest.
fn forge(path: &Path, change: impl Fn(&mut Catalog)) {
    let newest = catalog::generations(path).unwrap()[0];
    let (mut catalog, _) = catalog::read(path, newest).unwrap();
    change(&mut catalog);
    writer::put_catalog(&RealDisk, path, &catalog).unwrap();
}

/// Flips a bit in the vectors of the first segment.
fn damage_segment(path: &Path) {
    let segment = segment::path_of(path, 1);
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[4100] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
}

#[test]
fn a_repair_moves_no_file_that_is_not_the_gallerys() {
    for name in [
        "../beside",
        "/ABSOLUTE",
        "key",
        "catalog-0000000000000001.json",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.m3i");
        drop(whole(&path));
        let beside = folder.path().join("beside");
        std::fs::write(&beside, "of somebody").unwrap();
        let name = name.replace("/ABSOLUTE", beside.to_str().unwrap());
        forge(&path, |catalog| {
            for reference in [
                &mut catalog.segments[0].dead,
                &mut catalog.statistics,
                &mut catalog.refusals,
            ] {
                reference.as_mut().unwrap().file.clone_from(&name);
            }
        });
        assert!(Gallery::open(&path).is_err());
        let repaired = repair(&path).unwrap();
        assert_eq!(std::fs::read(&beside).unwrap(), b"of somebody", "{name}");
        assert!(!repaired.quarantined.contains(&"key".to_owned()));
        let report = verify(&path).unwrap();
        assert!(report.is_good(), "{name}: {report:?} after {repaired:?}");
        assert!(!Gallery::open(&path).unwrap().is_empty(), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_named_quarantine_leads_no_file_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    drop(whole(&path));
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, path.join("quarantine")).unwrap();
    damage_segment(&path);
    let error = repair(&path).unwrap_err().to_string();
    assert!(error.contains("no folder"), "{error}");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn numbers_that_no_writer_makes_are_damage_and_can_be_repaired() {
    use crate::scan::{Calibration, Plan};
    fn plan(catalog: &mut Catalog, change: impl Fn(&mut Plan)) {
        let mut plan = Plan {
            k: 10,
            n_probe: None,
            depth_short: None,
            depth_bits: 80,
            depth_codes: 40,
        };
        change(&mut plan);
        let calibration: &mut Calibration = catalog.calibration.as_mut().unwrap();
        calibration.plans = vec![plan];
    }
    let changes: [fn(&mut Catalog); 10] = [
        |catalog| catalog.width = 0,
        |catalog| catalog.width = usize::MAX,
        |catalog| catalog.next_segment = u64::MAX,
        |catalog| catalog.next_segment = 1,
        |catalog| catalog.segments.push(catalog.segments[0].clone()),
        |catalog| plan(catalog, |plan| plan.k = 0),
        |catalog| plan(catalog, |plan| plan.n_probe = Some(0)),
        |catalog| plan(catalog, |plan| plan.depth_bits = usize::MAX),
        |catalog| plan(catalog, |plan| plan.depth_codes = usize::MAX),
        |catalog| catalog.calibration.as_mut().unwrap().n_rows = usize::MAX,
    ];
    for (idx, change) in changes.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.m3i");
        drop(whole(&path));
        forge(&path, change);
        let error = Gallery::open(&path).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{idx}: {error}");
        repair(&path).unwrap();
        assert!(verify(&path).unwrap().is_good(), "{idx}");
        assert!(!Gallery::open(&path).unwrap().is_empty(), "{idx}");
    }
    // Without segments, nothing else tells the width.
    for width in [0, 1 << 60] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.m3i");
        drop(gallery(&path, WIDTH, Numbers::F32, &[]));
        forge(&path, |catalog| catalog.width = width);
        let error = Gallery::open(&path).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{width}: {error}");
        assert!(!verify(&path).unwrap().is_good());
    }
    // The next generation would overflow.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    drop(whole(&path));
    let newest = catalog::generations(&path).unwrap()[0];
    let last = catalog::path_of(&path, u64::MAX);
    std::fs::copy(catalog::path_of(&path, newest), last).unwrap();
    assert_eq!(catalog::generations(&path).unwrap()[0], newest);
    assert!(Gallery::open(&path).is_ok());
}

#[test]
fn a_copy_of_a_segment_counts_once_where_the_catalog_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = whole(&path);
    writer.compact().unwrap();
    let n_rows = writer.gallery().len();
    let segment = segment::path_of(&path, writer.gallery().catalog.segments[0].id);
    drop(writer);
    std::fs::copy(segment, segment::path_of(&path, 77)).unwrap();
    let newest = catalog::generations(&path).unwrap()[0];
    std::fs::write(catalog::path_of(&path, newest), "lost").unwrap();
    repair(&path).unwrap();
    assert!(verify(&path).unwrap().is_good());
    assert_eq!(Gallery::open(&path).unwrap().len(), n_rows);
}
