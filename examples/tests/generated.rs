//! The inventory's generated code is checked in, so that nobody needs protoc or a build script. This test makes it
//! again and compares. `UPDATE_GENERATED=1 cargo test -p douane-examples --test generated` rewrites it.

use std::{env, fs, path::Path};

#[test]
fn the_generated_code_matches_the_proto_file() {
    let apps = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/apps");
    let descriptors = protox::compile(["inventory.proto"], [&apps]).expect("the .proto file compiles");
    let out = env::temp_dir().join(format!("shop-generated-{}", std::process::id()));
    fs::create_dir_all(&out).expect("a temporary folder");

    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(&out)
        .compile_fds(descriptors)
        .expect("code is generated");

    let made = fs::read_to_string(out.join("shop.v1.rs")).expect("the generated file");
    fs::remove_dir_all(&out).expect("the temporary folder goes");
    let kept = apps.join("gen/shop.v1.rs");
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::create_dir_all(apps.join("gen")).expect("the folder of generated code");
        fs::write(&kept, &made).expect("the generated code is written");
    }
    let kept = fs::read_to_string(&kept).unwrap_or_default();
    assert!(kept == made, "run UPDATE_GENERATED=1 cargo test -p douane-examples --test generated");
}
