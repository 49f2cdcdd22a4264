//! Patches of good files, chosen by a fuzzer's input.

use crate::input::Input;

/// Numbers that JSON may hold.
const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "2",
    "3",
    "7",
    "8",
    "64",
    "255",
    "4096",
    "65537",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "-1",
    "1e308",
];

/// Replaces one of the numbers in some JSON.
pub fn number(json: &mut Vec<u8>, input: &mut Input<'_>) {
    let is_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+');
    let begins = |at: &usize| is_number(&json[*at]) && matches!(json[at - 1], b':' | b',' | b'[' | b' ');
    let starts: Vec<usize> = (1..json.len()).filter(begins).collect();
    if starts.is_empty() {
        return;
    }
    let start = input.of(&starts);
    let n = json[start..].iter().take_while(|byte| is_number(byte)).count();
    let new = match input.byte() % 20 {
        16 => input.short().to_string(),
        17 => (input.short() << 16 | input.short()).to_string(),
        18 => "null".to_owned(),
        19 => input.decimal().into_owned(),
        n => NUMBERS[usize::from(n % 16)].to_owned(),
    };
    json.splice(start..start + n, new.bytes());
}

/// Replaces one of the texts in some JSON by one of the choices.
pub fn text(json: &mut Vec<u8>, input: &mut Input<'_>, choices: &[&str]) {
    let quotes: Vec<usize> = (0..json.len()).filter(|&at| json[at] == b'"').collect();
    let (pairs, _) = quotes.as_chunks::<2>();
    if pairs.is_empty() {
        return;
    }
    let [start, end] = input.of(pairs);
    let choice = input.below(choices.len() + 1);
    match choices.get(choice) {
        Some(new) => drop(json.splice(start + 1..end, new.bytes())),
        // Another text of the same JSON.
        None => {
            let [start_2, end_2] = input.of(pairs);
            let new = json[start_2 + 1..end_2].to_vec();
            json.splice(start + 1..end, new);
        }
    }
}

/// Overwrites up to eight bytes somewhere.
pub fn bytes(content: &mut [u8], input: &mut Input<'_>) {
    let at = input.below(content.len());
    let n = input.below(8) + 1;
    for (old, new) in content.iter_mut().skip(at).zip(input.bytes(n)) {
        *old = *new;
    }
}

/// Overwrites a little-endian number of 4 or 8 bytes that lies at a multiple of its width.
pub fn word(content: &mut [u8], input: &mut Input<'_>) {
    let width = input.of(&[4, 8]);
    let at = input.below(content.len() / width) * width;
    let Some(field) = content.get_mut(at..at + width) else {
        return;
    };
    let old = field.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let new = match input.byte() % 12 {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => 0,
        3 => u64::MAX,
        4 => 0x7FC0_0000_7FC0_0000,
        5 => 0x7F80_0000_7F80_0000,
        6 => 1 << input.below(64),
        7 => old ^ 0x8000_0000_8000_0000,
        _ => input.short() as u64,
    };
    field.copy_from_slice(&new.to_le_bytes()[..width]);
}

/// Inserts or removes some bytes.
pub fn length(content: &mut Vec<u8>, input: &mut Input<'_>) {
    let at = input.below(content.len());
    match input.byte() % 3 {
        0 => content.truncate(at),
        1 => {
            let n = input.below(16);
            content.drain(at..(at + n).min(content.len()));
        }
        _ => {
            let n = input.below(16);
            content.splice(at..at, input.bytes(n).iter().copied());
        }
    }
}
