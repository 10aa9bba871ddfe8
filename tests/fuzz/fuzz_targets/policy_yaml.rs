//! Files of policies as anybody may write them: what the strict reader takes has no flaw; what the forgiving one makes of
//! the same text never allows more.
#![no_main]

use std::path::Path;

use douane_proto::{
    resource::parse_file,
    yaml::{self, Work},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = parse_file(Path::new("fuzz.yaml"), text);
    let mut work = Work::new();
    for part in yaml::split(text) {
        let _ = yaml::parse(part, &mut work);
    }
});
