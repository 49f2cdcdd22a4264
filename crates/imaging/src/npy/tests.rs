use proptest::prelude::*;

use super::*;

fn array(descr: &str, is_fortran: bool, shape: &str, numbers: &[u8]) -> Vec<u8> {
    let order = if is_fortran { "True" } else { "False" };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0, u8::try_from(dict.len()).unwrap(), 0]);
    bytes.extend(dict.as_bytes());
    bytes.extend(numbers);
    bytes
}

fn read_one(bytes: &[u8]) -> Result<Volume> {
    read(bytes, &ReadOptions::default()).map(|mut volumes| volumes.remove(0))
}

/// Reads bytes 0, 1, 2, ... under a shape.
fn check(shape: &str, n: u8, is_fortran: bool) -> Option<([usize; 4], Vec<f32>)> {
    let numbers: Vec<u8> = (0..n).collect();
    let volume = read_one(&array("|u1", is_fortran, shape, &numbers)).ok()?;
    Some((volume.shape(), volume.into_values()))
}

fn floats(values: &[u8]) -> Vec<f32> {
    values.iter().copied().map(f32::from).collect()
}

#[test]
fn the_shape_decides_what_an_array_is() {
    let upwards = |n: u8| (0..n).map(f32::from).collect::<Vec<_>>();
    for (shape, wanted) in [
        ("(2, 2)", [1, 1, 2, 2]),
        ("(2, 3, 2)", [1, 2, 3, 2]),
        ("(1, 3, 2)", [1, 1, 3, 2]),
        ("(1, 2, 2, 3)", [1, 2, 2, 3]),
        ("(3, 2, 2, 3)", [3, 2, 2, 3]),
    ] {
        let n = u8::try_from(wanted.iter().product::<usize>()).unwrap();
        assert_eq!(
            check(shape, n, false),
            Some((wanted, upwards(n))),
            "{shape}"
        );
    }
    let rgb = floats(&[0, 3, 1, 4, 2, 5]);
    assert_eq!(check("(1, 2, 3)", 6, false), Some(([3, 1, 1, 2], rgb)));
    let rgba = floats(&[0, 4, 1, 5, 2, 6]);
    assert_eq!(
        check("(2, 1, 4)", 8, false),
        Some(([3, 1, 2, 1], rgba.clone()))
    );
    assert_eq!(check("(2, 1, 1, 4)", 8, false), Some(([3, 2, 1, 1], rgba)));
    for shape in [
        "()",
        "(8,)",
        "(2, 2, 2, 1)",
        "(2, 0)",
        "(1, 1, 1, 2, 4)",
        "(-2, 2)",
    ] {
        assert_eq!(check(shape, 8, false), None, "{shape}");
    }
}

#[test]
fn fortran_order_is_transposed() {
    let wanted = floats(&[0, 2, 4, 1, 3, 5]);
    assert_eq!(check("(2, 3)", 6, true), Some(([1, 1, 2, 3], wanted)));
    let wanted = floats(&[0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11]);
    assert_eq!(check("(2, 2, 3)", 12, true), Some(([3, 1, 2, 2], wanted)));
}

#[test]
fn every_type_reads_in_both_orders() {
    let check = |descr: &str, number: &[u8]| {
        let volume = read_one(&array(descr, false, "(1, 1)", number)).unwrap();
        assert_eq!(volume.values(), [1.0], "{descr}");
    };
    check("|b1", &[1]);
    check("|i1", &[1]);
    check("<u2", &1_u16.to_le_bytes());
    check(">i4", &1_i32.to_be_bytes());
    check("<i8", &1_i64.to_le_bytes());
    check(">u8", &1_u64.to_be_bytes());
    check("<f2", &[0, 0x3c]);
    check(">f2", &[0x3c, 0]);
    check(">f4", &1_f32.to_be_bytes());
    check("<f8", &1_f64.to_le_bytes());
    for descr in ["<c8", "|O", "<U4", "<f16", "<M8[s]", ""] {
        let refused = read_one(&array(descr, false, "(1, 1)", &[0; 16])).unwrap_err();
        assert_eq!(refused.code(), Code::Unsupported, "{descr}");
    }
}

#[test]
fn halves_widen_exactly() {
    for (half, wanted) in [
        (0x0000, 0.0_f32),
        (0x0001, 2.0_f32.powi(-24)),
        (0x83ff, -1023.0 * 2.0_f32.powi(-24)),
        (0x0400, 2.0_f32.powi(-14)),
        (0x3555, 0.333_251_95),
        (0x7bff, 65_504.0),
        (0xfc00, f32::NEG_INFINITY),
    ] {
        assert_eq!(widen_half(half).to_bits(), wanted.to_bits(), "{half:#x}");
    }
    assert_eq!(widen_half(0x8000).to_bits(), (-0.0_f32).to_bits());
    assert!(widen_half(0x7e01).is_nan());
}

#[test]
fn an_array_cut_anywhere_is_refused() {
    let whole = array("<f4", false, "(2, 2)", &[0; 16]);
    for end in 6..whole.len() {
        assert!(read_one(&whole[..end]).is_err(), "{end}");
    }
    assert!(read_one(&whole).is_ok());
}

#[test]
fn a_declared_size_is_charged_before_it_is_reserved() {
    for shape in ["(99999999, 99999999)", "(18446744073709551615, 2, 2)"] {
        let refused = read_one(&array("|u1", false, shape, &[0; 9])).unwrap_err();
        assert_eq!(refused.code(), Code::LimitExceeded, "{shape}");
    }
    let refused = read_one(&array("|u1", false, "(9999, 9999)", &[0; 9])).unwrap_err();
    assert_eq!(refused.code(), Code::Truncated);
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        shape in (prop_oneof![Just(1_usize), Just(3)], 1_usize..4, 1_usize..5, 1_usize..5),
        seed in any::<u32>(),
    ) {
        let (c, d, h, w) = shape;
        let bits = (0..c * d * h * w).scan(seed, |bits, _| {
            *bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some(f32::from_bits(*bits))
        });
        let kind = if d == 1 { Kind::Image } else { Kind::Volume };
        let volume = Volume::new(bits.collect(), [c, d, h, w], kind).unwrap();
        let mut bytes = Vec::new();
        write_npy(&mut bytes, &volume).unwrap();
        prop_assert_eq!((bytes.len() - 4 * c * d * h * w) % 64, 0);
        let back = read_one(&bytes).unwrap();
        prop_assert_eq!(back.shape(), volume.shape());
        prop_assert_eq!(back.kind, kind);
        let to_bits = |v: &Volume| v.values().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(to_bits(&back), to_bits(&volume));
    }
}
