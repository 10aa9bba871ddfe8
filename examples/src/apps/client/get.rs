//! `shop get`: HTTP requests on one kept connection; prints status, time and body of each. In JSON, `at` is when it was
//! sent, in milliseconds since 1970.

use std::{
    process::ExitCode,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::json;

use crate::apps::{args::Args, call::Client};

/// Sends them one after another; fails if any did not end in a status below 400.
pub(crate) async fn run(args: &mut Args) -> anyhow::Result<ExitCode> {
    let headers = headers(&args.options("-H")?)?;
    let body = args.option("-d")?.map(Bytes::from);
    let usual = if body.is_some() { Method::POST } else { Method::GET };
    let method = args.parsed("-X", usual)?;
    let times = args.parsed("--times", 1_u32)?;
    let every = args.millis("--every", std::time::Duration::ZERO)?;
    let as_json = args.flag("--json");
    let url = args.word("URL")?;
    args.end()?;

    let client = Client::to(&url)?;
    let path = path(&url)?;
    let body = body.unwrap_or_default();
    let mut all_well = true;
    for round in 0..times {
        if round > 0 {
            tokio::time::sleep(every).await;
        }
        let began = Instant::now();
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0;
        let answer = client.send(&method, &path, &headers, &body).await;
        let ms = began.elapsed().as_secs_f64() * 1000.0;
        all_well &= answer.as_ref().is_ok_and(|answer| answer.status().as_u16() < 400);
        let (status, said) = match &answer {
            Ok(answer) => (answer.status().as_u16(), String::from_utf8_lossy(answer.body()).into_owned()),
            Err(err) => (0, format!("{err:#}")),
        };
        if as_json {
            let error = answer.is_err().then_some(&said);
            let body = answer.is_ok().then_some(&said);
            println!("{}", json!({ "status": status, "at": at, "ms": ms, "body": body, "error": error }));
        } else {
            println!("{status} {ms:.1} ms {}", said.trim_end());
        }
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Path and query of a URL.
pub(crate) fn path(url: &str) -> anyhow::Result<String> {
    let uri: Uri = url.parse().with_context(|| format!("the URL {url}"))?;
    Ok(uri.path_and_query().map_or("/", |path| path.as_str()).to_owned())
}

fn headers(lines: &[String]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').with_context(|| format!("{line} is not NAME: VALUE"))?;
        headers.append(HeaderName::try_from(name.trim())?, HeaderValue::from_str(value.trim())?);
    }
    Ok(headers)
}
