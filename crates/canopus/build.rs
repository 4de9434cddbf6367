//! Builds the shim, which is embedded in the binary: a program of its own, because there is one for each pod and it
//! must stay small.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // <target>/<profile>/build/<package>/out: all profiles share one shim.
    let target = out.ancestors().nth(4).expect("OUT_DIR lies in the target directory").join("shim-build");
    // As it is now, not when this was built: clones may share a target directory.
    let runtime =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join("../runtime");
    for input in ["src", "Cargo.toml", "../../Cargo.toml", "../../Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", runtime.join(input).display());
    }
    let mut build = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    build.args(["build", "--quiet", "--locked", "--offline", "--profile", "shim", "--no-default-features"]);
    build.args(["--bin", "canopus-shim", "--manifest-path"]).arg(runtime.join("Cargo.toml"));
    build.arg("--target-dir").arg(&target);
    // What clippy and test coverage do to this build is not for that one.
    for name in ["RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS", "CLIPPY_ARGS"] {
        build.env_remove(name);
    }
    let status = build.status().expect("cargo can be started");
    assert!(status.success(), "failed to build canopus-shim");
    let shim = target.join("shim").join("canopus-shim");
    fs::copy(&shim, out.join("canopus-shim")).expect("the shim was built");
}
