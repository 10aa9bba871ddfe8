//! The generated code of the wire is checked in, so that nobody needs protoc or a build script. This test makes it
//! again from the `.proto` files and compares. `UPDATE_GENERATED=1 cargo test -p douane-proto` rewrites it.

use std::{env, fs, path::Path};

#[test]
fn the_generated_code_matches_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["douane/v1/identity.proto", "douane/v1/discovery.proto"];
    let descriptors = protox::compile(files, [root]).expect("the .proto files compile");
    let out = env::temp_dir().join(format!("douane-generated-{}", std::process::id()));
    fs::create_dir_all(&out).expect("a temporary folder");

    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .out_dir(&out)
        .compile_fds(descriptors)
        .expect("code is generated");

    let made = fs::read_to_string(out.join("douane.v1.rs")).expect("the generated file");
    fs::remove_dir_all(&out).expect("the temporary folder goes");
    let kept = root.join("src/gen/douane.v1.rs");
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::create_dir_all(root.join("src/gen")).expect("the folder of generated code");
        fs::write(&kept, &made).expect("the generated code is written");
    }
    let kept = fs::read_to_string(&kept).unwrap_or_default();
    assert!(kept == made, "run UPDATE_GENERATED=1 cargo test -p douane-proto --test generated");
}
