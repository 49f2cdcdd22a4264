//! The text of a pretraining config: what is accepted can be written and read again, and is the same then.

#![no_main]

use std::path::Path;

use m3ret_pretrain::Config;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // Behind a line of its own: changes as on the command line.
    let (text, changes) = text.split_once("\n--set\n").unwrap_or((text, ""));
    let changes: Vec<String> = changes.lines().take(4).map(str::to_owned).collect();
    let Ok(config) = Config::from_toml(text, Path::new("/folder"), &changes) else {
        return;
    };
    let written = config.to_toml().expect("a config that was text");
    let again = Config::from_toml(&written, Path::new("/other"), &[]).expect("a config that was written");
    // Not equal to itself if it holds a NaN.
    assert!(again == config || written.contains("nan"), "{written}");
});
