//! What an operator names as a file: a file, or `-` for the standard input.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// The standard input.
const STDIN: &str = "-";

/// Is the standard input meant?
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// Opens it. The standard input can be read once.
///
/// # Errors
/// When the file cannot be opened.
pub(crate) fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    if is_stdin(path) {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(File::open(path)?))
}

/// Reads all of it as text, `most` bytes at most.
///
/// # Errors
/// When it cannot be read, is longer, or is no UTF-8.
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    bounded_text(open(path)?, most)
}

/// Reads the rest of an input as text, `most` bytes at most.
///
/// # Errors
/// As [`read_text`].
pub(crate) fn bounded_text(from: impl Read, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    // One byte more is enough to know.
    from.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        let what = format!("it is too long, {most} bytes are the most; split it");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8"))
}
