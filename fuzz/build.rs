//! Leaves out of each target what it does not call: libFuzzer looks at every counter after each execution.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,--gc-sections");
}
