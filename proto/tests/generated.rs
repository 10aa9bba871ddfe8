//! The generated code of the wires is checked in, so that nobody needs protoc or a build script. This test makes it
//! again from the `.proto` files and compares. `UPDATE_GENERATED=1 cargo test -p douane-proto` rewrites it.

use std::{env, fs, path::Path};

use prost::Message as _;

/// One generated file.
struct Wire {
    /// Relative to this crate.
    protos: &'static [&'static str],
    /// What the generator calls its output.
    made: &'static str,
    /// In `src/gen`.
    kept: &'static str,
    /// Messages that hold a key and must not print it.
    silent: &'static [&'static str],
    /// What messages are written and read with.
    codec: &'static str,
    /// What a server tells of itself by reflection, in `src/gen`.
    descriptors: Option<&'static str>,
}

const PROST: &str = "tonic_prost::ProstCodec";

const WIRES: &[Wire] = &[
    Wire {
        protos: &["douane/v1/identity.proto", "douane/v1/discovery.proto"],
        made: "douane.v1.rs",
        kept: "douane.v1.rs",
        silent: &[],
        codec: "crate::codec::Codec",
        descriptors: None,
    },
    Wire {
        protos: &["spiffe/workload.proto"],
        // No package.
        made: "_.rs",
        kept: "spiffe.rs",
        silent: &["X509SVID", "JWTSVID", "ValidateJWTSVIDRequest"],
        codec: PROST,
        descriptors: Some("spiffe.descriptors"),
    },
    Wire {
        protos: &["istio/ca.proto"],
        made: "istio.v1.auth.rs",
        kept: "istio.v1.auth.rs",
        silent: &[],
        codec: PROST,
        descriptors: None,
    },
];

#[test]
fn the_generated_code_matches_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for wire in WIRES {
        let mut descriptors = protox::compile(wire.protos, [root]).expect("the .proto files compile");
        let out = env::temp_dir().join(format!("douane-generated-{}-{}", std::process::id(), wire.kept));
        fs::create_dir_all(&out).expect("a temporary folder");
        tonic_prost_build::configure()
            .build_transport(false)
            .btree_map(".")
            .skip_debug(wire.silent)
            .codec_path(wire.codec)
            .out_dir(&out)
            .compile_fds(descriptors.clone())
            .expect("code is generated");
        let made = fs::read(out.join(wire.made)).expect("the generated file");
        fs::remove_dir_all(&out).expect("the temporary folder goes");
        same(&root.join("src/gen").join(wire.kept), &made);

        if let Some(kept) = wire.descriptors {
            for file in &mut descriptors.file {
                // Comments.
                file.source_code_info = None;
            }
            same(&root.join("src/gen").join(kept), &descriptors.encode_to_vec());
        }
    }
}

fn same(path: &Path, made: &[u8]) {
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(path, made).expect("the generated file is written");
    }
    let kept = fs::read(path).unwrap_or_default();
    assert!(
        kept == made,
        "{}: run UPDATE_GENERATED=1 cargo test -p douane-proto --test generated",
        path.display()
    );
}
