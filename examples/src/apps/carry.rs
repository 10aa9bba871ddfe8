//! What any instrumented application does for tracing: the trace headers of the request that it serves go along with
//! the requests that it makes. No span is made here.

use http::HeaderMap;

/// W3C Trace Context and Baggage, B3 in both forms, and the request id.
const CARRIED: [&str; 10] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-request-id",
];

/// The trace headers among these.
pub(crate) fn trace_headers(headers: &HeaderMap) -> HeaderMap {
    let mut carried = HeaderMap::new();
    for name in CARRIED {
        for value in headers.get_all(name) {
            carried.append(name, value.clone());
        }
    }
    carried
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::trace_headers;

    #[test]
    fn trace_headers_go_along_and_nothing_else_does() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", "00-1-2-01".parse().unwrap());
        headers.append("tracestate", "a=1".parse().unwrap());
        headers.append("tracestate", "b=2".parse().unwrap());
        headers.insert("authorization", "secret".parse().unwrap());

        let carried = trace_headers(&headers);

        assert_eq!(carried.len(), 3);
        assert!(carried.get("authorization").is_none());
    }
}
