//! Numbers in lower case hexadecimal digits, all of them at once: ids stand in every log line and in the trace headers of
//! every request. Knows not what they name.

/// The digits of a number's bytes, its highest first: two for each.
pub(crate) fn of<const BYTES: usize>(bytes: [u8; BYTES]) -> [[u8; 2]; BYTES] {
    bytes.map(|byte| [digit(byte >> 4), digit(byte & 0xf)])
}

// Of four bits, without a branch.
fn digit(four: u8) -> u8 {
    four + b'0' + u8::from(four > 9) * (b'a' - b'9' - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_two_digits_in_lower_case() {
        assert_eq!(of([0x00, 0x09, 0x9a, 0xff]).as_flattened(), b"00099aff");
    }
}
