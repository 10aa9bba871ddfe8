//! Any headers through the mesh: cleaned for the way out, carried in the dialect, understood by the receiver, written for an
//! HTTP/1 application. What belongs to a hop or is reserved never arrives, the host is the one that was decided on, and what
//! is written is exactly one request to another parser.
#![no_main]

use std::net::SocketAddr;

use douane_proto::{
    request::{
        Head, clean_trailers, headers_of, line_authority, method_of, named_host, origin_form, strip_hop_by_hop,
        strip_reserved, understand,
    },
    target::PathNormalization,
};
use douane_proxy::exchange::{headers::Speech, request::assemble};
use http::{HeaderMap, Method, Uri, Version, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (Some(method), Some(target)) = (lines.next(), lines.next()) else { return };
    let (Ok(method), Ok(target)) = (method_of(method), Uri::try_from(target)) else { return };
    let pairs = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((line.get(..colon)?, line.get(colon + 1..)?))
    });
    let Ok(headers) = headers_of(pairs) else { return };
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let _ = through(&method, &target, headers.clone(), version);
    }
    let mut trailers = headers;
    clean_trailers(&mut trailers);
    is_clean(&trailers);
    assert!(!trailers.contains_key(header::HOST) && !trailers.contains_key(header::CONTENT_LENGTH));
});

fn through(method: &Method, target: &Uri, mut headers: HeaderMap, version: Version) -> Option<()> {
    let destination = SocketAddr::from(([10, 77, 0, 9], 8080));
    if *method == Method::CONNECT {
        return None;
    }
    // As the outbound side does.
    let spoken = Speech::of(version);
    let line = line_authority(target).ok()?;
    let host = named_host(version, line, &headers).ok()?.map_or_else(|| destination.to_string(), str::to_owned);
    strip_hop_by_hop(&mut headers).ok()?;
    strip_reserved(&mut headers);
    let mut sent = {
        let path = origin_form(target).parse().ok()?;
        assemble(method.clone(), host.into(), path, headers, Speech::Http2).ok()?
    };
    spoken.write_to(sent.headers_mut());
    // As the inbound side does.
    let (head, ()) = sent.into_parts();
    let speech = Speech::from_dialect(&head.headers).expect("what we wrote we can read");
    assert_eq!(speech, spoken);
    let authority = line_authority(&head.uri).expect("it is absolute");
    let facts = understand(
        Head {
            method: head.method,
            target: origin_form(&head.uri),
            authority,
            version: Version::HTTP_2,
            headers: head.headers,
            destination,
        },
        PathNormalization::Base,
    )
    .ok()?;
    let path = facts.target.path_and_query();
    let decided = facts.target.authority.clone();
    let path = path.parse().expect("what was understood is a path");
    let written = assemble(facts.method, decided.clone().into(), path, facts.headers, Speech::Http11)
        .expect("what was decided on can be said");
    is_clean(written.headers());
    let hosts: Vec<_> = written.headers().get_all(header::HOST).iter().collect();
    assert_eq!(hosts, [decided.as_str()]);
    is_one_request(&written);
    Some(())
}

fn is_clean(headers: &HeaderMap) {
    for name in headers.keys() {
        let dashed = name.as_str().replace('_', "-");
        assert!(!dashed.starts_with("x-douane-") && dashed != "x-forwarded-client-cert", "{name}");
    }
    for hop in ["transfer-encoding", "upgrade", "keep-alive", "proxy-connection", "http2-settings", "expect", "transfer_encoding", "content_length"] {
        assert!(!headers.contains_key(hop), "{hop}");
    }
    assert!(headers.get(header::CONNECTION).is_none_or(|value| value == "te"));
    assert!(headers.get(header::TE).is_none_or(|value| value == "trailers"));
}

fn is_one_request(request: &http::Request<()>) {
    let mut wire = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        wire.extend_from_slice(name.as_str().as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value.as_bytes());
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    let mut room = [httparse::EMPTY_HEADER; 128];
    let mut read = httparse::Request::new(&mut room);
    assert_eq!(read.parse(&wire), Ok(httparse::Status::Complete(wire.len())));
    assert_eq!(read.method, Some(request.method().as_str()));
    assert_eq!(read.path, Some(request.uri().to_string().as_str()));
    assert_eq!(read.headers.len(), request.headers().len());
}
