//! A company outside the mesh: answers any GET over plain HTTP/1.1.

use std::convert::Infallible;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use crate::apps::{
    answer::{self, Answer},
    args::Args,
    serve,
};

/// Serves for ever.
pub(crate) async fn run(args: &mut Args) -> anyhow::Result<Infallible> {
    let listen = args.parsed("--listen", String::from("[::]:8080"))?;
    args.end()?;

    let listener = serve::listen(&listen).await?;
    serve::http(listener, greet).await
}

async fn greet(request: Request<Incoming>) -> Answer {
    answer::json(StatusCode::OK, &json!({ "served_by": "partner", "path": request.uri().path() }))
}
