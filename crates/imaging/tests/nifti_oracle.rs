//! NIfTI against nibabel: every data type, scaling, dimension and orientation, bit for bit; and what is written for
//! viewers, by voxels and places.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "oracle/check.rs"]
mod check;

use std::path::Path;

use m3ret_imaging::{ReadOptions, Volume, encode_nifti, read_path, resample};

#[test]
fn committed_files_read_as_nibabel_reads_them() {
    assert_eq!(check::check_folder(&check::fixtures("nifti")), 16);
}

#[test]
fn generated_files_read_as_nibabel_reads_them() {
    if let Some(folder) = check::generate("make_nifti.py") {
        assert!(check::check_folder(folder.path()) > 500);
    }
}

/// What nibabel says of a file.
#[derive(serde::Deserialize)]
struct Told {
    /// Along x, y, z.
    shape: [usize; 3],
    affine: [[f64; 4]; 4],
    /// In mm.
    zooms: [f64; 3],
    dtype: String,
    /// In the unit of the image, x fastest.
    values: Vec<f32>,
}

fn compare(volume: &Volume, max_side: usize, told: &Told, step: f32) {
    let [_, depth, height, width] = volume.shape();
    let from = [depth, height, width];
    let to = from.map(|side| side.min(max_side));
    let [new_depth, new_height, new_width] = to;
    assert_eq!(told.shape, [new_width, new_height, new_depth]);
    assert_eq!(told.dtype, "int16");
    let wanted = resample(volume.values(), from, to).unwrap();
    for (value, wanted) in told.values.iter().zip(&wanted) {
        assert!((value - wanted).abs() <= step, "{value} and {wanted}");
    }
    // The outer corners of the whole stay where they are: centres of voxels are half a voxel inside.
    let affine = volume.affine.unwrap();
    for corner in 0..8 {
        let is_far = [corner & 1, corner >> 1 & 1, corner >> 2].map(|bit| bit == 1);
        let index = |sides: [usize; 3]| {
            let mut index = [-0.5; 3];
            for ((at, far), side) in index.iter_mut().zip(is_far).zip(sides) {
                *at += if far {
                    f64::from(u32::try_from(side).unwrap())
                } else {
                    0.0
                };
            }
            index
        };
        let place =
            |row: [f64; 4], [i, j, k]: [f64; 3]| row[0] * i + row[1] * j + row[2] * k + row[3];
        let own = index([width, height, depth]);
        let theirs = index(told.shape);
        let signs = [-1.0, -1.0, 1.0];
        for ((row, sign), theirs_row) in affine.rows.into_iter().zip(signs).zip(told.affine) {
            let (a, b) = (sign * place(row, own), place(theirs_row, theirs));
            assert!((a - b).abs() < 1e-2, "corner {corner}: {a} and {b}");
        }
    }
    for (axis, zoom) in told.zooms.into_iter().enumerate() {
        let column = told.affine.map(|row| row[axis]);
        let length = column[..3].iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!((length - zoom).abs() < 1e-4 * zoom, "{length} and {zoom}");
    }
}

#[test]
fn nibabel_reads_the_same_voxels_in_the_same_places() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    // Whole numbers, other numbers, an oblique grid, and CT in Hounsfield units.
    let files = [
        "nifti/oblique1+.nii",
        "nifti/axes_120---.nii",
        "nifti/qoblique1-.nii",
        "real/dcm-qa-ct-00005.nii.gz",
        "real/pyradiomics-00005.nii.gz",
        "dicom/series_axial",
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut cases = Vec::new();
    for (idx, file) in files.iter().enumerate() {
        let volume = read_path(&root.join(file), &ReadOptions::default())
            .unwrap()
            .remove(0);
        for max_side in [256, 11] {
            let bytes = encode_nifti(&volume, max_side).unwrap();
            std::fs::write(
                folder.path().join(format!("{idx}-{max_side}.nii.gz")),
                bytes,
            )
            .unwrap();
            cases.push((idx, max_side, volume.clone()));
        }
    }
    if !check::run("read_nifti.py", folder.path()) {
        return;
    }
    for (idx, max_side, volume) in cases {
        let text =
            std::fs::read_to_string(folder.path().join(format!("{idx}-{max_side}.nii.gz.json")));
        let told: Told = serde_json::from_str(&text.unwrap()).unwrap();
        let finite = || volume.values().iter().copied().filter(|x| x.is_finite());
        let range = finite().fold(f32::MIN, f32::max) - finite().fold(f32::MAX, f32::min);
        compare(&volume, max_side, &told, range / 65_535.0);
    }
}
