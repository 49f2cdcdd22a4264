use std::collections::HashMap;
use std::io::Write as _;

use safetensors::tensor::TensorView;

use super::*;

/// A tensor to be written: name, type, shape, bytes.
type Tensor = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn f32s(name: &'static str, shape: &[usize], values: &[f32]) -> Tensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    (name, Dtype::F32, shape.to_vec(), bytes.collect())
}

fn save(path: &Path, tensors: &[Tensor]) {
    let views: HashMap<_, _> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
            ((*name).to_owned(), view)
        })
        .collect();
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn two() -> Vec<Tensor> {
    vec![
        f32s("a", &[2, 2], &[1.0, -2.5, 0.0, 4.0]),
        f32s("b.weight", &[3], &[0.5, 1.5, 2.5]),
    ]
}

fn saved(tensors: &[Tensor]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save(&path, tensors);
    (folder, path)
}

/// Takes both tensors of `two` from a folder and returns them and the fingerprint.
fn take_two(path: &Path) -> Result<(Vec<f32>, String)> {
    let mut weights = Weights::open(path)?;
    let a = weights.take("a", &[2, 2])?;
    let b = weights.take("b.weight", &[3])?;
    weights.finish(&[])?;
    Ok(([a, b].concat(), weights.fingerprint("recipe")))
}

fn message(path: &Path) -> String {
    take_two(path).unwrap_err().to_string()
}

#[test]
fn tensors_are_taken_as_they_were_saved() {
    let (_folder, path) = saved(&two());
    let (values, _) = take_two(&path).unwrap();
    assert_eq!(values, [1.0, -2.5, 0.0, 4.0, 0.5, 1.5, 2.5]);
}

#[test]
fn missing_extra_and_misshaped_tensors_are_named() {
    for (tensors, words) in [
        (two()[..1].to_vec(), ["no tensor b.weight", "[3]"]),
        (
            [two(), vec![f32s("surplus", &[1], &[0.0])]].concat(),
            ["unknown tensor surplus", "[1]"],
        ),
        (
            vec![two()[0].clone(), f32s("b.weight", &[1, 3], &[0.0; 3])],
            ["tensor b.weight of shape [1, 3]", "shape [3]"],
        ),
    ] {
        let (_folder, path) = saved(&tensors);
        let text = message(&path);
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert!(text.contains("model.safetensors"), "{text}");
    }
}

#[test]
fn weights_that_are_not_finite_are_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (_folder, path) = saved(&[two()[0].clone(), f32s("b.weight", &[3], &[0.0, bad, 1.0])]);
        let text = message(&path);
        assert!(
            text.contains("NaN or infinity in tensor b.weight"),
            "{text}"
        );
    }
}

#[test]
fn half_precisions_are_widened_exactly_and_other_types_refused() {
    let values = [1.0_f32, -2.5, 0.0, 4.0];
    let halves = |bits: fn(f32) -> [u8; 2]| values.into_iter().flat_map(bits).collect();
    for (dtype, bytes) in [
        (Dtype::F16, halves(|x| half::f16::from_f32(x).to_le_bytes())),
        (
            Dtype::BF16,
            halves(|x| half::bf16::from_f32(x).to_le_bytes()),
        ),
    ] {
        let (_folder, path) = saved(&[("a", dtype, vec![2, 2], bytes), two()[1].clone()]);
        let (found, fingerprint) = take_two(&path).unwrap();
        assert_eq!(&found[..4], values);
        let (_folder, path) = saved(&two());
        assert_eq!(take_two(&path).unwrap().1, fingerprint, "the same network");
    }
    let (_folder, path) = saved(&[("a", Dtype::I32, vec![2, 2], vec![0; 16]), two()[1].clone()]);
    let text = message(&path);
    assert!(text.contains("tensor a of type I32"), "{text}");
}

#[test]
fn the_fingerprint_knows_values_names_shapes_and_recipe_but_not_files() {
    let fingerprint = |tensors: &[Tensor]| {
        let (_folder, path) = saved(tensors);
        let mut weights = Weights::open(&path).unwrap();
        for (name, _, shape, _) in tensors {
            weights.take(name, shape).unwrap();
        }
        [weights.fingerprint("one"), weights.fingerprint("two")]
    };
    let [first, other_recipe] = fingerprint(&two());
    let mut turned = two();
    turned.reverse();
    assert_eq!(first, fingerprint(&turned)[0]);
    assert_eq!(first.len(), 32);
    let others = [
        vec![
            f32s("a", &[2, 2], &[1.0, -2.5, -0.0, 4.0]),
            two()[1].clone(),
        ],
        vec![f32s("a", &[4, 1], &[1.0, -2.5, 0.0, 4.0]), two()[1].clone()],
        vec![f32s("c", &[2, 2], &[1.0, -2.5, 0.0, 4.0]), two()[1].clone()],
        two()[..1].to_vec(),
    ];
    for tensors in others {
        assert_ne!(first, fingerprint(&tensors)[0]);
    }
    assert_ne!(first, other_recipe);
}

#[test]
fn long_tensors_are_converted_and_hashed_whole() {
    let n = 3 * CHUNK + 17;
    let values: Vec<f32> = (0_u16..1000)
        .cycle()
        .take(n)
        .map(|i| f32::from(i) / 7.0)
        .collect();
    let fingerprint = |values: &[f32]| {
        let (_folder, path) = saved(&[f32s("long", &[n], values)]);
        let mut weights = Weights::open(&path).unwrap();
        assert_eq!(weights.take("long", &[n]).unwrap(), values);
        weights.fingerprint("")
    };
    let mut changed = values.clone();
    changed[n - 1] += 1.0;
    assert_ne!(fingerprint(&values), fingerprint(&changed));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let (folder, path) = saved(&two());
    let bytes = std::fs::read(&path).unwrap();
    let cut = folder.path().join("cut.safetensors");
    for n in 0..bytes.len() {
        std::fs::write(&cut, &bytes[..n]).unwrap();
        assert!(take_two(&cut).is_err(), "{n} of {} bytes", bytes.len());
    }
    std::fs::write(&cut, [&bytes[..], &[0]].concat()).unwrap();
    assert!(take_two(&cut).is_err(), "one byte too many");
}

#[test]
fn a_file_with_any_byte_changed_is_refused_or_read_without_harm() {
    let (folder, path) = saved(&two());
    let bytes = std::fs::read(&path).unwrap();
    let changed = folder.path().join("changed.safetensors");
    for place in 0..bytes.len() {
        for bits in [0xff, 0x01, 0x80] {
            let mut bytes = bytes.clone();
            bytes[place] ^= bits;
            std::fs::write(&changed, &bytes).unwrap();
            // No panic is all that is asked: a changed weight is still a weight.
            drop(take_two(&changed));
        }
    }
}

#[test]
fn forged_headers_are_refused() {
    let tensor = |shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let max = u64::MAX.to_string();
    let headers = [
        tensor("[2,2]", "[0,15]"),
        tensor("[2,2]", "[16,0]"),
        tensor("[2,2]", &format!("[0,{max}]")),
        tensor(&format!("[{max},{max}]"), "[0,16]"),
        tensor(&format!("[{max},0]"), "[0,0]"),
        tensor("[-1]", "[0,16]"),
        tensor("[1e9]", "[0,16]"),
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,16]}}"#.to_owned(),
        r#"{"a":{"dtype":"X9","shape":[4],"data_offsets":[0,16]}}"#.to_owned(),
        "[".repeat(100_000),
        "null".to_owned(),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forged.safetensors");
    for header in headers {
        let mut file = File::create(&path).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes())
            .unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(&[0; 16]).unwrap();
        drop(file);
        assert!(
            take_two(&path).is_err(),
            "{}",
            &header[..header.len().min(80)]
        );
    }
    for length in [0, 1, u64::MAX, 1 << 40] {
        std::fs::write(&path, length.to_le_bytes()).unwrap();
        assert!(take_two(&path).is_err(), "a header of {length} bytes");
    }
}

#[test]
fn shards_are_read_as_one_and_their_order_does_not_matter() {
    let (_folder, path) = saved(&two());
    let whole = take_two(&path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for names in [
        ["one.safetensors", "two.safetensors"],
        ["two.safetensors", "one.safetensors"],
    ] {
        for (name, tensor) in names.iter().zip(two()) {
            save(&folder.path().join(name), &[tensor]);
        }
        let index = folder.path().join("model.safetensors.index.json");
        let text = format!(
            r#"{{"metadata":{{}},"weight_map":{{"a":"{}","b.weight":"{}"}}}}"#,
            names[0], names[1]
        );
        std::fs::write(&index, text).unwrap();
        assert_eq!(take_two(&index).unwrap(), whole);
    }
}

#[test]
fn shards_that_are_missing_or_double_or_elsewhere_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    save(&folder.path().join("one.safetensors"), &two());
    save(&folder.path().join("again.safetensors"), &two());
    std::fs::create_dir(folder.path().join("folder.safetensors")).unwrap();
    let absolute = folder.path().join("one.safetensors");
    for (other, word) in [
        ("none.safetensors", "none.safetensors"),
        ("again.safetensors", "second time"),
        ("../one.safetensors", "without a folder"),
        ("./one.safetensors", "without a folder"),
        ("sub/one.safetensors", "without a folder"),
        (absolute.to_str().unwrap(), "without a folder"),
        ("", "without a folder"),
        ("..", "without a folder"),
        ("one.bin", "without a folder"),
        ("folder.safetensors", "no file"),
    ] {
        let text = serde_json::json!({"weight_map": {"a": "one.safetensors", "b": other}});
        std::fs::write(&index, text.to_string()).unwrap();
        let text = message(&index);
        assert!(text.contains(word), "{other}: {text}");
    }
    std::fs::write(&index, r#"{"weight_map":{}}"#).unwrap();
    assert!(message(&index).contains("no tensor a"));
}

#[cfg(target_os = "linux")]
#[test]
fn pages_of_taken_tensors_are_given_back() {
    const N: usize = 8 << 20;
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("RssFile"))
            .unwrap();
        let kib = line.split_whitespace().nth(1).unwrap();
        kib.parse::<usize>().unwrap() << 10
    };
    let (_folder, path) = saved(&[f32s("big", &[N], &vec![1.0; N])]);
    let mut weights = Weights::open(&path).unwrap();
    let before = resident();
    drop(weights.take("big", &[N]).unwrap());
    assert!(resident() < before + N, "{before} then {}", resident());
}

#[test]
fn a_json_file_that_is_too_long_or_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    // A sparse file: it takes no room on the disk.
    let file = File::create(&path).unwrap();
    file.set_len(MAX_JSON_BYTES + 1).unwrap();
    let found = read_json::<Value>(&path);
    assert!(
        matches!(found, Err(Error::LimitExceeded { .. })),
        "{found:?}"
    );
    let found = read_json::<Value>(folder.path());
    assert!(matches!(found, Err(Error::Malformed { .. })), "{found:?}");
}

#[test]
fn names_from_files_are_made_harmless() {
    assert_eq!(shown("a\n\u{1b}[31m"), r"a\n\u{1b}[31m");
    assert_eq!(shown(&"x".repeat(1000)).len(), MAX_SHOWN + 3);
}
