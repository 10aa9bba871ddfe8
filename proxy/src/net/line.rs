//! Is a first line one that any HTTP/1 server may take for a request line? Wider than the standard, since servers are:
//! what looks like one goes where it is parsed strictly, and is refused there if it is none.
//!
//! Knows nothing but bytes (see `detect`).

/// A line longer than this, with nothing that tells, is left to the strict parser.
const MAX_LINE: usize = 16 * 1024;

/// What a first line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// One that may be taken for a request line with a version.
    Request,
    /// Anything else, HTTP/0.9 included: it has no headers.
    Other,
}

/// Reads a first line as it comes.
#[derive(Debug, Default)]
pub(super) struct RequestLine {
    at: At,
    // Of the word that is being read, or was read last.
    version: Version,
    length: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    // Empty lines and blanks before the method (RFC 9112 2.2, and more).
    #[default]
    Before,
    Method,
    Blank,
    Word,
}

// How much of `HTTP/` and digits a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Version {
    #[default]
    None,
    Name(usize),
    Digits,
}

const NAME: &[u8] = b"HTTP/";

impl RequestLine {
    /// What the line is after `bytes` more; `None` when more are needed to tell.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<Line> {
        if let Some(line) = bytes.iter().find_map(|byte| self.step(*byte)) {
            return Some(line);
        }
        self.length += bytes.len();
        (self.length >= MAX_LINE).then_some(Line::Request)
    }

    fn step(&mut self, byte: u8) -> Option<Line> {
        match self.at {
            At::Before if is_blank(byte) || byte == b'\n' => {}
            At::Before | At::Method if is_token(byte) => self.at = At::Method,
            // Of one word: no request line.
            At::Method if byte == b'\n' => return Some(Line::Other),
            At::Method if is_blank(byte) => self.at = At::Blank,
            At::Before | At::Method => return Some(Line::Other),
            At::Blank | At::Word if byte == b'\n' => {
                return Some(if self.version == Version::Digits { Line::Request } else { Line::Other });
            }
            At::Blank | At::Word if is_blank(byte) => self.at = At::Blank,
            At::Blank => {
                self.at = At::Word;
                self.version = Version::Name(0).then(byte);
            }
            At::Word => self.version = self.version.then(byte),
        }
        None
    }
}

impl Version {
    fn then(self, byte: u8) -> Self {
        match self {
            Self::Name(read) if NAME.get(read).is_some_and(|wanted| wanted.eq_ignore_ascii_case(&byte)) => {
                Self::Name(read + 1)
            }
            Self::Name(read) if read == NAME.len() && byte.is_ascii_digit() => Self::Digits,
            Self::Digits if byte.is_ascii_digit() || byte == b'.' => Self::Digits,
            _ => Self::None,
        }
    }
}

// What Python's `str.split` takes for one, which is the most that any server does.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x0b..=b'\r' | 0x1c..=b' ' | 0x85 | 0xa0)
}

// RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
