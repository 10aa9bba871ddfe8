//! Host and path of a request: what is accepted has one form, holds no dot segment, and is a fixed point in its mode.
#![no_main]

use douane_proto::target::{PathNormalization, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (host, path) = text.split_once('\n').unwrap_or(("orders.shop", &text));
    for mode in [
        PathNormalization::None,
        PathNormalization::Base,
        PathNormalization::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes,
    ] {
        let Ok(target) = Target::parse(host, path, mode) else { continue };
        let whole = target.path_and_query();
        assert!(!whole.bytes().any(|byte| byte.is_ascii_control() || byte == b'#' || byte == b' '), "{whole:?}");
        assert_eq!(Target::parse(&target.authority, &whole, mode).as_ref(), Ok(&target), "{mode:?}");
        if mode != PathNormalization::None {
            assert!(!target.path.split('/').any(|segment| segment == "." || segment == ".."), "{target:?}");
        }
        if matches!(mode, PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes) {
            assert!(!target.path.contains("//"), "{target:?}");
        }
    }
});
