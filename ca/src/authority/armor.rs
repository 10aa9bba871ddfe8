//! PEM (RFC 7468), as certificates and requests travel in files and in others' APIs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use x509_parser::pem::Pem;

/// RFC 7468 2.
const LINE: usize = 64;

/// DER of each certificate in `text`, in its order; an error where there is anything else.
///
/// # Errors
/// Says what else there is.
pub fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut found = Vec::new();
    for pem in Pem::iter_from_buffer(text) {
        let pem = pem.map_err(|_| "it is not PEM")?;
        if pem.label != "CERTIFICATE" {
            return Err("it holds something else than certificates");
        }
        found.push(pem.contents);
    }
    Ok(found)
}

/// `der` as a block of PEM with this label.
#[must_use]
pub fn block(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let body = STANDARD.encode(der);
    let mut rest = body.as_str();
    while let Some((line, more)) = rest.split_at_checked(LINE) {
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    if !rest.is_empty() {
        text.push_str(rest);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
