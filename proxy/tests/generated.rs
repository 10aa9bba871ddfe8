//! The generated messages of external authorizers are checked in, so that nobody needs protoc or a build script. This test
//! makes them again and compares. `UPDATE_GENERATED=1 cargo test -p douane-proxy --test generated` rewrites them.

use std::{env, fs, path::Path};

#[test]
fn the_generated_code_matches_the_proto_file() {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/authz");
    let descriptors = protox::compile(["external_auth.proto"], [&room]).expect("the .proto file compiles");
    let out = env::temp_dir().join(format!("authz-generated-{}", std::process::id()));
    fs::create_dir_all(&out).expect("a temporary folder");

    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .out_dir(&out)
        .compile_fds(descriptors)
        .expect("code is generated");

    let made = fs::read_to_string(out.join("envoy.service.auth.v3.rs")).expect("the generated file");
    fs::remove_dir_all(&out).expect("the temporary folder goes");
    let kept = room.join("gen/envoy.service.auth.v3.rs");
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::create_dir_all(room.join("gen")).expect("the folder of generated code");
        fs::write(&kept, &made).expect("the generated code is written");
    }
    let kept = fs::read_to_string(&kept).unwrap_or_default();
    assert!(kept == made, "run UPDATE_GENERATED=1 cargo test -p douane-proxy --test generated");
}
