//! Makes requests that parsers may read differently: an honest one, bent in up to three places, and a second one behind it.

/// What comes next, repeatably (xorshift64).
pub(super) struct Chance(u64);

const METHODS: &[&str] = &["GET", "POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get", "X-Y"];
const LENGTHS: &[&str] = &[
    "{}", "{}", "{}", "{}", " {}", "{} ", "+{}", "-{}", "0{}", "{}, {}", "{},{}", "0x{}", "{}.0", "{};a", "",
    "\u{b}{}", "\"{}\"", "1{}", "0",
];
const CODINGS: &[&str] = &[
    "chunked",
    "chunked",
    "chunked",
    "CHUNKED",
    " chunked",
    "\tchunked",
    "chunked ",
    "chunked, chunked",
    "gzip, chunked",
    "chunked, identity",
    "identity",
    "xchunked",
    "chunked;a=b",
    "\"chunked\"",
    ",chunked",
    "chunked,",
    "\u{b}chunked",
    "",
];
const NAMES: &[&str] = &[
    "{}",
    "{}",
    "{}",
    "{} ",
    "{}\t",
    " {}",
    "\t{}",
    "{}\u{0}",
    "{}\r",
    "_{}",
    "{}:",
    "X: y\r\n {}",
    "X: y\n{}",
    "X: y\r{}",
];
const SIZES: &[&str] = &[
    "{}",
    "{}",
    "{}",
    "0{}",
    "{} ",
    " {}",
    "{}\t",
    "+{}",
    "-{}",
    "0x{}",
    "{};a",
    "{};a=\"b\"",
    "{} ;a",
    "{};\n",
    "{}\n",
    "{};a\r",
    "{}_",
    "000000000000000000{}",
    "1000000000000000{}",
];
const ENDS: &[&str] =
    &["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\n\r", "\r\r\n", "\r\n\r\n", "\r\n "];
const MORE: &[&str] = &[
    "Connection: keep-alive",
    "Connection: close",
    "Connection: content-length",
    "Connection: transfer-encoding",
    "Expect: 100-continue",
    "Upgrade: h2c",
    "TE: trailers",
    "TE: chunked",
    "Trailer: x-sum",
    "Content-Type: text/plain",
    "X-HTTP-Method-Override: PUT",
    "Host: other",
    "X-Forwarded-Host: other",
    "Content_Length: 7",
    "Transfer_Encoding: chunked",
    "Transfer-Encoding\u{0}: chunked",
    "Content-Length : 5",
    "X:",
    "X",
    ": y",
    "X: \u{e9}",
    "Keep-Alive: 5",
    "Proxy-Connection: close",
    "Content-Encoding: chunked",
];
const TARGETS: &[&str] = &[
    "{}",
    "{}",
    "{}",
    "{}",
    "http://orders{}",
    "HTTP://orders{}",
    "http://other{}",
    "{}?a=b",
    "{}?a=b HTTP/1.1",
    "{}#x",
    "/.{}",
    "/%2e{}",
    "/x/..{}",
    "{}%0d%0aX: y",
    "{}/a b",
    "{}\t",
    "/{}",
    "orders",
    "{}\u{0}",
    "{};a",
    "ftp://orders{}",
    "http://orders:80{}",
    "{}/%zz",
];
const VERSIONS: &[&str] = &[
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "http/1.1",
    "HTTP/1.1 ",
    "HTTP/01.1",
];

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % most
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    // Usually the first of a list, where all is in order.
    fn bent<'a>(&mut self, list: &[&'a str], bends: &mut usize) -> &'a str {
        if *bends > 0 && self.below(3) == 0 {
            *bends -= 1;
            return self.of(list);
        }
        list[0]
    }
}

/// The bytes of a connection: an ambiguous request, and one behind it that ends the connection.
pub(super) fn request(number: usize, chance: &mut Chance) -> Vec<u8> {
    let mut bends = chance.below(4);
    let body = "x".repeat(chance.below(40));
    let target = chance.bent(TARGETS, &mut bends).replace("{}", &format!("/case-{number}"));
    let version = chance.bent(VERSIONS, &mut bends);
    let mut text = format!("{} {target} {version}{}", chance.of(METHODS), chance.bent(ENDS, &mut bends));
    text += &format!("Host: orders{}", chance.bent(ENDS, &mut bends));
    let is_chunked = chance.below(2) == 0;
    let says_both = chance.below(12) == 0;
    if !is_chunked || says_both {
        let length = chance.bent(LENGTHS, &mut bends).replace("{}", &body.len().to_string());
        text += &field("Content-Length", &length, chance, &mut bends);
        if chance.below(15) == 0 {
            text += &field("Content-Length", &length, chance, &mut bends);
        }
    }
    if is_chunked || says_both {
        let coding = chance.bent(CODINGS, &mut bends);
        text += &field("Transfer-Encoding", coding, chance, &mut bends);
    }
    while chance.below(3) == 0 {
        text += &format!("{}{}", chance.of(MORE), chance.bent(ENDS, &mut bends));
    }
    text += chance.bent(ENDS, &mut bends);
    if is_chunked {
        text += &chunks(&body, chance, &mut bends);
    } else {
        text += &body;
    }
    let mut bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap()).collect();
    if bends > 0 && chance.below(2) == 0 {
        disturb(&mut bytes, chance);
    }
    bytes.extend_from_slice(
        format!("GET /case-{number}-behind HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n").as_bytes(),
    );
    bytes
}

fn field(name: &str, value: &str, chance: &mut Chance, bends: &mut usize) -> String {
    let name = chance.bent(NAMES, bends).replace("{}", name);
    format!("{name}: {value}{}", chance.bent(ENDS, bends))
}

fn chunks(body: &str, chance: &mut Chance, bends: &mut usize) -> String {
    let (first, second) = body.split_at(chance.below(body.len() + 1));
    let mut text = String::new();
    for piece in [first, second].into_iter().filter(|piece| !piece.is_empty()) {
        let size = chance.bent(SIZES, bends).replace("{}", &format!("{:x}", piece.len()));
        text += &format!("{size}{}{piece}{}", chance.bent(ENDS, bends), chance.bent(ENDS, bends));
    }
    text += &format!("{}{}", chance.bent(SIZES, bends).replace("{}", "0"), chance.bent(ENDS, bends));
    if chance.below(4) == 0 {
        text += &format!("{}{}", chance.of(MORE), chance.bent(ENDS, bends));
    }
    text + chance.bent(ENDS, bends)
}

// One byte more, less, or another.
fn disturb(bytes: &mut Vec<u8>, chance: &mut Chance) {
    const BYTES: &[u8] = b"\0\t\n\r :;,=x0/\x0b\x7f\x80\xff";
    // Behind the request line: by its path the request is known again.
    let first = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let at = first + chance.below((bytes.len() - first).max(1));
    if at >= bytes.len() {
        return;
    }
    let byte = BYTES[chance.below(BYTES.len())];
    match chance.below(3) {
        0 => bytes.insert(at, byte),
        1 => bytes[at] = byte,
        _ => drop(bytes.remove(at)),
    }
}
