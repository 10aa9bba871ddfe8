//! The first bytes of a connection: what they speak never depends on how they were cut, and no bytes panic.
#![no_main]

use douane_proxy::{
    net::detect::classify,
    tls::hello::{Hello, look},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = classify(bytes);
    let hello = look(bytes);
    for cut in 0..bytes.len().min(256) {
        let part = bytes.get(..cut).unwrap_or_default();
        if let Some(early) = classify(part) {
            assert_eq!(whole, Some(early), "cut at {cut}");
        }
        match look(part) {
            Hello::Unfinished => {}
            // What was foreign early may be told late, when its record has ended; it is never for the mesh.
            Hello::Foreign => assert_ne!(hello, Hello::Mesh, "cut at {cut}"),
            Hello::Mesh => assert_eq!(hello, Hello::Mesh, "cut at {cut}"),
        }
    }
});
